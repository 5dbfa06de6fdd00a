//! Expiry events: what has happened to a token, said once, and what is still open.

use std::time::Duration;

mod announce;

pub use announce::{AccountChange, Cause};

use super::{
    ConnectionId, Expiry, Fixer, ProviderId, RefusalReason, Remedy, Severity, Status, Subject, Timestamp,
    WorkspaceId,
};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// A connection's first token.
    Connected,
    /// A person brought a new one while the old one worked.
    Replaced,
    /// A deadline came within a threshold.
    Expiring,
    /// The token is past its end.
    Expired,
    /// The provider refuses it.
    Invalidated,
    /// A dead connection works again.
    Restored,
    /// The vault renewed it.
    Rotated,
    /// The vault could not.
    RotationFailed,
    /// Scopes were granted or lost.
    ScopesChanged,
    /// Ad accounts became reachable or unreachable.
    AdAccountsChanged,
    /// Data access ends soon.
    DataAccessExpiring,
    /// Data access has ended.
    DataAccessExpired,
    /// Calls are held back.
    Throttled,
    /// Due work was not done.
    Overdue,
    /// We ended the connection.
    Revoked,
    /// Something is wrong with a provider or our app there.
    ProviderAlarm,
    /// That is over.
    ProviderRecovered,
    /// A deadline moved with no new secret.
    DeadlinesChanged,
    /// Written by a newer release: go by usable, severity and remedy.
    Unknown,
}

impl EventKind {
    const NAMES: [(Self, &'static str); 18] = [
        (Self::Connected, "CONNECTED"),
        (Self::Replaced, "REPLACED"),
        (Self::Expiring, "EXPIRING"),
        (Self::Expired, "EXPIRED"),
        (Self::Invalidated, "INVALIDATED"),
        (Self::Restored, "RESTORED"),
        (Self::Rotated, "ROTATED"),
        (Self::RotationFailed, "ROTATION_FAILED"),
        (Self::ScopesChanged, "SCOPES_CHANGED"),
        (Self::AdAccountsChanged, "AD_ACCOUNTS_CHANGED"),
        (Self::DataAccessExpiring, "DATA_ACCESS_EXPIRING"),
        (Self::DataAccessExpired, "DATA_ACCESS_EXPIRED"),
        (Self::Throttled, "THROTTLED"),
        (Self::Overdue, "OVERDUE"),
        (Self::Revoked, "REVOKED"),
        (Self::ProviderAlarm, "PROVIDER_ALARM"),
        (Self::ProviderRecovered, "PROVIDER_RECOVERED"),
        (Self::DeadlinesChanged, "DEADLINES_CHANGED"),
    ];

    /// The name in the database, in the API and in logs.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(kind, _)| *kind == self).map_or("UNKNOWN", |(_, name)| name)
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Self {
        Self::NAMES.iter().find(|(_, known)| *known == name).map_or(Self::Unknown, |(kind, _)| *kind)
    }

    /// Whether it says that the token stopped working.
    pub const fn is_death(self) -> bool {
        matches!(self, Self::Expired | Self::Invalidated | Self::Revoked)
    }

    /// Kinds that speak of the same trouble: the first of them that is open names the incident.
    const fn trouble(self) -> Self {
        match self {
            Self::Expired => Self::Expiring,
            Self::DataAccessExpired => Self::DataAccessExpiring,
            other => other,
        }
    }
}

/// Which clock runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeadlineKind {
    /// The token itself.
    Token,
    /// The right to read data without the person having used the app.
    DataAccess,
}

impl DeadlineKind {
    /// The name in the database and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "TOKEN",
            Self::DataAccess => "DATA_ACCESS",
        }
    }

    /// The clock of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Token, Self::DataAccess].into_iter().find(|kind| kind.as_str() == name)
    }
}

/// What belongs to some kinds alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Detail {
    /// Nothing more.
    #[default]
    None,
    /// Of `Expiring` and `DataAccessExpiring`.
    Expiring {
        /// The threshold that was crossed.
        threshold: Duration,
        /// Which clock.
        deadline: DeadlineKind,
    },
    /// Of `Expired` and `Invalidated`.
    Died {
        /// The last moment at which it was seen to work.
        last_known_good: Option<Timestamp>,
        /// The first at which it was seen not to.
        first_known_bad: Timestamp,
    },
    /// Of `Restored`.
    Restored {
        /// The last moment at which it was seen to work.
        gap_start: Option<Timestamp>,
        /// When it worked again.
        gap_end: Timestamp,
        /// What had opened the gap.
        cause: EventKind,
    },
    /// Of `Rotated` and `DeadlinesChanged`.
    Renewed {
        /// The end before.
        previous_expiry: Expiry,
    },
    /// Of `RotationFailed`.
    RotationFailed {
        /// The provider answered and the end did not move.
        at_ceiling: bool,
        /// Attempts so far.
        attempts: u32,
        /// When the vault tries again; `None`: it will not.
        next_attempt_at: Option<Timestamp>,
    },
    /// Of `ScopesChanged` and `AdAccountsChanged`. Both sorted.
    Changed {
        /// There now and not before.
        added: Vec<String>,
        /// There before and not now.
        removed: Vec<String>,
    },
}

