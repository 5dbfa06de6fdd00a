//! From connections that come and go to one row of items.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Status, Streaming};

use super::options::{Start, WatchOptions};
use super::progress::Progress;
use super::sieve::Sieve;
use super::{Snapshot, WatchItem, locked};
use crate::error::{Error, ErrorKind};
use crate::retry;
use crate::v1::watch_expiry_events_request::{self as wire, From as WireFrom};
use crate::v1::watch_expiry_events_response::{Heartbeat, Item};
use crate::v1::{WatchExpiryEventsRequest, WatchExpiryEventsResponse};
use crate::vault::Vault;

/// This many heartbeats may be missing before the stream counts as dead.
const SILENT_BEATS: u32 = 3;

/// What waits to be handed out.
enum Queued {
    Item(WatchItem),
    /// Not an item: all before it was handed out, up to this position.
    Reached(String),
    /// The last item.
    End(Error),
}

/// One connection to the feed.
struct Connection {
    answers: Streaming<WatchExpiryEventsResponse>,
    since: Instant,
}

pub(super) struct Reader {
    vault: Vault,
    options: WatchOptions,
    progress: Arc<Mutex<Progress>>,
    /// What the keeper of the position has to tell.
    troubles: mpsc::Receiver<Error>,
    /// Whether the checkpoint was asked.
    loaded: bool,
    /// Where the next connection starts. `None`: at the subscription's position or the options' start.
    position: Option<String>,
    /// By which the vault knows the position; only until the first answer shows where this watch is.
    subscription: Option<String>,
    /// Inside a snapshot no position is good, whatever comes with an answer.
    in_snapshot: bool,
    /// `Snapshot::Started` was handed out for the snapshot that is under way.
    snapshot_told: bool,
    sieve: Sieve,
    connection: Option<Connection>,
    /// No new connection before this moment.
    not_before: Instant,
    /// Connections in a row that came to nothing: short, and without news.
    tries: u32,
    /// The present outage was told.
    outage_told: bool,
    /// `CaughtUp` was handed out and still holds.
    caught_up: bool,
    /// The feed's head as this connection told it last.
    head: Option<i64>,
    /// Read on only when this is empty: then `position` is never ahead of what was handed out.
    queue: VecDeque<Queued>,
    ended: bool,
}

impl Reader {
    pub(super) fn new(
        vault: Vault,
        options: WatchOptions,
        progress: Arc<Mutex<Progress>>,
        troubles: mpsc::Receiver<Error>,
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
            troubles,
            loaded: false,
            position,
            subscription,
            in_snapshot: false,
            snapshot_told: false,
            sieve: Sieve::default(),
            connection: None,
            not_before: Instant::now(),
            tries: 0,
            outage_told: false,
            caught_up: false,
            head: None,
            queue: VecDeque::new(),
            ended: false,
        }
    }

    /// The next item. `None`: the watch has ended.
    pub(super) async fn next(&mut self) -> Option<Result<WatchItem, Error>> {
        loop {
            self.hear_keeper();
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

    fn hear_keeper(&mut self) {
        if self.ended {
            return;
        }
        let queued = match self.troubles.try_recv() {
            Ok(error) if hopeless(&error) => Queued::End(error),
            Ok(error) => Queued::Item(WatchItem::CheckpointFailed(error)),
            Err(TryRecvError::Empty) => return,
            Err(TryRecvError::Disconnected) => {
                Queued::End(Error::unexpected("the task that stores the position has died"))
            }
        };
        self.queue.push_front(queued);
    }

    /// One step: ask the checkpoint, connect, or read.
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
        match timeout(silence, connection.answers.message()).await {
            Ok(Ok(Some(answer))) => self.accept(answer),
            Ok(Ok(None)) => self.cut(Status::unavailable("the vault ended the watch").into()),
            Ok(Err(status)) => self.cut(status.into()),
            Err(_) => self.cut(Status::unavailable(format!("no sign of life for {silence:?}")).into()),
        }
    }

    async fn connect(&mut self, patience: Duration) {
        let request = self.request();
        self.snapshot_told = false;
        // With a subscription the vault decides, and the first answer shows it.
        self.in_snapshot = self.subscription.is_none()
            && request.start == Some(wire::Start::From(WireFrom::Snapshot.into()));
        match self.vault.open_watch(request, patience).await {
            Ok(answers) => self.connection = Some(Connection { answers, since: Instant::now() }),
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

    fn accept(&mut self, answer: WatchExpiryEventsResponse) {
        self.outage_told = false;
        match answer.item {
            Some(Item::Events(batch)) => {
                for event in batch.events {
                    if self.sieve.passes(&event) {
                        self.tries = 0;
                        self.hand_out(WatchItem::Event(Box::new(event)));
                    }
                }
                // Without a filter there is no need to wait for the next heartbeat.
                if self.head.is_some_and(|head| self.sieve.is_at(head)) {
                    self.catch_up();
                }
            }
            Some(Item::Snapshot(page)) => {
                self.begin_snapshot();
                for token in page.tokens {
                    self.sieve.tell(&token);
                    self.hand_out(WatchItem::Snapshot(Snapshot::Token(Box::new(token))));
                }
            }
            Some(Item::SnapshotComplete(complete)) => {
                self.begin_snapshot();
                self.in_snapshot = false;
                self.snapshot_told = false;
                self.tries = 0;
                let (token_count, cursor) = (complete.token_count, answer.cursor.clone());
                self.hand_out(WatchItem::Snapshot(Snapshot::Complete { token_count, cursor }));
            }
            // Without a position it is one before or inside a snapshot.
            Some(Item::Heartbeat(beat)) if !self.in_snapshot && !answer.cursor.is_empty() => self.beat(beat),
            // Of a newer vault, or only a sign of life.
            _ => {}
        }
        if !self.in_snapshot && !answer.cursor.is_empty() {
            self.subscription = None;
            self.position = Some(answer.cursor.clone());
            self.queue.push_back(Queued::Reached(answer.cursor));
        }
    }

    fn beat(&mut self, beat: Heartbeat) {
        self.head = Some(beat.head_sequence);
        if beat.behind == 0 {
            self.sieve.comes_to(beat.head_sequence);
            self.catch_up();
        } else {
            self.caught_up = false;
        }
    }

    fn catch_up(&mut self) {
        if !self.caught_up {
            self.caught_up = true;
            self.hand_out(WatchItem::CaughtUp);
        }
    }

    /// A snapshot has no position until it is whole: one that is cut begins again.
    fn begin_snapshot(&mut self) {
        self.in_snapshot = true;
        if !self.snapshot_told {
            self.snapshot_told = true;
            self.start_over();
            self.hand_out(WatchItem::Snapshot(Snapshot::Started));
        }
    }

    fn start_over(&mut self) {
        self.position = None;
        self.subscription = None;
        self.options.start = Start::Snapshot;
        self.sieve.forget();
    }

    /// The connection is no more.
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
            self.hand_out(WatchItem::HistoryLost(error));
        } else if !self.outage_told {
            self.outage_told = true;
            self.hand_out(WatchItem::Interrupted(error));
        }
    }

    fn hand_out(&mut self, item: WatchItem) {
        self.queue.push_back(Queued::Item(item));
    }
}

/// Whether trying again can't help.
fn hopeless(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Access | ErrorKind::YourBug(_) | ErrorKind::Pause)
}
