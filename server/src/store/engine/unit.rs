//! A unit of work: what one caller wants written, and what becomes of it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use crate::model::ConnectionId;
use crate::store::origin::Origin;
use crate::store::sql::{StoreError, Tx};

/// The most times that a unit runs if it keeps losing races.
const ATTEMPTS: u32 = 3;

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
pub(super) enum Ended {
    Done,
    /// Only its own savepoint is rolled back.
    RolledBack,
    /// It lost a race and may run again.
    Race,
    /// It waited in vain for a lock. Whoever shares its transaction has waited too, so it does not run again.
    Locked(StoreError),
    TransactionLost(StoreError),
}

/// A unit with its types erased. It keeps its own result until the outcome of the commit is known.
pub(super) trait Unit: Send {
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
pub struct Numbered(pub(super) i64);

impl Numbered {
    /// The final number of an event whose number within the transaction was the (negative) `sequence`.
    pub const fn resolve(self, sequence: i64) -> i64 {
        if sequence < 0 { self.0 - sequence } else { sequence }
    }
}

/// A unit's result, and how the unit's events were numbered.
pub(super) type Written<T, E> = Result<(T, Numbered), Abort<E>>;

pub(super) struct Job<F, T, E> {
    work: F,
    needs: Needs,
    result: Option<Result<T, Abort<E>>>,
    attempts: u32,
    origin: Option<Arc<Origin>>,
    caller: oneshot::Sender<Written<T, E>>,
}

impl<F, T, E> Job<F, T, E> {
    /// A unit whose result goes to `caller`.
    pub(super) fn new(needs: Needs, work: F, caller: oneshot::Sender<Written<T, E>>) -> Self {
        Self { work, needs, result: None, attempts: 0, origin: Origin::current(), caller }
    }
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
                Err(Abort::Store(error @ StoreError::Locked(_))) => Ended::Locked(error.clone()),
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
