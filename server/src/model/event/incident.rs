//! What is announced once, and what is still open.

use std::time::Duration;

use super::{Closed, DeadlineKind, EventKind, EventWord};
use crate::model::Severity;

/// What identifies an incident. Each incident is announced once for its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IncidentKey {
    pub kind: EventKind,
    /// Which deadline it is about, for the kinds that have one.
    pub deadline: Option<DeadlineKind>,
    /// The threshold that was crossed; zero for the kinds without one.
    pub threshold: Duration,
    /// The token's version; 0 for a provider.
    pub version: i32,
    /// Counts how often the condition has begun.
    pub episode: i64,
}

/// A condition that was announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    pub key: IncidentKey,
    pub severity: Severity,
    /// Sequence of the opening event; 0 if it was marked as announced without an event.
    pub opened: i64,
    pub is_open: bool,
}

impl Incident {
    pub const fn closed(&self) -> Closed {
        Closed { sequence: self.opened, kind: self.key.kind, severity: self.severity }
    }
}

/// An event to be written, and the incidents that it opens and closes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    pub word: EventWord,
    pub opens: Option<IncidentKey>,
    pub settles: Vec<IncidentKey>,
}

/// What has been announced about one connection or provider, and what is being announced now.
#[derive(Debug, Clone, Default)]
pub struct Announced {
    incidents: Vec<Incident>,
    drafts: Vec<Draft>,
    /// How many events of the same transaction come before `drafts`.
    offset: i64,
}

impl Announced {
    /// `offset` events of the same transaction come before the new ones.
    pub fn new(incidents: Vec<Incident>, offset: i64) -> Self {
        Self { incidents, drafts: Vec::new(), offset }
    }

    pub fn into_drafts(self) -> Vec<Draft> {
        self.drafts
    }

    /// Stands for the number that the next event will get.
    fn next_number(&self) -> i64 {
        -(self.offset + i64::try_from(self.drafts.len()).unwrap_or(i64::MAX) + 1)
    }

    pub fn open(&self) -> impl Iterator<Item = &Incident> {
        self.incidents.iter().filter(|incident| incident.is_open)
    }

    pub fn is_open(&self, kind: EventKind, deadline: Option<DeadlineKind>, version: i32) -> bool {
        self.open().any(|i| i.key.kind == kind && i.key.deadline == deadline && i.key.version == version)
    }

    /// Announces an event that opens an incident, unless that is open already.
    pub(super) fn open_with(
        &mut self,
        mut word: EventWord,
        deadline: Option<DeadlineKind>,
        threshold: Duration,
    ) {
        let same = |key: &IncidentKey| {
            key.kind == word.kind
                && key.deadline == deadline
                && key.threshold == threshold
                && key.version == word.version
        };
        let mut alike = self.incidents.iter().filter(|incident| same(&incident.key));
        if alike.clone().any(|incident| incident.is_open) {
            return;
        }
        let episode = alike.by_ref().map(|incident| incident.key.episode).max().unwrap_or(0) + 1;
        let key = IncidentKey { kind: word.kind, deadline, threshold, version: word.version, episode };
        let first = self
            .open()
            .filter(|open| {
                open.opened != 0
                    && open.key.kind.trouble() == word.kind.trouble()
                    && open.key.deadline == deadline
                    && open.key.version == word.version
            })
            .map(|open| open.opened)
            .min_by_key(|number| order(*number));
        word.incident = first.unwrap_or(0);
        let opened = self.next_number();
        self.incidents.push(Incident { key, severity: word.severity, opened, is_open: true });
        self.drafts.push(Draft { word, opens: Some(key), settles: Vec::new() });
    }

    /// Announces an event that closes the open incidents that `settles` picks, and opens none.
    pub(super) fn settle_with(&mut self, word: EventWord, settles: impl Fn(&Incident) -> bool) {
        let (keys, word) = self.settling(word, settles);
        self.drafts.push(Draft { word, opens: None, settles: keys });
    }

    /// Announces an event that closes the open incidents of its kind, and opens one.
    pub(super) fn succeed_with(&mut self, word: EventWord) {
        let kind = word.kind;
        let (settles, word) = self.settling(word, |incident| incident.key.kind == kind);
        let episodes = self.incidents.iter().filter(|i| i.key.kind == kind && i.key.version == word.version);
        let episode = episodes.map(|incident| incident.key.episode).max().unwrap_or(0) + 1;
        let key =
            IncidentKey { kind, deadline: None, threshold: Duration::ZERO, version: word.version, episode };
        let word = EventWord { incident: 0, ..word };
        let opened = self.next_number();
        self.incidents.push(Incident { key, severity: word.severity, opened, is_open: true });
        self.drafts.push(Draft { word, opens: Some(key), settles });
    }

    fn settling(
        &mut self,
        mut word: EventWord,
        settles: impl Fn(&Incident) -> bool,
    ) -> (Vec<IncidentKey>, EventWord) {
        let mut settled: Vec<&mut Incident> =
            self.incidents.iter_mut().filter(|incident| incident.is_open && settles(incident)).collect();
        // A death comes first: the closing event belongs to its incident.
        settled.sort_by_key(|incident| (!incident.key.kind.is_death(), order(incident.opened)));
        let keys = settled.iter().map(|incident| incident.key).collect();
        word.closes = settled.iter().filter(|i| i.opened != 0).map(|incident| incident.closed()).collect();
        word.incident = word.closes.first().map_or(0, |first| first.sequence);
        for incident in settled {
            incident.is_open = false;
        }
        (keys, word)
    }
}

/// Orders by commit: events without a number come last.
const fn order(number: i64) -> (bool, i64) {
    (number < 0, number.saturating_abs())
}
