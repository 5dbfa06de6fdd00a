//! The sandbox's own clock. The expiry of tokens and codes and the decay of usage follow it,
//! so a test moves time instead of waiting.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Shows real time until it is moved, stopped or made faster. Clones share one clock.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    pace: Arc<Mutex<Pace>>,
}

/// A straight line: at the time `real` this clock showed `simulated`, and for every second since then it shows
/// `speed` seconds more. Both are in microseconds since 1970.
#[derive(Clone, Copy, Debug)]
struct Pace {
    real: i64,
    simulated: i64,
    speed: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { real: 0, simulated: 0, speed: 1 }
    }
}

impl Pace {
    fn at(self, real: i64) -> i64 {
        let passed = real.saturating_sub(self.real).saturating_mul(i64::from(self.speed));
        self.simulated.saturating_add(passed)
    }
}

impl Clock {
    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seconds since 1970, the unit of every field of the Graph API.
    pub fn now(&self) -> i64 {
        self.now_micros().div_euclid(MICROS)
    }

    /// Microseconds since 1970.
    pub fn now_micros(&self) -> i64 {
        self.reading().0
    }

    /// Simulated seconds per real second: 1 by default, 0 while time stands still.
    pub fn speed(&self) -> u32 {
        self.reading().1
    }

    /// Microseconds since 1970 and the speed, read together.
    pub(crate) fn reading(&self) -> (i64, u32) {
        let pace = self.pace();
        (pace.at(real_now()), pace.speed)
    }

    /// Moves time forward.
    pub fn advance(&self, by: Duration) {
        let mut pace = self.pace();
        let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        pace.simulated = pace.simulated.saturating_add(by);
    }

    /// Sets the time. A running clock continues from there.
    pub fn set(&self, unix_seconds: i64) {
        let mut pace = self.pace();
        *pace = Pace { real: real_now(), simulated: unix_seconds.saturating_mul(MICROS), ..*pace };
    }

    /// Lets `speed` simulated seconds pass per real second from now on. 0 stops time; then only `advance` and `set`
    /// move it.
    pub fn run_at(&self, speed: u32) {
        let mut pace = self.pace();
        let real = real_now();
        *pace = Pace { real, simulated: pace.at(real), speed };
    }

    /// Stops time. For tests that must not cross into another second.
    pub fn freeze(&self) {
        self.run_at(0);
    }

    /// Returns to real time.
    pub fn reset(&self) {
        *self.pace() = Pace::default();
    }
}

/// Seconds of a day.
pub(crate) const DAY: i64 = 86_400;
/// Microseconds of a second.
const MICROS: i64 = 1_000_000;

pub(crate) fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// Microseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "every other part of the sandbox asks this clock")]
fn real_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MICROS: i64 = 86_400 * MICROS;

    #[test]
    fn a_line_passes_through_its_anchor_at_its_speed() {
        for (speed, real, simulated) in
            [(0, 1_000, 50), (1, 1_000, 950), (86_400, 200, 8_640_050), (1, 100, 50), (1, 50, 0)]
        {
            let pace = Pace { real: 100, simulated: 50, speed };
            assert_eq!(pace.at(real), simulated, "{speed} at {real}");
        }
        assert_eq!(Pace { real: 0, simulated: 1, speed: u32::MAX }.at(i64::MAX), i64::MAX);
    }

    #[test]
    fn a_fast_clock_keeps_its_speed_through_moves_and_a_reset_ends_it() {
        let clock = Clock::default();
        clock.run_at(86_400);
        let start = (clock.now_micros(), real_now());
        std::thread::sleep(Duration::from_millis(20));
        // Read the clock between two moments of real time.
        let least = (real_now() - start.1 - MICROS / 100) * 86_400;
        let passed = clock.now_micros() - start.0;
        assert!(passed >= least && passed > DAY_MICROS / 100, "{passed} of at least {least}");
        clock.set(1_763_859_600);
        clock.advance(Duration::from_hours(24));
        assert!(clock.now() >= 1_763_859_600 + 86_400, "{}", clock.now());
        assert_eq!(clock.speed(), 86_400);
        clock.reset();
        assert_eq!(clock.speed(), 1);
        assert!((clock.now_micros() - real_now()).abs() < 60 * MICROS);
    }

    #[test]
    fn a_standing_clock_stands_between_microseconds_too() {
        let clock = Clock::default();
        clock.freeze();
        let stood = clock.now_micros();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(clock.now_micros(), stood);
        clock.advance(Duration::from_micros(3));
        assert_eq!((clock.now_micros(), clock.speed()), (stood + 3, 0));
        clock.run_at(1);
        std::thread::sleep(Duration::from_millis(2));
        let on = clock.now_micros() - stood;
        assert!(
            (2_000..60 * MICROS).contains(&on),
            "it runs on from where it stood, not from real time: {on}"
        );
    }
}
