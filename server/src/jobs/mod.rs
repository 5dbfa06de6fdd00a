//! Time in: the clockwork that wakes the vault's jobs. It decides nothing: which run is due is found in rows, so
//! that a slot that was missed, or a clock that was moved, makes no difference.

use std::sync::Arc;
use std::time::Duration;

use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::vault::{JobKind, Vault};

/// How often it is looked whether time has something to say. An event must be in the feed within 5 s of its
/// moment.
const DEADLINES: Duration = Duration::from_millis(250);
/// How often the permissions of watchers are looked at. One that has ended must end its watches within a second.
const PERMISSIONS: Duration = Duration::from_millis(250);
/// How often due runs, providers and the configuration in force are looked at.
const TICK: Duration = Duration::from_secs(1);
/// A provider in trouble is probed every so many ticks.
const PROBE: u64 = 5;

/// The running clockwork.
pub struct Clockwork {
    scheduler: JobScheduler,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Starts the clockwork: the scheduler fires at every slot of every cron expression, and beside it what lasts
/// seconds is looked at all the time.
///
/// # Errors
/// The scheduler does not start.
pub async fn start(vault: Arc<Vault>) -> Result<Clockwork, JobSchedulerError> {
    let scheduler = JobScheduler::new().await?;
    for &kind in JobKind::ALL {
        let Some(cron) = vault.timetable().cron(kind) else { continue };
        let waking = Arc::clone(&vault);
        let job = Job::new_async(cron.to_string(), move |_, _| {
            let vault = Arc::clone(&waking);
            Box::pin(async move {
                if let Err(error) = vault.start_due_jobs().await {
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
    /// Starts nothing more, and waits for what is under way here. Runs of jobs end with the vault.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Err(error) = self.scheduler.shutdown().await {
            tracing::debug!(%error, "the scheduler did not shut down");
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Announces what time brings, as it comes.
async fn announce(vault: Arc<Vault>, stop: CancellationToken) {
    let mut quiet = true;
    while pause(DEADLINES, &stop).await {
        let outcome = vault.announce_due().await;
        tell_once(&mut quiet, outcome.map(|_| ()), "deadlines can't be announced");
    }
}

/// Ends watches whose permission has ended. On its own: thousands of deadlines at once must not hold it up.
async fn guard_watches(vault: Arc<Vault>, stop: CancellationToken) {
    while pause(PERMISSIONS, &stop).await {
        vault.check_watchers().await;
    }
}

/// Everything else that must not wait for a slot.
async fn tend(vault: Arc<Vault>, stop: CancellationToken) {
    let (mut ticks, mut quiet) = (0_u64, true);
    loop {
        let probe = ticks.is_multiple_of(PROBE);
        let work = async {
            vault.adopt_policy().await?;
            vault.adopt_keys().await?;
            vault.tend_providers(probe).await?;
            vault.start_due_jobs().await?;
            vault.watch_over().await
        };
        let outcome = work.await;
        tell_once(&mut quiet, outcome, "the clockwork can't do its work");
        ticks += 1;
        if !pause(TICK, &stop).await {
            return;
        }
    }
}

/// `false`: it is time to stop.
async fn pause(time: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = tokio::time::sleep(time) => true,
        () = stop.cancelled() => false,
    }
}

/// The database is away for a while: said once, and once when it is over.
fn tell_once(quiet: &mut bool, outcome: Result<(), crate::vault::VaultError>, what: &str) {
    match outcome {
        Ok(()) if !*quiet => {
            tracing::info!("{what}: over");
            *quiet = true;
        }
        Err(error) if *quiet => {
            tracing::warn!(%error, "{what}");
            *quiet = false;
        }
        _ => {}
    }
}
