//! Group commit: every write is a unit of work. One writer takes the waiting units into one transaction, each in a
//! savepoint, and replies to all of them after the flush, so that many callers share one durable commit.
//!
//! Written by hand because the store's guarantees depend on it: no library that we know batches independent units into
//! one transaction with a savepoint each, numbers their events under a lock, and drops cached rows before it replies.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::cache::Coherence;
use super::live_feed::Feed;
use super::patience::Patience;
use super::unit::{Abort, Ended, Job, Needs, Numbered, Unit, Written};
use crate::model::{Clock, ConnectionId, FeedPosition};
use crate::store::audit::Outbox;
use crate::store::sql::{Pending, Pool, Session, StoreError, Tx};

/// Most units that share one commit.
const BATCH: usize = 48;
/// Most units that wait; more are refused at once.
const QUEUE: usize = 4_096;
/// The longest time for the units of a batch. PostgreSQL ends a slow statement of one unit sooner.
const TIME: Duration = Duration::from_secs(15);
/// A batch that is lost after this long has stalled: the next one would stall too.
const STALLED: Duration = Duration::from_millis(500);

/// Asks for one truncation of SQLite's log. The reply is false if somebody else reads or writes just then.
type Truncation = oneshot::Sender<Result<bool, StoreError>>;

/// Hands units to the one writer.
#[derive(Clone)]
pub(in crate::store) struct Writer {
    queue: mpsc::Sender<Box<dyn Unit>>,
    truncations: mpsc::Sender<Truncation>,
    /// Whether the last batch stalled. Nobody waits then, except a probe.
    stuck: Arc<AtomicBool>,
    closing: CancellationToken,
}

impl Writer {
    /// Starts the writer. It ends once it is told to, and the last unit has its reply.
    pub(in crate::store) fn start(pool: Pool, after: Aftermath) -> (Self, tokio::task::JoinHandle<()>) {
        let (queue, units) = mpsc::channel(QUEUE);
        let (truncations, asked) = mpsc::channel(QUEUE);
        let (stuck, closing) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
        let queues = Queues { units, asked, waiting: VecDeque::with_capacity(BATCH), again: Vec::new() };
        let task = tokio::spawn(drain(pool, after, queues, Arc::clone(&stuck), closing.clone()));
        (Self { queue, truncations, stuck, closing }, task)
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
        if self.stuck.load(Ordering::Acquire) {
            return Err(Abort::Store(StoreError::Unavailable(
                "writes have stalled; nobody waits until one succeeds".into(),
            )));
        }
        self.join_queue(needs, work).await
    }

    /// [`Self::write`] for work that is tried even while writes stall, and so finds out when they succeed again.
    pub(in crate::store) async fn probe<F, T, E>(&self, work: F) -> Result<T, Abort<E>>
    where
        F: for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<T, Abort<E>>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        self.join_queue(Needs::default(), work).await.map(|(done, _)| done)
    }

    async fn join_queue<F, T, E>(&self, needs: Needs, work: F) -> Written<T, E>
    where
        F: for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<T, Abort<E>>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let (caller, reply) = oneshot::channel();
        if self.queue.try_send(Box::new(Job::new(needs, work, caller))).is_err() {
            return Err(Abort::Store(StoreError::Unavailable("too many writes are waiting".into())));
        }
        reply.await.unwrap_or_else(|_| Err(Abort::Store(stopped())))
    }

    /// Tries once to write SQLite's log back and to truncate it, between two batches and on the writer's own
    /// connection: then no write of this process is in the way. `false`: somebody else reads or writes.
    pub(in crate::store) async fn truncate_log(&self) -> Result<bool, StoreError> {
        let (caller, reply) = oneshot::channel();
        self.truncations.send(caller).await.map_err(|_| stopped())?;
        reply.await.unwrap_or_else(|_| Err(stopped()))
    }
}

fn stopped() -> StoreError {
    StoreError::Unavailable("the writer stopped".into())
}

