//! The audit log, the task that relays records to it, and how many denials may still be recorded.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::Audit;

/// Denials that may be recorded at once, and per second after that: a flood of them must not fill the disk.
const DENIALS: (u32, u32) = (100, 10);

pub struct AuditTrail {
    pub log: Arc<Audit>,
    pub denials: DenialBudget,
    /// Ends the relay. Cancelled after all other work has ended.
    pub stop_relay: CancellationToken,
    pub relay: TaskTracker,
}

impl AuditTrail {
    pub fn new(log: Arc<Audit>) -> Self {
        Self {
            log,
            denials: DenialBudget::default(),
            stop_relay: CancellationToken::new(),
            relay: TaskTracker::new(),
        }
    }
}

pub struct DenialBudget(Mutex<Budget>);

struct Budget {
    left: u32,
    since: Instant,
    suppressed: u64,
}

impl Default for DenialBudget {
    fn default() -> Self {
        Self(Mutex::new(Budget { left: DENIALS.0, since: Instant::now(), suppressed: 0 }))
    }
}

impl DenialBudget {
    /// Takes one denial from the budget. `None`: suppress it; otherwise the number suppressed since the last record.
    pub fn take(&self) -> Option<u64> {
        let mut budget = self.0.lock();
        let seconds = u32::try_from(budget.since.elapsed().as_secs()).unwrap_or(u32::MAX);
        if seconds > 0 {
            budget.left = budget.left.saturating_add(seconds.saturating_mul(DENIALS.1)).min(DENIALS.0);
            budget.since = Instant::now();
        }
        if budget.left == 0 {
            budget.suppressed += 1;
            return None;
        }
        budget.left -= 1;
        Some(std::mem::take(&mut budget.suppressed))
    }
}
