//! How long the store waits for a reply of the database before the database counts as unavailable.

use std::pin::pin;
use std::time::Duration;

use tokio::time::sleep;

/// With the time between two polls, and some for the response, this is less than three seconds, within which every call
/// is refused.
const PATIENCE: Duration = Duration::from_millis(2_400);
/// Patience is counted in steps: while this process itself is too busy to wait, they take longer.
const STEP: Duration = Duration::from_millis(100);

/// How long the database may still take. A process that is short of processor time must not blame the database for it: a
/// thousand watchers would lose their streams at once. So what counts is how often this task got to wait, not the time.
pub(super) struct Patience(Duration);

impl Patience {
    pub(super) const fn new() -> Self {
        Self(PATIENCE)
    }

    /// Waits for work. `None`: no patience is left.
    pub(super) async fn wait<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        while !self.0.is_zero() {
            tokio::select! {
                biased;
                outcome = &mut work => return Some(outcome),
                () = sleep(STEP) => self.0 = self.0.saturating_sub(STEP),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn patience_ends_but_not_while_this_process_is_what_is_slow() {
        let mut patience = Patience(2 * STEP);
        let slow = async {
            std::thread::sleep(5 * STEP);
            tokio::task::yield_now().await;
        };
        assert_eq!(patience.wait(slow).await, Some(()));
        assert_eq!(patience.wait(std::future::pending::<()>()).await, None);
        assert_eq!(patience.wait(async {}).await, None, "none is left");
    }
}
