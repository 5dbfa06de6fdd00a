//! Idempotency keys: a request is claimed before its work, and its outcome is written in the work's own transaction.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio_util::task::TaskTracker;

use crate::model::{Principal, RequestId};
use crate::store::{Abort, Claim, Claimed, Origin, RequestOutcome, Store, Tx};
use crate::vault::error::VaultError;
use crate::vault::state::Vault;
use crate::vault::state::in_flight::{InFlightGuard, RequestKey};

/// A request that must be carried out once. See [`Vault::request`].
pub(in crate::vault) struct Request {
    rpc: &'static str,
    id: Option<RequestId>,
    hash: Vec<u8>,
}

/// The right to carry out a request; empty for a request without an id.
#[derive(Clone, Default)]
pub(in crate::vault) struct RequestClaim(Option<Arc<Held>>);

/// A claim that a task of this process works on. If all who do are gone without having settled it, because their caller
/// hung up, it is given up: a repeat at another process would have to wait for it.
struct Held {
    claim: Claim,
    in_flight: Option<InFlightGuard<RequestKey>>,
    settled: AtomicBool,
    store: Arc<Store>,
    tasks: TaskTracker,
}

impl Drop for Held {
    fn drop(&mut self) {
        if *self.settled.get_mut() {
            return;
        }
        let (store, claim, in_flight) = (Arc::clone(&self.store), self.claim.clone(), self.in_flight.take());
        self.tasks.spawn(async move {
            give_up(&store, claim).await;
            drop(in_flight);
        });
    }
}

impl RequestClaim {
    /// Writes the outcome, in the transaction that does the work.
    pub(in crate::vault) async fn finish(
        &self,
        tx: &mut Tx,
        outcome: &impl Serialize,
    ) -> Result<(), Abort<VaultError>> {
        let Some(held) = &self.0 else { return Ok(()) };
        let claim = &held.claim;
        let outcome = serde_json::to_value(outcome).map_err(|_| Abort::Work(VaultError::Internal))?;
        if tx.finish_request(claim, &outcome).await? {
            Ok(())
        } else {
            // Another process took the claim over while we worked, and carries the request out.
            Err(Abort::Work(VaultError::RequestInProgress(claim.request_id.clone())))
        }
    }

    /// Nothing is left to give up.
    fn settle(&self) {
        if let Some(held) = &self.0 {
            held.settled.store(true, Ordering::Release);
        }
    }
}

/// The outcome of a request whose response needs nothing but the request itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::vault) struct NoOutcome {}

enum Begun {
    Ours(RequestClaim),
    Done(RequestOutcome),
}

impl Vault {
    /// A request that is carried out once, or each time if it has no id. `parts` is the whole parsed request, including
    /// secrets; only a keyed hash of it is kept.
    pub(in crate::vault) fn request(
        &self,
        rpc: &'static str,
        id: Option<&RequestId>,
        parts: &[&[u8]],
    ) -> Request {
        let hash = id.map(|_| self.keys.index.mac(rpc, parts).to_vec()).unwrap_or_default();
        Request { rpc, id: id.cloned(), hash }
    }

    /// Carries out a request once. `work` does it, and writes its outcome with [`RequestClaim::finish`]; if it fails,
    /// the request may be tried again. For a request that was carried out before, `repeat` makes the response from
    /// the stored outcome.
    pub(in crate::vault) async fn once<T, O, W, R>(
        &self,
        caller: &Principal,
        request: Request,
        work: impl FnOnce(RequestClaim) -> W,
        repeat: impl FnOnce(O) -> R,
    ) -> Result<T, VaultError>
    where
        O: DeserializeOwned,
        W: Future<Output = Result<T, VaultError>>,
        R: Future<Output = Result<T, VaultError>>,
    {
        let rpc = request.rpc;
        match self.begin(caller, request).await? {
            Begun::Ours(claim) => {
                let done = work(claim.clone()).await;
                match &done {
                    Ok(_) => claim.settle(),
                    // Work goes on after its caller has stopped waiting, and may still finish the claim.
                    Err(VaultError::OutOfTime) => {}
                    Err(_) => {
                        claim.settle();
                        if let Some(held) = &claim.0 {
                            give_up(&self.store, held.claim.clone()).await;
                        }
                    }
                }
                done
            }
            Begun::Done(outcome) => {
                let outcome = serde_json::from_value(outcome).map_err(|error| {
                    tracing::error!(rpc, %error, "the stored outcome of a request can't be read");
                    VaultError::Internal
                })?;
                repeat(outcome).await
            }
        }
    }