/// An open event that another one settles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// Its sequence.
    pub sequence: i64,
    /// Its kind and severity: a filter that let it pass lets the closing one pass.
    pub kind: EventKind,
    /// How bad it was.
    pub severity: Severity,
}

/// One fact of the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its place; gapless over the whole feed.
    pub sequence: i64,
    /// A random check: positions of another database don't match.
    pub identity: i64,
    /// When it entered the feed.
    pub recorded_at: Timestamp,
    /// Who the token speaks for, as known when the event is read. `None` for events of a provider.
    pub subject: Option<Subject>,
    /// What it says.
    pub word: EventWord,
}

/// What an event says. Sequences below zero stand for events of the same transaction that have no number yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventWord {
    /// What happened.
    pub kind: EventKind,
    /// How bad it is.
    pub severity: Severity,
    /// Whose token; `None` for events of a provider.
    pub workspace: Option<WorkspaceId>,
    /// At which platform.
    pub provider: ProviderId,
    /// Which connection; `None` for events of a provider.
    pub connection: Option<ConnectionId>,
    /// Which version; 0 for events of a provider.
    pub version: i32,
    /// The true moment, as well as it is known.
    pub occurred_at: Timestamp,
    /// Status after the event; `None` for events of a provider.
    pub status: Option<Status>,
    /// The token's end after the event.
    pub expiry: Expiry,
    /// Why the provider refuses it, where it does.
    pub reason: Option<RefusalReason>,
    /// The provider's own code; may be empty.
    pub provider_code: String,
    /// What is wrong and what to do.
    pub remedy: Remedy,
    /// Sequence of the event that opened this incident; 0 for the event's own.
    pub incident: i64,
    /// The open events that it settles.
    pub closes: Vec<Closed>,
    /// What belongs to the kind alone.
    pub detail: Detail,
}

impl EventWord {
    /// Whether FetchAccessToken would answer after the event.
    pub fn usable(&self) -> bool {
        self.status.is_some_and(Status::is_usable)
    }

    /// About how many bytes it takes on the wire.
    pub fn about_bytes(&self) -> usize {
        let lists = match &self.detail {
            Detail::Changed { added, removed } => {
                added.iter().chain(removed).map(|name| name.len() + 4).sum()
            }
            _ => 0,
        };
        600 + self.remedy.message.len() + self.remedy.action.len() + self.closes.len() * 10 + lists
    }

    /// Whole days to the end, rounded up, counted from when it happened.
    pub fn days_left(&self) -> Option<i32> {
        self.expiry.at().map(|end| super::token::days_left(end, self.occurred_at))
    }
}

/// What makes an incident the same: announced once for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IncidentKey {
    /// What happened.
    pub kind: EventKind,
    /// Which clock, where the kind has one.
    pub deadline: Option<DeadlineKind>,
    /// Which threshold; zero where the kind has none.
    pub threshold: Duration,
    /// Which version; 0 for a provider.
    pub version: i32,
    /// Counts up when the condition has ended.
    pub episode: i64,
}

/// Something announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// What makes it the same.
    pub key: IncidentKey,
    /// How bad it was when it opened.
    pub severity: Severity,
    /// Sequence of the opening event. 0: marked as announced without an event.
    pub opened: i64,
    /// Whether it is still open.
    pub is_open: bool,
}

impl Incident {
    /// As the event that settles it names it.
    pub const fn closed(&self) -> Closed {
        Closed { sequence: self.opened, kind: self.key.kind, severity: self.severity }
    }
}

/// An event to be written, with what it opens and settles among the incidents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// What it says.
    pub word: EventWord,
    /// The incident that it opens.
    pub opens: Option<IncidentKey>,
    /// The incidents that it settles.
    pub settles: Vec<IncidentKey>,
}

/// What has been announced of one thing, and what is being announced now.
#[derive(Debug, Clone, Default)]
pub struct Announced {
    incidents: Vec<Incident>,
    drafts: Vec<Draft>,
    /// How many events the transaction holds before these.
    offset: i64,
}

