//! WatchExpiryEvents: follows the feed. A watcher is only a position: it reads the recent events, which all watchers
//! share in memory, or the table if it is further behind, as fast as its caller reads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::model::{
    ConnectionId, Event, FeedPosition, Principal, SubscriptionName, Timestamp, WorkspaceId, WorkspaceSet,
};
use crate::store::{Batch, Live, Recent};
use crate::vault::error::VaultError;
use crate::vault::feed::filter::{EventFilter, may_see};
use crate::vault::feed::history::SeenEvent;
use crate::vault::state::Vault;
use crate::vault::state::feed::Seat;
use crate::vault::token::view::TokenView;

/// Most events in one message.
const BATCH: usize = 1_000;
/// Most tokens in one page of a snapshot.
const SNAPSHOT_PAGE: usize = 250;
/// About how many bytes of events or tokens are read at once. A slow watcher holds them until it has read them.
const BYTES: usize = 1024 * 1024;
/// Shortest time between two messages to a watcher at the head. Events that arrive in between share one message.
const PACE: Duration = Duration::from_millis(100);
/// The heartbeat interval if the caller names none.
const HEARTBEAT: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, Default)]
pub struct WatchEvents {
    pub filter: EventFilter,
    /// Resume from this subscription's position, if it has one.
    pub subscription: Option<SubscriptionName>,
    /// Where to start without a subscription's position.
    pub start: WatchStart,
    /// The longest silence between two messages; 1 s to 5 min.
    pub heartbeat: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum WatchStart {
    /// With the next event.
    #[default]
    Now,
    /// With the oldest event that is kept.
    Earliest,
    /// With the current state of every matching connection.
    Snapshot,
    /// After this cursor.
    After(String),
}

/// One message of a watch.
#[derive(Debug)]
pub struct WatchMessage {
    /// Safe to store: everything that matches up to here was sent. Empty inside a snapshot.
    pub cursor: String,
    pub server_time: Timestamp,
    pub item: WatchItem,
}

#[derive(Debug)]
pub enum WatchItem {
    /// 1 to 1000 events, in order.
    Events(Vec<SeenEvent>),
    /// Connections as they are now.
    Snapshot(Vec<TokenView>),
    /// The snapshot is complete; only events follow.
    SnapshotComplete {
        /// How many tokens it held.
        tokens: i64,
    },
    Heartbeat {
        /// Sequence of the newest event in the feed.
        head: i64,
        /// How many events of the whole feed this watch has not read yet.
        behind: i64,
    },
}

/// One caller that follows the feed.
pub struct Watch {
    vault: Arc<Vault>,
    caller: Arc<Principal>,
    filter: EventFilter,
    heartbeat: Duration,
    position: FeedPosition,
    live: watch::Receiver<Live>,
    generation: u64,
    snapshot: Option<Snapshot>,
    /// Whether the first heartbeat was sent.
    greeted: bool,
    sent_at: Instant,
    sent_position: FeedPosition,
    caught_up: bool,
    batch_at: Option<Instant>,
    /// How many events to read from the table at once.
    batch: Batch,
    permission: watch::Receiver<Option<VaultError>>,
    _seat: Seat,
}

/// The progress of a snapshot, which walks over connections by id.
struct Snapshot {
    /// `None`: connections of all workspaces.
    workspaces: Option<Vec<WorkspaceId>>,
    after: Option<ConnectionId>,
    batch: Batch,
    tokens: i64,
}

impl Vault {
    /// Follows the feed from a position.
    ///
    /// # Errors
    /// `CursorInvalid`, `FeedReplaced`, `EventsCompacted`: take a snapshot. `WorkspaceNotFound` for a workspace
    /// that the caller may not see. `TooManyWatches` when no seat is free.
    pub async fn watch_events(
        self: &Arc<Self>,
        caller: Arc<Principal>,
        command: WatchEvents,
    ) -> Result<Watch, VaultError> {
        command.filter.check_workspaces(&caller)?;
        let seat = self.feed.seats.take(&caller)?;
        let live = self.store.feed().follow();
        let generation = live.borrow().generation;
        let start = self.find_start(&caller, &command).await?;
        let (position, snapshot) = match start {
            Some(position) => (position, None),
            // Read the position first: changes during the snapshot then follow as events.
            None => (self.store.feed().head(), Some(Snapshot::of(&caller, &command.filter))),
        };
        let heartbeat = if command.heartbeat.is_zero() { HEARTBEAT } else { command.heartbeat };
        let now = Instant::now();
        tracing::info!(
            by = caller.name,
            sequence = position.sequence,
            snapshot = snapshot.is_some(),
            "watch begins"
        );
        Ok(Watch {
            vault: Arc::clone(self),
            caller,
            filter: command.filter,
            heartbeat,
            position,
            live,
            generation,
            snapshot,
            greeted: false,
            sent_at: now,
            sent_position: position,
            caught_up: false,
            batch_at: None,
            batch: Batch::up_to(BATCH).of_bytes(BYTES),
            permission: seat.permission(),
            _seat: seat,
        })
    }

