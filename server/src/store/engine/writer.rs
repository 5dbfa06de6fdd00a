//! Group commit: every write is a unit of work. One writer takes the waiting units into one transaction, each in a
//! savepoint, and replies to all of them after the flush, so that many callers share one durable commit.
//!
//! Written by hand because the store's guarantees depend on it: no library that we know batches independent units into
//! one transaction with a savepoint each, numbers their events under a lock, and drops cached rows before it replies.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::cache::Coherence;
use super::live_feed::Feed;
use crate::model::{Clock, ConnectionId, FeedPosition};
use crate::store::audit::Outbox;
use crate::store::origin::Origin;
use crate::store::sql::{Pending, Pool, Session, StoreError, Tx};

/// Most units that share one commit.
const BATCH: usize = 48;
/// Most units that wait; more are refused at once.
const QUEUE: usize = 4_096;
/// The most times that a unit runs if it keeps losing races.
const ATTEMPTS: u32 = 3;
/// Longest time for a batch, and again for its COMMIT.
const TIME: Duration = Duration::from_secs(15);

/// Why a unit of work did not commit.
#[derive(Debug)]
pub enum Abort<E> {
    /// Storage failed.
    Store(StoreError),
    /// The work itself failed, and was rolled back.
    Work(E),
}

impl<E> From<StoreError> for Abort<E> {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Abort<std::convert::Infallible> {
    /// The storage error of a unit whose own work can't fail.
    pub(in crate::store) fn into_store(self) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Work(never) => match never {},
        }
    }
}

/// How a unit's part of the transaction ended.
enum Ended {
    Done,
    /// Only its own savepoint is rolled back.
    RolledBack,
    /// It lost a race and may run again.
    Race,
    TransactionLost(StoreError),
}

/// A unit with its types erased. It keeps its own result until the outcome of the commit is known.
trait Unit: Send {
    fn run<'t>(&'t mut self, tx: &'t mut Tx) -> BoxFuture<'t, Ended>;
    /// Replaces its result by an error.
    fn fail(&mut self, error: StoreError);
    /// Whether it may run once more after a lost race; counts the attempts.
    fn may_run_again(&mut self) -> bool;
    /// The connections that it will change; all of a batch are locked at once, in order.
    fn connections(&self) -> &[ConnectionId];
    /// Whether it needs a transaction of its own.
    fn is_alone(&self) -> bool;
    fn reply(self: Box<Self>, lost: Option<StoreError>, numbered: Numbered);
}

/// What a unit needs of its transaction.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    /// The connections that it will change. They are locked before it runs, in the same order everywhere.
    pub connections: Vec<ConnectionId>,
    /// It needs a transaction of its own, because it locks many rows or rows that it has yet to find.
    pub alone: bool,
}

/// How the events of a transaction were numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Numbered(i64);

impl Numbered {
    /// The final number of an event whose number within the transaction was the (negative) `sequence`.
    pub const fn resolve(self, sequence: i64) -> i64 {
        if sequence < 0 { self.0 - sequence } else { sequence }
    }
}

/// A unit's result, and how the unit's events were numbered.
type Written<T, E> = Result<(T, Numbered), Abort<E>>;

struct Job<F, T, E> {
    work: F,
    needs: Needs,
    result: Option<Result<T, Abort<E>>>,
    attempts: u32,
    origin: Option<Arc<Origin>>,
    caller: oneshot::Sender<Written<T, E>>,
}

impl<F, T, E> Unit for Job<F, T, E>
where
    F: for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<T, Abort<E>>> + Send,
    T: Send,
    E: Send,
{
    fn run<'t>(&'t mut self, tx: &'t mut Tx) -> BoxFuture<'t, Ended> {
        tx.begin_unit(self.origin.clone());
        // Both creating and running the future may panic; neither may end the writer.
        let mut tx = Some(tx);
        let started = std::panic::catch_unwind(AssertUnwindSafe(|| tx.take().map(&self.work))).ok().flatten();
        let result = &mut self.result;
        Box::pin(async move {
            let outcome = match started {
                Some(work) => AssertUnwindSafe(work).catch_unwind().await.ok(),
                None => None,
            };
            let outcome = outcome.unwrap_or_else(|| {
                Err(Abort::Store(StoreError::Unexpected("a unit of work panicked; see the log".into())))
            });
            let ended = match &outcome {
                Ok(_) => Ended::Done,
                Err(Abort::Work(_)) => Ended::RolledBack,
                Err(Abort::Store(StoreError::Race(_))) => Ended::Race,
                Err(Abort::Store(error)) if error.ends_transaction() => Ended::TransactionLost(error.clone()),
                Err(Abort::Store(_)) => Ended::RolledBack,
            };
            *result = Some(outcome);
            ended
        })
    }

    fn fail(&mut self, error: StoreError) {
        self.result = Some(Err(Abort::Store(error)));
    }

    fn may_run_again(&mut self) -> bool {
        self.attempts += 1;
        self.attempts < ATTEMPTS
    }

    fn connections(&self) -> &[ConnectionId] {
        &self.needs.connections
    }

    fn is_alone(&self) -> bool {
        self.needs.alone
    }

    fn reply(self: Box<Self>, lost: Option<StoreError>, numbered: Numbered) {
        let result = match (lost, self.result) {
            (Some(error), Some(Ok(_)) | None) => Err(Abort::Store(error)),
            (_, Some(result)) => result.map(|done| (done, numbered)),
            (None, None) => Err(Abort::Store(StoreError::Unavailable("the writer stopped".into()))),
        };
        // A caller that hung up gets no reply, but its work stays.
        let _ = self.caller.send(result);
    }
}

