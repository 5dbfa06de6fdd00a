//! Randomness in pauses and ages, so that callers who failed or came together do not all come back together.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// A duration between zero and `most`, evenly distributed.
pub(crate) fn jitter(most: Duration) -> Duration {
    // The crate draws between the delay and its double.
    let mut drawn = ExponentialBuilder::default().with_min_delay(most).with_jitter().build();
    drawn.next().map_or(most, |drawn| drawn.saturating_sub(most))
}

/// A duration within a tenth of `time`.
pub(crate) fn about(time: Duration) -> Duration {
    time - time / 10 + jitter(time / 5)
}
