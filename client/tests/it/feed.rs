//! A small feed that follows the protocol, and that a test can make misbehave.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ::token_vault_client::v1::watch_expiry_events_request::{From as WireFrom, Start};
use ::token_vault_client::v1::watch_expiry_events_response::{
    EventBatch, Heartbeat, Item, SnapshotComplete, SnapshotPage,
};
use ::token_vault_client::v1::*;
use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

pub(crate) type Answers = Pin<Box<dyn Stream<Item = Result<WatchExpiryEventsResponse, Status>> + Send>>;

/// Events per batch, tokens per page.
const BATCH: usize = 3;

/// One call of WatchExpiryEvents as the feed received it.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) at: Instant,
    pub(crate) request: WatchExpiryEventsRequest,
}

#[derive(Default)]
pub(crate) struct Feed {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub(crate) struct State {
    /// A database restored from a backup is another feed.
    pub(crate) epoch: u32,
    pub(crate) events: Vec<ExpiryEvent>,
    /// Events up to this sequence are past retention.
    pub(crate) compacted: i64,
    pub(crate) tokens: Vec<Token>,
    /// Each of the next watches fails with one of these.
    pub(crate) refusals: VecDeque<Status>,
    /// Each of the next watches ends like this, after this many messages.
    pub(crate) ends: VecDeque<(usize, End)>,
    /// Whether messages inside snapshots have positions, which a vault must not send.
    pub(crate) careless: bool,
    /// How long to wait before each message.
    pub(crate) pace: Duration,
    /// How many events before its position a watch gets again.
    pub(crate) overlap: i64,
    /// AcknowledgeEvents fails with this.
    pub(crate) acknowledge_with: Option<Status>,
    pub(crate) positions: HashMap<String, String>,
    pub(crate) acknowledged: Vec<String>,
    pub(crate) watched: Vec<Watched>,
}

/// How a watch ends before its time.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// Without an error, as when a server stops in order.
    Well,
    With(Status),
    /// It stays open, and nothing more comes.
    Silent,
}

impl Feed {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn watched(&self) -> Vec<Watched> {
        self.state().watched.clone()
    }

    pub(crate) fn acknowledge(
        &self,
        request: AcknowledgeEventsRequest,
    ) -> Result<AcknowledgeEventsResponse, Status> {
        let mut state = self.state();
        if let Some(refusal) = &state.acknowledge_with {
            return Err(refusal.clone());
        }
        state.after(&request.cursor)?;
        state.acknowledged.push(request.cursor.clone());
        state.positions.insert(request.subscription, request.cursor);
        Ok(AcknowledgeEventsResponse::default())
    }

    pub(crate) fn watch(&self, request: WatchExpiryEventsRequest) -> Result<Answers, Status> {
        let mut state = self.state();
        state.watched.push(Watched { at: Instant::now(), request: request.clone() });
        if let Some(refusal) = state.refusals.pop_front() {
            return Err(refusal);
        }
        let kept = request.subscription.and_then(|name| state.positions.get(&name).cloned());
        let start = kept.map(Start::Cursor).or(request.start).unwrap_or(Start::From(WireFrom::Now.into()));
        let mut snapshot = None;
        let after = match start {
            Start::Cursor(cursor) => (state.after(&cursor)? - state.overlap).max(state.compacted),
            Start::From(from) => match WireFrom::try_from(from).unwrap() {
                WireFrom::Earliest => state.compacted,
                WireFrom::Snapshot => {
                    snapshot = Some(state.tokens.clone());
                    state.head()
                }
                _ => state.head(),
            },
        };
        let end = state.ends.pop_front();
        let every = request.heartbeat_interval.and_then(|time| Duration::try_from(time).ok());
        let (messages, taken) = mpsc::channel(1);
        let sender = Sender { state: self.state.clone(), messages, sent: 0, end };
        tokio::spawn(sender.run(snapshot, after, every.unwrap()));
        Ok(Box::pin(ReceiverStream::new(taken)))
    }
}

impl State {
    /// Adds an event.
    pub(crate) fn happens(&mut self, event: ExpiryEvent) {
        let sequence = self.head() + 1;
        self.events.push(ExpiryEvent { sequence, cursor: self.cursor(sequence), ..event });
    }

