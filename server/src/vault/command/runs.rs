//! Jobs: what can be asked of them and what they answer.

use crate::model::{RequestId, Timestamp};
pub use crate::store::{JobRun, RunState};

/// Work that the vault does by the clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its name.
    pub name: &'static str,
    /// When it runs: six fields, seconds first, UTC.
    pub cron: String,
    /// When it runs next.
    pub next_run_at: Option<Timestamp>,
    /// Its latest run.
    pub last_run: Option<JobRun>,
}

/// Runs a job now.
#[derive(Debug, Clone)]
pub struct RunJob {
    /// Idempotency key.
    pub request_id: Option<RequestId>,
    /// Which.
    pub job: String,
}

/// Which runs, newest first.
#[derive(Debug, Clone, Default)]
pub struct ListJobRuns {
    /// Of this job only.
    pub job: Option<String>,
    /// How many at most; 1 to 1000.
    pub page_size: u32,
    /// Where to go on; empty at the start.
    pub page_token: String,
}

/// One page of runs.
#[derive(Debug)]
pub struct JobRunPage {
    /// The runs.
    pub runs: Vec<JobRun>,
    /// Where the next page starts; empty on the last.
    pub next_page_token: String,
}
