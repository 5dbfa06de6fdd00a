//! Jitter for pauses and ages, so that callers that failed or arrived at the same time do not all return at the same
//! time.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// Returns a duration between zero and `most`, evenly distributed.
pub(crate) fn jitter(most: Duration) -> Duration {
    // The crate draws between the delay and its double.
    let mut drawn = ExponentialBuilder::default().with_min_delay(most).with_jitter().build();
    drawn.next().map_or(most, |drawn| drawn.saturating_sub(most))
}

/// Returns a duration within a tenth of `time`.
pub(crate) fn about(time: Duration) -> Duration {
    time - time / 10 + jitter(time / 5)
}
