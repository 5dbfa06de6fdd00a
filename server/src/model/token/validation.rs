//! When to ask the provider about a token again.

use std::time::Duration;

use crate::model::{Connection, Timestamp};

/// Every token is asked about once in this time.
pub const VALIDATED_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// The wait after the first time that the provider could not be asked; it doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_secs(60);
/// The longest wait after the provider could not be asked.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

impl Connection {
    /// Notes that the inspector replied about the token, and that nothing else was asked. What is due for more than that
    /// stays due.
    pub fn note_inspected(&mut self, now: Timestamp) {
        self.seen.last_validated_at = Some(now);
        let latest = now + VALIDATED_EVERY;
        let due = self.schedule.next_validation_at;
        self.schedule.next_validation_at = Some(due.map_or(latest, |due| due.min(latest)));
    }

    /// Notes that the provider replied to everything that a validation asks.
    pub fn note_validated(&mut self, now: Timestamp) {
        self.seen.last_validated_at = Some(now);
        self.schedule.next_validation_at = Some(now + VALIDATED_EVERY);
        self.schedule.failed_validations = 0;
    }

    /// Notes that the provider could not be asked about the token. It stays due, after a wait.
    pub fn note_not_validated(&mut self, now: Timestamp) {
        let doubled = FIRST_WAIT.saturating_mul(1 << self.schedule.failed_validations.min(12));
        self.schedule.next_validation_at = Some(now + doubled.min(LONGEST_WAIT));
        self.schedule.failed_validations = self.schedule.failed_validations.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::token::fixture::{NOW, connection};
    use crate::model::{Expiry, Standing};

    #[test]
    fn an_inspection_alone_settles_nothing_that_is_due() {
        let hour = Duration::from_secs(60 * 60);
        for (due, expected) in [
            (None, NOW + VALIDATED_EVERY),
            (Some(NOW - hour), NOW - hour),
            (Some(NOW + hour), NOW + hour),
            (Some(NOW + 9 * VALIDATED_EVERY), NOW + VALIDATED_EVERY),
        ] {
            let mut connection = connection(Expiry::Never, Standing::Live);
            connection.schedule.next_validation_at = due;
            connection.schedule.failed_validations = 2;
            connection.note_inspected(NOW);
            let schedule = &connection.schedule;
            assert_eq!(
                (schedule.next_validation_at, schedule.failed_validations),
                (Some(expected), 2),
                "{due:?}"
            );
            assert_eq!(connection.seen.last_validated_at, Some(NOW));
        }
    }

    #[test]
    fn what_failed_is_due_after_a_minute_that_doubles_to_an_hour_and_what_succeeded_a_day_later() {
        let mut connection = connection(Expiry::Never, Standing::Live);
        let mut waits = Vec::new();
        for _ in 0..9 {
            connection.note_not_validated(NOW);
            waits.push(connection.schedule.next_validation_at.unwrap().since(NOW).as_secs() / 60);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(connection.seen.last_validated_at, None);
        connection.note_validated(NOW);
        assert_eq!(connection.schedule.next_validation_at, Some(NOW + VALIDATED_EVERY));
        assert_eq!(
            (connection.schedule.failed_validations, connection.seen.last_validated_at),
            (0, Some(NOW))
        );
    }
}
