//! The clockwork that wakes the vault's jobs. It decides nothing: the vault reads from rows which run is due, so that a
//! missed slot or a changed clock makes no difference.
//!
//! `tokio-cron-scheduler` has one purpose here: it starts a run at the very moment of its slot, up to a second before
//! [`tend`] would find it. It does no more, because it knows neither the other replicas nor the slots that passed while
//! no process ran, and it follows this machine's clock instead of the domain's.

use std::sync::Arc;
use std::time::Duration;

use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::vault::{JobKind, Origin, Vault};

/// How often deadlines are checked. An event must be in the feed within 5 s of its deadline.
const DEADLINES: Duration = Duration::from_millis(250);
/// How often watchers' permissions are checked. A revoked one must end its watches within a second.
const PERMISSIONS: Duration = Duration::from_millis(250);
/// How often due runs, providers and the shared configuration are checked.
const TICK: Duration = Duration::from_secs(1);

pub struct Clockwork {
    scheduler: JobScheduler,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Starts the clockwork: the scheduler fires at every slot of every cron expression, and loops beside it check what
/// can't wait for a slot.
///
/// # Errors
/// The scheduler can't be started.
pub async fn start(vault: Arc<Vault>) -> Result<Clockwork, JobSchedulerError> {
    let scheduler = JobScheduler::new().await?;
    for &kind in JobKind::ALL {
        let Some(cron) = vault.timetable().cron(kind) else { continue };
        let waking = Arc::clone(&vault);
        let job = Job::new_async(cron.to_string(), move |_, _| {
            let vault = Arc::clone(&waking);
            Box::pin(async move {
                if let Err(error) = for_vault(Box::pin(vault.start_due_jobs())).await {
                    tracing::warn!(job = kind.as_str(), %error, "a due run was not started; it is tried again");
                }
            })
        })?;
        scheduler.add(job).await?;
    }
    scheduler.start().await?;
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    tasks.spawn(announce(Arc::clone(&vault), stop.clone()));
    tasks.spawn(guard_watches(Arc::clone(&vault), stop.clone()));
    tasks.spawn(tend(Arc::clone(&vault), stop.clone()));
    tasks.spawn(async move { vault.warm_keys().await });
    Ok(Clockwork { scheduler, stop, tasks })
}

impl Clockwork {
    /// Starts nothing more, and waits until the loops have ended. The vault itself ends the runs of jobs.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Err(error) = self.scheduler.shutdown().await {
            tracing::debug!(%error, "the scheduler did not shut down");
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Announces deadlines as they pass.
async fn announce(vault: Arc<Vault>, stop: CancellationToken) {
    let mut well = true;
    while pause(DEADLINES, &stop).await {
        let outcome = for_vault(Box::pin(vault.announce_due())).await;
        log_change(&mut well, outcome.map(|_| ()), "deadlines can't be announced");
    }
}

/// Ends watches whose permission was revoked. A loop of its own, so that thousands of deadlines at once don't delay it.
async fn guard_watches(vault: Arc<Vault>, stop: CancellationToken) {
    while pause(PERMISSIONS, &stop).await {
        for_vault(Box::pin(vault.check_watchers())).await;
    }
}

/// Does everything else that can't wait for a slot.
async fn tend(vault: Arc<Vault>, stop: CancellationToken) {
    let mut well = true;
    loop {
        let work = async {
            vault.adopt_policy().await?;
            vault.adopt_keys().await?;
            Box::pin(vault.tend_providers()).await?;
            Box::pin(vault.start_due_jobs()).await?;
            vault.watch_over().await
        };
        let outcome = for_vault(work).await;
        log_change(&mut well, outcome, "due work can't be looked for");
        if !pause(TICK, &stop).await {
            return;
        }
    }
}

/// Runs work that the clockwork wakes. The audit log records it as the vault's own.
async fn for_vault<F: Future>(work: F) -> F::Output {
    Arc::new(Origin::system("vault")).scope(work).await
}

/// `false`: the clockwork is stopping.
async fn pause(time: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = tokio::time::sleep(time) => true,
        () = stop.cancelled() => false,
    }
}

/// Logs the first failure, and the first success after it: the database may be unavailable for a while.
fn log_change(well: &mut bool, outcome: Result<(), crate::vault::VaultError>, what: &str) {
    match outcome {
        Ok(()) if !*well => {
            tracing::info!("{what}: over");
            *well = true;
        }
        Err(error) if *well => {
            tracing::warn!(%error, "{what}");
            *well = false;
        }
        _ => {}
    }
}
