//! Timestamps and durations.

use std::ops::RangeInclusive;
use std::time::Duration;

use prost_types::{Duration as PbDuration, Timestamp as PbTimestamp};

use crate::model::{BadValue, Timestamp};

/// The longest duration that a request may name: ten years.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

/// The years 1 to 9999, in seconds: the only ones that a `Timestamp` can say.
const YEARS: RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// An instant outside the years 1 to 9999 becomes the nearest one within: a client could not read the page or the batch
/// that it is in.
pub(super) fn instant(at: Timestamp) -> PbTimestamp {
    let micros = at.as_micros().clamp(YEARS.start() * 1_000_000, YEARS.end() * 1_000_000 + 999_999);
    let nanos = i32::try_from(micros.rem_euclid(1_000_000) * 1_000).unwrap_or(0);
    PbTimestamp { seconds: micros.div_euclid(1_000_000), nanos }
}

pub(super) fn length(duration: Duration) -> PbDuration {
    PbDuration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// From microseconds. Seconds and nanoseconds have the same sign.
pub(super) fn signed_length(micros: i64) -> PbDuration {
    PbDuration { seconds: micros / 1_000_000, nanos: i32::try_from(micros % 1_000_000 * 1_000).unwrap_or(0) }
}

/// Parses a duration that is not negative, and at most ten years.
pub(super) fn parse_length(duration: PbDuration) -> Result<Duration, BadValue> {
    let seconds = u64::try_from(duration.seconds).ok();
    let nanos = u32::try_from(duration.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    match (seconds, nanos) {
        (Some(seconds), Some(nanos)) => {
            Some(Duration::new(seconds, nanos)).filter(|length| *length <= LONGEST)
        }
        _ => None,
    }
    .ok_or_else(|| BadValue::new("must be a length of time from 0 to 10 years"))
}

/// Parses an instant in the years 1 to 9999.
pub(super) fn parse_instant(at: PbTimestamp) -> Result<Timestamp, BadValue> {
    let nanos = i64::from(at.nanos);
    if YEARS.contains(&at.seconds) && (0..1_000_000_000).contains(&nanos) {
        Ok(Timestamp::from_micros(at.seconds * 1_000_000 + nanos / 1_000))
    } else {
        Err(BadValue::new("must be a time in the years 1 to 9999"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_survive_the_wire() {
        for micros in [0, 1, -1, 1_763_859_600_123_456, -1_500_000] {
            let at = Timestamp::from_micros(micros);
            assert_eq!(parse_instant(instant(at)), Ok(at));
        }
    }

    #[test]
    fn no_instant_goes_out_that_a_client_cannot_read() {
        for (micros, seconds, nanos) in [
            (i64::MAX, 253_402_300_799, 999_999_000),
            (1_763_859_600_000 * 1_000_000, 253_402_300_799, 999_999_000),
            (253_402_300_799_999_999, 253_402_300_799, 999_999_000),
            (-62_135_596_800_000_001, -62_135_596_800, 0),
            (i64::MIN, -62_135_596_800, 0),
        ] {
            let out = instant(Timestamp::from_micros(micros));
            assert_eq!((out.seconds, out.nanos), (seconds, nanos), "{micros}");
            assert!(parse_instant(out).is_ok(), "{micros}");
        }
    }

    #[test]
    fn an_offset_has_one_sign() {
        for (micros, seconds, nanos) in
            [(0, 0, 0), (1_500_000, 1, 500_000_000), (-1_500_000, -1, -500_000_000)]
        {
            assert_eq!(signed_length(micros), PbDuration { seconds, nanos });
        }
    }

    #[test]
    fn lengths_are_bounded() {
        assert_eq!(parse_length(length(Duration::from_millis(1_500))), Ok(Duration::from_millis(1_500)));
        for (seconds, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000), (i64::MAX, 0)] {
            assert!(parse_length(PbDuration { seconds, nanos }).is_err(), "{seconds} {nanos}");
        }
    }
}
