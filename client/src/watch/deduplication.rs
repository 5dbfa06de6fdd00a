//! Delivers each event once, also across reconnections and snapshots.

use std::collections::HashMap;

use crate::v1::{ExpiryEvent, Token};

/// What the watcher has seen so far.
#[derive(Debug, Default)]
pub(super) struct Deduplication {
    /// Sequence of the last event that passed; events come in the order of their sequence.
    last: i64,
    /// For each connection of the snapshot, the last event that its state covers. Empty once the feed is past all of
    /// them.
    covered: HashMap<String, i64>,
    /// The greatest sequence in `covered`.
    newest_covered: i64,
}

impl Deduplication {
    /// A snapshot begins, and replaces what was known before.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Notes that the watcher gets this state, which covers all events of the connection up to `last_event_sequence`.
    pub(super) fn add_snapshot(&mut self, token: &Token) {
        let last = token.last_event_sequence;
        self.newest_covered = self.newest_covered.max(last);
        // A connection that changes during the snapshot may come twice; the later state covers more.
        let covered = self.covered.entry(token.connection_id.clone()).or_default();
        *covered = last.max(*covered);
    }

    /// Returns whether the watcher has not seen this event yet, and marks it as seen.
    pub(super) fn passes(&mut self, event: &ExpiryEvent) -> bool {
        if event.sequence <= self.last {
            return false;
        }
        self.last = event.sequence;
        self.comes_to(event.sequence.saturating_sub(1));
        self.covered.get(&event.connection_id).is_none_or(|covered| event.sequence > *covered)
    }

    /// Whether an event with this sequence, or a later one, has come.
    pub(super) fn is_at(&self, sequence: i64) -> bool {
        self.last >= sequence
    }

    /// Notes that the watch has reached this sequence. Past everything that the snapshot covers, its memory is
    /// released.
    pub(super) fn comes_to(&mut self, sequence: i64) {
        if sequence >= self.newest_covered {
            self.covered = HashMap::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(sequence: i64, connection: &str) -> ExpiryEvent {
        ExpiryEvent { sequence, connection_id: connection.into(), ..Default::default() }
    }

    fn token(connection: &str, last_event_sequence: i64) -> Token {
        Token { connection_id: connection.into(), last_event_sequence, ..Default::default() }
    }

    #[test]
    fn what_comes_again_passes_once() {
        let mut seen = Deduplication::default();
        let passed: Vec<i64> = [1, 2, 5, 2, 3, 5, 6]
            .into_iter()
            .filter(|sequence| seen.passes(&event(*sequence, "c")))
            .collect();
        assert_eq!(passed, [1, 2, 5, 6]);
    }

    #[test]
    fn what_a_snapshot_covers_is_skipped_per_connection() {
        let mut seen = Deduplication::default();
        seen.add_snapshot(&token("a", 12));
        seen.add_snapshot(&token("b", 10));
        seen.add_snapshot(&token("b", 14));
        for (sequence, connection, passes) in [
            (11, "a", false),
            (12, "a", false),
            (13, "b", false),
            (13, "b", false),
            (14, "b", false),
            (15, "a", true),
            (16, "new", true),
        ] {
            assert_eq!(seen.passes(&event(sequence, connection)), passes, "{sequence} {connection}");
        }
        assert!(seen.covered.is_empty(), "no memory is kept past the snapshot");

        // Even while the feed is within what the snapshot covers, an event of another connection or of a provider is
        // new.
        seen.forget();
        seen.add_snapshot(&token("a", 30));
        // Like a heartbeat from a replica that does not know yet what the snapshot covers.
        seen.comes_to(20);
        assert!(seen.passes(&event(21, "late")) && seen.passes(&event(22, "")));
        assert!(!seen.passes(&event(23, "a")));
    }

    #[test]
    fn a_replaced_feed_counts_from_its_own_beginning() {
        let mut seen = Deduplication::default();
        assert!(seen.passes(&event(900, "c")));
        seen.forget();
        assert!(seen.passes(&event(3, "c")));
    }
}
