//! Exchanges: only one task of one process may exchange a connection's token, or a pasted one, at a time.

use std::time::Duration;

use crate::model::{ConnectionId, Incarnation, Secret, WorkspaceId};
use crate::store::{Abort, Tx};
use crate::vault::error::VaultError;
use crate::vault::state::Vault;
use crate::vault::state::in_flight::InFlightGuard;

/// How long a process waits before it exchanges under a claim that it took over: the process that ended may still have
/// its one provider call in progress, which lasts 20 s at most.
const SUCCESSION: Duration = Duration::from_secs(25);

/// How the scopes of claims on pasted tokens begin.
pub(in crate::vault) const PASTES: &str = "paste:";
/// How often to try again for the claim on a pasted token that another task exchanges.
const PASTE_PAUSE: Duration = Duration::from_millis(100);
/// How long to wait for it. Exchanging twice harms nobody, so a caller does not wait for ever.
const PASTE_WAIT: Duration = Duration::from_secs(30);

/// The right to exchange. Every write that relies on it calls [`Fence::check`].
pub(in crate::vault) struct ExchangeClaim {
    pub(in crate::vault) fence: Fence,
    _in_flight: InFlightGuard<String>,
}

/// Identifies the owner of a claim by incarnation and generation, so that an owner that lost it is noticed.
#[derive(Clone)]
pub(in crate::vault) struct Fence {
    scope: String,
    incarnation: Incarnation,
    generation: i64,
}

impl Fence {
    /// Aborts the unit if the claim is no longer ours.
    pub(in crate::vault) async fn check(
        &self,
        tx: &mut Tx,
        id: ConnectionId,
    ) -> Result<(), Abort<VaultError>> {
        if tx.holds_claim(&self.scope, self.incarnation, self.generation).await? {
            Ok(())
        } else {
            Err(Abort::Work(VaultError::ConcurrentChange(id)))
        }
    }
}

impl Vault {
    /// Claims the exchange of a connection's token, across replicas. `None`: another task is exchanging it.
    pub(in crate::vault) async fn claim_exchange(
        &self,
        id: ConnectionId,
    ) -> Result<Option<ExchangeClaim>, VaultError> {
        let Some((claimed, inherited)) = self.claim(format!("exchange:{id}")).await? else { return Ok(None) };
        if inherited {
            tracing::info!(connection = %id, "taking over an exchange from a process that ended; waiting until its last call is over");
            tokio::select! {
                () = tokio::time::sleep(SUCCESSION) => {}
                () = self.work.stopping.cancelled() => return Err(VaultError::ShuttingDown),
            }
        }
        Ok(Some(claimed))
    }

    /// Claims the exchange of a token that was pasted into a workspace, across replicas, and waits until no other task
    /// works on it. `None`: it took too long; exchanging twice is wasteful, but harms nobody.
    pub(in crate::vault) async fn claim_paste(
        &self,
        workspace: &WorkspaceId,
        pasted: &Secret,
    ) -> Result<Option<ExchangeClaim>, VaultError> {
        let mac = self.keys.index.mac("paste", &[workspace.as_str().as_bytes(), pasted.expose().as_bytes()]);
        let scope = format!("{PASTES}{}", hex::encode(mac));
        let claimed = async {
            loop {
                if let Some((claimed, _)) = self.claim(scope.clone()).await? {
                    return Ok(claimed);
                }
                tokio::time::sleep(PASTE_PAUSE).await;
            }
        };
        tokio::time::timeout(PASTE_WAIT, claimed).await.ok().transpose()
    }

    /// Claims a scope, and says whether the claim was taken over from a process that ended. `None`: another task has it.
    async fn claim(&self, scope: String) -> Result<Option<(ExchangeClaim, bool)>, VaultError> {
        self.may_change()?;
        let Some(in_flight) = self.exchanges_in_flight.enter(scope.as_str()) else { return Ok(None) };
        let (unit_scope, own, now) = (scope.clone(), self.store.incarnation(), self.clock.now());
        let claimed: Option<(i64, bool)> = self
            .store
            .write(move |tx| {
                let scope = unit_scope.clone();
                Box::pin(async move {
                    let owner = match tx.claim(&scope, own, now).await? {
                        Ok(generation) => return Ok(Some((generation, false))),
                        Err(owner) => owner,
                    };
                    // A claim of our own that no task works on was left by a task that ended badly.
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
        let fence = Fence { scope, incarnation: own, generation };
        Ok(Some((ExchangeClaim { fence, _in_flight: in_flight }, inherited)))
    }

    /// Fails if a claim is no longer ours. Checked right before the provider is called.
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

    pub(in crate::vault) async fn release(&self, claimed: ExchangeClaim) {
        let fence = claimed.fence.clone();
        let released = self
            .store
            .write(move |tx| {
                let fence = fence.clone();
                Box::pin(async move {
                    let Fence { scope, incarnation, generation } = &fence;
                    if scope.starts_with(PASTES) {
                        tx.drop_claim(scope, *incarnation, *generation).await?;
                    } else {
                        tx.release_claim(scope, *incarnation, *generation).await?;
                    }
                    Ok::<_, Abort<VaultError>>(())
                })
            })
            .await;
        if let Err(Abort::Store(error)) = released {
            tracing::debug!(%error, "a claim could not be given back; it ends with this process");
        }
    }
}
