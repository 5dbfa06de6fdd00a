//! Times as commands show them: short for people, whole for programs, always in UTC.

use std::time::Duration;

use token_vault_client::Timestamp as Wire;

use crate::model::{Clock, Timestamp};

/// RFC 3339.
pub(in crate::cli) fn full(at: Option<Wire>) -> Option<String> {
    at.map(|at| from_wire(at).to_string())
}

/// A time to the minute, such as `2027-01-15 08:00`.
pub(in crate::cli) fn minute(at: Wire) -> String {
    cut(at, "2027-01-15T08:00".len())
}

/// A time to the second, such as `2027-01-15 08:00:00`.
pub(in crate::cli) fn second(at: Wire) -> String {
    cut(at, "2027-01-15T08:00:00".len())
}

fn cut(at: Wire, length: usize) -> String {
    shortened(&from_wire(at).to_string(), length)
}

/// The beginning of a time in RFC 3339.
pub(in crate::cli) fn shortened(full: &str, length: usize) -> String {
    full.chars().take(length).collect::<String>().replace('T', " ")
}

/// The moment that is this long from now.
pub(in crate::cli) fn from_now(after: Duration) -> Wire {
    let (seconds, nanos) = (now() + after).unix_parts();
    Wire { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: i32::try_from(nanos).unwrap_or(0) }
}

/// The present, by this machine's clock.
pub(in crate::cli) fn now() -> Timestamp {
    Clock::system().now()
}

pub(in crate::cli) fn from_wire(at: Wire) -> Timestamp {
    Timestamp::from_micros(at.seconds.saturating_mul(1_000_000).saturating_add(i64::from(at.nanos) / 1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_or_as_short_as_asked() {
        let at = Wire { seconds: 1_800_000_000, nanos: 250_000_000 };
        assert_eq!(full(Some(at)).as_deref(), Some("2027-01-15T08:00:00.25Z"));
        assert_eq!((minute(at), second(at)), ("2027-01-15 08:00".into(), "2027-01-15 08:00:00".into()));
        assert_eq!(full(None), None);
    }
}
