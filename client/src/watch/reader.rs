//! Turns connections that come and go into one sequence of items.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Status, Streaming};

use super::deduplication::Deduplication;
use super::options::{Start, WatchOptions};
use super::progress::Progress;
use super::{Snapshot, WatchItem, locked};
use crate::error::{Error, ErrorKind};
use crate::retry;
use crate::v1::watch_expiry_events_request::{self as wire, From as WireFrom};
use crate::v1::watch_expiry_events_response::{Heartbeat, Item};
use crate::v1::{WatchExpiryEventsRequest, WatchExpiryEventsResponse};
use crate::vault::Vault;

/// The number of heartbeats that may be missing before the stream counts as dead.
const SILENT_BEATS: u32 = 3;

/// An entry of the queue.
enum Queued {
    Item(WatchItem),
    /// Not an item: a mark that everything up to this position was delivered.
    Reached(String),
    /// The last item.
    End(Error),
}

/// One connection to the feed.
struct Connection {
    messages: Streaming<WatchExpiryEventsResponse>,
    since: Instant,
}

pub(super) struct Reader {
    vault: Vault,
    options: WatchOptions,
    progress: Arc<Mutex<Progress>>,
    /// Failures of the task that stores the position.
    failures: mpsc::Receiver<Error>,
    /// Whether the checkpoint was loaded.
    loaded: bool,
    /// Where the next connection starts. `None`: at the subscription's position or the options' start.
    position: Option<String>,
    /// The subscription under which the vault keeps the position. Set only until the first response shows where this
    /// watch is.
    subscription: Option<String>,
    /// Whether a snapshot is arriving. Until it is complete, no position is valid, whatever a response says.
    in_snapshot: bool,
    /// Whether `Snapshot::Started` was delivered for the snapshot that is arriving.
    snapshot_announced: bool,
    seen: Deduplication,
    connection: Option<Connection>,
    /// The earliest moment for a new connection.
    not_before: Instant,
    /// How many connections in a row were short and brought nothing new.
    tries: u32,
    /// Whether the present outage was reported.
    outage_reported: bool,
    /// Whether `CaughtUp` was delivered and still holds.
    caught_up: bool,
    /// The head of the feed, as the latest heartbeat of this connection says.
    head: Option<i64>,
    /// The reader reads on only when this queue is empty, so that `position` is never ahead of what was delivered.
    queue: VecDeque<Queued>,
    ended: bool,
}

impl Reader {
    pub(super) fn new(
        vault: Vault,
        options: WatchOptions,
        progress: Arc<Mutex<Progress>>,
        failures: mpsc::Receiver<Error>,
    ) -> Self {
        let position = match &options.start {
            Start::Cursor(cursor) => Some(cursor.clone()),
            _ => None,
        };
        let subscription = options.checkpoint.subscription().map(str::to_owned);
        Self {
            vault,
            options,
            progress,
            failures,
            loaded: false,
            position,
            subscription,
            in_snapshot: false,
            snapshot_announced: false,
            seen: Deduplication::default(),
            connection: None,
            not_before: Instant::now(),
            tries: 0,
            outage_reported: false,
            caught_up: false,
            head: None,
            queue: VecDeque::new(),
            ended: false,
        }
    }

    /// The next item. `None`: the watch has ended.
    pub(super) async fn next(&mut self) -> Option<Result<WatchItem, Error>> {
        loop {
            self.take_failure();
            match self.queue.pop_front() {
                Some(Queued::Item(item)) => return Some(Ok(item)),
                Some(Queued::Reached(cursor)) => locked(&self.progress).reach(cursor),
                Some(Queued::End(error)) => {
                    self.ended = true;
                    return Some(Err(error));
                }
                None if self.ended => return None,
                None => self.advance().await,
            }
        }
    }

    fn take_failure(&mut self) {
        if self.ended {
            return;
        }
        let queued = match self.failures.try_recv() {
            Ok(error) if hopeless(&error) => Queued::End(error),
            Ok(error) => Queued::Item(WatchItem::CheckpointFailed(error)),
            Err(TryRecvError::Empty) => return,
            Err(TryRecvError::Disconnected) => {
                Queued::End(Error::unexpected("the task that stores the position has panicked"))
            }
        };
        self.queue.push_front(queued);
    }

    /// One step: load the checkpoint, connect, or read.
    async fn advance(&mut self) {
        if !self.loaded {
            match self.options.checkpoint.load().await {
                Ok(Some(cursor)) => self.position = Some(cursor),
                Ok(None) => {}
                Err(error) => return self.queue.push_back(Queued::End(error)),
            }
            self.loaded = true;
        }
        let silence = self.options.heartbeat.saturating_mul(SILENT_BEATS);
        let Some(connection) = &mut self.connection else {
            sleep_until(self.not_before).await;
            return self.connect(silence).await;
        };
        match timeout(silence, connection.messages.message()).await {
            Ok(Ok(Some(response))) => self.accept(response),
            Ok(Ok(None)) => self.cut(Status::unavailable("the vault ended the watch").into()),
            Ok(Err(status)) => self.cut(status.into()),
            Err(_) => self.cut(Status::unavailable(format!("no heartbeat for {silence:?}")).into()),
        }
    }

