//! The feed's live end: one reader per process polls the table and keeps the last events in memory for all watchers at
//! the head. A watcher that is further behind reads the table itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::batch::Batch;
use super::cache::Coherence;
use crate::model::{Event, FeedPosition};
use crate::store::feed::FeedState;
use crate::store::sql::{Pool, Session, StoreError};

/// How often the table is polled when nothing wakes the reader.
const POLL: Duration = Duration::from_millis(200);
/// The most events read at once.
const PAGE: usize = 1_000;
/// Events kept for watchers at the head, and about how many bytes of them.
const KEPT: usize = 4_096;
const KEPT_BYTES: usize = 64 * 1024 * 1024;

/// How far the live end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// Just after the last event that may be read.
    pub head: FeedPosition,
    /// Counts replacements of the feed: when it changes, every watcher's position is void.
    pub generation: u64,
}

pub struct Feed {
    live: watch::Sender<Live>,
    /// The newest event that is known to be committed; responses name it as their position.
    committed: watch::Sender<FeedPosition>,
    recent: RwLock<RecentEvents>,
    wake: Notify,
    coherence: Arc<Coherence>,
}

/// The newest events, without gaps.
#[derive(Default)]
struct RecentEvents {
    events: VecDeque<Arc<Event>>,
    /// About how many bytes they take.
    bytes: usize,
    /// How many erasures of people there had been when they were read: after another one they may not be shown.
    erasures: u64,
}

impl RecentEvents {
    fn clear(&mut self) {
        *self = Self::default();
    }

    /// Adds events, and lets go of the oldest ones past the limits.
    fn extend(&mut self, events: Vec<Event>) {
        self.bytes += events.iter().map(|event| event.word.about_bytes()).sum::<usize>();
        self.events.extend(events.into_iter().map(Arc::new));
        while self.events.len() > KEPT || self.bytes > KEPT_BYTES {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(oldest.word.about_bytes());
        }
    }
}

#[derive(Debug)]
pub enum Recent {
    /// The next events; none at the head.
    Events(Vec<Arc<Event>>),
    /// The watcher is too far behind, and has to read the table.
    Gone,
}

impl Feed {
    pub(in crate::store) fn new(coherence: Arc<Coherence>) -> Self {
        let (live, _) = watch::channel(Live { head: FeedPosition::default(), generation: 0 });
        let (committed, _) = watch::channel(FeedPosition::default());
        Self { live, committed, recent: RwLock::default(), wake: Notify::new(), coherence }
    }

    /// The feed's end, as far as this process knows.
    pub fn head(&self) -> FeedPosition {
        (*self.committed.borrow()).max(self.live.borrow().head)
    }

    pub fn follow(&self) -> watch::Receiver<Live> {
        self.live.subscribe()
    }

    /// Up to `limit` events after a sequence, and about `bytes` of them, but at least one.
    pub fn recent_after(&self, sequence: i64, limit: usize, bytes: usize) -> Recent {
        let recent = self.recent.read();
        let head = self.live.borrow().head.sequence;
        if sequence >= head {
            return Recent::Events(Vec::new());
        }
        match recent.events.front() {
            Some(first) if first.sequence <= sequence + 1 && recent.erasures == self.coherence.erasures() => {
                let skip = usize::try_from(sequence + 1 - first.sequence).unwrap_or(usize::MAX);
                let mut taken = 0;
                let next = recent.events.iter().skip(skip).take(limit).take_while(|event| {
                    let fits = taken < bytes;
                    taken += event.word.about_bytes();
                    fits
                });
                Recent::Events(next.cloned().collect())
            }
            _ => Recent::Gone,
        }
    }

    /// Notes that this process has committed events up to `head`.
    pub(in crate::store) fn committed(&self, head: FeedPosition) {
        self.committed.send_if_modified(|known| {
            let newer = head.sequence > known.sequence;
            if newer {
                *known = head;
            }
            newer
        });
        self.wake.notify_one();
    }

