//! A caller that never stops calling.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use super::Caller;
use crate::wait::eventually_async;

/// Calls all the time, alternating between a new connection and a lasting one, and counts the failures.
pub struct Steady {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU32>,
    task: tokio::task::JoinHandle<Vec<String>>,
}

impl Steady {
    pub fn start(fresh: impl Fn() -> Caller + Send + 'static) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&done));
        let task = tokio::spawn(async move {
            let (mut failed, stays) = (Vec::new(), fresh());
            while !stopped.load(Ordering::Relaxed) {
                for caller in [&stays, &fresh()] {
                    if let Err(no) = caller.list().await {
                        failed.push(format!("{no:?}"));
                    }
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            failed
        });
        Self { stop, done, task }
    }

    /// Waits until `more` further calls are made.
    pub async fn goes_on(&self, more: u32) {
        let before = self.done.load(Ordering::Relaxed);
        eventually_async("more calls", Duration::from_secs(60), async || {
            (self.done.load(Ordering::Relaxed) >= before + more).then_some(())
        })
        .await;
    }

    pub async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let failed = self.task.await.expect("the caller does not panic");
        assert!(failed.is_empty(), "{} calls failed: {:#?}", failed.len(), failed.first());
        assert!(self.done.load(Ordering::Relaxed) > 0);
    }
}
