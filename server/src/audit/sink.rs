//! The sink as its callers see it: they hand records over and wait until these are written.
//!
//! Written by hand because no logging library does what is needed here: a caller waits until its record is written, a
//! failing log stops changes, and a failed flush loses nothing. `writer.rs` is the thread that writes, `progress.rs`
//! the one that flushes.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::chain::Head;
use super::files::{FileSet, first_free, folder, host};
use super::log_file::LogFile;
use super::progress::{Shared, Surplus, flush_beside};
use super::writer::{Job, Target, Writer, body};
use super::{AuditConfig, AuditOpenError, AuditUnavailable, SinkConfig};
use crate::crypto::MacKey;
use crate::model::{AuditKind, AuditRecord, Clock};

/// Longest wait for a record to be written.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most callers that wait at once; more are refused.
const QUEUE: usize = 4_096;

/// The sink. If it is off, nothing is recorded and everything is allowed.
#[derive(Debug)]
pub struct Audit {
    log_name: String,
    queue: Option<SyncSender<Job>>,
    shared: Arc<Shared>,
}

impl Audit {
    /// A sink that records nothing.
    pub fn off() -> Self {
        Self { log_name: String::new(), queue: None, shared: Arc::new(Shared::new()) }
    }

    /// Opens the log, seals a line that a crash tore, and begins a chain, which proves that the log can be written. On a
    /// full disk the log fails from the start, and begins its chain once there is room.
    ///
    /// # Errors
    /// The sink can't be written for another reason, or another process writes it. The text is for the operator.
    pub fn open(config: &AuditConfig, key: MacKey, clock: Clock) -> Result<Self, AuditOpenError> {
        let target = match &config.sink {
            SinkConfig::Off => return Ok(Self::off()),
            SinkConfig::Stdout => Target::Stdout { torn: Vec::new() },
            SinkConfig::File(path) => {
                let set = FileSet::new(path);
                let locked = fs::create_dir_all(folder(path)).and_then(|()| set.lock());
                let lock = locked.map_err(|error| unwritable(&set, &error))?.ok_or_else(|| {
                    AuditOpenError(format!(
                        "{} is the audit log of another token-vault process; give each its own audit.file",
                        path.display()
                    ))
                })?;
                Target::File(Box::new(LogFile::new(set, lock)))
            }
            SinkConfig::Folder(path) => {
                let found = fs::create_dir_all(path).and_then(|()| first_free(path));
                let found = found.map_err(|error| unwritable(&FileSet::new(path), &error))?;
                let (set, lock) = found.ok_or_else(|| {
                    AuditOpenError(format!(
                        "too many processes write audit logs in {}; set audit.file",
                        path.display()
                    ))
                })?;
                Target::File(Box::new(LogFile::new(set, lock)))
            }
        };
        let (log_name, shown) = match &target {
            Target::File(file) => (file.set.name(), file.set.base.display().to_string()),
            Target::Stdout { .. } => (format!("{}:stdout", host()), "stdout".to_owned()),
        };
        let shared = Arc::new(Shared::new());
        let mut writer = Writer {
            target,
            head: Head::new(),
            key,
            clock,
            sync: config.sync,
            max_bytes: config.max_bytes,
            keep: config.keep,
            shared: Arc::clone(&shared),
            buffer: Vec::new(),
            begun: false,
        };
        match writer.begin() {
            Ok(()) => {}
            Err(error) if is_full(&error) && matches!(writer.target, Target::File(_)) => shared.fails(&error),
            Err(error) => {
                return Err(AuditOpenError(format!(
                    "the audit log {shown} can't be written: {error}; choose another place by audit.file, or go without \
                     a log by audit.sink = \"off\""
                )));
            }
        }
        let (queue, jobs) = sync_channel(QUEUE);
        let flusher = Arc::clone(&shared);
        let started = thread::Builder::new()
            .name("audit-flush".into())
            .spawn(move || flush_beside(&flusher))
            .and_then(|_| thread::Builder::new().name("audit".into()).spawn(move || writer.run(&jobs)));
        started
            .map_err(|error| AuditOpenError(format!("the audit log's thread can't be started: {error}")))?;
        Ok(Self { log_name, queue: Some(queue), shared })
    }

    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// The name of this log in the database.
    pub fn log_name(&self) -> &str {
        &self.log_name
    }

    /// Call this before every change.
    ///
    /// # Errors
    /// The sink fails: no change may begin.
    pub fn check(&self) -> Result<(), AuditUnavailable> {
        if self.shared.failing.load(Ordering::Acquire) { Err(AuditUnavailable) } else { Ok(()) }
    }

    /// False while the sink fails.
    pub fn health(&self) -> watch::Receiver<bool> {
        self.shared.healthy.subscribe()
    }

    /// Writes records, given as JSON objects, one after the other. `Ok`: the operating system has them.
    ///
    /// # Errors
    /// The sink failed, fails already, or did not write within two seconds.
    pub async fn append(&self, bodies: Vec<String>) -> Result<u64, AuditUnavailable> {
        let Some(queue) = &self.queue else { return Ok(0) };
        self.check()?;
        self.hand_over(queue, bodies, false).await
    }

    async fn hand_over(
        &self,
        queue: &SyncSender<Job>,
        bodies: Vec<String>,
        last: bool,
    ) -> Result<u64, AuditUnavailable> {
        let (reply, written) = oneshot::channel();
        if queue.try_send(Job { bodies, reply, last }).is_err() {
            return Err(AuditUnavailable);
        }
        match tokio::time::timeout(PATIENCE, written).await {
            Ok(Ok(number)) => Ok(number),
            Ok(Err(_)) => Err(AuditUnavailable),
            Err(_) => {
                self.shared.fails(&"a write was not done within two seconds");
                Err(AuditUnavailable)
            }
        }
    }

    /// Writes that the chain is complete, and flushes it.
    pub async fn close(&self, clock: &Clock) {
        let Some(queue) = &self.queue else { return };
        let record = AuditRecord::new(AuditKind::Closed, clock.now());
        if self.hand_over(queue, vec![body(&record)], true).await.is_err() {
            tracing::warn!("the audit log could not be closed in order");
        }
    }

    /// How far the log is on the disk.
    pub fn flushed(&self) -> Option<Head> {
        self.shared.progress().flushed
    }

    /// Old files that became surplus since the last call. The caller deletes them once the database knows of it,
    /// because otherwise their loss would look like tampering.
    pub fn take_surplus(&self) -> Vec<Surplus> {
        std::mem::take(&mut self.shared.progress().surplus)
    }
}

/// Whether there is no room now, which passes without a change of the configuration.
fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

fn unwritable(set: &FileSet, error: &io::Error) -> AuditOpenError {
    AuditOpenError(format!(
        "the audit log {} can't be opened: {error}; choose another place by audit.file",
        set.base.display()
    ))
}