    /// Changes when this process commits events.
    pub(in crate::store) fn commits(&self) -> watch::Receiver<FeedPosition> {
        self.committed.subscribe()
    }

    /// Wakes the reader, because another process may have committed events.
    pub(in crate::store) fn look(&self) {
        self.wake.notify_one();
    }

    /// Starts at the feed's end.
    pub(in crate::store) fn start_at(&self, state: FeedState) {
        self.live.send_modify(|live| live.head = state.head);
    }

    /// Reads new events until stopped.
    pub(in crate::store) async fn run(&self, pool: Pool, stop: CancellationToken) {
        let mut reachable = true;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(POLL) => {}
            }
            let read = tokio::time::timeout(Duration::from_secs(5), self.read_on(&pool));
            let outcome = match read.await {
                Ok(outcome) => outcome,
                Err(_) => Err(StoreError::Unavailable("the feed was not read in time".into())),
            };
            if let (Err(error), true) = (&outcome, reachable) {
                tracing::warn!(%error, "the feed can't be read; watchers wait");
            }
            reachable = outcome.is_ok();
        }
        pool.close().await;
    }

    async fn read_on(&self, pool: &Pool) -> Result<(), StoreError> {
        let mut batch = Batch::up_to(PAGE);
        loop {
            let (head, rows) = (self.live.borrow().head, batch.rows());
            let erasures = self.coherence.erasures();
            let Some(events) = self.read_after(head, rows, pool).await? else { return Ok(()) };
            let Some(last) = events.last().map(Event::position) else { return Ok(()) };
            batch.read(events.iter().map(|event| event.word.about_bytes()));
            let full = events.len() >= rows;
            let whole = events.first().is_some_and(|first| first.sequence == head.sequence + 1);
            // A watcher that sees the event of a change must not read the old state from a cache.
            self.coherence.poll(pool).await?;
            {
                let mut recent = self.recent.write();
                if self.coherence.erasures() != erasures {
                    // These events were read before the erasure, or while it was committed.
                    continue;
                }
                if !whole || recent.erasures != erasures {
                    recent.clear();
                    recent.erasures = erasures;
                }
                recent.extend(events);
            }
            self.live.send_modify(|live| live.head = last);
            if !full {
                return Ok(());
            }
        }
    }

    /// The events after the head. An outage may be too short to be noticed, so every read checks that it continues
    /// where the last one ended. `None`: this is another database, and watchers see the new generation.
    async fn read_after(
        &self,
        head: FeedPosition,
        rows: usize,
        pool: &Pool,
    ) -> Result<Option<Vec<Event>>, StoreError> {
        let limit = i64::try_from(rows).unwrap_or(i64::MAX);
        let mut session = pool.session().await?;
        if let Some(events) = session.events_following(head, limit).await? {
            return Ok(Some(events));
        }
        if self.is_known(head, &mut session).await? {
            return session.events_after(head.sequence, limit).await.map(Some);
        }
        Ok(None)
    }

    /// Whether the head, whose event is no longer kept, belongs to this feed. If not, everything starts over.
    async fn is_known(&self, head: FeedPosition, session: &mut Session) -> Result<bool, StoreError> {
        let state = session.feed_state().await?;
        let known = match head.sequence {
            0 => true,
            sequence if sequence < state.oldest => {
                if sequence + 1 == state.oldest {
                    state.compacted_identity == head.identity
                } else {
                    state.head.sequence >= sequence
                }
            }
            sequence => session.event_identity(sequence).await? == Some(head.identity),
        };
        if known {
            return Ok(true);
        }
        tracing::error!("the database is another one than before: every position in the feed is void");
        self.coherence.drop_all();
        self.recent.write().clear();
        self.committed.send_replace(state.head);
        self.live.send_modify(|live| {
            live.head = state.head;
            live.generation += 1;
        });
        Ok(false)
    }
}