    async fn connect(&mut self, patience: Duration) {
        let request = self.request();
        self.snapshot_announced = false;
        // With a subscription, the vault decides where the watch starts, and its first response shows where that is.
        self.in_snapshot = self.subscription.is_none()
            && request.start == Some(wire::Start::From(WireFrom::Snapshot.into()));
        match self.vault.open_watch(request, patience).await {
            Ok(messages) => self.connection = Some(Connection { messages, since: Instant::now() }),
            Err(error) => self.cut(error),
        }
    }

    fn request(&self) -> WatchExpiryEventsRequest {
        let from = |from: WireFrom| wire::Start::From(from.into());
        let start = match (&self.position, &self.options.start) {
            (Some(cursor), _) => wire::Start::Cursor(cursor.clone()),
            (None, Start::Earliest) => from(WireFrom::Earliest),
            (None, Start::Snapshot) => from(WireFrom::Snapshot),
            (None, Start::Now | Start::Cursor(_)) => from(WireFrom::Now),
        };
        WatchExpiryEventsRequest {
            filter: Some(self.options.filter.clone()),
            subscription: self.subscription.clone(),
            start: Some(start),
            heartbeat_interval: prost_types::Duration::try_from(self.options.heartbeat).ok(),
        }
    }

    fn accept(&mut self, response: WatchExpiryEventsResponse) {
        self.outage_reported = false;
        match response.item {
            Some(Item::Events(batch)) => {
                for event in batch.events {
                    if self.seen.passes(&event) {
                        self.tries = 0;
                        self.deliver(WatchItem::Event(Box::new(event)));
                    }
                }
                // Without a filter, the event itself shows that the watch reached the head, before the next heartbeat
                // does.
                if self.head.is_some_and(|head| self.seen.is_at(head)) {
                    self.catch_up();
                }
            }
            Some(Item::Snapshot(page)) => {
                self.begin_snapshot();
                for token in page.tokens {
                    self.seen.add_snapshot(&token);
                    self.deliver(WatchItem::Snapshot(Snapshot::Token(Box::new(token))));
                }
            }
            Some(Item::SnapshotComplete(complete)) => {
                self.begin_snapshot();
                self.in_snapshot = false;
                self.snapshot_announced = false;
                self.tries = 0;
                let (token_count, cursor) = (complete.token_count, response.cursor.clone());
                self.deliver(WatchItem::Snapshot(Snapshot::Complete { token_count, cursor }));
            }
            // A heartbeat without a position comes before or inside a snapshot.
            Some(Item::Heartbeat(beat)) if !self.in_snapshot && !response.cursor.is_empty() => {
                self.beat(beat)
            }
            // An unknown item of a newer vault, or a heartbeat without further news.
            _ => {}
        }
        if !self.in_snapshot && !response.cursor.is_empty() {
            self.subscription = None;
            self.position = Some(response.cursor.clone());
            self.queue.push_back(Queued::Reached(response.cursor));
        }
    }

    fn beat(&mut self, beat: Heartbeat) {
        self.head = Some(beat.head_sequence);
        if beat.behind == 0 {
            self.seen.comes_to(beat.head_sequence);
            self.catch_up();
        } else {
            self.caught_up = false;
        }
    }

    fn catch_up(&mut self) {
        if !self.caught_up {
            self.caught_up = true;
            self.deliver(WatchItem::CaughtUp);
        }
    }

    /// A snapshot has no position until it is complete: after a cut it begins again.
    fn begin_snapshot(&mut self) {
        self.in_snapshot = true;
        if !self.snapshot_announced {
            self.snapshot_announced = true;
            self.start_over();
            self.deliver(WatchItem::Snapshot(Snapshot::Started));
        }
    }

    fn start_over(&mut self) {
        self.position = None;
        self.subscription = None;
        self.options.start = Start::Snapshot;
        self.seen.forget();
    }

    /// The connection has ended.
    fn cut(&mut self, error: Error) {
        let lasted = self.connection.take().is_some_and(|was| was.since.elapsed() >= retry::LONGEST);
        self.tries = if lasted { 1 } else { self.tries.saturating_add(1) };
        self.not_before = Instant::now() + retry::reconnect(&error, self.tries);
        (self.caught_up, self.head) = (false, None);
        if hopeless(&error) {
            self.queue.push_back(Queued::End(error));
        } else if *error.kind() == ErrorKind::HistoryLost {
            self.ended = self.options.end_when_lost;
            self.start_over();
            self.deliver(WatchItem::HistoryLost(error));
        } else if !self.outage_reported {
            self.outage_reported = true;
            self.deliver(WatchItem::Interrupted(error));
        }
    }

    fn deliver(&mut self, item: WatchItem) {
        self.queue.push_back(Queued::Item(item));
    }
}

/// Whether trying again cannot help.
fn hopeless(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Access | ErrorKind::YourBug(_) | ErrorKind::Pause)
}