/// Hands units to the one writer.
#[derive(Clone)]
pub(in crate::store) struct Writer {
    queue: mpsc::Sender<Box<dyn Unit>>,
    closing: CancellationToken,
}

impl Writer {
    /// Starts the writer. It ends once it is told to, and the last unit has its reply.
    pub(in crate::store) fn start(pool: Pool, after: Aftermath) -> (Self, tokio::task::JoinHandle<()>) {
        let (queue, units) = mpsc::channel(QUEUE);
        let closing = CancellationToken::new();
        let task = tokio::spawn(drain(pool, after, units, closing.clone()));
        (Self { queue, closing }, task)
    }

    /// Accepts no more units. Those that wait are still run.
    pub(in crate::store) fn close(&self) {
        self.closing.cancel();
    }

    /// Runs `work` in a transaction and returns once it is durable. `work` may run again after a lost race, so it must
    /// await nothing but its transaction. A caller that hangs up cancels only the waiting.
    pub(in crate::store) async fn write<F, T, E>(&self, work: F) -> Result<T, Abort<E>>
    where
        F: for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<T, Abort<E>>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        self.run(Needs::default(), work).await.map(|(done, _)| done)
    }

    /// [`Self::write`] for a unit with needs of its own; also returns how the unit's events were numbered.
    pub(in crate::store) async fn run<F, T, E>(&self, needs: Needs, work: F) -> Written<T, E>
    where
        F: for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<T, Abort<E>>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let (caller, reply) = oneshot::channel();
        let unit: Box<dyn Unit> =
            Box::new(Job { work, needs, result: None, attempts: 0, origin: Origin::current(), caller });
        if self.queue.try_send(unit).is_err() {
            return Err(Abort::Store(StoreError::Unavailable("too many writes are waiting".into())));
        }
        reply
            .await
            .unwrap_or_else(|_| Err(Abort::Store(StoreError::Unavailable("the writer stopped".into()))))
    }
}

/// Everything that must learn of a commit.
pub(in crate::store) struct Aftermath {
    pub(in crate::store) coherence: Arc<Coherence>,
    pub(in crate::store) feed: Arc<Feed>,
    pub(in crate::store) outbox: Outbox,
    pub(in crate::store) clock: Clock,
    /// Whether the last batch could be written.
    pub(in crate::store) writable: watch::Sender<bool>,
    /// Told when something secret was deleted or overwritten.
    pub(in crate::store) destroyed: Arc<Notify>,
}

/// The outcome of a batch.
struct Outcome {
    /// Why none of it is known to be durable.
    lost: Option<StoreError>,
    numbered: Numbered,
    /// Which of its units lost a race and may run again.
    raced: Vec<bool>,
}

async fn drain(
    pool: Pool,
    after: Aftermath,
    mut units: mpsc::Receiver<Box<dyn Unit>>,
    closing: CancellationToken,
) {
    let mut waiting: VecDeque<Box<dyn Unit>> = VecDeque::with_capacity(BATCH);
    let mut arrived = Vec::with_capacity(BATCH);
    let mut again: Vec<Box<dyn Unit>> = Vec::new();
    loop {
        if again.is_empty() && waiting.is_empty() {
            let arrival = tokio::select! {
                biased;
                arrival = units.recv_many(&mut arrived, BATCH) => arrival,
                () = closing.cancelled(), if !units.is_closed() => {
                    units.close();
                    continue;
                }
            };
            if arrival == 0 {
                pool.close().await;
                return;
            }
        }
        waiting.extend(arrived.drain(..));
        // A unit that lost a race runs alone, after its batch has released its locks: in place it would run into the
        // same deadlock again.
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
        let writable = !matches!(outcome.lost, Some(StoreError::Unavailable(_)));
        after.writable.send_if_modified(|was| std::mem::replace(was, writable) != writable);
        let mut raced = outcome.raced.into_iter().chain(std::iter::repeat(false));
        for mut unit in batch {
            if raced.next() == Some(true) && unit.may_run_again() {
                again.push(unit);
            } else {
                unit.reply(outcome.lost.clone(), outcome.numbered);
            }
        }
    }
}

