//! The feed: what can be asked of it and what it answers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    Connection, ConnectionId, Event, EventKind, EventWord, ProviderId, RequestId, Severity, SubscriptionName,
    Timestamp, WorkspaceId,
};

use super::super::TokenView;

/// Which events. Or within a field, and between fields; an empty field lets all through.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Of these workspaces; events of a provider pass always.
    pub workspaces: BTreeSet<WorkspaceId>,
    /// Of these providers.
    pub providers: BTreeSet<ProviderId>,
    /// Of these connections; events of a provider are of none.
    pub connections: BTreeSet<ConnectionId>,
    /// Of these kinds.
    pub kinds: BTreeSet<EventKind>,
    /// This severity and worse.
    pub min_severity: Option<Severity>,
}

fn allows<T: Ord>(allowed: &BTreeSet<T>, value: Option<&T>) -> bool {
    allowed.is_empty() || value.is_none_or(|value| allowed.contains(value))
}

impl EventFilter {
    /// Whether an event passes. One that settles another passes wherever that one did: recoveries are never
    /// hidden.
    pub fn passes(&self, word: &EventWord) -> bool {
        let wanted = |kind: EventKind, severity: Severity| {
            (self.kinds.is_empty() || self.kinds.contains(&kind))
                && self.min_severity.is_none_or(|least| severity >= least)
        };
        allows(&self.workspaces, word.workspace.as_ref())
            && allows(&self.providers, Some(&word.provider))
            && (self.connections.is_empty()
                || word.connection.is_some_and(|connection| self.connections.contains(&connection)))
            && (wanted(word.kind, word.severity)
                || word.closes.iter().any(|closed| wanted(closed.kind, closed.severity)))
    }

    /// Whether a connection's events can pass.
    pub fn covers(&self, connection: &Connection) -> bool {
        allows(&self.workspaces, Some(&connection.workspace))
            && allows(&self.providers, Some(&connection.provider))
            && allows(&self.connections, Some(&connection.id))
    }
}

/// Where a watch starts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum WatchStart {
    /// With what comes.
    #[default]
    Now,
    /// With the oldest event that is kept.
    Earliest,
    /// With the current state of every matching connection.
    Snapshot,
    /// After this cursor.
    After(String),
}

/// Follows the feed.
#[derive(Debug, Clone, Default)]
pub struct WatchEvents {
    /// Which events.
    pub filter: EventFilter,
    /// Go on from this bookmark, if it has a position.
    pub subscription: Option<SubscriptionName>,
    /// Else from here.
    pub start: WatchStart,
    /// At the latest after this time something is said; 1 s to 5 min.
    pub heartbeat: Duration,
}

/// An event, and the position just after it.
#[derive(Debug, Clone)]
pub struct SeenEvent {
    /// The event.
    pub event: Arc<Event>,
    /// The position.
    pub cursor: String,
}

/// One answer of a watch.
#[derive(Debug)]
pub struct Watched {
    /// Safe to store: all that matches up to here was sent. Empty inside a snapshot.
    pub cursor: String,
    /// The vault's now.
    pub server_time: Timestamp,
    /// What there is to say.
    pub item: WatchItem,
}

/// What a watch has to say.
#[derive(Debug)]
pub enum WatchItem {
    /// 1 to 1000 events, in order.
    Events(Vec<SeenEvent>),
    /// Connections as they are now.
    Snapshot(Vec<TokenView>),
    /// The snapshot is whole; what follows are events.
    SnapshotComplete {
        /// So many tokens were in it.
        tokens: i64,
    },
    /// Nothing new.
    Heartbeat {
        /// Sequence of the newest event of all.
        head: i64,
        /// How many events of the whole feed this watch has not looked at.
        behind: i64,
    },
}

/// Pages through history.
#[derive(Debug, Clone, Default)]
pub struct ListEvents {
    /// Which events.
    pub filter: EventFilter,
    /// Recorded at this instant or later.
    pub since: Option<Timestamp>,
    /// Recorded before this instant.
    pub until: Option<Timestamp>,
    /// Oldest first; default newest first.
    pub oldest_first: bool,
    /// How many at most; 1 to 1000.
    pub page_size: u32,
    /// Where to go on; empty at the start.
    pub page_token: String,
}

/// One page of history.
#[derive(Debug)]
pub struct EventPage {
    /// The events.
    pub events: Vec<SeenEvent>,
    /// Where the next page starts; empty on the last.
    pub next_page_token: String,
    /// Position in the feed that the list reflects; the same on every page.
    pub cursor: String,
}

/// Moves a bookmark; makes it if it is new.
#[derive(Debug, Clone)]
pub struct AcknowledgeEvents {
    /// Which.
    pub subscription: SubscriptionName,
    /// All up to here is done.
    pub cursor: String,
    /// It may move back.
    pub allow_rewind: bool,
}

/// A bookmark in the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub principal: String,
    /// Its position.
    pub cursor: String,
    /// How many events of the whole feed come after it.
    pub behind: i64,
    /// When it was last moved.
    pub acknowledged_at: Timestamp,
    /// When it came into being.
    pub created_at: Timestamp,
    /// Retention has passed it, or the feed is another one.
    pub compacted: bool,
}

/// Which bookmarks.
#[derive(Debug, Clone, Default)]
pub struct ListSubscriptions {
    /// How many at most; 1 to 1000.
    pub page_size: u32,
    /// Where to go on; empty at the start.
    pub page_token: String,
}

/// One page of bookmarks.
#[derive(Debug)]
pub struct SubscriptionPage {
    /// The bookmarks.
    pub subscriptions: Vec<Subscription>,
    /// Where the next page starts; empty on the last.
    pub next_page_token: String,
}

/// Forgets a bookmark.
#[derive(Debug, Clone)]
pub struct DeleteSubscription {
    /// Idempotency key.
    pub request_id: Option<RequestId>,
    /// Whose.
    pub principal: String,
    /// Which.
    pub name: SubscriptionName,
}
