//! Who waits for an answer, and for how long.
//!
//! The caller of the running call is an [`Attendance`]: task-local, set around every call. Work that must not end with
//! its caller runs in a task of its own, for [`Listeners`]: all callers who wait for its answer. Once none of them waits
//! any more, the provider is no longer asked for it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::provider::Patience;
use crate::vault::error::VaultError;

/// The most time that is kept for writing down what the provider said, and for the response.
const LONGEST_RESERVE: Duration = Duration::from_secs(1);

tokio::task_local! {
    static ATTENDANCE: Arc<Attendance>;
}

/// When a caller's time is over.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    /// From then on, no provider is asked.
    work: Instant,
    /// From then on, the caller gets a response without the rest of the work.
    response: Instant,
}

impl Deadline {
    /// A deadline after `time`, a quarter of which (at most a second) is kept for the response.
    pub fn after(time: Duration) -> Self {
        let end = Instant::now() + time;
        let reserve = (time / 4).min(LONGEST_RESERVE);
        Self { work: end - reserve, response: end - reserve / 4 }
    }
}

/// The permits of a call in flight.
type Permits = (OwnedSemaphorePermit, OwnedSemaphorePermit);

/// The caller who waits for the running call.
#[derive(Debug)]
pub struct Attendance {
    deadline: Deadline,
    /// Given back when the call ends, or earlier when it has to wait for a turn.
    permits: Mutex<Option<Permits>>,
}

impl Attendance {
    pub fn new(deadline: Deadline, permits: Permits) -> Arc<Self> {
        Arc::new(Self { deadline, permits: Mutex::new(Some(permits)) })
    }

    /// Does `work` while this caller waits for it.
    pub async fn scope<F: Future>(self: Arc<Self>, work: F) -> F::Output {
        ATTENDANCE.scope(self, work).await
    }

    /// The caller of the running call.
    pub(super) fn current() -> Option<Arc<Self>> {
        ATTENDANCE.try_with(Arc::clone).ok()
    }

    /// Gives the permits of the call back, because it only waits from now on.
    pub(super) fn step_aside(&self) {
        drop(self.permits.lock().take());
    }
}

/// The callers who wait for the answer of one piece of work.
#[derive(Clone)]
pub(super) struct Listeners(Arc<Group>);

struct Group {
    waiting: Mutex<usize>,
    nobody_waits: CancellationToken,
}

/// One of [`Listeners`], until it is dropped.
pub(super) struct Listener(Arc<Group>);

impl Listeners {
    /// A group of one.
    pub(super) fn first() -> (Self, Listener) {
        let group = Arc::new(Group { waiting: Mutex::new(1), nobody_waits: CancellationToken::new() });
        (Self(Arc::clone(&group)), Listener(group))
    }

    /// `None` when nobody waits any more: the work is ending without an answer.
    pub(super) fn join(&self) -> Option<Listener> {
        let mut waiting = self.0.waiting.lock();
        if *waiting == 0 {
            return None;
        }
        *waiting += 1;
        Some(Listener(Arc::clone(&self.0)))
    }

    /// Lasts while somebody waits.
    pub(super) fn patience(&self) -> Patience {
        Patience::until(self.0.nobody_waits.clone())
    }

    pub(super) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Listener {
    /// Waits for the answer, and stops listening in time for a response without it.
    pub(super) async fn hear<T>(
        self,
        answer: impl Future<Output = Result<T, VaultError>>,
    ) -> Result<T, VaultError> {
        let Some(deadline) = Attendance::current().map(|attendance| attendance.deadline) else {
            let answer = answer.await;
            drop(self);
            return answer;
        };
        tokio::pin!(answer);
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            () = sleep_until(deadline.work) => drop(self),
        }
        // Work that was only asking the provider ends now, with what it has found out.
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            () = sleep_until(deadline.response) => Err(VaultError::OutOfTime),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting.lock();
        *waiting -= 1;
        if *waiting == 0 {
            self.0.nobody_waits.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn patience_ends_with_the_last_listener_and_nobody_joins_afterwards() {
        let (listeners, first) = Listeners::first();
        let second = listeners.join().unwrap();
        drop(first);
        assert!(!listeners.patience().has_ended());
        drop(second);
        assert!(listeners.patience().has_ended());
        assert!(listeners.join().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_gets_what_was_found_out_within_the_deadline_and_nothing_later() {
        let permits = || {
            let permit = || Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned().unwrap();
            (permit(), permit())
        };
        for (work, answered) in [(Duration::ZERO, true), (Duration::from_secs(5), false)] {
            let (listeners, listener) = Listeners::first();
            let patience = listeners.patience();
            let start = Instant::now();
            // The work takes so long after it is no longer asked for.
            let answer = async {
                patience.ended().await;
                tokio::time::sleep(work).await;
                Ok(())
            };
            let attendance = Attendance::new(Deadline::after(Duration::from_secs(2)), permits());
            let heard = attendance.scope(listener.hear(answer)).await;
            assert_eq!(heard.is_ok(), answered, "{heard:?}");
            assert!(start.elapsed() < Duration::from_secs(2));
            assert!(start.elapsed() >= Duration::from_millis(1_500));
        }
    }
}
