//! A run of a job: its row, and how it notes progress. The row holds the whole state of the run, so that any process
//! can continue where another one stopped.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::Timestamp;
use crate::store::{Abort, JobRun, RunCause, RunState, StoreError};
use crate::vault::error::VaultError;
use crate::vault::state::Vault;
use crate::vault::timetable::JobKind;

/// Why a run stopped before it was done.
pub enum RunFailed {
    /// This process is stopping, or another one has taken the run over. Another process continues the run.
    Stopped,
    /// Some of what was due is left, for this reason. It stays due, and a later run goes on.
    Incomplete(String),
    Error(VaultError),
}

impl From<VaultError> for RunFailed {
    fn from(error: VaultError) -> Self {
        Self::Error(error)
    }
}

impl From<StoreError> for RunFailed {
    fn from(error: StoreError) -> Self {
        Self::Error(error.into())
    }
}

/// Writes how far a run is.
pub struct Progress<'v> {
    pub(super) vault: &'v Vault,
}

impl Progress<'_> {
    /// Fails when another process has taken the run over, or this one is stopping.
    pub async fn note(&self, run: &JobRun) -> Result<(), RunFailed> {
        let unit = run.clone();
        let ours = self
            .vault
            .store
            .write(move |tx| {
                let run = unit.clone();
                Box::pin(async move { Ok::<_, Abort<VaultError>>(tx.note_progress(&run).await?) })
            })
            .await
            .map_err(VaultError::from)?;
        if ours && !self.vault.work.stopping.is_cancelled() { Ok(()) } else { Err(RunFailed::Stopped) }
    }
}

/// The stored outcome of a request that began a run. Its field names never change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartedRun {
    pub run: Uuid,
}

impl Vault {
    /// Writes a new run; `None` if the job has one already.
    pub(in crate::vault) async fn begin_run(
        &self,
        job: JobKind,
        slot: Timestamp,
        cause: RunCause,
    ) -> Result<Option<JobRun>, VaultError> {
        let run = self.new_run(job, slot, cause);
        let begun = self.begin_run_row(run.clone(), cause).await?;
        Ok(begun.then_some(run))
    }

    /// Writes the row of a new run; `false` if the job has a run already.
    pub(super) async fn begin_run_row(&self, run: JobRun, cause: RunCause) -> Result<bool, VaultError> {
        Ok(self
            .store
            .write(move |tx| {
                let run = run.clone();
                Box::pin(async move {
                    let begun = tx.begin_run(&run, cause).await?;
                    if begun && cause == RunCause::Request && run.position.is_empty() {
                        tx.audit_object(format!("job_run:{}", run.id), run.started_at);
                    }
                    Ok::<_, Abort<VaultError>>(begun)
                })
            })
            .await?)
    }

    /// A run of this process, not yet written.
    pub(in crate::vault) fn new_run(&self, job: JobKind, slot: Timestamp, cause: RunCause) -> JobRun {
        let now = self.clock.now();
        let (seconds, nanos) = now.unix_parts();
        JobRun {
            id: Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos)),
            job: job.as_str().to_owned(),
            state: RunState::Running,
            catch_up: cause == RunCause::CatchUp,
            scheduled_for: slot,
            position: String::new(),
            done: 0,
            total: 0,
            failed: 0,
            remaining: 0,
            error: String::new(),
            incarnation: self.store.incarnation(),
            generation: 1,
            replica: self.replica.clone(),
            started_at: now,
            ended_at: None,
        }
    }

    /// Continues a run whose process has ended; `None` if another replica was first.
    pub(super) async fn take_over(&self, mut run: JobRun) -> Result<Option<JobRun>, VaultError> {
        let (unit, own, replica) = (run.clone(), self.store.incarnation(), self.replica.clone());
        let taken = self
            .store
            .write(move |tx| {
                let (run, replica) = (unit.clone(), replica.clone());
                Box::pin(
                    async move { Ok::<_, Abort<VaultError>>(tx.take_over_run(&run, own, &replica).await?) },
                )
            })
            .await?;
        if !taken {
            return Ok(None);
        }
        tracing::info!(job = run.job, run = %run.id, done = run.done, "continuing a run whose process has ended");
        run.generation += 1;
        run.incarnation = own;
        run.replica.clone_from(&self.replica);
        Ok(Some(run))
    }

    /// The run that a repeated request began.
    pub(super) async fn started_run(&self, started: StartedRun) -> Result<JobRun, VaultError> {
        self.store.read().await?.job_run(started.run).await?.ok_or(VaultError::Internal)
    }
}