    /// Writes the outcome of work that has already been committed. If that fails, a repeated request starts from the
    /// beginning.
    pub(in crate::vault) async fn finish_afterwards(
        &self,
        claim: RequestClaim,
        outcome: impl Serialize + Clone + Send + Sync + 'static,
    ) {
        let finished = self
            .store
            .write(move |tx| {
                let (claim, outcome) = (claim.clone(), outcome.clone());
                Box::pin(async move { claim.finish(tx, &outcome).await })
            })
            .await;
        if let Err(error) = finished {
            tracing::warn!(error = %VaultError::from(error), "a request's outcome could not be written; a repeat starts it from the beginning");
        }
    }

    async fn begin(&self, caller: &Principal, request: Request) -> Result<Begun, VaultError> {
        Origin::note_request(request.id.as_ref());
        let Some(request_id) = request.id else { return Ok(Begun::Ours(RequestClaim::default())) };
        let key = (caller.name.clone(), request.rpc, request_id.clone());
        // Another task that works on this request may have written its outcome already; then that is the response.
        let in_flight = self.requests_in_flight.enter(key);
        let other_task_works = in_flight.is_none();
        let mut claim = Claim {
            principal: caller.name.clone(),
            rpc: request.rpc,
            request_id,
            hash: request.hash,
            incarnation: self.store.incarnation(),
            generation: 1,
        };
        let (unit_claim, now) = (claim.clone(), self.clock.now());
        let claimed = self
            .store
            .write(move |tx| {
                let claim = unit_claim.clone();
                Box::pin(async move {
                    let claimed = tx.claim_request(&claim, now).await?;
                    let Claimed::HeldBy(owner, generation) = claimed else { return Ok(claimed) };
                    // A claim of a process that has ended is free, and so is one of ours that no task works on.
                    let held = if owner == claim.incarnation {
                        other_task_works
                    } else {
                        tx.replica_lives(owner).await?
                    };
                    if held {
                        return Ok(claimed);
                    }
                    if tx.take_over_request(&claim, generation).await? {
                        return Ok(Claimed::Ours { generation: generation + 1 });
                    }
                    Ok::<_, Abort<VaultError>>(claimed)
                })
            })
            .await?;
        match claimed {
            Claimed::Ours { generation } => {
                claim.generation = generation;
                let settled = AtomicBool::new(false);
                let (store, tasks) = (Arc::clone(&self.store), self.work.tasks.clone());
                let held = Held { claim, in_flight, settled, store, tasks };
                Ok(Begun::Ours(RequestClaim(Some(Arc::new(held)))))
            }
            Claimed::Done(outcome) => Ok(Begun::Done(outcome)),
            Claimed::OtherRequest => Err(VaultError::RequestIdReused(claim.request_id)),
            Claimed::HeldBy(..) => Err(VaultError::RequestInProgress(claim.request_id)),
        }
    }
}

/// Gives up the claim of work that failed, so that the caller may try again. A claim whose outcome was written stays:
/// the commit may have succeeded although its reply was lost.
async fn give_up(store: &Store, claim: Claim) {
    let dropped = store
        .write(move |tx| {
            let claim = claim.clone();
            Box::pin(async move {
                tx.drop_unfinished_request(&claim).await?;
                Ok::<_, Abort<VaultError>>(())
            })
        })
        .await;
    if let Err(Abort::Store(error)) = dropped {
        tracing::warn!(%error, "a failed request's claim could not be given up");
    }
}
