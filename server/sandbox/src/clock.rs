//! The sandbox's own clock. Expiry, decay of usage and the life of a code follow it,
//! so a test moves time and never waits for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Real time plus an offset that anyone may move, or a time that stands still. Clones are one clock.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    pace: Arc<Mutex<Pace>>,
}

#[derive(Clone, Copy, Debug)]
enum Pace {
    /// Seconds ahead of real time.
    Runs(i64),
    /// It is this moment until somebody moves it.
    Stands(i64),
}

impl Default for Pace {
    fn default() -> Self {
        Self::Runs(0)
    }
}

impl Pace {
    fn now(self) -> i64 {
        match self {
            Self::Runs(ahead) => real_now().saturating_add(ahead),
            Self::Stands(at) => at,
        }
    }
}

impl Clock {
    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seconds since 1970, as every Graph API field counts them.
    pub fn now(&self) -> i64 {
        self.pace().now()
    }

    /// Moves time forward, at whole seconds.
    pub fn advance(&self, by: Duration) {
        let mut pace = self.pace();
        let (Pace::Runs(place) | Pace::Stands(place)) = &mut *pace;
        *place = place.saturating_add(seconds(by));
    }

    /// Makes it `unix_seconds` now. A running clock runs on from there.
    pub fn set(&self, unix_seconds: i64) {
        let mut pace = self.pace();
        *pace = match *pace {
            Pace::Runs(_) => Pace::Runs(unix_seconds.saturating_sub(real_now())),
            Pace::Stands(_) => Pace::Stands(unix_seconds),
        };
    }

    /// Stops time: only `advance` and `set` move it from here on. For tests at the edge of a second.
    pub fn freeze(&self) {
        let mut pace = self.pace();
        *pace = Pace::Stands(pace.now());
    }

    /// Back to real time.
    pub fn reset(&self) {
        *self.pace() = Pace::default();
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