    /// The position to start from; `None`: start with a snapshot.
    async fn find_start(
        &self,
        caller: &Principal,
        command: &WatchEvents,
    ) -> Result<Option<FeedPosition>, VaultError> {
        if let Some(name) = &command.subscription
            && let Some(bookmark) = self.store.read().await?.bookmark(&caller.name, name).await?
        {
            let kept = if bookmark.epoch == self.keys.vault.feed_epoch {
                self.check_position(bookmark.position).await
            } else {
                Err(VaultError::FeedReplaced { ours: self.keys.vault.feed_epoch, theirs: bookmark.epoch })
            };
            match kept {
                Ok(()) => return Ok(Some(bookmark.position)),
                // The position is lost, but the caller accepts a snapshot.
                Err(VaultError::FeedReplaced { .. } | VaultError::EventsCompacted { .. })
                    if command.start == WatchStart::Snapshot => {}
                Err(error) => return Err(error),
            }
        }
        match &command.start {
            WatchStart::Now => Ok(Some(self.store.feed().head())),
            WatchStart::Earliest => {
                let state = self.store.read().await?.feed_state().await?;
                let before = FeedPosition { sequence: state.oldest - 1, identity: state.compacted_identity };
                Ok(Some(before))
            }
            WatchStart::Snapshot => Ok(None),
            WatchStart::After(cursor) => self.read_cursor(cursor, "cursor").await.map(Some),
        }
    }
}

impl Snapshot {
    fn of(caller: &Principal, filter: &EventFilter) -> Self {
        let workspaces = match (&caller.workspaces, filter.workspaces.is_empty()) {
            (_, false) => Some(filter.workspaces.iter().cloned().collect()),
            (WorkspaceSet::Named(named), true) => Some(named.iter().cloned().collect()),
            (WorkspaceSet::All, true) => None,
        };
        let batch = Batch::up_to(SNAPSHOT_PAGE).of_bytes(BYTES);
        Self { workspaces, after: None, batch, tokens: 0 }
    }
}

impl Watch {
    /// Waits for the next message. Nothing is read ahead, so a slow caller costs the others nothing.
    ///
    /// # Errors
    /// Each ends the watch: `ApiKeyInvalid`, `ApiKeyExpired` when its permission ended; `StorageUnavailable`,
    /// `ShuttingDown`: resume later; `FeedReplaced`, `EventsCompacted`: take a snapshot.
    pub async fn next(&mut self) -> Result<WatchMessage, VaultError> {
        loop {
            if self.vault.work.stopping.is_cancelled() {
                return Err(VaultError::ShuttingDown);
            }
            self.check_permission()?;
            if self.live.borrow_and_update().generation != self.generation {
                return Err(self.vault.feed_replaced());
            }
            if !self.greeted {
                self.greeted = true;
                return Ok(self.heartbeat());
            }
            if self.snapshot.is_some() {
                if let Some(message) = self.next_snapshot_page().await? {
                    return Ok(message);
                }
                continue;
            }
            let events = self.read().await?;
            if !events.is_empty() {
                self.batch_at = Some(Instant::now());
                let events = events.into_iter().map(|event| self.vault.seen(event)).collect();
                return Ok(self.message(WatchItem::Events(events)));
            }
            // Tell a watcher that it has reached the head, even if no event matched.
            let first_time = !self.caught_up && self.is_at_head();
            self.caught_up |= first_time;
            if self.sent_at.elapsed() >= self.heartbeat || first_time && self.sent_position != self.position {
                return Ok(self.heartbeat());
            }
            self.wait().await;
        }
    }

    /// Whether the caller may still watch.
    ///
    /// # Errors
    /// The reason why it may not.
    pub fn check_permission(&self) -> Result<(), VaultError> {
        self.permission.borrow().clone().map_or(Ok(()), Err)
    }

    fn is_at_head(&self) -> bool {
        self.live.borrow().head.sequence <= self.position.sequence
    }

    fn message(&mut self, item: WatchItem) -> WatchMessage {
        self.sent_at = Instant::now();
        self.sent_position = self.position;
        let cursor = match self.snapshot {
            // A caller that stored a position now would miss the rest of the snapshot on its next start.
            Some(_) => String::new(),
            None => self.vault.write_cursor(self.position),
        };
        WatchMessage { cursor, server_time: self.vault.clock.now(), item }
    }

