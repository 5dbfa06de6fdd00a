//! The job `data-deletion`: ends the connections of people who asked their provider for the deletion of their data, and
//! erases the people. What is left to do are rows, so another process continues where one died.

use std::sync::Arc;

use super::shredding::bury;
use crate::store::{Abort, JobRun, Needs};
use crate::vault::error::VaultError;
use crate::vault::jobs::run::{Progress, RunFailed};
use crate::vault::state::Vault;

/// Connections that are ended in one transaction.
const ENDED_AT_ONCE: i64 = 100;
/// Who ended them, as their metadata says.
const BY: &str = "data-deletion";

impl Vault {
    /// Carries out every request to delete data that is not done.
    pub(in crate::vault::jobs) async fn delete_data(
        &self,
        run: &mut JobRun,
        progress: &Progress<'_>,
    ) -> Result<(), RunFailed> {
        loop {
            let open = self.store.read().await?.oldest_open_deletion().await?;
            let Some(code) = open else { break };
            loop {
                let page = self.store.read().await?.connections_to_delete(&code, ENDED_AT_ONCE).await?;
                let ended = i64::try_from(page.len()).unwrap_or(0);
                let (now, policy, unit_code) = (self.clock.now(), self.policy(), code.clone());
                self.store
                    .write_with(Needs { connections: page.clone(), alone: true }, move |tx| {
                        let (page, code, policy) = (page.clone(), unit_code.clone(), Arc::clone(&policy));
                        Box::pin(async move {
                            for id in &page {
                                bury(tx, *id, BY, now, &policy).await?;
                            }
                            tx.note_deleted(&code, &page, now).await?;
                            Ok::<_, Abort<VaultError>>(())
                        })
                    })
                    .await
                    .map_err(VaultError::from)?;
                run.done += ended;
                run.total = run.total.max(run.done);
                progress.note(run).await?;
                if ended == 0 {
                    break;
                }
            }
            tracing::info!(job = run.job, code, "a person's data is deleted");
        }
        Ok(self.store.scrub().await?)
    }
}
