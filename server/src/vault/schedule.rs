//! Jobs: which there are, when they run, who runs them, and what came of it. All state is rows; the clockwork in
//! `jobs` only wakes this up.

use std::sync::Arc;

use super::{Job, JobRun, JobRunPage, ListJobRuns, RunJob, Vault, VaultError};
use crate::model::Principal;

impl Vault {
    /// The jobs, with their next and last runs.
    ///
    /// # Errors
    /// `StorageUnavailable`.
    pub async fn list_jobs(&self, _caller: &Principal) -> Result<Vec<Job>, VaultError> {
        Err(VaultError::Internal)
    }

    /// Runs a job now, or answers with the run in progress.
    ///
    /// # Errors
    /// `JobNotFound`.
    pub async fn run_job(
        self: &Arc<Self>,
        _caller: &Principal,
        _command: RunJob,
    ) -> Result<JobRun, VaultError> {
        Err(VaultError::Internal)
    }

    /// A page of runs, newest first.
    ///
    /// # Errors
    /// `JobNotFound`, `PageTokenInvalid`, `PageTokenMismatch`.
    pub async fn list_job_runs(
        &self,
        _caller: &Principal,
        _query: ListJobRuns,
    ) -> Result<JobRunPage, VaultError> {
        Err(VaultError::Internal)
    }
}
