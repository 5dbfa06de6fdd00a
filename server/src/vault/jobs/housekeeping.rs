//! The jobs `event-retention` and `housekeeping`: they delete what was kept long enough.

use std::time::Duration;

use crate::store::{Abort, JobRun, Needs};
use crate::vault::error::VaultError;
use crate::vault::jobs::run::{Progress, RunFailed};
use crate::vault::once::claims::PASTES;
use crate::vault::state::Vault;

/// How long ended runs are kept.
const RUNS_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long the claim of a process that died is kept.
const CLAIMS_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// How long an authorization is kept after it expired. Until then, a callback that comes again gets the first answer.
const AUTHORIZATIONS_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a connect link is listed after its time is over.
const LINKS_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long people see what became of their request to delete their data. A provider's callback may come again for a week.
const DELETIONS_KEPT: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Events deleted in one transaction.
const EVENTS_AT_ONCE: i64 = 5_000;

impl Vault {
    pub(super) async fn delete_old_events(
        &self,
        run: &mut JobRun,
        progress: &Progress<'_>,
    ) -> Result<(), RunFailed> {
        let before = self.clock.now() - self.policy().event_retention;
        let now = self.clock.now();
        loop {
            // A wrong clock would delete events for good. The run continues once the clock is right.
            if !self.store.trusts_clock() {
                return Err(RunFailed::Stopped);
            }
            self.may_change()?;
            let needs = Needs { alone: true, ..Needs::default() };
            let (deleted, _) = self
                .store
                .write_with(needs, move |tx| {
                    Box::pin(async move {
                        let deleted = tx.compact_events(before, EVENTS_AT_ONCE).await?;
                        if deleted > 0 {
                            tx.audit_object(format!("events:{deleted}"), now);
                        }
                        Ok::<_, Abort<VaultError>>(deleted)
                    })
                })
                .await
                .map_err(VaultError::from)?;
            run.done = run.done.saturating_add(i64::try_from(deleted).unwrap_or(i64::MAX));
            progress.note(run).await?;
            if deleted == 0 {
                return Ok(());
            }
        }
    }

    pub(super) async fn delete_old_rows(&self, run: &mut JobRun) -> Result<(), RunFailed> {
        let now = self.clock.now();
        let deleted = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let requests = tx.forget_requests(now).await?;
                    let runs = tx.forget_runs(now - RUNS_KEPT).await?;
                    let exchanged = tx.forget_exchanged(now).await?;
                    let claims = tx.forget_claims(PASTES, now - CLAIMS_KEPT).await?;
                    let authorizations = tx.forget_authorizations(now - AUTHORIZATIONS_KEPT).await?;
                    let links = tx.forget_connect_links(now - LINKS_KEPT).await?;
                    let deletions = tx.forget_deletions(now - DELETIONS_KEPT).await?;
                    let rows = requests + runs + exchanged + claims + authorizations + links + deletions;
                    Ok::<_, Abort<VaultError>>(rows)
                })
            })
            .await
            .map_err(VaultError::from)?;
        run.done = i64::try_from(deleted).unwrap_or(i64::MAX);
        Ok(())
    }
}
