//! How far the log is written and flushed: what the callers, the writing thread and the flushing thread share.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::watch;

use super::chain::Head;
use super::log_file::flush_file;

/// Pause between two flushes.
const FLUSH: Duration = Duration::from_millis(50);

/// A file beyond those that are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surplus {
    pub file: PathBuf,
    /// The last record of each chain in it.
    pub heads: Vec<Head>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) failing: AtomicBool,
    pub(super) healthy: watch::Sender<bool>,
    pub(super) progress: Mutex<Progress>,
    pub(super) work: Condvar,
    /// Allows one flush at a time: of two at once, the system reports an error to only one.
    pub(super) flushing: Mutex<()>,
}

#[derive(Debug, Default)]
pub(super) struct Progress {
    /// What was written and has to be flushed.
    pub(super) written: Option<Written>,
    /// What is on the disk.
    pub(super) flushed: Option<Head>,
    /// The length of the file up to the end of that record.
    pub(super) flushed_length: u64,
    /// A flush failed: what was written since the last good one may be lost, and no later flush would report it.
    pub(super) lost: bool,
    pub(super) surplus: Vec<Surplus>,
    pub(super) ended: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Written {
    pub(super) file: Arc<File>,
    pub(super) head: Head,
    pub(super) length: u64,
}

impl Progress {
    fn advance(&mut self, written: &Written) {
        // The other thread may have flushed more meanwhile.
        if self
            .flushed
            .is_none_or(|known| known.chain != written.head.chain || known.number < written.head.number)
        {
            self.flushed = Some(written.head);
            self.flushed_length = written.length;
        }
    }
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            failing: AtomicBool::new(false),
            healthy: watch::channel(true).0,
            progress: Mutex::default(),
            work: Condvar::new(),
            flushing: Mutex::default(),
        }
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock()
    }

    pub(super) fn fails(&self, why: &dyn std::fmt::Display) {
        if !self.failing.swap(true, Ordering::AcqRel) {
            tracing::error!(%why, "the audit log can't be written: nothing is handed out or changed until it can");
        }
        self.healthy.send_if_modified(|was| std::mem::replace(was, false));
    }

    /// Flushes what was written. After a failure nothing counts as flushed until it was written again.
    pub(super) fn flush(&self, written: &Written) -> io::Result<()> {
        let _alone = self.flushing.lock();
        if self.progress().lost {
            return Err(io::Error::other("an earlier flush failed"));
        }
        let outcome = flush_file(&written.file);
        let mut progress = self.progress();
        match &outcome {
            Ok(()) => progress.advance(written),
            Err(_) => progress.lost = true,
        }
        outcome
    }

    pub(super) fn works(&self) {
        if self.progress().lost {
            return;
        }
        if self.failing.swap(false, Ordering::AcqRel) {
            tracing::info!("the audit log can be written again");
        }
        self.healthy.send_if_modified(|was| !std::mem::replace(was, true));
    }
}

/// Flushes what was written, on a thread beside the writing one.
pub(super) fn flush_beside(shared: &Shared) {
    loop {
        let written = {
            let mut progress = shared.progress();
            loop {
                if let Some(next) = progress.written.take() {
                    break next;
                }
                if progress.ended {
                    return;
                }
                shared.work.wait(&mut progress);
            }
        };
        if let Err(error) = shared.flush(&written) {
            shared.fails(&error);
        }
        thread::sleep(FLUSH);
    }
}
