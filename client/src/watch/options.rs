//! How to watch.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::checkpoint::{AnyCheckpoint, Checkpoint, NoCheckpoint};
use crate::v1::EventFilter;

/// The vault takes no shorter and no longer ones.
const SHORTEST_HEARTBEAT: Duration = Duration::from_secs(1);
const LONGEST_HEARTBEAT: Duration = Duration::from_secs(300);

/// Where a watch starts when its checkpoint has no position.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Start {
    /// With what happens from now on.
    #[default]
    Now,
    /// With the oldest event that the vault keeps.
    Earliest,
    /// With the state of every matching connection, then with what happens.
    Snapshot,
    /// Just after this position.
    Cursor(String),
}

/// How to watch.
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
    /// The defaults: everything that the key may see, from now on, with no memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only what this lets through. Default: all.
    #[must_use]
    pub fn filter(mut self, filter: EventFilter) -> Self {
        self.filter = filter;
        self
    }

    /// Where to start when the checkpoint has no position. Default: now.
    #[must_use]
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// How often the vault gives a sign of life; after three times this without one, the stream reconnects. 1 s to 5 min.
    /// Default: 15 s.
    #[must_use]
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.heartbeat = interval.clamp(SHORTEST_HEARTBEAT, LONGEST_HEARTBEAT);
        self
    }

    /// Where the position is kept between two lives of this process. Default: nowhere.
    #[must_use]
    pub fn checkpoint(mut self, checkpoint: impl Checkpoint) -> Self {
        self.checkpoint = Arc::new(checkpoint);
        self
    }

    /// Nothing counts as handled until [`acknowledge`](crate::EventStream::acknowledge) says so. For consumers that ask
    /// for the next item before they are done with the last: `buffered`, `chunks`, tasks of their own.
    #[must_use]
    pub fn acknowledge_by_hand(mut self) -> Self {
        self.by_hand = true;
        self
    }

    /// End after [`HistoryLost`](crate::WatchItem::HistoryLost), in place of going on with a snapshot.
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
