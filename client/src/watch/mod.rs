//! The feed of expiry events as a stream that reconnects by itself.

mod deduplication;
mod options;
mod progress;
mod reader;

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

/// An item of a watch.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum WatchItem {
    /// Something happened. Comes once per stream, and again in the next process if it was not acknowledged.
    Event(Box<ExpiryEvent>),
    /// The state of all connections, piece by piece.
    Snapshot(Snapshot),
    /// Everything that had happened by now was delivered. Comes once after the start, and again each time after the
    /// stream was cut or fell behind.
    CaughtUp,
    /// Events are missing: `EVENTS_COMPACTED`, the stream was away for longer than the vault keeps them; or
    /// `FEED_REPLACED`, the vault's database was restored or replaced. A snapshot follows, to rebuild the state from;
    /// with [`end_when_history_is_lost`](WatchOptions::end_when_history_is_lost) the stream ends instead.
    HistoryLost(Error),
    /// The connection is lost; the stream reconnects by itself. Comes once per outage, for logs and metrics.
    Interrupted(Error),
    /// The position could not be stored; the stream goes on and tries again. Comes once per outage. After a restart
    /// meanwhile, what was handled since the last stored position comes again.
    CheckpointFailed(Error),
}

impl WatchItem {
    /// The position just after this item, to be acknowledged when the item is handled. `None` for items that have no
    /// position in the feed, and for those of a snapshot before its end: they are handled when the whole snapshot is.
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
    /// A snapshot begins. Discard the pieces of an earlier, unfinished one.
    Started,
    /// The state of one connection. If a connection changes meanwhile, it comes again and the later state counts.
    /// Revoked connections do not come. A token with very many scopes or targets is cut; its `left_out_…` fields count
    /// what is missing, and [`get_token`](crate::Vault::get_token) returns all of it.
    Token(Box<Token>),
    /// The snapshot is complete: a connection that did not come is revoked, or does not match the filter.
    Complete {
        /// How many tokens came.
        token_count: i64,
        /// The position from which events follow.
        cursor: String,
    },
}

/// The feed of expiry events, from [`Vault::watch`].
///
/// It connects, and connects again whenever the connection breaks or falls silent, after a growing pause or the one
/// that the vault asks for. It resumes where it was, and delivers each event once. It ends only with an `Err` when
/// trying again cannot help (an error of kind `Access`, `YourBug` or `Pause`, or a checkpoint that cannot be loaded),
/// and after
/// `HistoryLost` where the options say so.
///
/// # What counts as handled
/// A position is stored only when everything before it is handled, so each event is handled at least once, also over
/// restarts. By default an item counts as handled when the next one is asked for, as a plain `while let` loop does; an
/// error that leaves the loop leaves its item unhandled. Where items are asked for ahead, use
/// [`acknowledge_by_hand`](WatchOptions::acknowledge_by_hand).
///
/// Dropping the stream stores the acknowledged position in the background; [`close`](Self::close) waits for that.
pub struct EventStream {
    items: BoxStream<'static, Result<WatchItem, Error>>,
    progress: Arc<Mutex<Progress>>,
    by_hand: bool,
    /// Ends by itself once `items` and `progress` are dropped.
    keeper: JoinHandle<Result<(), Error>>,
}

impl Vault {
    /// Follows the feed of expiry events for as long as the stream is polled; it reconnects and resumes by itself. It
    /// connects with the first poll. See [`EventStream`].
    ///
    /// Call this inside a Tokio runtime, because a separate task stores the position.
    pub fn watch(&self, options: WatchOptions) -> EventStream {
        EventStream::new(self.clone(), options)
    }
}

impl EventStream {
    fn new(vault: Vault, options: WatchOptions) -> Self {
        let (handled, positions) = watch::channel(None);
        let (report, failures) = mpsc::channel(1);
        let keeper = tokio::spawn(progress::keep(options.checkpoint.clone(), positions, report));
        let progress = Arc::new(Mutex::new(Progress::new(handled)));
        let by_hand = options.by_hand;
        let reader = Reader::new(vault, options, progress.clone(), failures);
        let items = futures::stream::unfold(reader, |mut reader| async move {
            let item = reader.next().await?;
            Some((item, reader))
        });
        Self { items: items.fuse().boxed(), progress, by_hand, keeper }
    }

    /// Marks the item with this cursor, and all that were taken before it, as handled. Returns false, and changes
    /// nothing, when no item with this cursor waits for that.
    pub fn acknowledge(&self, cursor: &str) -> bool {
        locked(&self.progress).acknowledge(cursor)
    }

    /// Marks all items taken so far as handled, for the end of a loop that handled its last item.
    pub fn acknowledge_all(&self) {
        locked(&self.progress).acknowledge_all();
    }

    /// The position up to which everything is handled. `None`: nothing yet in this process.
    pub fn position(&self) -> Option<String> {
        locked(&self.progress).position()
    }

    /// Ends the watch and waits until the position of what is acknowledged is stored.
    ///
    /// # Errors
    /// When the position could not be stored: what was handled since the last stored position comes again.
    pub async fn close(self) -> Result<(), Error> {
        let Self { items, progress, keeper, .. } = self;
        drop((items, progress));
        keeper
            .await
            .unwrap_or_else(|_| Err(Error::unexpected("the task that stores the position has panicked")))
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
    // Every change leaves the state valid, so a panic elsewhere does no harm.
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}