    /// Adds this many events, spread over a few connections.
    pub(crate) fn happen(&mut self, number: i64) {
        for number in 0..number {
            let connection_id = format!("connection-{}", number % 5);
            self.happens(ExpiryEvent { connection_id, usable: true, ..Default::default() });
        }
    }

    pub(crate) fn head(&self) -> i64 {
        self.events.last().map_or(0, |event| event.sequence)
    }

    pub(crate) fn cursor(&self, sequence: i64) -> String {
        format!("v{}:{sequence}", self.epoch)
    }

    /// The sequence of a position.
    fn after(&self, cursor: &str) -> Result<i64, Status> {
        let (epoch, sequence) = cursor.split_once(':').unwrap();
        let sequence = sequence.parse().unwrap();
        if epoch != format!("v{}", self.epoch) || sequence > self.head() {
            return Err(lost("FEED_REPLACED"));
        }
        if sequence < self.compacted { Err(lost("EVENTS_COMPACTED")) } else { Ok(sequence) }
    }
}

fn lost(reason: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, "tokenvault.v1", []);
    Status::with_error_details(Code::OutOfRange, "the position is of no use", details)
}

/// Sends messages to one watcher.
struct Sender {
    state: Arc<Mutex<State>>,
    messages: mpsc::Sender<Result<WatchExpiryEventsResponse, Status>>,
    sent: usize,
    end: Option<(usize, End)>,
}

/// The watcher is gone, or must not get more messages.
struct Done;

impl Sender {
    async fn run(mut self, snapshot: Option<Vec<Token>>, after: i64, every: Duration) {
        let _ = self.send_all(snapshot, after, every).await;
    }

    async fn send_all(
        &mut self,
        snapshot: Option<Vec<Token>>,
        mut after: i64,
        every: Duration,
    ) -> Result<(), Done> {
        if let Some(tokens) = snapshot {
            let careless = self.state.lock().unwrap().careless;
            let inside = if careless { self.cursor(after) } else { String::new() };
            self.send(Item::Heartbeat(Heartbeat::default()), inside.clone()).await?;
            for page in tokens.chunks(BATCH) {
                let page = SnapshotPage { tokens: page.to_vec() };
                self.send(Item::Snapshot(page), inside.clone()).await?;
            }
            let complete = SnapshotComplete { token_count: tokens.len().try_into().unwrap() };
            self.send(Item::SnapshotComplete(complete), self.cursor(after)).await?;
        }
        self.beat(after).await?;
        let mut beaten = Instant::now();
        loop {
            let batch: Vec<ExpiryEvent> = {
                let state = self.state.lock().unwrap();
                state.events.iter().filter(|event| event.sequence > after).take(BATCH).cloned().collect()
            };
            match batch.last() {
                Some(last) => {
                    after = last.sequence;
                    self.send(Item::Events(EventBatch { events: batch }), self.cursor(after)).await?;
                    beaten = Instant::now();
                }
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
            if beaten.elapsed() >= every {
                self.beat(after).await?;
                beaten = Instant::now();
            }
        }
    }

    async fn beat(&mut self, after: i64) -> Result<(), Done> {
        let head_sequence = self.state.lock().unwrap().head();
        let beat = Heartbeat { head_sequence, behind: head_sequence - after };
        self.send(Item::Heartbeat(beat), self.cursor(after)).await
    }

    async fn send(&mut self, item: Item, cursor: String) -> Result<(), Done> {
        let pace = self.state.lock().unwrap().pace;
        tokio::time::sleep(pace).await;
        let message = WatchExpiryEventsResponse { cursor, item: Some(item), ..Default::default() };
        self.messages.send(Ok(message)).await.map_err(|_| Done)?;
        self.sent += 1;
        match self.end.take_if(|(messages, _)| *messages == self.sent) {
            None => return Ok(()),
            Some((_, End::Well)) => {}
            Some((_, End::With(status))) => {
                let _ = self.messages.send(Err(status)).await;
            }
            Some((_, End::Silent)) => self.messages.closed().await,
        }
        Err(Done)
    }

    fn cursor(&self, sequence: i64) -> String {
        self.state.lock().unwrap().cursor(sequence)
    }
}
