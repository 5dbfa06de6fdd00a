//! How to watch the feed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::checkpoint::{AnyCheckpoint, Checkpoint, NoCheckpoint};
use crate::v1::EventFilter;

/// The bounds of the vault.
const SHORTEST_HEARTBEAT: Duration = Duration::from_secs(1);
const LONGEST_HEARTBEAT: Duration = Duration::from_secs(300);

/// Where a watch starts when its checkpoint has no position.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Start {
    /// With the events from now on.
    #[default]
    Now,
    /// With the oldest event that the vault keeps.
    Earliest,
    /// With the state of every matching connection, then with the events after it.
    Snapshot,
    /// Just after this position.
    Cursor(String),
}

/// How to watch the feed, for [`Vault::watch`](crate::Vault::watch).
#[derive(Clone)]
pub struct WatchOptions {
    pub(super) filter: EventFilter,
    pub(super) start: Start,
    pub(super) heartbeat: Duration,
    pub(super) checkpoint: Arc<dyn AnyCheckpoint>,
    pub(super) by_hand: bool,
    pub(super) end_when_lost: bool,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            filter: EventFilter::default(),
            start: Start::default(),
            heartbeat: Duration::from_secs(15),
            checkpoint: Arc::new(NoCheckpoint),
            by_hand: false,
            end_when_lost: false,
        }
    }
}

impl WatchOptions {
    /// The defaults: everything that the key may see, from now on, without storing the position.
    pub fn new() -> Self {
        Self::default()
    }

    /// Watches only what matches the filter. Default: everything.
    #[must_use]
    pub fn filter(mut self, filter: EventFilter) -> Self {
        self.filter = filter;
        self
    }

    /// Sets where to start when the checkpoint has no position. Default: now.
    #[must_use]
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Sets how often the vault sends a heartbeat; after three times this interval without one, the stream reconnects.
    /// 1 s to 5 min. Default: 15 s.
    #[must_use]
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.heartbeat = interval.clamp(SHORTEST_HEARTBEAT, LONGEST_HEARTBEAT);
        self
    }

    /// Sets where the position is stored for the next process. Default: nowhere.
    #[must_use]
    pub fn checkpoint(mut self, checkpoint: impl Checkpoint) -> Self {
        self.checkpoint = Arc::new(checkpoint);
        self
    }

    /// Lets nothing count as handled until [`acknowledge`](crate::EventStream::acknowledge) says so. For consumers that
    /// ask for the next item before they have handled the last one: `buffered`, `chunks`, tasks of their own.
    #[must_use]
    pub fn acknowledge_by_hand(mut self) -> Self {
        self.by_hand = true;
        self
    }

    /// Ends the stream after [`HistoryLost`](crate::WatchItem::HistoryLost), in place of going on with a snapshot.
    #[must_use]
    pub fn end_when_history_is_lost(mut self) -> Self {
        self.end_when_lost = true;
        self
    }
}

impl fmt::Debug for WatchOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchOptions")
            .field("filter", &self.filter)
            .field("start", &self.start)
            .field("heartbeat", &self.heartbeat)
            .field("by_hand", &self.by_hand)
            .field("end_when_lost", &self.end_when_lost)
            .finish_non_exhaustive()
    }
}
