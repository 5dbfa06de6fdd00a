//! Doing a thing once: a claim before, the outcome in the work's own transaction.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::{Principal, RequestId};
use crate::store::{Abort, Claim, Claimed, Origin, RequestOutcome, Tx};
use crate::vault::error::VaultError;
use crate::vault::state::Vault;

/// Requests that this process works on. A claim of ours that is not among them was left by work that ended
/// without settling (its caller hung up at the wrong moment, or it panicked) and is free.
#[derive(Default)]
pub(in crate::vault) struct InProgress(Arc<Mutex<HashSet<RequestKey>>>);

type RequestKey = (String, &'static str, RequestId);

/// Keeps a request among those in progress until it is dropped.
pub(in crate::vault) struct Working {
    all: Arc<Mutex<HashSet<RequestKey>>>,
    key: RequestKey,
}

impl InProgress {
    /// `None`: a twin is being worked on.
    fn enter(&self, key: RequestKey) -> Option<Working> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(key.clone()).then(|| Working { all: Arc::clone(&self.0), key })
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// A claim that is ours, for as long as we work on it.
#[derive(Clone)]
pub(in crate::vault) struct Owned {
    claim: Claim,
    _working: Option<Arc<Working>>,
}

/// What a request came upon.
pub(in crate::vault) enum Begun {
    /// It is ours to do. `None`: the caller gave no request id.
    Ours(Option<Owned>),
    /// It was done, with this outcome.
    Done(RequestOutcome),
}

impl Vault {
    /// Claims a request. `parts` is the whole parsed request, secrets included; only its keyed hash is kept.
    pub(in crate::vault) async fn begin(
        &self,
        caller: &Principal,
        rpc: &'static str,
        request_id: Option<&RequestId>,
        parts: &[&[u8]],
    ) -> Result<Begun, VaultError> {
        Origin::note_request(request_id);
        let Some(request_id) = request_id else { return Ok(Begun::Ours(None)) };
        let hash = self.keys.index.mac(rpc, parts).to_vec();
        let key = (caller.name.clone(), rpc, request_id.clone());
        // A twin may have written its outcome and still be examining: then the outcome is the answer.
        let working = self.in_progress.enter(key).map(Arc::new);
        let twin_works = working.is_none();
        let mut claim = Claim {
            principal: caller.name.clone(),
            rpc,
            request_id: request_id.clone(),
            hash,
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
                    // The owner's life decides: a claim of a process that has ended is free. One of our own that
                    // we do not work on (or we would not be here) was left behind.
                    let held =
                        if owner == claim.incarnation { twin_works } else { tx.replica_lives(owner).await? };
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
                Ok(Begun::Ours(Some(Owned { claim, _working: working })))
            }
            Claimed::Done(outcome) => Ok(Begun::Done(outcome)),
            Claimed::OtherRequest => Err(VaultError::RequestIdReused(claim.request_id)),
            Claimed::HeldBy(..) => Err(VaultError::RequestInProgress(claim.request_id)),
        }
    }

    /// Writes the outcome, inside the unit that does the work.
    pub(in crate::vault) async fn finish(
        tx: &mut Tx,
        owned: Option<&Owned>,
        outcome: RequestOutcome,
    ) -> Result<(), Abort<VaultError>> {
        let Some(Owned { claim, .. }) = owned else { return Ok(()) };
        if tx.finish_request(claim, &outcome).await? {
            Ok(())
        } else {
            // The claim was taken over while we worked: the other one does it.
            Err(Abort::Refused(VaultError::RequestInProgress(claim.request_id.clone())))
        }
    }

    /// Gives the claim up if the work failed, so that the caller may try again.
    pub(in crate::vault) async fn settle<T>(
        &self,
        owned: Option<Owned>,
        result: Result<T, VaultError>,
    ) -> Result<T, VaultError> {
        let (Some(owned), Err(_)) = (&owned, &result) else { return result };
        let claim = owned.claim.clone();
        // A claim whose outcome was written stays: COMMIT may have succeeded although its answer was lost.
        let dropped = self
            .store
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
        result
    }
}
