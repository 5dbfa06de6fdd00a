//! Which connections an ingestion service must not use, and what it has to fetch afterwards.

use std::collections::{HashMap, HashSet};

use prost_types::Timestamp;

use crate::v1::{ExpiryEvent, Token, expiry_event::Detail};
use crate::watch::{Snapshot, WatchItem};

/// What the ingestion service should do now.
#[derive(Debug, Clone, PartialEq)]
pub enum Instruction {
    /// Stop using this connection.
    Pause {
        /// The connection.
        connection_id: String,
    },
    /// Use this connection again.
    Resume {
        /// The connection.
        connection_id: String,
    },
    /// Fetch what was missed.
    Backfill(Backfill),
}

/// A gap in a connection's data. It is rather too long than too short: fetching data twice does no harm.
#[derive(Debug, Clone, PartialEq)]
pub struct Backfill {
    /// The connection.
    pub connection_id: String,
    /// The last moment at which the connection was seen to work. `None`: unknown; start at the end of the data that you
    /// have.
    pub from: Option<Timestamp>,
    /// When it worked again, or later. `None`: unknown; stop at the present.
    pub to: Option<Timestamp>,
}

/// The state of an ingestion service, rebuilt from a watch's items. It looks at `usable` alone, so it handles kinds of
/// events that it does not know.
///
/// A gap that opened and closed while the history was lost is not visible in a snapshot; the service knows it from its
/// own failed calls.
#[derive(Debug, Clone, Default)]
pub struct Ingestion {
    connections: HashMap<String, State>,
    /// The connections in the snapshot that is arriving.
    snapshot: HashSet<String>,
}

#[derive(Debug, Clone)]
enum State {
    Running,
    /// Holds the start of the gap, as far as it is known.
    Paused(Option<Timestamp>),
}

impl Ingestion {
    /// Starts without any connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Processes an item of the watch, and returns what to do about it, in this order.
    pub fn take(&mut self, item: &WatchItem) -> Vec<Instruction> {
        match item {
            WatchItem::Event(event) => self.event(event),
            WatchItem::Snapshot(Snapshot::Started) => {
                self.snapshot.clear();
                Vec::new()
            }
            WatchItem::Snapshot(Snapshot::Token(token)) => self.token(token),
            WatchItem::Snapshot(Snapshot::Complete { .. }) => self.complete(),
            _ => Vec::new(),
        }
    }

    /// Whether the service must not use this connection. False for an unknown one: the vault decides when it is asked
    /// for the token.
    pub fn is_paused(&self, connection_id: &str) -> bool {
        matches!(self.connections.get(connection_id), Some(State::Paused(_)))
    }

    /// The connections not to use, in no particular order.
    pub fn paused(&self) -> impl Iterator<Item = &str> {
        self.connections
            .iter()
            .filter(|(_, state)| matches!(state, State::Paused(_)))
            .map(|(connection, _)| connection.as_str())
    }

    fn event(&mut self, event: &ExpiryEvent) -> Vec<Instruction> {
        let connection = &event.connection_id;
        if connection.is_empty() {
            return Vec::new();
        }
        let restored = match &event.detail {
            Some(Detail::Restored(restored)) => Some(restored),
            _ => None,
        };
        if !event.usable {
            let since = match &event.detail {
                Some(Detail::Died(died)) => died.last_known_good,
                Some(Detail::Restored(restored)) => restored.gap_start,
                _ => None,
            };
            return self.pause(connection, since.or(event.occurred_at));
        }
        let gap = restored.map(|restored| (restored.gap_start, restored.gap_end.or(event.occurred_at)));
        self.resume(connection, gap, event.occurred_at)
    }

    fn token(&mut self, token: &Token) -> Vec<Instruction> {
        let connection = &token.connection_id;
        self.snapshot.insert(connection.clone());
        if token.usable {
            // Every change that makes a token work again updates it, so the token worked by then at the latest.
            self.resume(connection, None, token.updated_at)
        } else {
            self.pause(connection, token.last_known_good.or(token.invalid_since))
        }
    }

    /// A connection that the snapshot lacks was revoked, or does not match the watch's filter.
    fn complete(&mut self) -> Vec<Instruction> {
        let came = std::mem::take(&mut self.snapshot);
        let mut instructions = Vec::new();
        for (connection, state) in &mut self.connections {
            if matches!(state, State::Running) && !came.contains(connection) {
                *state = State::Paused(None);
                instructions.push(Instruction::Pause { connection_id: connection.clone() });
            }
        }
        instructions
    }

    fn pause(&mut self, connection: &str, since: Option<Timestamp>) -> Vec<Instruction> {
        match self.connections.get_mut(connection) {
            // The connection now fails for another reason, but the gap began with the first failure.
            Some(State::Paused(known)) => {
                *known = earliest(*known, since);
                Vec::new()
            }
            _ => {
                self.connections.insert(connection.to_owned(), State::Paused(since));
                vec![Instruction::Pause { connection_id: connection.to_owned() }]
            }
        }
    }

    /// Notes that the connection works, at the latest since `now`. `gap` is what the vault says about the time before.
    fn resume(
        &mut self,
        connection: &str,
        gap: Option<(Option<Timestamp>, Option<Timestamp>)>,
        now: Option<Timestamp>,
    ) -> Vec<Instruction> {
        let before = self.connections.insert(connection.to_owned(), State::Running);
        let connection_id = connection.to_owned();
        let mut instructions = Vec::new();
        let gap = match before {
            Some(State::Paused(since)) => {
                instructions.push(Instruction::Resume { connection_id: connection_id.clone() });
                let (from, to) = gap.unwrap_or((None, now));
                Some((earliest(since, from), to))
            }
            _ => gap,
        };
        let work = gap.map(|(from, to)| Instruction::Backfill(Backfill { connection_id, from, to }));
        instructions.extend(work);
        instructions
    }
}

