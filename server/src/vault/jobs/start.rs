//! Starting runs: which are due, and what each job does. The scheduler in the crate's `jobs` only calls
//! `start_due_jobs`; this file computes from the cron expression, the vault's clock and the rows of earlier runs which
//! slots have passed. So several missed slots become one run, a simulated clock works, and only one replica runs a
//! slot.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{ProviderId, Timestamp};
use crate::provider::Work;
use crate::store::{Abort, JobRun, Origin, RunCause, RunState};
use crate::vault::error::VaultError;
use crate::vault::jobs::run::{Progress, RunFailed};
use crate::vault::jobs::sweep::ONLY_DUE;
use crate::vault::state::Vault;
use crate::vault::state::in_flight::InFlightGuard;
use crate::vault::timetable::JobKind;

/// A run that starts later than this after its slot counts as a catch-up, even if the vault was up.
const LATE: Duration = Duration::from_secs(60);

/// How long a request that a run could not carry out waits for the next run.
const PAUSE: Duration = Duration::from_secs(60);

/// Why a slot's run starts now. `alive_since`: when the oldest of the living processes started; if that was after the
/// slot, the vault was down when the slot came.
fn cause(slot: Timestamp, now: Timestamp, alive_since: Option<Timestamp>) -> RunCause {
    let was_down = alive_since.is_some_and(|since| since > slot);
    if was_down || now.since(slot) > LATE { RunCause::CatchUp } else { RunCause::Slot }
}

impl Vault {
    /// Starts every run that is due, and continues runs whose process has ended. Called every second and at each slot;
    /// jobs that are already running are left alone.
    ///
    /// # Errors
    /// `StorageUnavailable`.
    pub async fn start_due_jobs(self: &Arc<Self>) -> Result<(), VaultError> {
        for &job in JobKind::ALL {
            // A wrong clock would start runs too early.
            if self.work.stopping.is_cancelled() || !self.store.trusts_clock() {
                return Ok(());
            }
            // The job is in flight before its run is written: a run without a task would look abandoned.
            let Some(in_flight) = self.jobs.runs.enter(job.as_str()) else { continue };
            if let Some(run) = self.next_run(job).await? {
                self.spawn_run(job, run, in_flight);
            }
        }
        Ok(())
    }

