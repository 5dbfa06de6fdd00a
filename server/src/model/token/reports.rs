//! What callers lately reported about a secret while the vault found nothing wrong with it.

use std::time::Duration;

use crate::model::Timestamp;

/// So many transient reports within [`LATELY`], of whichever callers, make the vault look for itself.
const ENOUGH: usize = 5;
const LATELY: Duration = Duration::from_secs(10 * 60);
/// How long callers wait after the first look that found nothing; it doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_secs(30);
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);
/// A look that lies further back is forgotten. Longer than the longest wait, so that waits don't start again while a
/// caller does as it was told.
const FORGOTTEN: Duration = Duration::from_secs(2 * 60 * 60);

/// The reports about one secret, of all callers on all replicas.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reports {
    /// The times of the last transient reports, oldest first.
    pub transient: Vec<Timestamp>,
    /// How often in a row the vault looked and found nothing. Looks before the wait of the last one was over don't count.
    pub looks: u32,
    /// When the last of these was.
    pub looked_at: Option<Timestamp>,
}

impl Reports {
    /// Notes a transient report, and returns whether the vault must look for itself now: after many of them, and when
    /// a caller comes back after the wait that followed the last look.
    pub fn note_transient(&mut self, now: Timestamp) -> bool {
        self.transient.retain(|at| *at <= now && now.since(*at) < LATELY);
        self.transient.push(now);
        let enough = self.transient.len() >= ENOUGH;
        if enough {
            self.transient.clear();
        }
        enough || self.last_look(now).is_some_and(|age| age >= self.whole_wait())
    }

    /// Notes a look that found nothing, and returns how long the caller should wait.
    pub fn note_look(&mut self, now: Timestamp) -> Duration {
        match self.last_look(now) {
            Some(age) if age < self.whole_wait() => {}
            Some(_) => (self.looks, self.looked_at) = (self.looks.saturating_add(1), Some(now)),
            None => (self.looks, self.looked_at) = (1, Some(now)),
        }
        self.wait(now)
    }

    /// How long callers should wait that report what they reported before.
    pub fn wait(&self, now: Timestamp) -> Duration {
        match self.last_look(now) {
            Some(age) if age < self.whole_wait() => self.whole_wait().saturating_sub(age),
            Some(_) => self.whole_wait(),
            None => FIRST_WAIT,
        }
    }

    /// How long ago the vault last looked and found nothing. `None` also after the clock was set back.
    fn last_look(&self, now: Timestamp) -> Option<Duration> {
        let at = self.looked_at.filter(|at| *at <= now)?;
        Some(now.since(at)).filter(|age| *age < FORGOTTEN)
    }

    fn whole_wait(&self) -> Duration {
        FIRST_WAIT.saturating_mul(1 << self.looks.saturating_sub(1).min(12)).min(LONGEST_WAIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);
    const fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn five_transient_reports_in_ten_minutes_are_enough() {
        let mut reports = Reports::default();
        for n in 0..40 {
            assert!(!reports.note_transient(NOW + seconds(n * 150)), "one in 150 seconds, the {n}th");
        }
        let now = NOW + seconds(40 * 150);
        // Three of the last ten minutes, and these two.
        assert!(!reports.note_transient(now));
        assert!(reports.note_transient(now + seconds(1)));
        assert!(!reports.note_transient(now + seconds(2)), "they are counted anew");
    }

    #[test]
    fn waits_double_up_to_an_hour_while_a_caller_does_as_it_is_told() {
        let (mut reports, mut now, mut waits) = (Reports::default(), NOW, Vec::new());
        for _ in 0..12 {
            let wait = reports.note_look(now);
            waits.push(wait.as_secs());
            now = now + wait;
        }
        assert_eq!(waits, [30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600, 3600, 3600]);
        assert_eq!(reports.note_look(now + FORGOTTEN), FIRST_WAIT, "after a pause it begins anew");
    }

    #[test]
    fn a_caller_that_does_not_wait_prolongs_nothing() {
        let mut reports = Reports::default();
        for second in 0..30 {
            assert_eq!(reports.note_look(NOW + seconds(second)), seconds(30 - second));
        }
        assert_eq!(reports.note_look(NOW + seconds(30)), seconds(60));
        assert_eq!(reports.note_look(NOW), FIRST_WAIT, "the clock was set back");
    }

    #[test]
    fn who_reports_transient_refusals_for_ever_makes_the_vault_look_again_and_again_and_waits_longer() {
        let (mut reports, mut now, mut looks, mut wait) = (Reports::default(), NOW, Vec::new(), FIRST_WAIT);
        for _ in 0..20 {
            if reports.note_transient(now) {
                looks.push(now.since(NOW).as_secs());
                reports.note_look(now);
            }
            wait = reports.wait(now);
            now = now + wait;
        }
        assert_eq!(looks[..4], [120, 150, 210, 330]);
        assert_eq!(wait, LONGEST_WAIT);
    }
}
