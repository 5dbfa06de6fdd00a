//! Every write is a unit of work. One writer drains the waiting units into one transaction, each in
//! a savepoint, and answers all of them after the flush: many callers share one durable commit.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::Change;
use super::Coherence;
use super::Feed;
use crate::model::{Clock, ConnectionId, EventKind, EventWord, FeedPosition};
use crate::store::StoreError;
use crate::store::audit::{Audited, Origin, Outbox};
use crate::store::sql::{Pool, Session};

/// At most so many units share one commit.
const BATCH: usize = 48;
/// At most so many units wait; more are refused at once rather than queued for ever.
const QUEUE: usize = 4_096;
/// A unit that lost a race runs again at most so often.
const ATTEMPTS: u32 = 3;
/// Longest time for a batch, and for its COMMIT.
const TIME: Duration = Duration::from_secs(15);

/// A transaction in which a unit runs: reads (it derefs to a session) and writes.
pub struct Tx {
    session: Session,
    changes: Vec<Change>,
    events: Vec<EventWord>,
    /// On whose behalf the unit that runs now works.
    origin: Option<Arc<Origin>>,
    audited: Vec<Audited>,
}

impl Tx {
    /// Tells every cache, here and in other replicas, to drop something once this commits.
    pub(in crate::store) fn changed(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// Adds an event; it gets its number with the transaction's end.
    pub(in crate::store) fn push_event(&mut self, word: EventWord) {
        self.events.push(word);
    }

    /// On whose behalf this is done.
    pub(in crate::store) fn origin(&self) -> Option<&Arc<Origin>> {
        self.origin.as_ref()
    }

    /// The audit records so far; they are written at the transaction's end.
    pub(in crate::store) fn audited(&mut self) -> &mut Vec<Audited> {
        &mut self.audited
    }

    /// The events so far.
    pub(in crate::store) fn events(&self) -> &[EventWord] {
        &self.events
    }

    /// How many deaths otherwise than by time are among the events so far.
    pub fn deaths_so_far(&self) -> usize {
        self.events.iter().filter(|word| word.kind == EventKind::Invalidated).count()
    }

    /// Takes the events, to number them.
    pub(in crate::store) fn take_events(&mut self) -> Vec<EventWord> {
        std::mem::take(&mut self.events)
    }
}

impl Deref for Tx {
    type Target = Session;
    fn deref(&self) -> &Session {
        &self.session
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.session
    }
}

/// Why a unit of work did not commit.
#[derive(Debug)]
pub enum Abort<E> {
    /// Storage failed.
    Store(StoreError),
    /// The unit itself refused, and was rolled back.
    Refused(E),
}

impl<E> From<StoreError> for Abort<E> {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// How a unit's part of the transaction ended.
enum Ended {
    /// It wants to be committed.
    Done,
    /// It refused: only its own savepoint is rolled back.
    RolledBack,
    /// It lost a race and may run again.
    Race,
    /// The whole transaction is lost.
    TransactionLost(StoreError),
}

/// A unit with its types erased: it keeps its own result until the commit is known.
trait Unit: Send {
    fn run<'t>(&'t mut self, tx: &'t mut Tx) -> BoxFuture<'t, Ended>;
    /// Whether it has tries left; counts them.
    fn may_run_again(&mut self) -> bool;
    /// The connections that it will change; all of a batch are locked at once, in order.
    fn connections(&self) -> &[ConnectionId];
    /// Whether it wants a transaction of its own.
    fn is_alone(&self) -> bool;
    fn answer(self: Box<Self>, lost: Option<StoreError>, numbered: Numbered);
}

/// What a unit needs of its transaction.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    /// The connections that it will change: they are locked before it runs, in one order everywhere.
    pub connections: Vec<ConnectionId>,
    /// A transaction of its own: it locks what it finds, or much.
    pub alone: bool,
}

/// How the events of a transaction were numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Numbered(i64);

impl Numbered {
    /// The number that a stand-in stands for.
    pub const fn resolve(self, sequence: i64) -> i64 {
        if sequence < 0 { self.0 - sequence } else { sequence }
    }
}

/// What a caller of the writer gets.
type Answer<T, E> = Result<(T, Numbered), Abort<E>>;

struct Job<F, T, E> {
    work: F,
    needs: Needs,
    result: Option<Result<T, Abort<E>>>,
    tries: u32,
    origin: Option<Arc<Origin>>,
    reply: oneshot::Sender<Answer<T, E>>,
}

impl<F, T, E> Unit for Job<F, T, E>
where
    F: for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<T, Abort<E>>> + Send,
    T: Send,
    E: Send,
{
    fn run<'t>(&'t mut self, tx: &'t mut Tx) -> BoxFuture<'t, Ended> {
        tx.origin.clone_from(&self.origin);
        // Making the future may panic as well as running it; neither may end the writer.
        let mut tx = Some(tx);
        let started = std::panic::catch_unwind(AssertUnwindSafe(|| tx.take().map(&self.work))).ok().flatten();
        let result = &mut self.result;
        Box::pin(async move {
            let outcome = match started {
                Some(work) => AssertUnwindSafe(work).catch_unwind().await.ok(),
                None => None,
            };
            let answer = outcome.unwrap_or_else(|| {
                Err(Abort::Store(StoreError::Refused("a unit of work panicked; see the log".into())))
            });
            let ended = match &answer {
                Ok(_) => Ended::Done,
                Err(Abort::Refused(_)) => Ended::RolledBack,
                Err(Abort::Store(StoreError::Race(_))) => Ended::Race,
                Err(Abort::Store(error)) if error.ends_transaction() => Ended::TransactionLost(error.clone()),
                Err(Abort::Store(_)) => Ended::RolledBack,
            };
            *result = Some(answer);
            ended
        })
    }

    fn may_run_again(&mut self) -> bool {
        self.tries += 1;
        self.tries < ATTEMPTS
    }

    fn connections(&self) -> &[ConnectionId] {
        &self.needs.connections
    }

    fn is_alone(&self) -> bool {
        self.needs.alone
    }

    fn answer(self: Box<Self>, lost: Option<StoreError>, numbered: Numbered) {
        let result = match (lost, self.result) {
            (Some(error), Some(Ok(_)) | None) => Err(Abort::Store(error)),
            (_, Some(result)) => result.map(|done| (done, numbered)),
            (None, None) => Err(Abort::Store(StoreError::Unavailable("the writer stopped".into()))),
        };
        // A caller that hung up wants no answer; its work stands.
        let _ = self.reply.send(result);
    }
}

/// Hands units to the one writer.
#[derive(Clone)]
pub(in crate::store) struct Writer {
    queue: mpsc::Sender<Box<dyn Unit>>,
}

impl Writer {
    /// Starts the writer. It ends, after the last unit is answered, when every handle is dropped.
    pub(in crate::store) fn start(
        pool: Pool,
        coherence: Arc<Coherence>,
        feed: Arc<Feed>,
        outbox: Outbox,
        clock: Clock,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (queue, units) = mpsc::channel(QUEUE);
        let task = tokio::spawn(drain(pool, Aftermath { coherence, feed, outbox, clock }, units));
        (Self { queue }, task)
    }

