//! Retries: only where they can help, and never past the deadline.

use std::time::Duration;

use rand::RngExt;

use crate::error::{Error, ErrorKind};
use crate::v1::ErrorReason;

/// The upper bound of the first wait. It doubles with each attempt.
const FIRST: Duration = Duration::from_millis(100);
pub(crate) const LONGEST: Duration = Duration::from_secs(10);
/// The longest wait that is respected; no vault asks for more. The bound also keeps clock arithmetic from overflowing.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);

/// Whether a repeat can help: because waiting helps, or because the same call is still running (perhaps our own lost
/// attempt) and the repeat gets its outcome.
fn repeatable(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::RetryAfter(_)) || error.reason() == Some(ErrorReason::RequestInProgress)
}

/// How long to wait before the next attempt after `tries` of them, or `None` to give up: what the vault asks for, plus
/// exponential backoff with full jitter.
pub(crate) fn wait(error: &Error, tries: u32, max_retries: u32, left: Duration) -> Option<Duration> {
    if tries > max_retries || !repeatable(error) {
        return None;
    }
    // If the vault was not reached, it asked for nothing, and only the backoff counts.
    let wait = error.retry_after().unwrap_or_default().saturating_add(backoff(tries));
    (wait < left).then_some(wait)
}

/// How long a stream waits before it connects again, after `tries` connections that did not last. The time that the
/// vault asks for is stretched at random, because all its watchers are asked for the same.
pub(crate) fn reconnect(error: &Error, tries: u32) -> Duration {
    let asked = error.retry_after().unwrap_or_default().min(LONGEST_ASKED);
    asked + part_of(asked / 2) + backoff(tries)
}

/// Exponential backoff with full jitter: between nothing and a ceiling that doubles with each attempt.
pub(crate) fn backoff(tries: u32) -> Duration {
    part_of(FIRST.saturating_mul(2_u32.saturating_pow(tries.saturating_sub(1))).min(LONGEST))
}

fn part_of(whole: Duration) -> Duration {
    whole.mul_f64(rand::rng().random_range(0.0..1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use tonic::{Code, Status};
    use tonic_types::{ErrorDetails, StatusExt};

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn only_what_waiting_can_fix_is_tried_again() {
        for code in [
            Code::FailedPrecondition,
            Code::InvalidArgument,
            Code::Aborted,
            Code::DataLoss,
            Code::Unauthenticated,
        ] {
            assert_eq!(wait(&Status::new(code, "").into(), 1, 3, MINUTE), None, "{code:?}");
        }
        assert!(wait(&Status::unavailable("").into(), 1, 3, MINUTE).is_some());
        assert_eq!(wait(&Status::unavailable("").into(), 4, 3, MINUTE), None);
    }

    #[test]
    fn the_same_call_in_flight_is_waited_for_and_another_conflict_is_not() {
        let conflict = |reason: &str| {
            let details = ErrorDetails::with_error_info(reason, "tokenvault.v1", HashMap::new());
            Error::from(Status::with_error_details(Code::Aborted, "", details))
        };
        assert!(wait(&conflict("REQUEST_IN_PROGRESS"), 1, 3, MINUTE).is_some());
        assert_eq!(wait(&conflict("TOKEN_VERSION_MISMATCH"), 1, 3, MINUTE), None);
    }

    #[test]
    fn a_stream_waits_as_long_as_it_is_asked_to_and_not_much_longer() {
        let asked = |time| {
            Error::from(Status::with_error_details(
                Code::Unavailable,
                "",
                ErrorDetails::with_retry_info(Some(time)),
            ))
        };
        for _ in 0..100 {
            let wait = reconnect(&asked(MINUTE), 1);
            assert!(wait >= MINUTE && wait <= MINUTE * 3 / 2 + FIRST, "{wait:?}");
            assert!(reconnect(&asked(Duration::MAX), 40) <= LONGEST_ASKED * 3 / 2 + LONGEST);
            assert!(reconnect(&Status::unavailable("").into(), u32::MAX) <= LONGEST);
        }
    }

    #[test]
    fn no_wait_goes_past_the_deadline() {
        let details = {
            let mut details = ErrorDetails::with_retry_info(Some(MINUTE));
            details.set_error_info("STORAGE_UNAVAILABLE", "tokenvault.v1", HashMap::new());
            details
        };
        let error: Error = Status::with_error_details(Code::Unavailable, "", details).into();
        assert_eq!(wait(&error, 1, 3, Duration::from_secs(30)), None);
    }
}
