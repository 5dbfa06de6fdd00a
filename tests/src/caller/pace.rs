//! How fast calls are at the moment, on a machine that may be busy with other work.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use token_vault_proto::v1::GetVaultStatusRequest;
use tokio::task::JoinHandle;

use super::Caller;

const PAUSE: Duration = Duration::from_millis(50);

/// Measures how long plain calls take while it exists. If a promise names a time ("within a second"), a test adds the
/// time that this machine makes every call wait, because the vault is not responsible for that.
pub struct Pace {
    longest: Arc<Mutex<Duration>>,
    task: JoinHandle<()>,
}

impl Pace {
    /// Starts the calls. `caller` must be an admin.
    pub fn of(caller: Caller) -> Self {
        let longest = Arc::new(Mutex::new(Duration::ZERO));
        let known = Arc::clone(&longest);
        let task = tokio::spawn(async move {
            loop {
                let began = Instant::now();
                // On a busy machine, the sleep ends late as well.
                tokio::time::sleep(PAUSE).await;
                let _ = caller.get_vault_status(GetVaultStatusRequest {}).await;
                let took = began.elapsed().saturating_sub(PAUSE);
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                *known = took.max(*known);
            }
        });
        Self { longest, task }
    }

    /// The time to allow: `promised`, and the longest time that a call has taken so far.
    pub fn allows(&self, promised: Duration) -> Duration {
        promised + *self.longest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.task.abort();
    }
}
