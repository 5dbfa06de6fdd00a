//! How much work may be under way at once: detached work and lists, in all and for each principal.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::model::Principal;
use crate::store::Origin;
use crate::vault::error::VaultError;
use crate::vault::state::shares::Shares;

/// The most detached tasks at once. Each makes a provider call or a write of its own.
const DETACHED: usize = 512;
const DETACHED_PER_PRINCIPAL: usize = DETACHED / 4;
/// The most lists and counts at once; further ones wait.
const LISTS: usize = 2;
const LISTS_PER_PRINCIPAL: usize = 1;

/// Detached work and lists have bounds of their own, so that neither crowds out the rest.
pub(in crate::vault) struct Work {
    detached_total: Arc<Semaphore>,
    detached_shares: Shares,
    lists: Semaphore,
    list_shares: Shares,
    /// Everything that runs in the background.
    pub(in crate::vault) tasks: TaskTracker,
    /// Cancelled when the process stops. It ends every watch, and runs of jobs at their next note of progress.
    pub(in crate::vault) stopping: CancellationToken,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            detached_total: Arc::new(Semaphore::new(DETACHED)),
            detached_shares: Shares::new(DETACHED_PER_PRINCIPAL),
            lists: Semaphore::new(LISTS),
            list_shares: Shares::new(LISTS_PER_PRINCIPAL),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
        }
    }
}

impl Work {
    /// Runs work that must not end with its caller. Such work is bounded in number, in all and for each principal,
    /// whatever its callers' deadlines are: calls beyond that are denied at once.
    pub(in crate::vault) async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, VaultError>> + Send + 'static,
    ) -> Result<T, VaultError> {
        if self.tasks.is_closed() {
            return Err(VaultError::ShuttingDown);
        }
        let origin = Origin::current();
        let share = match origin.as_ref().and_then(|origin| origin.principal()) {
            Some(principal) => {
                Some(self.detached_shares.try_take(&principal.name).ok_or(VaultError::Overloaded)?)
            }
            None => None,
        };
        let permit =
            Arc::clone(&self.detached_total).try_acquire_owned().map_err(|_| VaultError::Overloaded)?;
        let work = async move {
            let outcome = work.await;
            drop((permit, share));
            outcome
        };
        // The task keeps its origin, so that what it changes is recorded as the caller's.
        let work = async move {
            match origin {
                Some(origin) => origin.scope(work).await,
                None => work.await,
            }
        };
        self.tasks.spawn(work).await.unwrap_or_else(|error| {
            tracing::error!(%error, "detached work ended without a result");
            Err(VaultError::Internal)
        })
    }

    /// Waits for a permit to list or count. A principal that asks for many at once waits only for its own.
    pub(in crate::vault) async fn list_turn(
        &self,
        caller: &Principal,
    ) -> Result<(SemaphorePermit<'_>, OwnedSemaphorePermit), VaultError> {
        let own = self.list_shares.take(&caller.name).await.ok_or(VaultError::ShuttingDown)?;
        let turn = self.lists.acquire().await.map_err(|_| VaultError::ShuttingDown)?;
        Ok((turn, own))
    }
}
