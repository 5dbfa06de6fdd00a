//! The sandbox's own clock. Expiry, decay of usage and the life of a code follow it,
//! so a test moves time and never waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Real time plus an offset that anyone may move. Clones share the offset.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    offset: Arc<AtomicI64>,
}

impl Clock {
    /// Seconds since 1970, as every Graph API field counts them.
    pub fn now(&self) -> i64 {
        real_now().saturating_add(self.offset.load(Ordering::SeqCst))
    }

    /// Moves time forward, at whole seconds.
    pub fn advance(&self, by: Duration) {
        let seconds = seconds(by);
        self.offset.fetch_add(seconds, Ordering::SeqCst);
    }

    /// Makes it `unix_seconds` now; time runs on from there.
    pub fn set(&self, unix_seconds: i64) {
        self.offset.store(unix_seconds.saturating_sub(real_now()), Ordering::SeqCst);
    }

    /// Back to real time.
    pub fn reset(&self) {
        self.offset.store(0, Ordering::SeqCst);
    }
}

/// Whole seconds of a duration.
pub(crate) fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

#[expect(clippy::disallowed_methods, reason = "this is the clock everything else asks")]
fn real_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, seconds)
}
