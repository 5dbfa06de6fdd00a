//! The feed of expiry events as a stream that survives its connections.

mod options;
mod progress;
mod reader;
mod sieve;

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use futures::stream::{BoxStream, Stream, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub use options::{Start, WatchOptions};

use crate::error::Error;
use crate::v1::{ExpiryEvent, Token};
use crate::vault::Vault;
use progress::Progress;
use reader::Reader;

/// What a watch brings.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum WatchItem {
    /// Something happened. Comes once per life of the stream; again in the next life, if it was not acknowledged.
    Event(Box<ExpiryEvent>),
    /// The state of all connections, piece by piece.
    Snapshot(Snapshot),
    /// All that had happened when the vault said so was delivered. Comes once after the start, and again each time after
    /// the stream was cut or fell behind.
    CaughtUp,
    /// Events are gone: `EVENTS_COMPACTED`, the stream was away for longer than the vault keeps them; or `FEED_REPLACED`,
    /// the vault's database was restored or replaced. A snapshot follows, from which to rebuild; with
    /// [`end_when_history_is_lost`](WatchOptions::end_when_history_is_lost) the stream ends instead.
    HistoryLost(Error),
    /// The connection is lost; the stream reconnects by itself. Told once per outage. For logs and metrics.
    Interrupted(Error),
    /// The position could not be stored; the stream goes on and tries again. Told once per trouble. A restart meanwhile
    /// delivers again what was handled since.
    CheckpointFailed(Error),
}

impl WatchItem {
    /// The position just after this item, to be acknowledged when the item is handled. `None` for items that have no
    /// place in the feed, and for those of a snapshot before its end: they are handled when the whole snapshot is.
    pub fn cursor(&self) -> Option<&str> {
        match self {
            Self::Event(event) => Some(&event.cursor),
            Self::Snapshot(Snapshot::Complete { cursor, .. }) => Some(cursor),
            _ => None,
        }
    }
}

/// A piece of a snapshot.
#[derive(Debug, Clone)]
pub enum Snapshot {
    /// A snapshot begins. Whatever an earlier, unfinished one brought is void.
    Started,
    /// The state of one connection; of one that changes meanwhile, the later one counts. Revoked ones do not come.
    Token(Box<Token>),
    /// That was all: a connection that did not come is revoked, or out of the filter.
    Complete {
        /// How many tokens came, 0 or more.
        token_count: i64,
        /// The position from which events follow.
        cursor: String,
    },
}

/// The feed of expiry events, from [`Vault::watch`].
///
/// It connects, and connects again whenever the connection breaks or falls silent, with a growing pause or the one that
/// the vault asks for; it goes on where it was, and delivers each event once. It ends only with an `Err`, when trying
/// again can't help: an error of kind `Access`, `YourBug` or `Pause`, or a checkpoint that can't be loaded; and after
/// `HistoryLost` where the options say so.
///
/// # What counts as handled
/// A position is stored only when all before it is handled: at-least-once over the process's lives. By default an item
/// counts as handled when the next one is asked for, as a plain `while let` loop does it; an error that leaves the loop
/// leaves its item unhandled. Where items are asked for ahead, use
/// [`acknowledge_by_hand`](WatchOptions::acknowledge_by_hand).
///
/// Dropping the stream stores in the background what is acknowledged; [`close`](Self::close) waits for it.
pub struct EventStream {
    items: BoxStream<'static, Result<WatchItem, Error>>,
    progress: Arc<Mutex<Progress>>,
    by_hand: bool,
    /// Ends by itself once `items` and `progress` are gone.
    keeper: JoinHandle<Result<(), Error>>,
}

impl EventStream {
    pub(crate) fn new(vault: Vault, options: WatchOptions) -> Self {
        let (handled, positions) = watch::channel(None);
        let (tell, troubles) = mpsc::channel(1);
        let keeper = tokio::spawn(progress::keep(options.checkpoint.clone(), positions, tell));
        let progress = Arc::new(Mutex::new(Progress::new(handled)));
        let by_hand = options.by_hand;
        let reader = Reader::new(vault, options, progress.clone(), troubles);
        let items = futures::stream::unfold(reader, |mut reader| async move {
            let item = reader.next().await?;
            Some((item, reader))
        });
        Self { items: items.fuse().boxed(), progress, by_hand, keeper }
    }

    /// The item with this cursor, and all that were taken before it, are handled. False: no item with this cursor waits
    /// for that; nothing changes.
    pub fn acknowledge(&self, cursor: &str) -> bool {
        locked(&self.progress).acknowledge(cursor)
    }

    /// All items taken so far are handled. For the end of a loop that handled its last item.
    pub fn acknowledge_all(&self) {
        locked(&self.progress).acknowledge_all();
    }

    /// Up to where all is handled. `None`: nothing yet in this life.
    pub fn position(&self) -> Option<String> {
        locked(&self.progress).position()
    }

    /// Ends the watch and waits until the position of what is acknowledged is stored.
    ///
    /// # Errors
    /// When it could not be stored: what was handled since the last store comes again in the next life.
    pub async fn close(self) -> Result<(), Error> {
        let Self { items, progress, keeper, .. } = self;
        drop((items, progress));
        keeper.await.unwrap_or_else(|_| Err(Error::unexpected("the task that stores the position has died")))
    }
}

impl Stream for EventStream {
    type Item = Result<WatchItem, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if !this.by_hand {
            locked(&this.progress).acknowledge_all();
        }
        let item = ready!(this.items.poll_next_unpin(context));
        if let Some(cursor) = item.as_ref().and_then(|item| item.as_ref().ok()?.cursor()) {
            locked(&this.progress).take(cursor);
        }
        Poll::Ready(item)
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("position", &self.position()).finish_non_exhaustive()
    }
}

fn locked(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    // Each change is whole at every moment, so a panic elsewhere spoils nothing.
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}
