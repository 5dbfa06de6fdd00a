//! Time as an input: instants in microseconds, and the clock that says what time it is.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;

/// An instant in UTC, in microseconds since the Unix epoch: what both databases store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    pub const EPOCH: Self = Self(0);

    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Saturates.
    pub const fn from_unix_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    /// An instant that an outsider names in seconds, if it can be meant: in the years 2000 to 2200. Milliseconds, and
    /// other numbers that are no seconds, are beyond them.
    pub fn plausible(seconds: i64) -> Option<Self> {
        const YEARS: std::ops::Range<i64> = 946_684_800..7_289_654_400;
        YEARS.contains(&seconds).then_some(Self::from_unix_seconds(seconds))
    }

    /// Seconds since the epoch (0 before it) and the nanoseconds within that second.
    pub fn unix_parts(self) -> (u64, u32) {
        let seconds = u64::try_from(self.0.div_euclid(1_000_000)).unwrap_or(0);
        let nanos = u32::try_from(self.0.rem_euclid(1_000_000) * 1_000).unwrap_or(0);
        (seconds, nanos)
    }

    /// For people, in UTC: `2026-12-05 14:00 UTC`.
    pub fn to_the_minute(self) -> String {
        jiff::Timestamp::from_microsecond(self.0)
            .map_or_else(|_| self.to_string(), |instant| instant.strftime("%Y-%m-%d %H:%M UTC").to_string())
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339, in UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(instant) => instant.fmt(f),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

/// Domain time: the time that expiry, thresholds and dates are compared with. A test can move it and make it run
/// faster, to stand on either side of every edge. Timeouts and polls use the monotonic time of tokio instead. Clones
/// share one clock.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    pace: Arc<RwLock<Pace>>,
}

/// A straight line, in microseconds: when the system's clock showed `system`, this clock showed `shown`, and it
/// advances by `speed` for each microsecond of the system.
#[derive(Debug, Clone, Copy)]
struct Pace {
    system: i64,
    shown: i64,
    speed: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { system: 0, shown: 0, speed: 1 }
    }
}

impl Pace {
    fn at(self, system: i64) -> i64 {
        let passed = system.saturating_sub(self.system).saturating_mul(i64::from(self.speed));
        self.shown.saturating_add(passed)
    }
}

impl Clock {
    pub fn system() -> Self {
        Self::default()
    }

    pub fn now(&self) -> Timestamp {
        let pace = *self.pace.read();
        Timestamp(pace.at(system_now()))
    }

    pub fn advance(&self, by: Duration) {
        let mut pace = self.pace.write();
        pace.shown = pace.shown.saturating_add(micros(by));
    }

    /// Sets the clock to `now`; from then on `speed` seconds pass per second of the system. At 0 it stands still.
    pub fn run_from(&self, now: Timestamp, speed: u32) {
        let mut pace = self.pace.write();
        *pace = Pace { system: system_now(), shown: now.0, speed };
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the system's clock")]
fn system_now() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => micros(since),
        Err(before) => -micros(before.duration()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_never_run_backwards() {
        let (a, b) = (Timestamp::from_unix_seconds(10), Timestamp::from_unix_seconds(12));
        assert_eq!(b.since(a), Duration::from_secs(2));
        assert_eq!(a.since(b), Duration::ZERO);
    }

    #[test]
    fn extremes_saturate() {
        assert_eq!(Timestamp::from_micros(i64::MAX) + Duration::MAX, Timestamp::from_micros(i64::MAX));
        assert_eq!(Timestamp::from_unix_seconds(i64::MAX).as_micros(), i64::MAX);
    }

    #[test]
    fn instants_of_outsiders_are_in_the_years_2000_to_2200() {
        for (seconds, text) in [
            (946_684_800, Some("2000-01-01T00:00:00Z")),
            (7_289_654_399, Some("2200-12-31T23:59:59Z")),
            (946_684_799, None),
            (7_289_654_400, None),
            (0, None),
            (-1, None),
            (1_763_859_600_000, None),
            (i64::MAX, None),
            (i64::MIN, None),
        ] {
            let plausible = Timestamp::plausible(seconds).map(|at| at.to_string());
            assert_eq!(plausible.as_deref(), text, "{seconds}");
        }
    }

    #[test]
    fn instants_print_as_rfc_3339() {
        assert_eq!(Timestamp::from_unix_seconds(1_763_859_600).to_string(), "2025-11-23T01:00:00Z");
    }

    #[test]
    fn a_moved_clock_moves_its_clones() {
        let clock = Clock::system();
        let clone = clock.clone();
        clock.advance(Duration::from_secs(3_600));
        assert!(clone.now().since(Clock::system().now()) > Duration::from_secs(3_590));
    }
    #[test]
    fn a_clock_runs_on_from_where_it_is_set_at_its_speed() {
        let clock = Clock::system();
        let past = Timestamp::from_unix_seconds(1_763_859_600);
        clock.run_from(past, 0);
        clock.advance(Duration::from_micros(7));
        assert_eq!(
            clock.clone().now(),
            past + Duration::from_micros(7),
            "it stands still, and moves when advanced"
        );
        clock.run_from(past, 86_400);
        std::thread::sleep(Duration::from_millis(10));
        let passed = clock.now().since(past);
        assert!(passed >= Duration::from_secs(864), "{passed:?}");
        let pace = Pace { system: 100, shown: 50, speed: u32::MAX };
        assert_eq!((pace.at(100), pace.at(101), pace.at(i64::MAX)), (50, 50 + i64::from(u32::MAX), i64::MAX));
    }
}
