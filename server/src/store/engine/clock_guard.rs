//! Whether this process's clock can be trusted with announcing deadlines. It is compared with the database's clock and
//! with monotonic time, because a wrong clock would announce ends too early.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use crate::model::{Clock, Timestamp};
use crate::store::sql::{Backend, Pool, Session, StoreError};
use parking_lot::Mutex;

/// How far this clock may differ from the database's, in microseconds.
const OFFSET: i64 = 2_000_000;
/// How far the clock may move against monotonic time between two checks, in microseconds.
const STEP: i64 = 60_000_000;
/// Without another clock to compare with, a step is trusted if no other step follows for this long.
const SETTLED: Duration = Duration::from_secs(60);

/// Both clocks at one moment.
#[derive(Clone, Copy)]
struct Look {
    system: i64,
    monotonic: Instant,
}

#[derive(Default)]
struct Seen {
    last: Option<Look>,
    stepped_at: Option<Instant>,
}

impl Look {
    fn now() -> Self {
        Self { system: Clock::system().now().as_micros(), monotonic: Instant::now() }
    }

    /// How far the clock has moved against monotonic time since an earlier look, in microseconds.
    fn step_since(self, earlier: Self) -> i64 {
        let passed = self.monotonic.saturating_duration_since(earlier.monotonic);
        let passed = i64::try_from(passed.as_micros()).unwrap_or(i64::MAX);
        (self.system - earlier.system).saturating_sub(passed).abs()
    }
}

impl Seen {
    /// Whether to trust the clock. `offset`: how far it differs from the database's, if that is known.
    fn judge(&mut self, now: Look, offset: Option<i64>) -> bool {
        if self.last.replace(now).is_some_and(|last| now.step_since(last) > STEP) {
            self.stepped_at = Some(now.monotonic);
        }
        match offset {
            Some(offset) => offset.abs() <= OFFSET,
            None => self.stepped_at.is_none_or(|at| now.monotonic.saturating_duration_since(at) >= SETTLED),
        }
    }
}

pub(in crate::store) struct ClockGuard {
    seen: Mutex<Seen>,
    trusted: AtomicBool,
    offset: AtomicI64,
}

impl ClockGuard {
    pub(in crate::store) fn new() -> Self {
        Self { seen: Mutex::default(), trusted: AtomicBool::new(true), offset: AtomicI64::new(0) }
    }

    /// Whether the clock is trusted now. It may have stepped since the last check.
    pub(in crate::store) fn is_trusted(&self) -> bool {
        let seen = self.seen.lock();
        self.trusted.load(Ordering::Acquire)
            && seen.last.is_none_or(|last| Look::now().step_since(last) <= STEP)
    }

    /// Microseconds that this clock is ahead of the database's.
    pub(in crate::store) fn offset(&self) -> i64 {
        self.offset.load(Ordering::Acquire)
    }

    /// Compares the clocks. Called before every beat.
    pub(in crate::store) async fn look(&self, pool: &Pool) -> Result<(), StoreError> {
        let system = Clock::system();
        let offset = match pool.backend() {
            Backend::Sqlite => None,
            Backend::Postgres => {
                let before = system.now();
                let database = pool.session().await?.database_time().await?;
                let after = system.now();
                // The database read its clock at some moment between our two readings. A slow reply makes that moment
                // uncertain, so the smaller difference counts.
                let ahead = before.as_micros() - database.as_micros();
                let behind = after.as_micros() - database.as_micros();
                Some(if ahead > 0 { ahead } else { behind.min(0) })
            }
        };
        self.offset.store(offset.unwrap_or(0), Ordering::Release);
        let now = Look::now();
        let trusted = self.seen.lock().judge(now, offset);
        match (self.trusted.swap(trusted, Ordering::AcqRel), trusted) {
            (true, false) => {
                let offset_seconds = offset.unwrap_or(0) / 1_000_000;
                tracing::error!(
                    offset_seconds,
                    "this machine's clock has stepped, or is off the database's: nothing is announced by time from here until it is right"
                );
            }
            (false, true) => tracing::info!("this machine's clock is right again"),
            _ => {}
        }
        Ok(())
    }
}

impl Session {
    /// The database server's time. PostgreSQL only.
    async fn database_time(&mut self) -> Result<Timestamp, StoreError> {
        #[derive(sqlx::FromRow)]
        struct Row {
            now: i64,
        }
        let row: Row = self
            .query("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint) AS now")
            .fetch_one()
            .await?;
        Ok(Timestamp::from_micros(row.now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(start: Instant, after: u64, system: i64) -> Look {
        Look { system: system * 1_000_000, monotonic: start + Duration::from_secs(after) }
    }

    #[test]
    fn a_clock_off_the_databases_is_not_trusted_however_steady() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        assert!(seen.judge(look(start, 0, 100), Some(1_999_999)));
        assert!(!seen.judge(look(start, 1, 101), Some(2_000_001)));
        assert!(!seen.judge(look(start, 2, 102), Some(-2_000_001)));
        assert!(seen.judge(look(start, 3, 103), Some(0)));
    }

    #[test]
    fn a_step_is_believed_once_it_has_settled() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        assert!(seen.judge(look(start, 0, 100), None));
        assert!(seen.judge(look(start, 1, 130), None), "half a minute is no step");
        assert!(!seen.judge(look(start, 2, 3_700), None));
        assert!(!seen.judge(look(start, 30, 3_728), None));
        assert!(seen.judge(look(start, 63, 3_761), None));
        assert!(!seen.judge(look(start, 64, 100), None), "back is a step too");
    }
}
