//! Cron expressions: at which instants, in UTC, a job is due.
//!
//! `croner` parses and searches. This module adds what it lacks: `Timestamp`s, the domain's clock instead of the
//! system's, and the rejection of texts on which its parser panics. Only this module knows `croner`.

use std::fmt;

use chrono::{DateTime, Utc};
use croner::Direction;
use croner::parser::{CronParser, Seconds, Year};

use super::{BadValue, Timestamp};

const RULE: &str = "must be a cron expression of six fields, seconds first, in UTC, such as \"0 0 6 * * *\"";

/// A cron expression: second, minute, hour, day of month, month, day of week, in UTC. Where both days are
/// limited, either suffices.
#[derive(Debug, Clone)]
pub struct Cron {
    text: String,
    schedule: croner::Cron,
}

impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Cron {}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Cron {
    /// An expression that is never due, such as 30 February, is accepted.
    pub fn parse(text: &str) -> Result<Self, BadValue> {
        let fields = text.split_whitespace().count();
        // No field has a value of three digits, and the parser panics at a step of five digits.
        let short = text.split(|c: char| !c.is_ascii_digit()).all(|number| number.len() <= 2);
        if fields != 6 || !short || !text.is_ascii() {
            return Err(BadValue::new(RULE));
        }
        let parser = CronParser::builder().seconds(Seconds::Required).year(Year::Disallowed).build();
        let schedule = parser.parse(text).map_err(|error| BadValue::new(format!("{RULE}: {error}")))?;
        Ok(Self { text: text.to_owned(), schedule })
    }

    /// The last slot that is not after `now`: the one that should have run.
    pub fn latest_at_or_before(&self, now: Timestamp) -> Option<Timestamp> {
        self.find(now, true, Direction::Backward)
    }

    /// The first slot after `now`. `None` if it is never due again.
    pub fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        self.find(now, false, Direction::Forward)
    }

    /// The search goes through days, hours, minutes and seconds in turn, and ends at the years 1 and 5000.
    fn find(&self, from: Timestamp, inclusive: bool, direction: Direction) -> Option<Timestamp> {
        // Slots are whole seconds, so the fraction of this one cannot hold any.
        let from = DateTime::<Utc>::from_timestamp(from.as_micros().div_euclid(1_000_000), 0)?;
        let found = match direction {
            Direction::Forward => self.schedule.find_next_occurrence(&from, inclusive),
            Direction::Backward => self.schedule.find_previous_occurrence(&from, inclusive),
        };
        found.ok().map(|slot| Timestamp::from_unix_seconds(slot.timestamp()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MICRO: Duration = Duration::from_micros(1);

    fn at(text: &str) -> Timestamp {
        let parsed: jiff::Timestamp = text.parse().unwrap();
        Timestamp::from_micros(parsed.as_microsecond())
    }

    fn cron(text: &str) -> Cron {
        Cron::parse(text).unwrap()
    }

    #[test]
    fn slots_follow_the_calendar() {
        for (text, now, latest, next) in [
            // A slot that is exactly now is the latest, not the next; a microsecond decides.
            ("0 0 6 * * *", "2026-11-23T06:00:00Z", "2026-11-23T06:00:00Z", "2026-11-24T06:00:00Z"),
            ("0 0 6 * * *", "2026-11-23T05:59:59.999999Z", "2026-11-22T06:00:00Z", "2026-11-23T06:00:00Z"),
            ("0 0 6 * * *", "2026-11-23T06:00:00.000001Z", "2026-11-23T06:00:00Z", "2026-11-24T06:00:00Z"),
            // Every second.
            ("* * * * * *", "2026-11-23T05:59:59.5Z", "2026-11-23T05:59:59Z", "2026-11-23T06:00:00Z"),
            ("* * * * * *", "2026-12-31T23:59:59Z", "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z"),
            ("*/20 * * * * *", "2026-11-23T05:59:59Z", "2026-11-23T05:59:40Z", "2026-11-23T06:00:00Z"),
            // The leap day, and a century without one.
            ("0 0 0 29 2 *", "2026-03-01T00:00:00Z", "2024-02-29T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 0 29 2 *", "2100-03-01T00:00:00Z", "2096-02-29T00:00:00Z", "2104-02-29T00:00:00Z"),
            ("0 0 0 * * *", "2028-02-28T12:00:00Z", "2028-02-28T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 0 * * *", "2026-02-28T12:00:00Z", "2026-02-28T00:00:00Z", "2026-03-01T00:00:00Z"),
            // Ends of months.
            ("0 30 3 31 * *", "2026-05-01T00:00:00Z", "2026-03-31T03:30:00Z", "2026-05-31T03:30:00Z"),
            ("0 30 3 L * *", "2026-02-28T03:30:00Z", "2026-02-28T03:30:00Z", "2026-03-31T03:30:00Z"),
            // The end of the year.
            ("59 59 23 31 12 *", "2027-01-01T00:00:00Z", "2026-12-31T23:59:59Z", "2027-12-31T23:59:59Z"),
            ("0 0 0 1 1 *", "2026-12-31T23:59:59Z", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            // Days of the week, by name and by number; with a day of the month, either suffices.
            ("0 15 * * * MON-FRI", "2026-11-22T12:00:00Z", "2026-11-20T23:15:00Z", "2026-11-23T00:15:00Z"),
            ("0 0 9 * * 7", "2026-11-23T09:00:00Z", "2026-11-22T09:00:00Z", "2026-11-29T09:00:00Z"),
            ("0 0 0 13 * 5", "2026-11-12T00:00:00Z", "2026-11-06T00:00:00Z", "2026-11-13T00:00:00Z"),
            ("0 0 0 13 * 5", "2026-11-14T00:00:00Z", "2026-11-13T00:00:00Z", "2026-11-20T00:00:00Z"),
            // Before the epoch too.
            ("0 0 6 * * *", "1969-12-31T07:00:00Z", "1969-12-31T06:00:00Z", "1970-01-01T06:00:00Z"),
        ] {
            let (cron, now) = (cron(text), at(now));
            assert_eq!(cron.latest_at_or_before(now), Some(at(latest)), "{text} at or before {now}");
            assert_eq!(cron.next_after(now), Some(at(next)), "{text} after {now}");
        }
    }

    /// Both directions find the same slots.
    #[test]
    fn backwards_and_forwards_agree() {
        let end = at("2029-01-01T00:00:00Z");
        for text in ["0 0 6 * * *", "5 4 3 2 * 1", "0 0 0 29 2 *", "30 59 23 28-31 * *", "0 0 */7 L 2,12 *"] {
            let cron = cron(text);
            let mut now = at("2026-01-01T00:00:00Z");
            let mut slots = 0;
            while let Some(slot) = cron.next_after(now).filter(|slot| *slot < end) {
                assert!(slot > now, "{text} at {now}");
                assert_eq!(cron.latest_at_or_before(slot), Some(slot), "{text}");
                assert_eq!(cron.next_after(slot - MICRO), Some(slot), "{text}");
                if slots > 0 {
                    assert_eq!(cron.latest_at_or_before(slot - MICRO), Some(now), "{text} before {slot}");
                }
                (now, slots) = (slot, slots + 1);
            }
            assert!(slots > 0, "{text}");
        }
    }

    #[test]
    fn an_expression_that_is_never_due_is_recognised() {
        let now = at("2026-11-23T06:00:00Z");
        for text in ["0 0 0 30 2 *", "0 0 0 31 4,6,9,11 *", "* * * 31 2 *"] {
            assert_eq!(
                (cron(text).next_after(now), cron(text).latest_at_or_before(now)),
                (None, None),
                "{text}"
            );
        }
        for end in [i64::MIN, i64::MAX].map(Timestamp::from_micros) {
            assert_eq!(cron("0 0 6 * * *").next_after(end), None, "{end}");
            assert_eq!(cron("0 0 6 * * *").latest_at_or_before(end), None, "{end}");
        }
    }

    #[test]
    fn bad_expressions_are_refused() {
        for text in [
            "",
            "0 6 * * *",
            "0 0 6 * * * 2026",
            "60 0 6 * * *",
            "0 0 24 * * *",
            "0 0 6 0 * *",
            "0 0 6 * 13 *",
            "0 0 6 * * 8",
            "*/0 * * * * *",
            "59/65535 * * * * *",
            "0 0 6 * * someday",
            "@daily a b c d e",
            "@daily",
            "0 0 6 * * ☀",
        ] {
            let refused = Cron::parse(text).unwrap_err();
            assert!(refused.rule.starts_with("must be a cron expression of six fields"), "{text}: {refused}");
        }
    }
}
