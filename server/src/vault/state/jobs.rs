//! Which runs of jobs this process works on, and which due work it has seen waiting.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::model::{ConnectionId, Timestamp};
use crate::vault::state::in_flight::InFlight;
use crate::vault::timetable::Timetable;
use parking_lot::Mutex;

/// How often to look for keys that are not sealed to the break-glass key.
const BREAK_GLASS_EVERY: Duration = Duration::from_secs(600);

/// A process counts as dead three seconds after its last beat; the others look every second.
const FOUND_OUT: Duration = Duration::from_secs(5);

pub struct Jobs {
    pub timetable: Timetable,
    /// The jobs that this process runs now, by name.
    pub runs: InFlight<String>,
    pub overdue: OverdueWork,
    /// When keys without a break-glass seal were last looked for.
    break_glass_checked: Mutex<Option<Instant>>,
    started: Instant,
}

impl Jobs {
    pub fn new(timetable: Timetable) -> Self {
        Self {
            timetable,
            runs: InFlight::default(),
            overdue: OverdueWork::default(),
            break_glass_checked: Mutex::default(),
            started: Instant::now(),
        }
    }

    /// Whether every process that had died before this one started has been found out by now.
    pub fn knows_who_lives(&self) -> bool {
        self.started.elapsed() >= FOUND_OUT
    }

    /// Whether to look for keys without a break-glass seal now. If so, they count as looked for.
    pub fn is_time_for_break_glass(&self) -> bool {
        let mut checked = self.break_glass_checked.lock();
        if checked.is_some_and(|at| at.elapsed() < BREAK_GLASS_EVERY) {
            return false;
        }
        *checked = Some(Instant::now());
        true
    }
}

/// The due work that the watchdog has seen waiting, and since when by its own clock.
#[derive(Default)]
pub struct OverdueWork(Mutex<HashMap<ConnectionId, (Timestamp, Instant)>>);

impl OverdueWork {
    /// Notes what is due now, and returns what has been due unchanged for `too_long`.
    pub fn note(&self, due: &[(ConnectionId, Timestamp)], too_long: Duration) -> Vec<ConnectionId> {
        let mut seen = self.0.lock();
        seen.retain(|id, (at, _)| due.iter().any(|(due, due_at)| due == id && due_at == at));
        due.iter()
            .filter(|(id, at)| seen.entry(*id).or_insert((*at, Instant::now())).1.elapsed() >= too_long)
            .map(|(id, _)| *id)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_waits_unchanged_for_too_long_is_overdue() {
        let (overdue, id) = (OverdueWork::default(), ConnectionId::generate(Timestamp::EPOCH));
        let at = Timestamp::from_unix_seconds(5);
        assert!(overdue.note(&[(id, at)], Duration::from_millis(30)).is_empty());
        std::thread::sleep(Duration::from_millis(40));
        assert_eq!(overdue.note(&[(id, at)], Duration::from_millis(30)), [id]);
        // An attempt moved it, so the count starts again.
        let later = Timestamp::from_unix_seconds(9);
        assert!(overdue.note(&[(id, later)], Duration::from_millis(30)).is_empty());
    }
}
