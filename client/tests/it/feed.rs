//! A feed as the protocol wants it, small enough to be read at a glance, that can be made to misbehave.

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

/// One call of WatchExpiryEvents as it came in.
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
    /// Each of the next watches ends with one of these in place of an answer.
    pub(crate) refusals: VecDeque<Status>,
    /// Each of the next watches ends like this after so many answers.
    pub(crate) ends: VecDeque<(usize, End)>,
    /// Gives positions inside snapshots, which no vault should.
    pub(crate) careless: bool,
    /// Before each answer.
    pub(crate) pace: Duration,
    /// So many events before its position a watch gets again.
    pub(crate) overlap: i64,
    /// AcknowledgeEvents ends with this.
    pub(crate) acknowledge_with: Option<Status>,
    pub(crate) positions: HashMap<String, String>,
    pub(crate) acknowledged: Vec<String>,
    pub(crate) watched: Vec<Watched>,
}

/// How a watch ends before its time.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// Without a word, as from a server that stops well.
    Well,
    With(Status),
    /// It stays open, and nothing comes any more.
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
        let (answers, taken) = mpsc::channel(1);
        let teller = Teller { state: self.state.clone(), answers, told: 0, end };
        tokio::spawn(teller.run(snapshot, after, every.unwrap()));
        Ok(Box::pin(ReceiverStream::new(taken)))
    }
}

impl State {
    /// Something happens.
    pub(crate) fn happens(&mut self, event: ExpiryEvent) {
        let sequence = self.head() + 1;
        self.events.push(ExpiryEvent { sequence, cursor: self.cursor(sequence), ..event });
    }

    /// So many events of some connections.
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

/// Tells one watcher.
struct Teller {
    state: Arc<Mutex<State>>,
    answers: mpsc::Sender<Result<WatchExpiryEventsResponse, Status>>,
    told: usize,
    end: Option<(usize, End)>,
}

/// The watcher is gone, or must not be told more.
struct Done;

impl Teller {
    async fn run(mut self, snapshot: Option<Vec<Token>>, after: i64, every: Duration) {
        let _ = self.tell_all(snapshot, after, every).await;
    }

    async fn tell_all(
        &mut self,
        snapshot: Option<Vec<Token>>,
        mut after: i64,
        every: Duration,
    ) -> Result<(), Done> {
        if let Some(tokens) = snapshot {
            let careless = self.state.lock().unwrap().careless;
            let inside = if careless { self.cursor(after) } else { String::new() };
            self.tell(Item::Heartbeat(Heartbeat::default()), inside.clone()).await?;
            for page in tokens.chunks(BATCH) {
                let page = SnapshotPage { tokens: page.to_vec() };
                self.tell(Item::Snapshot(page), inside.clone()).await?;
            }
            let complete = SnapshotComplete { token_count: tokens.len().try_into().unwrap() };
            self.tell(Item::SnapshotComplete(complete), self.cursor(after)).await?;
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
                    self.tell(Item::Events(EventBatch { events: batch }), self.cursor(after)).await?;
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
        self.tell(Item::Heartbeat(beat), self.cursor(after)).await
    }

    async fn tell(&mut self, item: Item, cursor: String) -> Result<(), Done> {
        let pace = self.state.lock().unwrap().pace;
        tokio::time::sleep(pace).await;
        let answer = WatchExpiryEventsResponse { cursor, item: Some(item), ..Default::default() };
        self.answers.send(Ok(answer)).await.map_err(|_| Done)?;
        self.told += 1;
        match self.end.take_if(|(answers, _)| *answers == self.told) {
            None => return Ok(()),
            Some((_, End::Well)) => {}
            Some((_, End::With(status))) => {
                let _ = self.answers.send(Err(status)).await;
            }
            Some((_, End::Silent)) => self.answers.closed().await,
        }
        Err(Done)
    }

    fn cursor(&self, sequence: i64) -> String {
        self.state.lock().unwrap().cursor(sequence)
    }
}
