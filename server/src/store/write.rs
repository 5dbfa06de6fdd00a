//! Every write is a unit of work. One writer drains the waiting units into one transaction, each in
//! a savepoint, and answers all of them after the flush: many callers share one durable commit.

use std::ops::{Deref, DerefMut};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::cache::Coherence;
use super::db::{Backend, Pool, Session};
use super::{Change, StoreError};
use crate::model::Clock;

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
}

impl Tx {
    /// Tells every cache, here and in other replicas, to drop something once this commits.
    pub(super) fn changed(&mut self, change: Change) {
        self.changes.push(change);
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
    fn answer(self: Box<Self>, lost: Option<StoreError>);
}

struct Job<F, T, E> {
    work: F,
    result: Option<Result<T, Abort<E>>>,
    tries: u32,
    reply: oneshot::Sender<Result<T, Abort<E>>>,
}

impl<F, T, E> Unit for Job<F, T, E>
where
    F: for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<T, Abort<E>>> + Send,
    T: Send,
    E: Send,
{
    fn run<'t>(&'t mut self, tx: &'t mut Tx) -> BoxFuture<'t, Ended> {
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

    fn answer(self: Box<Self>, lost: Option<StoreError>) {
        let result = match (lost, self.result) {
            (Some(error), Some(Ok(_)) | None) => Err(Abort::Store(error)),
            (_, Some(result)) => result,
            (None, None) => Err(Abort::Store(StoreError::Unavailable("the writer stopped".into()))),
        };
        // A caller that hung up wants no answer; its work stands.
        let _ = self.reply.send(result);
    }
}

/// Hands units to the one writer.
#[derive(Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Box<dyn Unit>>,
}

impl Writer {
    /// Starts the writer. It ends, after the last unit is answered, when every handle is dropped.
    pub(super) fn start(
        pool: Pool,
        coherence: Arc<Coherence>,
        clock: Clock,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (queue, units) = mpsc::channel(QUEUE);
        let task = tokio::spawn(drain(pool, coherence, clock, units));
        (Self { queue }, task)
    }

    /// Runs `work` in a transaction and answers once it is durable. `work` may run again after a lost
    /// race, so it must await nothing but its transaction. A caller that hangs up cancels only the waiting.
    pub(super) async fn write<F, T, E>(&self, work: F) -> Result<T, Abort<E>>
    where
        F: for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<T, Abort<E>>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let unit: Box<dyn Unit> = Box::new(Job { work, result: None, tries: 0, reply });
        if self.queue.try_send(unit).is_err() {
            return Err(Abort::Store(StoreError::Unavailable("too many writes are waiting".into())));
        }
        answer
            .await
            .unwrap_or_else(|_| Err(Abort::Store(StoreError::Unavailable("the writer stopped".into()))))
    }
}

/// What became of a batch.
struct Outcome {
    /// Nothing of it is known to be durable, and why.
    lost: Option<StoreError>,
    /// Which of its units lost a race and may run again.
    raced: Vec<bool>,
}

async fn drain(
    pool: Pool,
    coherence: Arc<Coherence>,
    clock: Clock,
    mut units: mpsc::Receiver<Box<dyn Unit>>,
) {
    let mut batch: Vec<Box<dyn Unit>> = Vec::with_capacity(BATCH);
    let mut again: Vec<Box<dyn Unit>> = Vec::new();
    loop {
        // What lost a race runs alone, after the locks of its batch are gone: in place it would meet the same
        // deadlock again.
        match again.pop() {
            Some(unit) => batch.push(unit),
            None if units.recv_many(&mut batch, BATCH).await == 0 => return,
            None => {}
        }
        let outcome = match pool.session().await {
            Ok(session) => run_batch(session, &coherence, &clock, &mut batch).await,
            Err(error) => Outcome { lost: Some(error), raced: Vec::new() },
        };
        if let Some(error) = &outcome.lost {
            tracing::warn!(%error, units = batch.len(), "writes were not committed");
        }
        let mut raced = outcome.raced.into_iter().chain(std::iter::repeat(false));
        for mut unit in batch.drain(..) {
            if raced.next() == Some(true) && unit.may_run_again() {
                again.push(unit);
            } else {
                unit.answer(outcome.lost.clone());
            }
        }
    }
}

/// One transaction.
async fn run_batch(
    session: Session,
    coherence: &Coherence,
    clock: &Clock,
    batch: &mut [Box<dyn Unit>],
) -> Outcome {
    let mut tx = Tx { session, changes: Vec::new() };
    let mut raced = vec![false; batch.len()];
    // A link that went silent answers nothing, not even the server's own time-outs.
    let filled = tokio::time::timeout(TIME, fill(&mut tx, batch, &mut raced, clock)).await;
    let Tx { mut session, changes } = tx;
    let outcome = match filled {
        Ok(Ok(())) => match tokio::time::timeout(TIME, session.query("COMMIT").execute()).await {
            Ok(committed) => committed.map(|_| ()),
            Err(_) => Err(StoreError::Unavailable("COMMIT was not answered in time".into())),
        },
        Ok(Err(error)) => Err(error),
        Err(_) => Err(StoreError::Unavailable("a batch of writes was not answered in time".into())),
    };
    // Before any answer, also when the outcome of COMMIT is unknown: nobody may read the old from a cache.
    coherence.drop_changed(&changes);
    match outcome {
        Ok(()) => Outcome { lost: None, raced },
        Err(error) => {
            session.abandon();
            // The whole batch lost a race (for the lock that numbers changes): all of it may run again.
            let all = matches!(error, StoreError::Race(_));
            Outcome { lost: Some(error), raced: vec![all; batch.len()] }
        }
    }
}

async fn fill(
    tx: &mut Tx,
    batch: &mut [Box<dyn Unit>],
    raced: &mut [bool],
    clock: &Clock,
) -> Result<(), StoreError> {
    tx.query_for("BEGIN IMMEDIATE", "BEGIN").execute().await?;
    for (unit, raced) in batch.iter_mut().zip(raced) {
        let changes = tx.changes.len();
        tx.query("SAVEPOINT unit").execute().await?;
        match unit.run(tx).await {
            Ended::Done => {
                tx.query("RELEASE SAVEPOINT unit").execute().await?;
            }
            Ended::TransactionLost(error) => return Err(error),
            ended @ (Ended::RolledBack | Ended::Race) => {
                tx.changes.truncate(changes);
                tx.query("ROLLBACK TO SAVEPOINT unit").execute().await?;
                tx.query("RELEASE SAVEPOINT unit").execute().await?;
                *raced = matches!(ended, Ended::Race);
            }
        }
    }
    number_changes(tx, clock).await
}

/// Numbers what caches must drop. The lock makes commit order equal number order across replicas; after
/// it only this INSERT and COMMIT follow.
async fn number_changes(tx: &mut Tx, clock: &Clock) -> Result<(), StoreError> {
    if tx.changes.is_empty() {
        return Ok(());
    }
    if tx.backend() == Backend::Postgres {
        tx.query("SELECT pg_advisory_xact_lock(7022001)").execute().await?;
    }
    let now = clock.now();
    let changes = std::mem::take(&mut tx.changes);
    for change in &changes {
        tx.query(
            "INSERT INTO changes (revision, subject, key, changed_at)
             SELECT coalesce(max(revision), 0) + 1, $1, $2, $3 FROM changes",
        )
        .bind(change.subject())
        .bind(change.key())
        .bind(now.as_micros())
        .execute()
        .await?;
    }
    tx.changes = changes;
    Ok(())
}
