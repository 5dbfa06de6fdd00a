//! Jobs: which there are, when they run, who runs them, and what came of it. All state is rows; the clockwork in
//! `jobs` only wakes this up, and missed slots collapse into one run.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::{Cron, Principal, RequestId, Timestamp};
use crate::store::{Abort, JobRun, Origin, RunCause, RunState, StoreError};
use crate::vault::error::VaultError;
use crate::vault::jobs::renewal::Attempt;
use crate::vault::once::in_flight::InFlightGuard;
use crate::vault::state::Vault;

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

/// A run that begins later than this after its slot makes up for a missed one.
const LATE: Duration = Duration::from_secs(60);
/// How long ended runs are kept.
const RUNS_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How often it is looked for a run in progress when one is asked for.
const LOOKS: u32 = 20;
/// The wait between two such looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Events deleted in one transaction.
const COMPACTED_AT_ONCE: i64 = 5_000;

/// Work that the vault does by the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// Asks Meta about every connection.
    MetaTokenExpiry,
    /// Renews tokens that are due.
    Rotation,
    /// Announces what time brings. Runs all the time on every replica; runs are recorded only when asked for.
    ExpiryDeadlines,
    /// Deletes events that are older than they are kept.
    EventRetention,
    /// Forgets what nobody needs.
    Housekeeping,
    /// Dates every connection anew after the policy in force has changed. Begun by that.
    PolicyChange,
    /// Wraps every key by the active master key. Begun by another one becoming active.
    MasterKeyRotation,
    /// Encrypts secrets by their workspace's newest data key. Begun by there being a newer one.
    DataKeyRotation,
    /// Encrypts keys to the break-glass key. Begun by keys that lack it.
    BreakGlass,
    /// Ends the connections of workspaces that were shredded. Begun by that.
    Shredding,
}

impl JobKind {
    /// Every job.
    pub const ALL: [Self; 10] = [
        Self::MetaTokenExpiry,
        Self::ExpiryDeadlines,
        Self::Rotation,
        Self::EventRetention,
        Self::Housekeeping,
        Self::PolicyChange,
        Self::MasterKeyRotation,
        Self::DataKeyRotation,
        Self::BreakGlass,
        Self::Shredding,
    ];

    /// Its name in the API, in the database and in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MetaTokenExpiry => "meta-token-expiry",
            Self::Rotation => "rotation",
            Self::ExpiryDeadlines => "expiry-deadlines",
            Self::EventRetention => "event-retention",
            Self::Housekeeping => "housekeeping",
            Self::PolicyChange => "policy-change",
            Self::MasterKeyRotation => "master-key-rotation",
            Self::DataKeyRotation => "data-key-rotation",
            Self::BreakGlass => "break-glass",
            Self::Shredding => "shredding",
        }
    }

    fn parse(name: &str) -> Result<Self, VaultError> {
        Self::ALL.into_iter().find(|job| job.as_str() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|job| job.as_str()).collect();
            VaultError::JobNotFound { job: name.chars().take(100).collect(), known: known.join(", ") }
        })
    }
}

/// When jobs run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timetable {
    /// The daily pass over Meta's connections.
    pub meta_token_expiry: Cron,
    /// Looks for tokens to renew.
    pub rotation: Cron,
    /// Deletes old events.
    pub event_retention: Cron,
    /// Forgets what nobody needs.
    pub housekeeping: Cron,
    /// How long due work may lie before the watchdog speaks.
    pub overdue_after: Duration,
    /// Connections that a pass asks about at once.
    pub sweep_concurrency: usize,
}

impl Timetable {
    /// When a job runs; `None` for one that always does, or that something else begins.
    pub const fn cron(&self, job: JobKind) -> Option<&Cron> {
        match job {
            JobKind::MetaTokenExpiry => Some(&self.meta_token_expiry),
            JobKind::Rotation => Some(&self.rotation),
            JobKind::ExpiryDeadlines
            | JobKind::PolicyChange
            | JobKind::MasterKeyRotation
            | JobKind::DataKeyRotation
            | JobKind::BreakGlass
            | JobKind::Shredding => None,
            JobKind::EventRetention => Some(&self.event_retention),
            JobKind::Housekeeping => Some(&self.housekeeping),
        }
    }
}

