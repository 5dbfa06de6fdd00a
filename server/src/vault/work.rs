//! Work that goes on without its caller, and how much of it there may be.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, SemaphorePermit};

use crate::model::Principal;
use crate::store::Origin;
use crate::vault::error::VaultError;
use crate::vault::state::Vault;

impl Vault {
    /// Runs work that must not end with its caller. Such work is bounded in number, over all and for each
    /// principal, whatever its callers' deadlines are: beyond that, calls are refused at once.
    pub(in crate::vault) async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, VaultError>> + Send + 'static,
    ) -> Result<T, VaultError> {
        if self.tasks.is_closed() {
            return Err(VaultError::ShuttingDown);
        }
        let origin = Origin::current();
        let share = match origin.as_ref().and_then(|origin| origin.principal()) {
            Some(principal) => Some(self.rooms.try_take(&principal.name).ok_or(VaultError::Overloaded)?),
            None => None,
        };
        let permit = Arc::clone(&self.room).try_acquire_owned().map_err(|_| VaultError::Overloaded)?;
        let work = async move {
            let outcome = work.await;
            drop((permit, share));
            outcome
        };
        // Whose work it is stays known.
        let work = async move {
            match origin {
                Some(origin) => origin.scope(work).await,
                None => work.await,
            }
        };
        self.tasks.spawn(work).await.unwrap_or_else(|error| {
            tracing::error!(%error, "work ended without an answer");
            Err(VaultError::Internal)
        })
    }

    /// A turn at a list or a count. Whoever asks for many waits for himself.
    pub(in crate::vault) async fn list_turn(
        &self,
        caller: &Principal,
    ) -> Result<(SemaphorePermit<'_>, OwnedSemaphorePermit), VaultError> {
        let own = self.lists_of.take(&caller.name).await.ok_or(VaultError::ShuttingDown)?;
        let turn = self.lists.acquire().await.map_err(|_| VaultError::ShuttingDown)?;
        Ok((turn, own))
    }

    /// Ends every watch, so that the server can.
    pub fn stop_watches(&self) {
        self.stopping.cancel();
    }

    /// Whether work is going on that no caller waits for: runs of jobs, looks at a dead token's siblings.
    pub fn is_busy(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Lets work that has begun come to its end, and closes the database.
    pub async fn close(&self) {
        self.stopping.cancel();
        self.tasks.close();
        if tokio::time::timeout(Duration::from_secs(25), self.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.tasks.len(), "work was still running when the vault closed");
        }
        self.relay_stop.cancel();
        self.relay.close();
        self.relay.wait().await;
        Arc::clone(&self.store).close().await;
    }
}