    /// Runs `work` in a transaction and answers once it is durable. `work` may run again after a lost
    /// race, so it must await nothing but its transaction. A caller that hangs up cancels only the waiting.
    pub(in crate::store) async fn write<F, T, E>(&self, work: F) -> Result<T, Abort<E>>
    where
        F: for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<T, Abort<E>>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        self.run(Needs::default(), work).await.map(|(done, _)| done)
    }

    /// The same for a unit with needs of its own.
    pub(in crate::store) async fn run<F, T, E>(&self, needs: Needs, work: F) -> Answer<T, E>
    where
        F: for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<T, Abort<E>>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let unit: Box<dyn Unit> =
            Box::new(Job { work, needs, result: None, tries: 0, origin: Origin::current(), reply });
        if self.queue.try_send(unit).is_err() {
            return Err(Abort::Store(StoreError::Unavailable("too many writes are waiting".into())));
        }
        answer
            .await
            .unwrap_or_else(|_| Err(Abort::Store(StoreError::Unavailable("the writer stopped".into()))))
    }
}

/// What a commit has to tell.
struct Aftermath {
    coherence: Arc<Coherence>,
    feed: Arc<Feed>,
    outbox: Outbox,
    clock: Clock,
}

/// What became of a batch.
struct Outcome {
    /// Nothing of it is known to be durable, and why.
    lost: Option<StoreError>,
    /// How its events were numbered.
    numbered: Numbered,
    /// Which of its units lost a race and may run again.
    raced: Vec<bool>,
}

async fn drain(pool: Pool, after: Aftermath, mut units: mpsc::Receiver<Box<dyn Unit>>) {
    let mut waiting: VecDeque<Box<dyn Unit>> = VecDeque::with_capacity(BATCH);
    let mut arrived = Vec::with_capacity(BATCH);
    let mut again: Vec<Box<dyn Unit>> = Vec::new();
    loop {
        if again.is_empty() && waiting.is_empty() && units.recv_many(&mut arrived, BATCH).await == 0 {
            return;
        }
        waiting.extend(arrived.drain(..));
        // What lost a race runs alone, after the locks of its batch are gone: in place it would meet the same
        // deadlock again.
        let mut batch = match again.pop() {
            Some(unit) => vec![unit],
            None => next_batch(&mut waiting),
        };
        let outcome = match pool.session().await {
            Ok(session) => run_batch(session, &after, &mut batch).await,
            Err(error) => Outcome { lost: Some(error), numbered: Numbered::default(), raced: Vec::new() },
        };
        if let Some(error) = &outcome.lost {
            tracing::warn!(%error, units = batch.len(), "writes were not committed");
        }
        let mut raced = outcome.raced.into_iter().chain(std::iter::repeat(false));
        for mut unit in batch {
            if raced.next() == Some(true) && unit.may_run_again() {
                again.push(unit);
            } else {
                unit.answer(outcome.lost.clone(), outcome.numbered);
            }
        }
    }
}

