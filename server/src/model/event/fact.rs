//! What an event says.

use std::time::Duration;

use super::{DeadlineKind, EventKind};
use crate::model::token::days_left;
use crate::model::{
    ConnectLinkId, ConnectionId, Expiry, ProviderId, RefusalReason, Remedy, Severity, Status, Subject,
    Timestamp, WorkspaceId,
};

/// Details that only some kinds of events have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Detail {
    #[default]
    None,
    /// Of `Expiring` and `DataAccessExpiring`.
    Expiring {
        /// The threshold that was crossed.
        threshold: Duration,
        deadline: DeadlineKind,
    },
    /// Of `Expired` and `Invalidated`.
    Died {
        /// The last moment at which the token was seen to work.
        last_known_good: Option<Timestamp>,
        /// The first moment at which it was seen not to work.
        first_known_bad: Timestamp,
    },
    /// Of `Restored`.
    Restored {
        /// The last moment at which the token was seen to work.
        gap_start: Option<Timestamp>,
        /// When it worked again.
        gap_end: Timestamp,
        /// The kind of event that opened the gap.
        cause: EventKind,
    },
    /// Of `Rotated` and `DeadlinesChanged`.
    Renewed { previous_expiry: Expiry },
    /// Of `RotationFailed`.
    RotationFailed {
        /// The provider replied and did not move the end.
        at_ceiling: bool,
        /// Attempts so far.
        attempts: u32,
        /// `None`: the vault does not try again.
        next_attempt_at: Option<Timestamp>,
    },
    /// Of `ScopesChanged` and `AdAccountsChanged`. Both lists are sorted.
    Changed { added: Vec<String>, removed: Vec<String> },
}

/// An open event that another event closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    pub sequence: i64,
    /// A filter that let the opening event pass, by kind or severity, lets the closing one pass too.
    pub kind: EventKind,
    pub severity: Severity,
}

/// An event in the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its position in the feed; without gaps over the whole feed.
    pub sequence: i64,
    /// A random number, so that a position of another database does not match.
    pub identity: i64,
    /// When it entered the feed.
    pub recorded_at: Timestamp,
    /// The subject that the token acts for, as known when the event is read. `None` for events of a provider.
    pub subject: Option<Subject>,
    pub word: EventWord,
}

/// The content of an event. A negative sequence means an event of the same transaction that has no number yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventWord {
    pub kind: EventKind,
    pub severity: Severity,
    /// `None` for events of a provider.
    pub workspace: Option<WorkspaceId>,
    pub provider: ProviderId,
    /// `None` for events of a provider.
    pub connection: Option<ConnectionId>,
    /// 0 for events of a provider.
    pub version: i32,
    /// When it happened, as exactly as is known.
    pub occurred_at: Timestamp,
    /// Status after the event; `None` for events of a provider.
    pub status: Option<Status>,
    /// The token's end after the event.
    pub expiry: Expiry,
    /// Why the provider refuses the token, where it does.
    pub reason: Option<RefusalReason>,
    /// The provider's own code; may be empty.
    pub provider_code: String,
    pub remedy: Remedy,
    /// Sequence of the event that opened this incident; 0 if this event opened it.
    pub incident: i64,
    /// The open events that it closes.
    pub closes: Vec<Closed>,
    /// The connect link with which a person brought the token.
    pub link: Option<ConnectLinkId>,
    pub detail: Detail,
}

impl EventWord {
    /// Whether FetchAccessToken hands the token out after the event.
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
        600 + self.remedy.bytes() + self.closes.len() * 10 + lists
    }

    /// Whole days to the end, rounded up, counted from when the event happened.
    pub fn days_left(&self) -> Option<i32> {
        self.expiry.at().map(|end| days_left(end, self.occurred_at))
    }
}

/// A position in the feed: just after an event, or (zero) before all events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FeedPosition {
    pub sequence: i64,
    /// The event's `identity`; 0 before all events.
    pub identity: i64,
}

impl Event {
    pub const fn position(&self) -> FeedPosition {
        FeedPosition { sequence: self.sequence, identity: self.identity }
    }
}
