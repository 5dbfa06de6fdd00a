//! What the provider sent and nobody can believe: counted, and logged without the value.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Each field is logged at most this often.
const QUIET: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(in crate::provider::meta) struct Doubts {
    count: AtomicU64,
    logged: Mutex<HashMap<(&'static str, &'static str), Instant>>,
}

impl Doubts {
    /// Notes an implausible value of `field` in the reply `of`.
    pub(super) fn note(&self, of: &'static str, field: &'static str) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut logged = self.logged.lock();
        if logged.get(&(of, field)).is_some_and(|at| now.duration_since(*at) < QUIET) {
            return;
        }
        logged.insert((of, field), now);
        drop(logged);
        tracing::warn!(
            reply = of,
            field,
            "Meta sent a value that can't be true; it is ignored, and what is known stays"
        );
    }

    /// How many values were implausible since the start.
    pub(in crate::provider::meta) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}
