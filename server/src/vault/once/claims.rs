//! Work on one thing that only one process, and in it one task, may do at a time: exchanges.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::model::{ConnectionId, Incarnation};
use crate::store::{Abort, Tx};
use crate::vault::error::VaultError;
use crate::vault::state::Vault;

/// How long a successor waits before it exchanges: a predecessor that was ended may still be inside its one
/// provider call, which lasts 20 s at most.
const SUCCESSION: Duration = Duration::from_secs(25);

/// What this process works on.
#[derive(Default)]
pub(in crate::vault) struct Working(Arc<Mutex<HashSet<String>>>);

/// Keeps a thing among those worked on until it is dropped.
pub(in crate::vault) struct Place {
    all: Arc<Mutex<HashSet<String>>>,
    scope: String,
}

impl Working {
    /// `None`: another task of this process works on it.
    pub(in crate::vault) fn enter(&self, scope: &str) -> Option<Place> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(scope.to_owned()).then(|| Place { all: Arc::clone(&self.0), scope: scope.to_owned() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.scope);
    }
}

/// A claim that is ours. Everything that rests on it is written with [`Fence::check`].
pub(in crate::vault) struct Claimed {
    pub(in crate::vault) fence: Fence,
    _place: Place,
}

/// What tells a late owner: process life and generation.
#[derive(Clone)]
pub(in crate::vault) struct Fence {
    scope: String,
    incarnation: Incarnation,
    generation: i64,
}

impl Fence {
    /// Refuses the unit when the claim is no longer ours.
    pub(in crate::vault) async fn check(
        &self,
        tx: &mut Tx,
        id: ConnectionId,
    ) -> Result<(), Abort<VaultError>> {
        if tx.holds_claim(&self.scope, self.incarnation, self.generation).await? {
            Ok(())
        } else {
            Err(Abort::Refused(VaultError::ConcurrentChange(id)))
        }
    }
}

impl Vault {
    /// Claims the exchange of a connection's token, across replicas. `None`: somebody else is at it.
    pub(in crate::vault) async fn claim_exchange(
        &self,
        id: ConnectionId,
    ) -> Result<Option<Claimed>, VaultError> {
        self.may_change()?;
        let scope = format!("exchange:{id}");
        let Some(place) = self.working.enter(&scope) else { return Ok(None) };
        let (unit_scope, own, now) = (scope.clone(), self.store.incarnation(), self.clock.now());
        // Generation, and whether it was taken from one that ended.
        let claimed: Option<(i64, bool)> = self
            .store
            .write(move |tx| {
                let scope = unit_scope.clone();
                Box::pin(async move {
                    let owner = match tx.claim(&scope, own, now).await? {
                        Ok(generation) => return Ok(Some((generation, false))),
                        Err(owner) => owner,
                    };
                    // One of our own that no task works on was left by a task that ended badly.
                    if owner != own && tx.replica_lives(owner).await? {
                        return Ok(None);
                    }
                    let generation = tx.claim_generation(&scope).await?;
                    let generation = tx.take_claim(&scope, generation, own, now).await?;
                    Ok::<_, Abort<VaultError>>(Some((generation, owner != own)))
                })
            })
            .await?;
        let Some((generation, inherited)) = claimed else { return Ok(None) };
        let claimed = Claimed { fence: Fence { scope, incarnation: own, generation }, _place: place };
        if inherited {
            tracing::info!(connection = %id, "taking over an exchange from a process that ended; waiting until its last call is over");
            tokio::select! {
                () = tokio::time::sleep(SUCCESSION) => {}
                () = self.stopping.cancelled() => return Err(VaultError::ShuttingDown),
            }
        }
        Ok(Some(claimed))
    }

    /// Refuses when a claim is no longer ours. Asked right before the provider is.
    pub(in crate::vault) async fn confirm_claim(
        &self,
        fence: &Fence,
        id: ConnectionId,
    ) -> Result<(), VaultError> {
        let Fence { scope, incarnation, generation } = fence;
        if self.store.read().await?.holds_claim(scope, *incarnation, *generation).await? {
            Ok(())
        } else {
            Err(VaultError::ConcurrentChange(id))
        }
    }

    /// Gives a claim back.
    pub(in crate::vault) async fn release(&self, claimed: Claimed) {
        let fence = claimed.fence.clone();
        let released = self
            .store
            .write(move |tx| {
                let fence = fence.clone();
                Box::pin(async move {
                    tx.release_claim(&fence.scope, fence.incarnation, fence.generation).await?;
                    Ok::<_, Abort<VaultError>>(())
                })
            })
            .await;
        if let Err(Abort::Store(error)) = released {
            tracing::debug!(%error, "a claim could not be given back; it ends with this process");
        }
    }
}