/// Everything that must learn of a commit.
pub(in crate::store) struct Aftermath {
    pub(in crate::store) coherence: Arc<Coherence>,
    pub(in crate::store) feed: Arc<Feed>,
    pub(in crate::store) outbox: Outbox,
    pub(in crate::store) clock: Clock,
    /// Whether the last batch that wrote something could be written.
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
    /// Whether one of its units is durable.
    done: bool,
}

impl Outcome {
    const fn lost(error: StoreError) -> Self {
        Self { lost: Some(error), numbered: Numbered(0), raced: Vec::new(), done: false }
    }
}

/// What waits for the writer.
struct Queues {
    units: mpsc::Receiver<Box<dyn Unit>>,
    asked: mpsc::Receiver<Truncation>,
    /// Units that have arrived, in order.
    waiting: VecDeque<Box<dyn Unit>>,
    /// Units that lost a race. Each runs alone, after its batch has released its locks: in place it would run into the
    /// same deadlock again.
    again: Vec<Box<dyn Unit>>,
}

impl Queues {
    /// The next batch. Waits for one, and truncates the log meanwhile if asked. `None`: the writer is closed.
    async fn next(&mut self, pool: &Pool, closing: &CancellationToken) -> Option<Vec<Box<dyn Unit>>> {
        let mut arrived = Vec::with_capacity(BATCH);
        loop {
            while let Ok(caller) = self.asked.try_recv() {
                truncate_log(pool, caller, &mut self.asked).await;
            }
            if let Some(unit) = self.again.pop() {
                return Some(vec![unit]);
            }
            if !self.waiting.is_empty() {
                return Some(next_batch(&mut self.waiting));
            }
            let arrival = tokio::select! {
                biased;
                arrival = self.units.recv_many(&mut arrived, BATCH) => arrival,
                Some(caller) = self.asked.recv() => {
                    truncate_log(pool, caller, &mut self.asked).await;
                    continue;
                }
                () = closing.cancelled(), if !self.units.is_closed() => {
                    self.units.close();
                    continue;
                }
            };
            if arrival == 0 {
                return None;
            }
            self.waiting.extend(arrived.drain(..));
        }
    }

    /// Refuses everybody who waits.
    fn refuse(&mut self, error: &StoreError) {
        let arrived = std::iter::from_fn(|| self.units.try_recv().ok());
        for unit in self.again.drain(..).chain(self.waiting.drain(..)).chain(arrived) {
            unit.reply(Some(error.clone()), Numbered::default());
        }
    }
}

/// One truncation for all who ask for one.
async fn truncate_log(pool: &Pool, first: Truncation, more: &mut mpsc::Receiver<Truncation>) {
    let callers: Vec<_> = std::iter::once(first).chain(std::iter::from_fn(|| more.try_recv().ok())).collect();
    let truncated = match pool.session().await {
        Ok(mut session) => {
            let truncated = session.truncate_log().await;
            if truncated.is_err() {
                session.abandon();
            }
            truncated
        }
        Err(error) => Err(error),
    };
    for caller in callers {
        let _ = caller.send(truncated.clone());
    }
}

