//! ListJobs, RunJob and ListJobRuns.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::model::{Principal, RequestId, Timestamp};
use crate::store::{JobRun, RunCause};
use crate::vault::access::require_all_workspaces;
use crate::vault::error::VaultError;
use crate::vault::jobs::run::StartedRun;
use crate::vault::state::Vault;
use crate::vault::timetable::JobKind;

/// How many times to look for a run in progress or try to begin one, and the pause between two tries.
const TRIES: u32 = 100;
const RETRY: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub name: &'static str,
    /// Six fields, seconds first, in UTC. Empty for a job that something else starts.
    pub cron: String,
    pub next_run_at: Option<Timestamp>,
    pub last_run: Option<JobRun>,
}

#[derive(Debug, Clone)]
pub struct RunJob {
    pub request_id: Option<RequestId>,
    pub job: String,
}

#[derive(Debug, Clone, Default)]
pub struct ListJobRuns {
    /// Runs of this job only.
    pub job: Option<String>,
    /// 1 to 1000.
    pub page_size: u32,
    /// Empty for the first page.
    pub page_token: String,
}

#[derive(Debug)]
pub struct JobRunPage {
    pub runs: Vec<JobRun>,
    /// Empty on the last page.
    pub next_page_token: String,
}

impl Vault {
    /// # Errors
    /// `StorageUnavailable`.
    pub async fn list_jobs(&self, caller: &Principal) -> Result<Vec<Job>, VaultError> {
        let now = self.clock.now();
        let mut session = self.store.read().await?;
        let mut jobs = Vec::with_capacity(JobKind::ALL.len());
        for &job in JobKind::ALL {
            let cron = self.jobs.timetable.cron(job);
            jobs.push(Job {
                name: job.as_str(),
                cron: match (job, cron) {
                    // This job runs all the time, so show the expression that comes closest.
                    (JobKind::ExpiryDeadlines, _) => "* * * * * *".to_owned(),
                    (_, cron) => cron.map_or_else(String::new, ToString::to_string),
                },
                next_run_at: match (job, cron) {
                    (JobKind::ExpiryDeadlines, _) => Some(now + Duration::from_secs(1)),
                    (_, cron) => cron.and_then(|cron| cron.next_after(now)),
                },
                last_run: session.last_run(job.as_str()).await?.map(|run| visible_to(caller, run)),
            });
        }
        Ok(jobs)
    }

    /// Runs a job now, or returns the run in progress.
    ///
    /// # Errors
    /// `JobNotFound`; `RoleInsufficient`, since a job works on every workspace's tokens.
    pub async fn run_job(
        self: &Arc<Self>,
        caller: &Principal,
        command: RunJob,
    ) -> Result<JobRun, VaultError> {
        require_all_workspaces(caller)?;
        let job = JobKind::parse(&command.job)?;
        let request = self.request("RunJob", command.request_id.as_ref(), &[job.as_str().as_bytes()]);
        let work = async |claim| {
            let run = self.run_now(job).await?;
            self.finish_afterwards(claim, StartedRun { run: run.id }).await;
            tracing::info!(job = run.job, run = %run.id, by = caller.name, "job requested");
            Ok(run)
        };
        self.once(caller, request, work, async |started| self.started_run(started).await).await
    }

    /// Begins a run, or finds the one in progress.
    async fn run_now(self: &Arc<Self>, job: JobKind) -> Result<JobRun, VaultError> {
        // The run in progress may end between the two checks; then the next try begins a new one.
        for _ in 0..TRIES {
            if let Some(in_flight) = self.jobs.runs.enter(job.as_str())
                && let Some(run) = self.begin_run(job, self.clock.now(), RunCause::Request).await?
            {
                self.spawn_run(job, run.clone(), in_flight);
                return Ok(run);
            }
            if let Some(run) = self.store.read().await?.running(job.as_str()).await? {
                return Ok(run);
            }
            tokio::time::sleep(RETRY).await;
        }
        Err(VaultError::Overloaded)
    }

    /// A page of runs, newest first.
    ///
    /// # Errors
    /// `JobNotFound`, `PageTokenInvalid`, `PageTokenMismatch`.
    pub async fn list_job_runs(
        &self,
        caller: &Principal,
        query: ListJobRuns,
    ) -> Result<JobRunPage, VaultError> {
        let job = match &query.job {
            Some(name) => JobKind::parse(name)?.as_str(),
            None => "",
        };
        let hash = self.query_hash(caller, "ListJobRuns", &[job.as_bytes()]);
        let before = match query.page_token.as_str() {
            "" => Uuid::max(),
            token => Uuid::parse_str(&self.read_page_token(token, &hash)?)
                .map_err(|_| VaultError::PageTokenInvalid)?,
        };
        let limit = i64::from(query.page_size.clamp(1, 1_000));
        let mut runs = self.store.read().await?.job_runs(job, before, limit + 1).await?;
        let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = runs.len() > wanted;
        runs.truncate(wanted);
        let runs: Vec<_> = runs.into_iter().map(|run| visible_to(caller, run)).collect();
        let next_page_token = match runs.last() {
            Some(last) if more => self.write_page_token(&last.id.to_string(), &hash)?,
            _ => String::new(),
        };
        Ok(JobRunPage { runs, next_page_token })
    }
}

/// Removes what concerns the whole vault from a run, if the caller must not see that: replica, counts and error.
fn visible_to(caller: &Principal, run: JobRun) -> JobRun {
    if caller.reaches_all_workspaces() {
        return run;
    }
    JobRun { done: 0, total: 0, failed: 0, replica: String::new(), error: String::new(), ..run }
}