impl Announced {
    /// With what is known; `offset` events of the same transaction come before.
    pub fn new(incidents: Vec<Incident>, offset: i64) -> Self {
        Self { incidents, drafts: Vec::new(), offset }
    }

    /// The events to be written.
    pub fn into_drafts(self) -> Vec<Draft> {
        self.drafts
    }

    /// The stand-in for the number of the event that is drafted next.
    fn next_number(&self) -> i64 {
        -(self.offset + i64::try_from(self.drafts.len()).unwrap_or(i64::MAX) + 1)
    }

    /// The incidents that are still open.
    pub fn open(&self) -> impl Iterator<Item = &Incident> {
        self.incidents.iter().filter(|incident| incident.is_open)
    }

    /// Whether one like it is open.
    pub fn is_open(&self, kind: EventKind, deadline: Option<DeadlineKind>, version: i32) -> bool {
        self.open().any(|i| i.key.kind == kind && i.key.deadline == deadline && i.key.version == version)
    }

    /// Says something that opens an incident, unless it is open already.
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

    /// Says something that settles what `settles` picks among the open incidents, and opens nothing.
    pub(super) fn settle_with(&mut self, word: EventWord, settles: impl Fn(&Incident) -> bool) {
        let (keys, word) = self.settling(word, settles);
        self.drafts.push(Draft { word, opens: None, settles: keys });
    }

    /// Says something that settles what came before of its kind, and is open itself.
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
        // The death comes first: it is the incident that the closing event belongs to.
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

/// In order of commit: numbers that are not given yet come last.
const fn order(number: i64) -> (bool, i64) {
    (number < 0, number.saturating_abs())
}

/// Something wrong with a provider that speaks of no single token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProviderTrouble {
    /// It does not answer, or answers with faults of its own.
    Unreachable,
    /// Our configuration there is wrong.
    Misconfigured(super::Misconfiguration),
    /// So many tokens died at once that the verdicts are not believed yet.
    ManyDeaths,
}

impl ProviderTrouble {
    /// The name in the database and in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "UNREACHABLE",
            Self::Misconfigured(problem) => problem.as_str(),
            Self::ManyDeaths => "MANY_DEATHS",
        }
    }

    /// What to tell people.
    pub fn remedy(self) -> Remedy {
        match self {
            Self::Unreachable => Remedy::new(
                Fixer::Nobody,
                "The provider does not answer, or answers with faults of its own.",
                "Wait: the vault goes on by itself when the provider is back; tokens stay as they are.",
            ),
            Self::Misconfigured(problem) => Remedy::for_misconfiguration(problem),
            Self::ManyDeaths => Remedy::new(
                Fixer::Operator,
                "The provider refuses unusually many tokens at once; the vault holds its verdicts back.",
                "Check the app's secret and its state in the provider's dashboard before customers are asked to reconnect.",
            ),
        }
    }
}

impl Announced {
    /// Says that something is wrong with a provider, unless that is said.
    pub fn provider_alarm(&mut self, provider: &ProviderId, trouble: ProviderTrouble, now: Timestamp) {
        let word = provider_word(EventKind::ProviderAlarm, provider, trouble.remedy(), now);
        self.open_with(word, None, Duration::ZERO);
    }

    /// Says that it is over, if it was said to be wrong.
    pub fn provider_recovered(&mut self, provider: &ProviderId, now: Timestamp) {
        if self.open().next().is_none() {
            return;
        }
        let remedy = Remedy::none("The provider answers again.");
        let word = provider_word(EventKind::ProviderRecovered, provider, remedy, now);
        self.settle_with(word, |_| true);
    }
}

fn provider_word(kind: EventKind, provider: &ProviderId, remedy: Remedy, now: Timestamp) -> EventWord {
    let severity = if kind == EventKind::ProviderAlarm { Severity::Critical } else { Severity::Info };
    EventWord {
        kind,
        severity,
        workspace: None,
        provider: provider.clone(),
        connection: None,
        version: 0,
        occurred_at: now,
        status: None,
        expiry: Expiry::Unknown,
        reason: None,
        provider_code: String::new(),
        remedy,
        incident: 0,
        closes: Vec::new(),
        detail: Detail::None,
    }
}

/// A place in the feed: just after an event, or (zero) before all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FeedPosition {
    /// Sequence of the event.
    pub sequence: i64,
    /// Its identity; 0 before all.
    pub identity: i64,
}

impl Event {
    /// The place just after it.
    pub const fn position(&self) -> FeedPosition {
        FeedPosition { sequence: self.sequence, identity: self.identity }
    }
}