async fn drain(
    pool: Pool,
    after: Aftermath,
    mut queues: Queues,
    stuck: Arc<AtomicBool>,
    closing: CancellationToken,
) {
    while let Some(mut batch) = queues.next(&pool, &closing).await {
        let began = Instant::now();
        let outcome = match pool.session().await {
            Ok(session) => run_batch(session, &after, &mut batch).await,
            Err(error) => Outcome::lost(error),
        };
        if let Some(error) = &outcome.lost {
            tracing::warn!(%error, units = batch.len(), "writes were not committed");
        }
        let away = match &outcome.lost {
            Some(error @ (StoreError::Unavailable(_) | StoreError::Locked(_))) => Some(error),
            _ => None,
        };
        // While the database does not reply at all, the circuit refuses everybody, and closes sooner than a probe comes.
        let stalled = away.is_some() && began.elapsed() >= STALLED && !pool.is_away();
        if stalled && !stuck.swap(true, Ordering::AcqRel) {
            tracing::error!("writes stall: they are refused until one succeeds");
        }
        if outcome.done && stuck.swap(false, Ordering::AcqRel) {
            tracing::info!("writes succeed again");
        }
        // Those who wait have waited for this batch, and one that ended at once may have broken its own connection only.
        if let Some(error) = away.filter(|_| stalled || !*after.writable.borrow()) {
            queues.refuse(error);
        }
        if away.is_some() || outcome.done {
            after.writable.send_if_modified(|was| std::mem::replace(was, outcome.done) != outcome.done);
        }
        let mut raced = outcome.raced.into_iter().chain(std::iter::repeat(false));
        for mut unit in batch {
            if raced.next() == Some(true) && unit.may_run_again() {
                queues.again.push(unit);
            } else {
                unit.reply(outcome.lost.clone(), outcome.numbered);
            }
        }
    }
    pool.close().await;
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
        // All of them wait for it, so it has no more time than they have.
        Ok(Ok(filled)) => match Patience::new().wait(session.query("COMMIT").execute()).await {
            Some(committed) => committed.map(|_| filled),
            None => Err(StoreError::Unavailable("COMMIT did not return in time".into())),
        },
        Ok(Err(error)) => Err(error),
        Err(_) => Err(StoreError::Unavailable("a batch of writes did not return in time".into())),
    };
    // Before any reply, and also when it is unknown whether COMMIT succeeded: no reader may get old rows from a cache.
    after.coherence.drop_changed(&changes);
    match outcome {
        Ok(Filled { done, numbered, head }) => {
            if let Some(head) = head {
                after.feed.committed(head);
            }
            after.outbox.committed(audited);
            if destroyed {
                after.destroyed.notify_one();
            }
            Outcome { lost: None, numbered, raced, done }
        }
        Err(error) => {
            session.abandon();
            if begun {
                // COMMIT may have succeeded although its reply was lost.
                after.outbox.doubtful(audited);
            }
            // The batch was the victim of a deadlock, so every unit may run again.
            let all = matches!(error, StoreError::Race(_));
            Outcome { raced: vec![all; batch.len()], ..Outcome::lost(error) }
        }
    }
}

/// A batch before its COMMIT.
#[derive(Default)]
struct Filled {
    /// Whether a unit succeeded.
    done: bool,
    numbered: Numbered,
    /// Where the feed ends now, if there were events.
    head: Option<FeedPosition>,
}

async fn fill(
    tx: &mut Tx,
    batch: &mut [Box<dyn Unit>],
    raced: &mut [bool],
    after: &Aftermath,
) -> Result<Filled, StoreError> {
    tx.query_for("BEGIN IMMEDIATE", "BEGIN").execute().await?;
    let mut connections: Vec<ConnectionId> =
        batch.iter().flat_map(|unit| unit.connections()).copied().collect();
    if !connections.is_empty() {
        connections.sort_unstable();
        connections.dedup();
        tx.lock_connections(&connections).await?;
    }
    let (mut filled, mut locked) = (Filled::default(), false);
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
                filled.done = true;
                tx.query("RELEASE SAVEPOINT unit").execute().await?;
            }
            Ended::TransactionLost(error) => return Err(error),
            // One unit may wait for a lock of its own. If a second one does too, everybody would wait for each.
            Ended::Locked(error) if locked => return Err(error),
            ended => {
                tx.pending_mut().truncate(&mark);
                tx.query("ROLLBACK TO SAVEPOINT unit").execute().await?;
                tx.query("RELEASE SAVEPOINT unit").execute().await?;
                *raced = matches!(ended, Ended::Race);
                if matches!(ended, Ended::Locked(_)) {
                    locked = true;
                    tx.query_for("SELECT 1", "SET LOCAL lock_timeout = '800ms'").execute().await?;
                }
            }
        }
    }
    after.outbox.write(tx).await?;
    if tx.pending().changes.is_empty() && tx.pending().events.is_empty() {
        return Ok(filled);
    }
    // Under this lock, the transaction writes only rows that get their numbers from it, and COMMIT follows at once.
    tx.lock_feed().await?;
    number_changes(tx, &after.clock).await?;
    if tx.pending().events.is_empty() {
        return Ok(filled);
    }
    let (base, head) = tx.number_events(after.clock.now()).await?;
    Ok(Filled { numbered: Numbered(base), head: Some(head), ..filled })
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
