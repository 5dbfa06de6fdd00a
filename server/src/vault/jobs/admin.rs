//! ListJobs, RunJob and ListJobRuns.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::model::{Principal, RequestId, Timestamp};
use crate::store::{JobRun, RunCause};
use crate::vault::access::require_all_workspaces;
use crate::vault::error::VaultError;
use crate::vault::jobs::run::StartedRun;
use crate::vault::paging::{Filling, full};
use crate::vault::position::NextPage;
use crate::vault::state::Vault;
use crate::vault::timetable::JobKind;

/// How many times to look for a run in progress or try to begin one, and the pause between two tries.
const TRIES: u32 = 100;
const RETRY: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub name: &'static str,
    /// Six fields, seconds first, in UTC. Empty for a job that something else starts, or that is
    /// switched off.
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

    /// Offers the runs of one page, newest first, to `take`, which returns false for one that does not fit any more.
    /// Returns the token of the next page, empty on the last one.
    ///
    /// # Errors
    /// `JobNotFound`, `PageTokenInvalid`, `PageTokenMismatch`.
    pub async fn list_job_runs(
        &self,
        caller: &Principal,
        query: ListJobRuns,
        mut take: impl FnMut(JobRun) -> bool + Send,
    ) -> Result<NextPage, VaultError> {
        let job = match &query.job {
            Some(name) => JobKind::parse(name)?.as_str(),
            None => "",
        };
        let hash = self.query_hash(caller, "ListJobRuns", &[job.as_bytes()]);
        let mut before = match query.page_token.as_str() {
            "" => Uuid::max(),
            token => Uuid::parse_str(&self.read_page_token(token, &hash)?)
                .map_err(|_| VaultError::PageTokenInvalid)?,
        };
        let mut session = self.store.read().await?;
        let mut filling = Filling::of(query.page_size);
        'page: while let Some(rows) = filling.next() {
            let found = session.job_runs(job, before, rows).await?;
            filling.read(found.iter().map(|run| run.error.len() + 512), full(found.len(), rows));
            for run in found {
                let id = run.id;
                if !filling.offer(|| take(visible_to(caller, run))) {
                    break 'page;
                }
                before = id;
            }
        }
        self.next_page(&filling, &before.to_string(), &hash)
    }
}

/// Removes what concerns the whole vault from a run, if the caller must not see that: replica, counts and error.
fn visible_to(caller: &Principal, run: JobRun) -> JobRun {
    if caller.reaches_all_workspaces() {
        return run;
    }
    JobRun { done: 0, total: 0, failed: 0, remaining: 0, replica: String::new(), error: String::new(), ..run }
}
