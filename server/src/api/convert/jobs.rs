//! Jobs and their runs, and key rotation, which is a job.

use token_vault_proto::v1 as pb;
use token_vault_proto::v1::job_run::State;
use token_vault_proto::v1::rotate_key_request::Key;

use super::bounds::{Filled, texts};
use super::fields::Fields;
use super::time::instant;
use crate::vault::{
    Job, JobRun, KeyToRotate, ListJobRuns, NextPage, RotateKey, RunJob, RunState, VaultError,
};

/// Longest job name that a request may have.
const NAME: usize = 128;

impl TryFrom<pb::RunJobRequest> for RunJob {
    type Error = VaultError;

    fn try_from(request: pb::RunJobRequest) -> Result<Self, VaultError> {
        let mut fields = Fields::default();
        let request_id = fields.request_id(request.request_id);
        let job = fields.text("job", Some(request.job), NAME);
        let job = fields.finish(job)?;
        Ok(Self { request_id, job })
    }
}

impl TryFrom<pb::ListJobRunsRequest> for ListJobRuns {
    type Error = VaultError;

    fn try_from(request: pb::ListJobRunsRequest) -> Result<Self, VaultError> {
        let mut fields = Fields::default();
        let page_size = fields.page_size(request.page_size);
        let page_token = fields.page_token(request.page_token);
        let job = fields.text("job", request.job, NAME);
        fields.check()?;
        Ok(Self { job, page_size, page_token })
    }
}

#[derive(Debug)]
pub(in crate::api) struct Jobs(pub(in crate::api) Vec<Job>);

impl From<Jobs> for pb::ListJobsResponse {
    fn from(Jobs(jobs): Jobs) -> Self {
        Self { jobs: jobs.into_iter().map(Into::into).collect() }
    }
}

impl From<Job> for pb::Job {
    fn from(job: Job) -> Self {
        Self {
            name: job.name.to_owned(),
            cron: job.cron,
            next_run_at: job.next_run_at.map(instant),
            last_run: job.last_run.map(Into::into),
        }
    }
}

impl From<JobRun> for pb::JobRun {
    fn from(run: JobRun) -> Self {
        let state = match run.state {
            RunState::Running => State::Running,
            RunState::Succeeded => State::Succeeded,
            RunState::Incomplete => State::Incomplete,
            RunState::Failed => State::Failed,
            RunState::Abandoned => State::Abandoned,
        };
        Self {
            run_id: run.id.to_string(),
            job: run.job,
            state: state.into(),
            done: run.done,
            total: run.total,
            failed: run.failed,
            replica: run.replica,
            error: texts::sentence(run.error),
            scheduled_for: Some(instant(run.scheduled_for)),
            started_at: Some(instant(run.started_at)),
            ended_at: run.ended_at.map(instant),
            catch_up: run.catch_up,
            remaining: run.remaining,
        }
    }
}

impl From<JobRun> for pb::RunJobResponse {
    fn from(run: JobRun) -> Self {
        Self { run: Some(run.into()) }
    }
}

impl From<Filled<NextPage, pb::JobRun>> for pb::ListJobRunsResponse {
    fn from(page: Filled<NextPage, pb::JobRun>) -> Self {
        let NextPage(next_page_token) = page.rest;
        Self { runs: page.elements, next_page_token }
    }
}

impl TryFrom<pb::RotateKeyRequest> for RotateKey {
    type Error = VaultError;

    fn try_from(request: pb::RotateKeyRequest) -> Result<Self, VaultError> {
        let mut fields = Fields::default();
        let request_id = fields.request_id(request.request_id);
        let key = match request.key {
            Some(Key::Master(true)) => Some(KeyToRotate::Master),
            Some(Key::Master(false)) => {
                fields.violated("master", "must be true, or name a workspace instead");
                None
            }
            Some(Key::WorkspaceId(id)) => fields.workspace("workspace_id", id).map(KeyToRotate::Workspace),
            None => {
                fields.violated("key", "must be set: master or workspace_id");
                None
            }
        };
        let key = fields.finish(key)?;
        Ok(Self { request_id, key })
    }
}

impl From<JobRun> for pb::RotateKeyResponse {
    fn from(run: JobRun) -> Self {
        Self { run: Some(run.into()) }
    }
}
