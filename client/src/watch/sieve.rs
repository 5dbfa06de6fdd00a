//! Lets each event through once.

use std::collections::HashMap;

use crate::v1::{ExpiryEvent, Token};

/// What the watcher knows already.
#[derive(Debug, Default)]
pub(super) struct Sieve {
    /// Sequence of the last event that passed; events come in the order of their sequence.
    last: i64,
    /// The last event that each token of the snapshot tells of, until the feed is past all of them.
    told: HashMap<String, i64>,
    /// The greatest of those.
    newest_told: i64,
}

impl Sieve {
    /// A snapshot begins: what was known before counts no more.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// The watcher gets this token, and with it all events of its connection up to `last_event_sequence`.
    pub(super) fn tell(&mut self, token: &Token) {
        let last = token.last_event_sequence;
        self.newest_told = self.newest_told.max(last);
        // A connection that changes meanwhile may come twice; the later one tells more.
        let told = self.told.entry(token.connection_id.clone()).or_default();
        *told = last.max(*told);
    }

    /// Whether the watcher does not know this event yet; from now on it does.
    pub(super) fn passes(&mut self, event: &ExpiryEvent) -> bool {
        if event.sequence <= self.last {
            return false;
        }
        self.last = event.sequence;
        self.comes_to(event.sequence.saturating_sub(1));
        self.told.get(&event.connection_id).is_none_or(|told| event.sequence > *told)
    }

    /// Whether an event with this sequence, or a later one, has come.
    pub(super) fn is_at(&self, sequence: i64) -> bool {
        self.last >= sequence
    }

    /// The watch has come to this sequence. Past all that the snapshot told, its memory is free.
    pub(super) fn comes_to(&mut self, sequence: i64) {
        if sequence >= self.newest_told {
            self.told = HashMap::new();
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
        let mut sieve = Sieve::default();
        let passed: Vec<i64> = [1, 2, 5, 2, 3, 5, 6]
            .into_iter()
            .filter(|sequence| sieve.passes(&event(*sequence, "c")))
            .collect();
        assert_eq!(passed, [1, 2, 5, 6]);
    }

    #[test]
    fn what_a_snapshot_told_is_skipped_per_connection() {
        let mut sieve = Sieve::default();
        sieve.tell(&token("a", 12));
        sieve.tell(&token("b", 10));
        sieve.tell(&token("b", 14));
        for (sequence, connection, passes) in [
            (11, "a", false),
            (12, "a", false),
            (13, "b", false),
            (13, "b", false),
            (14, "b", false),
            (15, "a", true),
            (16, "new", true),
        ] {
            assert_eq!(sieve.passes(&event(sequence, connection)), passes, "{sequence} {connection}");
        }
        assert!(sieve.told.is_empty(), "no memory is kept past the snapshot");

        // Within what the snapshot told, an event of another connection or of a provider is news.
        sieve.forget();
        sieve.tell(&token("a", 30));
        // As of a replica that has not heard yet of what the snapshot told.
        sieve.comes_to(20);
        assert!(sieve.passes(&event(21, "late")) && sieve.passes(&event(22, "")));
        assert!(!sieve.passes(&event(23, "a")));
    }

    #[test]
    fn a_replaced_feed_counts_from_its_own_beginning() {
        let mut sieve = Sieve::default();
        assert!(sieve.passes(&event(900, "c")));
        sieve.forget();
        assert!(sieve.passes(&event(3, "c")));
    }
}