    /// The next run for this process: one that was abandoned, or one whose slot has come.
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
        let Some(cron) = self.jobs.timetable.cron(job) else {
            drop(session);
            // Whatever triggers a job without slots also begins its run. Work without a run is left over: the process died in
            // between, or the run had already passed that row.
            return match self.has_work_left(job).await? {
                true => self.begin_run(job, self.clock.now(), RunCause::Request).await,
                false => Ok(None),
            };
        };
        let now = self.clock.now();
        let Some(slot) = cron.latest_at_or_before(now) else { return Ok(None) };
        // A slot from before the vault existed was not missed.
        if slot < self.keys.vault.created_at
            || session.last_slot(name).await?.is_some_and(|last| last >= slot)
        {
            drop(session);
            return self.begin_run_between_slots(job, now).await;
        }
        // The job runs every minute: no run is recorded when no renewal is due, or can be tried.
        if job == JobKind::Rotation
            && session.due_renewals(now, &self.held_back(Work::Renewal), 1).await?.is_empty()
        {
            return Ok(None);
        }
        let oldest = session.replicas().await?.into_iter().next();
        drop(session);
        let alone = oldest.as_ref().is_none_or(|oldest| oldest.incarnation == self.store.incarnation());
        let alive_since = oldest.map(|oldest| oldest.started_at);
        // The oldest process may have died before the slot, which shows in its beats a few seconds after this start.
        // If it lives, it runs the slot itself.
        let was_alive = alive_since.is_some_and(|since| since <= slot);
        if !alone && was_alive && !self.jobs.knows_who_lives() {
            return Ok(None);
        }
        self.begin_run(job, slot, cause(slot, now, alive_since)).await
    }

    /// Connections become due for validation at any time. A run between the slots examines only these.
    async fn begin_run_between_slots(
        &self,
        job: JobKind,
        now: Timestamp,
    ) -> Result<Option<JobRun>, VaultError> {
        if job != JobKind::MetaTokenExpiry
            || self
                .store
                .read()
                .await?
                .due_validations(now, &self.held_back(Work::Validation), 1)
                .await?
                .is_empty()
        {
            return Ok(None);
        }
        let run = JobRun { position: ONLY_DUE.to_owned(), ..self.new_run(job, now, RunCause::Request) };
        let begun = self.begin_run_row(run.clone(), RunCause::Request).await?;
        Ok(begun.then_some(run))
    }

    /// The providers whose trouble holds this work.
    fn held_back(&self, work: Work) -> Vec<ProviderId> {
        let held = self.providers.iter().filter(|(_, gate)| gate.holds(work));
        held.map(|(provider, _)| provider.id().clone()).collect()
    }

    /// Works on a run in the background.
    pub(in crate::vault) fn spawn_run(
        self: &Arc<Self>,
        job: JobKind,
        run: JobRun,
        in_flight: InFlightGuard<String>,
    ) {
        let vault = Arc::clone(self);
        self.work.tasks.spawn(async move {
            Arc::new(Origin::system(job.as_str())).scope(vault.execute(job, run)).await;
            drop(in_flight);
        });
    }

    /// Works on a run to its end.
    async fn execute(self: &Arc<Self>, job: JobKind, mut run: JobRun) {
        tracing::info!(job = run.job, run = %run.id, slot = %run.scheduled_for, catch_up = run.catch_up, "job begins");
        let progress = Progress { vault: self };
        let outcome = match job {
            JobKind::MetaTokenExpiry => Box::pin(self.sweep(&mut run, &progress)).await,
            JobKind::Rotation => Box::pin(self.renew_due(&mut run, &progress)).await,
            JobKind::ExpiryDeadlines => self.announce_due().await.map_err(RunFailed::Error).map(|events| {
                run.done = i64::try_from(events).unwrap_or(i64::MAX);
            }),
            JobKind::EventRetention => self.delete_old_events(&mut run, &progress).await,
            JobKind::Housekeeping => self.delete_old_rows(&mut run).await,
            JobKind::PolicyChange => self.recompute_dates(&mut run, &progress).await,
            JobKind::MasterKeyRotation => self.rewrap_keys(&mut run, &progress).await,
            JobKind::DataKeyRotation => self.reencrypt(&mut run, &progress).await,
            JobKind::BreakGlass => self.seal_to_break_glass(&mut run, &progress).await,
            JobKind::Shredding => self.end_shredded_connections(&mut run, &progress).await,
            JobKind::DataDeletion => self.delete_data(&mut run, &progress).await,
        };
        let (state, error) = match outcome {
            Ok(()) => (RunState::Succeeded, String::new()),
            // Leave the row as it is; another process continues the run.
            Err(RunFailed::Stopped) => return,
            Err(RunFailed::Incomplete(why)) => (RunState::Incomplete, why),
            // The run is not over: it continues from its position once the outage ends.
            Err(RunFailed::Error(error)) if error.is_outage() => {
                tracing::warn!(job = run.job, run = %run.id, %error, "job interrupted; it continues by itself");
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
            Ok(true) if state == RunState::Incomplete => {
                tracing::warn!(job = run.job, run = %run.id, done = run.done, remaining = run.remaining, why = error, "job ends, and leaves work for a later run");
            }
            Ok(true) => tracing::error!(job = run.job, run = %run.id, error, "job failed"),
            Ok(false) => tracing::warn!(job = run.job, run = %run.id, "the run was taken over"),
            Err(Abort::Store(error)) => {
                tracing::warn!(job = run.job, %error, "the end of a run was not written")
            }
            Err(Abort::Work(error)) => {
                tracing::warn!(job = run.job, %error, "the end of a run was not written")
            }
        }
    }

    /// For jobs without slots: whether there is work that the latest run can't have seen.
    async fn has_work_left(&self, job: JobKind) -> Result<bool, VaultError> {
        let mut session = self.store.read().await?;
        let last = session.last_run(job.as_str()).await?.map(|run| run.started_at);
        Ok(match job {
            JobKind::MasterKeyRotation => {
                let since = session.active_since().await?;
                last.is_none_or(|last| last < since)
                    && session.count_keys_not_under(&self.keys.ring().active).await? > 0
            }
            JobKind::DataKeyRotation => {
                let (workspaces, since) = session.workspaces_with_old_keys().await?;
                !workspaces.is_empty() && last.is_none_or(|last| last < since)
            }
            JobKind::BreakGlass => {
                let Some(sealing) = &self.keys.break_glass else { return Ok(false) };
                self.jobs.is_time_for_break_glass() && session.count_keys_not_for(sealing.id()).await? > 0
            }
            JobKind::Shredding => !session.workspaces_to_bury().await?.is_empty(),
            JobKind::DataDeletion => {
                let newest = session.newest_open_deletion().await?;
                let now = self.clock.now();
                // A run of the future was before the clock was set back.
                let failed_lately = |last, newest| last > newest && last <= now && now.since(last) < PAUSE;
                newest.is_some_and(|newest| last.is_none_or(|last| !failed_lately(last, newest)))
            }
            _ => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_makes_up_for_a_slot_that_came_while_no_process_lived() {
        use RunCause::{CatchUp, Slot};
        let at = Timestamp::from_unix_seconds;
        for (slot, now, alive_since, expected) in [
            // The vault was up, and the run starts at once, a little later, or much later.
            (100, 100, Some(50), Slot),
            (100, 100, Some(100), Slot),
            (100, 160, Some(50), Slot),
            (100, 161, Some(50), CatchUp),
            // The vault started after the slot, however soon.
            (100, 101, Some(101), CatchUp),
            (100, 130, Some(110), CatchUp),
            (100, 10_000, Some(9_999), CatchUp),
            // Nobody lives who could tell.
            (100, 101, None, Slot),
        ] {
            let found = cause(at(slot), at(now), alive_since.map(at));
            assert_eq!(found, expected, "slot {slot}, now {now}, alive since {alive_since:?}");
        }
    }
}
