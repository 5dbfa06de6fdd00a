//! How far the consumer is, and the task that stores that position.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::checkpoint::AnyCheckpoint;
use crate::error::Error;
use crate::retry;

/// The least time between two stores.
const STORE_EVERY: Duration = Duration::from_secs(1);

/// The items that were taken, and those that are handled. A position is handled when everything before it is.
#[derive(Debug)]
pub(super) struct Progress {
    /// The positions of items that were taken and not acknowledged, the oldest first.
    taken: VecDeque<String>,
    /// A position after all taken ones, with nothing to handle in between.
    reached: Option<String>,
    /// The position to store.
    handled: watch::Sender<Option<String>>,
}

impl Progress {
    pub(super) fn new(handled: watch::Sender<Option<String>>) -> Self {
        Self { taken: VecDeque::new(), reached: None, handled }
    }

    /// The consumer takes the item before this position.
    pub(super) fn take(&mut self, cursor: &str) {
        self.reached = None;
        self.taken.push_back(cursor.to_owned());
    }

    /// Everything that matches up to this position was taken.
    pub(super) fn reach(&mut self, cursor: String) {
        if self.taken.is_empty() {
            self.handled(cursor);
        } else {
            self.reached = Some(cursor);
        }
    }

    /// Marks the item before this position, and all taken before it, as handled. False: no such item waits.
    pub(super) fn acknowledge(&mut self, cursor: &str) -> bool {
        let Some(index) = self.taken.iter().position(|taken| taken == cursor) else { return false };
        let item = self.taken.drain(..=index).next_back();
        let past = self.reached.take_if(|_| self.taken.is_empty());
        if let Some(cursor) = past.or(item) {
            self.handled(cursor);
        }
        true
    }

    /// Marks all items taken so far as handled.
    pub(super) fn acknowledge_all(&mut self) {
        let item = self.taken.drain(..).next_back();
        if let Some(cursor) = self.reached.take().or(item) {
            self.handled(cursor);
        }
    }

    /// The position up to which everything is handled.
    pub(super) fn position(&self) -> Option<String> {
        self.handled.borrow().clone()
    }

    fn handled(&self, cursor: String) {
        self.handled.send_replace(Some(cursor));
    }
}

/// Stores the handled position, until the stream is dropped and the last position is stored. Reports a failure once,
/// and tries again.
///
/// # Errors
/// When the last position could not be stored.
pub(super) async fn keep(
    checkpoint: Arc<dyn AnyCheckpoint>,
    mut handled: watch::Receiver<Option<String>>,
    report: mpsc::Sender<Error>,
) -> Result<(), Error> {
    let mut stored = None;
    let mut failures = 0;
    // An error of the channel means that the stream was dropped; its last position still comes before that error.
    while handled.wait_for(|latest| *latest != stored).await.is_ok() {
        let latest = handled.borrow().clone();
        let done = match latest.as_deref() {
            Some(cursor) => checkpoint.store(cursor).await,
            None => Ok(()),
        };
        match done {
            Ok(()) => (stored, failures) = (latest, 0),
            Err(error) if handled.has_changed().is_err() => return Err(error),
            Err(error) => {
                failures += 1;
                if failures == 1 {
                    // An unread report is still in the channel, so the reader needs no second one.
                    let _ = report.try_send(error);
                }
            }
        }
        let pause = STORE_EVERY.max(retry::backoff(failures));
        // Ends early when the stream is dropped.
        let _ = timeout(pause, handled.wait_for(|_| false)).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::checkpoint::{Checkpoint, CheckpointError};

    fn progress() -> Progress {
        Progress::new(watch::Sender::new(None))
    }

    #[test]
    fn nothing_is_handled_ahead_of_what_was_taken() {
        let mut progress = progress();
        progress.reach("h0".into());
        assert_eq!(progress.position().as_deref(), Some("h0"));
        progress.take("e1");
        progress.take("e2");
        progress.take("e3");
        progress.reach("h3".into());
        assert_eq!(progress.position().as_deref(), Some("h0"), "a heartbeat waits for what was taken");
        assert!(progress.acknowledge("e2"));
        assert_eq!(progress.position().as_deref(), Some("e2"));
        assert!(!progress.acknowledge("e1") && !progress.acknowledge("e2") && !progress.acknowledge("no"));
        assert!(progress.acknowledge("e3"));
        assert_eq!(progress.position().as_deref(), Some("h3"), "and moves the position then");
    }

    #[test]
    fn what_was_reached_before_an_item_does_not_stand_for_it() {
        let mut progress = progress();
        progress.take("e1");
        progress.reach("h1".into());
        progress.take("e2");
        assert!(progress.acknowledge("e1"));
        assert_eq!(progress.position().as_deref(), Some("e1"));
        progress.acknowledge_all();
        assert_eq!(progress.position().as_deref(), Some("e2"));
        progress.acknowledge_all();
        assert_eq!(progress.position().as_deref(), Some("e2"));
    }

    /// Remembers what it stores, after failing as often as it should.
    #[derive(Clone, Default)]
    struct Memory {
        stored: Arc<Mutex<Vec<String>>>,
        failures: Arc<Mutex<u32>>,
    }

    impl Memory {
        fn stored(&self) -> Vec<String> {
            self.stored.lock().unwrap().clone()
        }
    }

    impl Checkpoint for Memory {
        async fn load(&self) -> Result<Option<String>, CheckpointError> {
            Ok(None)
        }

        async fn store(&self, cursor: &str) -> Result<(), CheckpointError> {
            let mut failures = self.failures.lock().unwrap();
            if *failures > 0 {
                *failures -= 1;
                return Err("disk full".into());
            }
            self.stored.lock().unwrap().push(cursor.to_owned());
            Ok(())
        }
    }

    struct Kept {
        memory: Memory,
        handled: watch::Sender<Option<String>>,
        reports: mpsc::Receiver<Error>,
        task: tokio::task::JoinHandle<Result<(), Error>>,
    }

    fn kept(failures: u32) -> Kept {
        let memory = Memory { failures: Arc::new(Mutex::new(failures)), ..Memory::default() };
        let (handled, positions) = watch::channel(None);
        let (report, reports) = mpsc::channel(1);
        let task = tokio::spawn(keep(Arc::new(memory.clone()), positions, report));
        Kept { memory, handled, reports, task }
    }

    #[tokio::test(start_paused = true)]
    async fn stores_are_gathered_and_the_last_one_is_never_left_out() {
        let kept = kept(0);
        for position in 0..1000 {
            kept.handled.send_replace(Some(position.to_string()));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let stored = kept.memory.stored();
        assert!((9..=11).contains(&stored.len()), "about one a second in ten: {stored:?}");
        kept.handled.send_replace(Some("last".into()));
        drop(kept.handled);
        kept.task.await.unwrap().unwrap();
        assert_eq!(kept.memory.stored().last().map(String::as_str), Some("last"));
        assert_eq!(kept.memory.stored().len(), stored.len() + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_store_is_reported_once_and_tried_again() {
        let mut kept = kept(5);
        kept.handled.send_replace(Some("only".into()));
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(kept.memory.stored(), ["only"]);
        assert!(kept.reports.try_recv().unwrap().message().contains("disk full"));
        assert!(kept.reports.try_recv().is_err(), "once is enough");
    }

    #[tokio::test(start_paused = true)]
    async fn a_last_store_that_fails_is_an_error() {
        let kept = kept(u32::MAX);
        kept.handled.send_replace(Some("lost".into()));
        drop(kept.handled);
        assert!(kept.task.await.unwrap().is_err());
    }
}