/// The earlier of two times, either of which may be unknown.
fn earliest(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min_by_key(|time| (time.seconds, time.nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::expiry_event::{Died, Restored};

    fn at(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp { seconds, nanos: 0 })
    }

    fn event(usable: bool, moment: i64, detail: Option<Detail>) -> WatchItem {
        WatchItem::Event(Box::new(ExpiryEvent {
            connection_id: "c".into(),
            usable,
            occurred_at: at(moment),
            detail,
            ..Default::default()
        }))
    }

    fn died(moment: i64, last_known_good: Option<Timestamp>) -> WatchItem {
        let detail = Died { last_known_good, first_known_bad: at(moment) };
        event(false, moment, Some(Detail::Died(detail)))
    }

    fn restored(usable: bool, start: Option<Timestamp>, end: i64) -> WatchItem {
        let detail = Restored { gap_start: start, gap_end: at(end), ..Default::default() };
        event(usable, end, Some(Detail::Restored(detail)))
    }

    fn token(connection: &str, usable: bool) -> WatchItem {
        WatchItem::Snapshot(Snapshot::Token(Box::new(Token {
            connection_id: connection.into(),
            usable,
            last_known_good: at(50),
            updated_at: at(90),
            ..Default::default()
        })))
    }

    fn complete() -> WatchItem {
        WatchItem::Snapshot(Snapshot::Complete { token_count: 0, cursor: "v1:9".into() })
    }

    fn started() -> WatchItem {
        WatchItem::Snapshot(Snapshot::Started)
    }

    /// An instruction in a word, such as "pause c" or "backfill c 5..9".
    fn in_words(instruction: &Instruction) -> String {
        let moment = |time: &Option<Timestamp>| time.map(|t| t.seconds.to_string()).unwrap_or_default();
        match instruction {
            Instruction::Pause { connection_id } => format!("pause {connection_id}"),
            Instruction::Resume { connection_id } => format!("resume {connection_id}"),
            Instruction::Backfill(Backfill { connection_id, from, to }) => {
                format!("backfill {connection_id} {}..{}", moment(from), moment(to))
            }
        }
    }

    #[test]
    fn items_become_instructions() {
        let cases: [(&str, Vec<WatchItem>, &[&str]); 13] = [
            ("a healthy connection", vec![event(true, 1, None)], &[]),
            ("a death", vec![died(10, at(7))], &["pause c"]),
            (
                "a gap begins where it last worked",
                vec![died(10, at(7)), restored(true, at(7), 20)],
                &["pause c", "resume c", "backfill c 7..20"],
            ),
            (
                "dead twice is paused once, from the first death on",
                vec![died(10, at(7)), died(12, at(9)), restored(true, at(9), 20)],
                &["pause c", "resume c", "backfill c 7..20"],
            ),
            ("a death that was never seen", vec![restored(true, at(7), 20)], &["backfill c 7..20"]),
            (
                "a kind of the future that makes it work",
                vec![died(10, None), event(true, 30, None)],
                &["pause c", "resume c", "backfill c 10..30"],
            ),
            (
                "restored and still not usable",
                vec![died(10, at(7)), restored(false, at(5), 20), event(true, 30, None)],
                &["pause c", "resume c", "backfill c 5..30"],
            ),
            (
                "an event delivered twice",
                vec![died(10, at(7)), died(10, at(7)), restored(true, at(7), 20), event(true, 20, None)],
                &["pause c", "resume c", "backfill c 7..20"],
            ),
            ("a provider's event is about no connection", vec![WatchItem::Event(Box::default())], &[]),
            (
                "a snapshot shows a dead one alive",
                vec![died(10, at(7)), started(), token("c", true), complete()],
                &["pause c", "resume c", "backfill c 7..90"],
            ),
            (
                "a snapshot shows a live one dead",
                vec![
                    event(true, 1, None),
                    started(),
                    token("c", false),
                    complete(),
                    restored(true, at(60), 99),
                ],
                &["pause c", "resume c", "backfill c 50..99"],
            ),
            (
                "a snapshot leaves out a live one: revoked; it comes back later",
                vec![
                    event(true, 1, None),
                    started(),
                    token("d", true),
                    complete(),
                    restored(true, at(60), 99),
                ],
                &["pause c", "resume c", "backfill c 60..99"],
            ),
            (
                "a snapshot that was cut counts for nothing at its end",
                vec![event(true, 1, None), started(), token("c", true), started(), complete()],
                &["pause c"],
            ),
        ];
        for (name, items, expected) in cases {
            let mut ingestion = Ingestion::new();
            let found: Vec<String> =
                items.iter().flat_map(|item| ingestion.take(item)).map(|work| in_words(&work)).collect();
            assert_eq!(found, expected, "{name}");
            let paused = expected.iter().rev().find_map(|word| match word.split(' ').next() {
                Some("pause") => Some(true),
                Some("resume") => Some(false),
                _ => None,
            });
            assert_eq!(ingestion.is_paused("c"), paused.unwrap_or(false), "{name}");
            assert_eq!(ingestion.paused().count(), usize::from(paused.unwrap_or(false)), "{name}");
        }
    }
}