/// Why a run ended without its end.
pub(in crate::vault) enum RunFailed {
    /// The process stops, or another one has taken the run over: it goes on there.
    Stopped,
    /// Something went wrong.
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

/// Where a run notes how far it is.
pub(in crate::vault) struct Progress<'v> {
    vault: &'v Vault,
}

impl Progress<'_> {
    /// Notes it. Ends the run here when another process has taken it over, or this one stops.
    pub(in crate::vault) async fn note(&self, run: &JobRun) -> Result<(), RunFailed> {
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
        if ours && !self.vault.stopping.is_cancelled() { Ok(()) } else { Err(RunFailed::Stopped) }
    }
}

/// The stored outcome of a request that began a run. Its field names never change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::vault) struct StartedRun {
    pub(in crate::vault) run: Uuid,
}

impl Vault {
    /// Starts every run that is due, and goes on with those whose process has ended. Called every second and at
    /// each slot; what is running already is left alone.
    ///
    /// # Errors
    /// `StorageUnavailable`.
    pub async fn start_due_jobs(self: &Arc<Self>) -> Result<(), VaultError> {
        for job in JobKind::ALL {
            // With a clock that is wrong, slots would seem to have come that have not.
            if self.stopping.is_cancelled() || !self.store.trusts_clock() {
                return Ok(());
            }
            // In flight first: a run that is in the table and has no task would seem to have been abandoned.
            let Some(in_flight) = self.runs.enter(job.as_str()) else { continue };
            if let Some(run) = self.next_run(job).await? {
                self.spawn_run(job, run, in_flight);
            }
        }
        Ok(())
    }

    /// A run for this process to do: one that was left, or one whose slot has come.
    async fn next_run(&self, job: JobKind) -> Result<Option<JobRun>, VaultError> {
        let name = job.as_str();
        let mut session = self.store.read().await?;
        if let Some(run) = session.running(name).await? {
            let own = run.incarnation == self.store.incarnation();
            if !own && session.replica_lives(run.incarnation).await? {
                return Ok(None);
            }
            drop(session);
            return self.take_over(run).await;
        }
        let Some(cron) = self.timetable.cron(job) else {
            drop(session);
            // Whatever begins it wrote that there is work; a process that died then, or a run that just ended, did
            // not see it.
            return match self.key_work_waits(job).await? {
                true => self.begin_run(job, self.clock.now(), RunCause::Request).await,
                false => Ok(None),
            };
        };
        let now = self.clock.now();
        let Some(slot) = cron.latest_at_or_before(now) else { return Ok(None) };
        // A slot from before the vault was founded was not missed.
        if slot < self.keys.vault.created_at
            || session.last_slot(name).await?.is_some_and(|last| last >= slot)
        {
            return Ok(None);
        }
        // Looking for renewals every minute leaves no trace when there is none.
        if job == JobKind::Rotation && session.due_renewals(now, 1).await?.is_empty() {
            return Ok(None);
        }
        drop(session);
        let cause = if now.since(slot) > LATE { RunCause::CatchUp } else { RunCause::Slot };
        self.begin_run(job, slot, cause).await
    }

    pub(in crate::vault) async fn begin_run(
        &self,
        job: JobKind,
        slot: Timestamp,
        cause: RunCause,
    ) -> Result<Option<JobRun>, VaultError> {
        let run = self.new_run(job, slot, cause);
        let unit = run.clone();
        let begun = self
            .store
            .write(move |tx| {
                let run = unit.clone();
                Box::pin(async move {
                    let begun = tx.begin_run(&run, cause).await?;
                    if begun && cause == RunCause::Request {
                        tx.audit_object(format!("job_run:{}", run.id), run.started_at);
                    }
                    Ok::<_, Abort<VaultError>>(begun)
                })
            })
            .await?;
        Ok(begun.then_some(run))
    }