/// The units that go into one transaction: all that wait, up to one that wants to be alone.
fn next_batch(waiting: &mut VecDeque<Box<dyn Unit>>) -> Vec<Box<dyn Unit>> {
    let shared = waiting.iter().take(BATCH).take_while(|unit| !unit.is_alone()).count();
    waiting.drain(..shared.max(1).min(waiting.len())).collect()
}

/// One transaction.
async fn run_batch(session: Session, after: &Aftermath, batch: &mut [Box<dyn Unit>]) -> Outcome {
    let mut tx = Tx { session, changes: Vec::new(), events: Vec::new(), origin: None, audited: Vec::new() };
    let mut raced = vec![false; batch.len()];
    // A link that went silent answers nothing, not even the server's own time-outs.
    let filled = tokio::time::timeout(TIME, fill(&mut tx, batch, &mut raced, after)).await;
    let Tx { mut session, changes, audited, .. } = tx;
    let begun = matches!(filled, Ok(Ok(_)));
    let outcome = match filled {
        Ok(Ok(numbers)) => match tokio::time::timeout(TIME, session.query("COMMIT").execute()).await {
            Ok(committed) => committed.map(|_| numbers),
            Err(_) => Err(StoreError::Unavailable("COMMIT was not answered in time".into())),
        },
        Ok(Err(error)) => Err(error),
        Err(_) => Err(StoreError::Unavailable("a batch of writes was not answered in time".into())),
    };
    // Before any answer, also when the outcome of COMMIT is unknown: nobody may read the old from a cache.
    after.coherence.drop_changed(&changes);
    match outcome {
        Ok((numbered, head)) => {
            if let Some(head) = head {
                after.feed.committed(head);
            }
            after.outbox.committed(audited);
            Outcome { lost: None, numbered, raced }
        }
        Err(error) => {
            session.abandon();
            if begun {
                // COMMIT may have succeeded although its answer was lost.
                after.outbox.doubtful(audited);
            }
            // The whole batch lost a race (for a lock that all of it needs): all of it may run again.
            let all = matches!(error, StoreError::Race(_));
            Outcome { lost: Some(error), numbered: Numbered::default(), raced: vec![all; batch.len()] }
        }
    }
}

/// How the events were numbered, and where the feed ends now if there were any.
type Numbers = (Numbered, Option<FeedPosition>);

async fn fill(
    tx: &mut Tx,
    batch: &mut [Box<dyn Unit>],
    raced: &mut [bool],
    after: &Aftermath,
) -> Result<Numbers, StoreError> {
    tx.query_for("BEGIN IMMEDIATE", "BEGIN").execute().await?;
    let mut connections: Vec<ConnectionId> =
        batch.iter().flat_map(|unit| unit.connections()).copied().collect();
    if !connections.is_empty() {
        connections.sort_unstable();
        connections.dedup();
        tx.lock_connections(&connections).await?;
    }
    for (unit, raced) in batch.iter_mut().zip(raced) {
        let (changes, events, audited) = (tx.changes.len(), tx.events.len(), tx.audited.len());
        tx.query("SAVEPOINT unit").execute().await?;
        match unit.run(tx).await {
            Ended::Done => {
                tx.query("RELEASE SAVEPOINT unit").execute().await?;
            }
            Ended::TransactionLost(error) => return Err(error),
            ended @ (Ended::RolledBack | Ended::Race) => {
                tx.changes.truncate(changes);
                tx.events.truncate(events);
                tx.audited.truncate(audited);
                tx.query("ROLLBACK TO SAVEPOINT unit").execute().await?;
                tx.query("RELEASE SAVEPOINT unit").execute().await?;
                *raced = matches!(ended, Ended::Race);
            }
        }
    }
    after.outbox.write(tx).await?;
    if tx.changes.is_empty() && tx.events.is_empty() {
        return Ok(Numbers::default());
    }
    // After this lock only what has its number from it is written, and COMMIT follows.
    tx.lock_feed().await?;
    number_changes(tx, &after.clock).await?;
    if tx.events.is_empty() {
        return Ok(Numbers::default());
    }
    let (base, head) = tx.number_events(after.clock.now()).await?;
    Ok((Numbered(base), Some(head)))
}

/// Numbers what caches must drop: commit order equals number order across replicas.
async fn number_changes(tx: &mut Tx, clock: &Clock) -> Result<(), StoreError> {
    if tx.changes.is_empty() {
        return Ok(());
    }
    let now = clock.now();
    let named: Vec<(&str, String)> = tx.changes.iter().map(|c| (c.subject(), c.key())).collect();
    tx.query_for(
        "INSERT INTO changes (revision, subject, key, changed_at)
         SELECT (SELECT coalesce(max(revision), 0) FROM changes) + 1 + key, value->>0, value->>1, $2
           FROM json_each($1)",
        "INSERT INTO changes (revision, subject, key, changed_at)
         SELECT (SELECT coalesce(max(revision), 0) FROM changes) + n, c->>0, c->>1, $2
           FROM jsonb_array_elements($1) WITH ORDINALITY AS named (c, n)",
    )
    .bind(sqlx::types::Json(named))
    .bind(now.as_micros())
    .execute()
    .await?;
    Ok(())
}