/// The units that go into one transaction: all that wait, up to one that needs a transaction of its own.
fn next_batch(waiting: &mut VecDeque<Box<dyn Unit>>) -> Vec<Box<dyn Unit>> {
    let shared = waiting.iter().take(BATCH).take_while(|unit| !unit.is_alone()).count();
    waiting.drain(..shared.max(1).min(waiting.len())).collect()
}

/// Runs a batch in one transaction.
async fn run_batch(session: Session, after: &Aftermath, batch: &mut [Box<dyn Unit>]) -> Outcome {
    let mut tx = Tx::new(session);
    let mut raced = vec![false; batch.len()];
    // A broken connection may go silent, and then not even the server's own time-outs reach us.
    let filled = tokio::time::timeout(TIME, fill(&mut tx, batch, &mut raced, after)).await;
    let (mut session, Pending { changes, audited, destroyed, .. }) = tx.into_parts();
    let begun = matches!(filled, Ok(Ok(_)));
    let outcome = match filled {
        Ok(Ok(numbers)) => match tokio::time::timeout(TIME, session.query("COMMIT").execute()).await {
            Ok(committed) => committed.map(|_| numbers),
            Err(_) => Err(StoreError::Unavailable("COMMIT did not return in time".into())),
        },
        Ok(Err(error)) => Err(error),
        Err(_) => Err(StoreError::Unavailable("a batch of writes did not return in time".into())),
    };
    // Before any reply, and also when it is unknown whether COMMIT succeeded: no reader may get old rows from a cache.
    after.coherence.drop_changed(&changes);
    match outcome {
        Ok((numbered, head)) => {
            if let Some(head) = head {
                after.feed.committed(head);
            }
            after.outbox.committed(audited);
            if destroyed {
                after.destroyed.notify_one();
            }
            Outcome { lost: None, numbered, raced }
        }
        Err(error) => {
            session.abandon();
            if begun {
                // COMMIT may have succeeded although its reply was lost.
                after.outbox.doubtful(audited);
            }
            // The batch lost a race for a lock that every unit needs, so every unit may run again.
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
        let mark = tx.pending().mark();
        tx.query("SAVEPOINT unit").execute().await?;
        let mut ended = unit.run(tx).await;
        if matches!(ended, Ended::Done) && tx.is_unattributed() {
            // The code that started this work lost `Origin::scope`. A change without an origin is not made.
            tracing::error!(
                "a change is refused because it does not say on whose behalf it is made: this is a bug"
            );
            unit.fail(StoreError::Unexpected("it does not say on whose behalf it changes something".into()));
            ended = Ended::RolledBack;
        }
        match ended {
            Ended::Done => {
                tx.query("RELEASE SAVEPOINT unit").execute().await?;
            }
            Ended::TransactionLost(error) => return Err(error),
            ended @ (Ended::RolledBack | Ended::Race) => {
                tx.pending_mut().truncate(&mark);
                tx.query("ROLLBACK TO SAVEPOINT unit").execute().await?;
                tx.query("RELEASE SAVEPOINT unit").execute().await?;
                *raced = matches!(ended, Ended::Race);
            }
        }
    }
    after.outbox.write(tx).await?;
    if tx.pending().changes.is_empty() && tx.pending().events.is_empty() {
        return Ok(Numbers::default());
    }
    // Under this lock, the transaction writes only rows that get their numbers from it, and COMMIT follows at once.
    tx.lock_feed().await?;
    number_changes(tx, &after.clock).await?;
    if tx.pending().events.is_empty() {
        return Ok(Numbers::default());
    }
    let (base, head) = tx.number_events(after.clock.now()).await?;
    Ok((Numbered(base), Some(head)))
}

/// Numbers what caches must drop: the order of numbers is the order of commits, across replicas.
async fn number_changes(tx: &mut Tx, clock: &Clock) -> Result<(), StoreError> {
    if tx.pending().changes.is_empty() {
        return Ok(());
    }
    let now = clock.now();
    let named: Vec<(&str, String)> = tx.pending().changes.iter().map(|c| (c.subject(), c.key())).collect();
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