    fn heartbeat(&mut self) -> WatchMessage {
        let head = self.vault.store.feed().head().sequence.max(self.position.sequence);
        self.message(WatchItem::Heartbeat { head, behind: head - self.position.sequence })
    }

    /// Reads the next batch and keeps what matches. Empty at the head, or when nothing in the batch matched.
    async fn read(&mut self) -> Result<Vec<Arc<Event>>, VaultError> {
        let next = match self.vault.store.feed().recent_after(self.position.sequence, BATCH, BYTES) {
            Recent::Events(events) => events,
            Recent::Gone => self.replay().await?,
        };
        let Some(last) = next.last().map(|event| event.position()) else { return Ok(Vec::new()) };
        if next.first().is_some_and(|first| first.sequence != self.position.sequence + 1) {
            // Never skip events silently.
            let oldest = self.vault.store.read().await?.feed_state().await?.oldest;
            return Err(VaultError::EventsCompacted { oldest, position: self.position.sequence });
        }
        self.position = last;
        let (caller, filter) = (&self.caller, &self.filter);
        Ok(next.into_iter().filter(|event| may_see(caller, event) && filter.passes(&event.word)).collect())
    }

    /// Reads from the table, for a watcher that is further behind than the recent events in memory.
    async fn replay(&mut self) -> Result<Vec<Arc<Event>>, VaultError> {
        let vault = Arc::clone(&self.vault);
        let _turn = vault.feed.replays.acquire().await.map_err(|_| VaultError::ShuttingDown)?;
        let limit = i64::try_from(self.batch.rows()).unwrap_or(i64::MAX);
        let mut session = vault.store.read().await?;
        let events = match session.events_following(self.position, limit).await? {
            Some(events) => events,
            None => {
                drop(session);
                vault.check_position(self.position).await?;
                vault.store.read().await?.events_after(self.position.sequence, limit).await?
            }
        };
        self.batch.read(events.iter().map(|event| event.word.about_bytes()));
        Ok(events.into_iter().map(Arc::new).collect())
    }

    /// Waits until there may be something to send, or the permission has ended.
    async fn wait(&mut self) {
        // Nothing in the last batch matched, and there are more events to read.
        if !self.is_at_head() {
            return;
        }
        let until = self.heartbeat.saturating_sub(self.sent_at.elapsed());
        tokio::select! {
            _ = self.live.changed() => {
                if let Some(at) = self.batch_at {
                    tokio::time::sleep(PACE.saturating_sub(at.elapsed())).await;
                }
            }
            () = tokio::time::sleep(until) => {}
            _ = self.permission.changed() => {}
            () = self.vault.work.stopping.cancelled() => {}
        }
    }

    /// The next page of the snapshot. `None`: nothing in this page matched; call again.
    async fn next_snapshot_page(&mut self) -> Result<Option<WatchMessage>, VaultError> {
        let vault = Arc::clone(&self.vault);
        let Some(snapshot) = &mut self.snapshot else { return Ok(None) };
        let found = {
            let _turn = vault.feed.replays.acquire().await.map_err(|_| VaultError::ShuttingDown)?;
            let mut session = vault.store.read().await?;
            let rows = i64::try_from(snapshot.batch.rows()).unwrap_or(i64::MAX);
            session.snapshot_page(snapshot.workspaces.as_deref(), snapshot.after, rows).await?
        };
        snapshot.batch.read(found.iter().map(|(connection, _)| connection.about_bytes()));
        let Some((last, _)) = found.last() else {
            let tokens = snapshot.tokens;
            self.snapshot = None;
            return Ok(Some(self.message(WatchItem::SnapshotComplete { tokens })));
        };
        snapshot.after = Some(last.id);
        let (now, policy): (Timestamp, _) = (vault.clock.now(), vault.policy());
        let tokens: Vec<TokenView> = found
            .into_iter()
            .filter(|(connection, _)| self.filter.covers(connection))
            .map(|(connection, shared)| TokenView::new(connection, shared, now, &policy))
            .collect();
        snapshot.tokens += i64::try_from(tokens.len()).unwrap_or(0);
        if tokens.is_empty() {
            // Keep the heartbeat going during a long walk that finds nothing.
            let due = self.sent_at.elapsed() >= self.heartbeat;
            return Ok(due.then(|| self.heartbeat()));
        }
        Ok(Some(self.message(WatchItem::Snapshot(tokens))))
    }
}
