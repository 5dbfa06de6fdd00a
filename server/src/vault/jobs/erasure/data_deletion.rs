//! The job `data-deletion`: ends the connections of people who asked their provider for the deletion of their data, and
//! erases the people. What is left to do are rows, so another process continues where one died.

use std::sync::Arc;

use super::shredding::bury;
use crate::model::ConnectionId;
use crate::store::{Abort, JobRun, Needs};
use crate::vault::error::VaultError;
use crate::vault::jobs::run::{Progress, RunFailed};
use crate::vault::state::Vault;

/// Connections that are ended in one transaction.
const ENDED_AT_ONCE: i64 = 100;
/// Who ended them, as their metadata says.
const BY: &str = "data-deletion";

impl Vault {
    /// Carries out every request to delete data that is not done. A connection that can't be ended keeps its request open,
    /// and holds up no other.
    pub(in crate::vault::jobs) async fn delete_data(
        &self,
        run: &mut JobRun,
        progress: &Progress<'_>,
    ) -> Result<(), RunFailed> {
        let mut seen: Option<(i64, String)> = None;
        loop {
            let next = self.store.read().await?.open_deletion_after(seen.as_ref()).await?;
            let Some((at, code)) = next else { break };
            let mut after: Option<ConnectionId> = None;
            loop {
                let page =
                    self.store.read().await?.connections_to_delete(&code, after, ENDED_AT_ONCE).await?;
                after = page.last().copied().or(after);
                let is_last = page.is_empty();
                run.failed += self.end_for_deletion(&code, page.clone()).await?;
                run.done += i64::try_from(page.len()).unwrap_or(0);
                run.total = run.total.max(run.done);
                progress.note(run).await?;
                if is_last {
                    break;
                }
            }
            seen = Some((at, code));
        }
        self.store.scrub().await?;
        run.remaining = run.failed;
        if run.failed == 0 {
            return Ok(());
        }
        Err(RunFailed::Incomplete(format!("{} connections could not be ended; see the log", run.failed)))
    }

    /// Ends connections together, or each alone if that fails. Returns how many could not be ended.
    async fn end_for_deletion(&self, code: &str, page: Vec<ConnectionId>) -> Result<i64, VaultError> {
        let mut failed = 0;
        match self.end_together(code, page.clone()).await {
            Ok(()) => return Ok(failed),
            Err(error) if error.is_outage() || page.is_empty() => return Err(error),
            Err(error) => tracing::warn!(code, %error, "connections are ended one by one"),
        }
        for id in page {
            match self.end_together(code, vec![id]).await {
                Ok(()) => {}
                Err(error) if error.is_outage() => return Err(error),
                Err(error) => {
                    tracing::error!(code, connection = %id, %error, "a connection whose person asked for deletion could not be ended");
                    failed += 1;
                }
            }
        }
        Ok(failed)
    }

    async fn end_together(&self, code: &str, page: Vec<ConnectionId>) -> Result<(), VaultError> {
        let (now, policy, code) = (self.clock.now(), self.policy(), code.to_owned());
        self.store
            .write_with(Needs { connections: page.clone(), alone: true }, move |tx| {
                let (page, code, policy) = (page.clone(), code.clone(), Arc::clone(&policy));
                Box::pin(async move {
                    for id in &page {
                        bury(tx, *id, BY, now, &policy).await?;
                    }
                    tx.note_deleted(&code, &page, now).await?;
                    Ok::<_, Abort<VaultError>>(())
                })
            })
            .await?;
        Ok(())
    }
}