    /// A run of this process, to be begun.
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
            error: String::new(),
            incarnation: self.store.incarnation(),
            generation: 1,
            replica: self.replica.clone(),
            started_at: now,
            ended_at: None,
        }
    }

    async fn take_over(&self, mut run: JobRun) -> Result<Option<JobRun>, VaultError> {
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
        tracing::info!(job = run.job, run = %run.id, done = run.done, "going on with a run whose process has ended");
        run.generation += 1;
        run.incarnation = own;
        run.replica.clone_from(&self.replica);
        Ok(Some(run))
    }

    /// Works on a run in the background.
    pub(in crate::vault) fn spawn_run(
        self: &Arc<Self>,
        job: JobKind,
        run: JobRun,
        in_flight: InFlightGuard<String>,
    ) {
        let vault = Arc::clone(self);
        self.tasks.spawn(async move {
            Arc::new(Origin::system(job.as_str())).scope(vault.work(job, run)).await;
            drop(in_flight);
        });
    }

    /// Works on a run to its end.
    async fn work(self: &Arc<Self>, job: JobKind, mut run: JobRun) {
        tracing::info!(job = run.job, run = %run.id, slot = %run.scheduled_for, catch_up = run.catch_up, "job begins");
        let progress = Progress { vault: self };
        let outcome = match job {
            JobKind::MetaTokenExpiry => self.sweep(&mut run, &progress).await,
            JobKind::Rotation => self.rotate_due(&mut run, &progress).await,
            JobKind::ExpiryDeadlines => self.announce_due().await.map_err(RunFailed::Error).map(|events| {
                run.done = i64::try_from(events).unwrap_or(i64::MAX);
            }),
            JobKind::EventRetention => self.compact(&mut run, &progress).await,
            JobKind::Housekeeping => self.tidy(&mut run).await,
            JobKind::PolicyChange => self.redate(&mut run, &progress).await,
            JobKind::MasterKeyRotation => self.rewrap_keys(&mut run, &progress).await,
            JobKind::DataKeyRotation => self.reencrypt(&mut run, &progress).await,
            JobKind::BreakGlass => self.back_fill(&mut run, &progress).await,
            JobKind::Shredding => self.bury(&mut run, &progress).await,
        };
        let (state, error) = match outcome {
            Ok(()) => (RunState::Succeeded, String::new()),
            // It stays as it is: another process goes on with it.
            Err(RunFailed::Stopped) => return,
            // The run is not over, it goes on from where it is.
            Err(RunFailed::Error(error)) if error.is_outage() => {
                tracing::warn!(job = run.job, run = %run.id, %error, "job interrupted; it goes on by itself");
                return;
            }
            Err(RunFailed::Error(error)) => (RunState::Failed, error.to_string()),
        };
        let (unit, unit_error, now) = (run.clone(), error.clone(), self.clock.now());
        let ended = self
            .store
            .write(move |tx| {
                let (run, error) = (unit.clone(), unit_error.clone());
                Box::pin(
                    async move { Ok::<_, Abort<VaultError>>(tx.end_run(&run, state, &error, now).await?) },
                )
            })
            .await;
        match ended {
            Ok(true) if state == RunState::Succeeded => {
                tracing::info!(job = run.job, run = %run.id, done = run.done, failed = run.failed, "job ends");
            }
            Ok(true) => tracing::error!(job = run.job, run = %run.id, error, "job failed"),
            Ok(false) => tracing::warn!(job = run.job, run = %run.id, "the run was taken over"),
            Err(Abort::Store(error)) => tracing::warn!(job = run.job, %error, "a run's end was not written"),
            Err(Abort::Refused(error)) => {
                tracing::warn!(job = run.job, %error, "a run's end was not written")
            }
        }
    }

    async fn rotate_due(
        self: &Arc<Self>,
        run: &mut JobRun,
        progress: &Progress<'_>,
    ) -> Result<(), RunFailed> {
        // No token twice in a run: what could not be put off must not be asked about without end.
        let mut seen = HashSet::new();
        loop {
            let mut due = self.due_renewals().await?;
            due.retain(|id| seen.insert(*id));
            if due.is_empty() {
                return Ok(());
            }
            let attempts = self.renew_all(due).await;
            let count = |wanted: Attempt| {
                i64::try_from(attempts.iter().filter(|attempt| **attempt == wanted).count()).unwrap_or(0)
            };
            let (done, failed) = (count(Attempt::Done), count(Attempt::Failed));
            run.done += done + failed;
            run.failed += failed;
            run.total = run.done;
            progress.note(run).await?;
        }
    }

    async fn compact(&self, run: &mut JobRun, progress: &Progress<'_>) -> Result<(), RunFailed> {
        let before = self.clock.now() - self.policy().event_retention;
        let now = self.clock.now();
        loop {
            // What a wrong clock deletes is gone. The run goes on once the clock is right.
            if !self.store.trusts_clock() {
                return Err(RunFailed::Stopped);
            }
            self.may_change()?;
            let needs = crate::store::Needs { alone: true, ..Default::default() };
            let (deleted, _) = self
                .store
                .write_with(needs, move |tx| {
                    Box::pin(async move {
                        let deleted = tx.compact_events(before, COMPACTED_AT_ONCE).await?;
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

    async fn tidy(&self, run: &mut JobRun) -> Result<(), RunFailed> {
        let now = self.clock.now();
        let forgotten = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let requests = tx.forget_requests(now).await?;
                    let runs = tx.forget_runs(now - RUNS_KEPT).await?;
                    Ok::<_, Abort<VaultError>>(requests + runs)
                })
            })
            .await
            .map_err(VaultError::from)?;
        run.done = i64::try_from(forgotten).unwrap_or(i64::MAX);
        Ok(())
    }

    /// The jobs, with their next and last runs.
    ///
    /// # Errors
    /// `StorageUnavailable`.
    pub async fn list_jobs(&self, caller: &Principal) -> Result<Vec<Job>, VaultError> {
        let now = self.clock.now();
        let mut session = self.store.read().await?;
        let mut jobs = Vec::with_capacity(JobKind::ALL.len());
        for job in JobKind::ALL {
            let cron = self.timetable.cron(job);
            jobs.push(Job {
                name: job.as_str(),
                cron: match (job, cron) {
                    // What always runs is told as what it amounts to.
                    (JobKind::ExpiryDeadlines, _) => "* * * * * *".to_owned(),
                    (_, cron) => cron.map_or_else(String::new, ToString::to_string),
                },
                next_run_at: match (job, cron) {
                    (JobKind::ExpiryDeadlines, _) => Some(now + Duration::from_secs(1)),
                    (_, cron) => cron.and_then(|cron| cron.next_after(now)),
                },
                last_run: session.last_run(job.as_str()).await?.map(|run| told_to(caller, run)),
            });
        }
        Ok(jobs)
    }

    /// Runs a job now, or answers with the run in progress.
    ///
    /// # Errors
    /// `JobNotFound`; `RoleInsufficient`, since a job works on every workspace's tokens.
    pub async fn run_job(
        self: &Arc<Self>,
        caller: &Principal,
        command: RunJob,
    ) -> Result<JobRun, VaultError> {
        Self::must_reach_all(caller)?;
        let job = JobKind::parse(&command.job)?;
        let request = self.request("RunJob", command.request_id.as_ref(), &[job.as_str().as_bytes()]);
        let work = async |claim| {
            let run = self.run_now(job).await?;
            self.finish_afterwards(claim, StartedRun { run: run.id }).await;
            tracing::info!(job = run.job, run = %run.id, by = caller.name, "job asked for");
            Ok(run)
        };
        self.once(caller, request, work, async |started| self.started_run(started).await).await
    }

    /// Begins a run, or finds the one in progress.
    async fn run_now(self: &Arc<Self>, job: JobKind) -> Result<JobRun, VaultError> {
        // The run in progress may end between the two looks: then it is this one's turn.
        for _ in 0..LOOKS {
            if let Some(in_flight) = self.runs.enter(job.as_str())
                && let Some(run) = self.begin_run(job, self.clock.now(), RunCause::Request).await?
            {
                self.spawn_run(job, run.clone(), in_flight);
                return Ok(run);
            }
            if let Some(run) = self.store.read().await?.running(job.as_str()).await? {
                return Ok(run);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Err(VaultError::Overloaded)
    }

    /// The run that a repeated request began.
    pub(in crate::vault) async fn started_run(&self, started: StartedRun) -> Result<JobRun, VaultError> {
        self.store.read().await?.job_run(started.run).await?.ok_or(VaultError::Internal)
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
        let runs: Vec<_> = runs.into_iter().map(|run| told_to(caller, run)).collect();
        let next_page_token = match runs.last() {
            Some(last) if more => self.write_page_token(&last.id.to_string(), &hash)?,
            _ => String::new(),
        };
        Ok(JobRunPage { runs, next_page_token })
    }
}

/// A run as this caller may see it: what ended it, where, and on how much it worked is of the whole vault.
fn told_to(caller: &Principal, run: JobRun) -> JobRun {
    match Vault::must_reach_all(caller) {
        Ok(()) => run,
        Err(_) => {
            JobRun { done: 0, total: 0, failed: 0, replica: String::new(), error: String::new(), ..run }
        }
    }
}
