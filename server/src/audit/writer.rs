//! The thread that writes: it takes the records of all callers that wait, and writes them in one go.
//!
//! Except during a write, the file always ends with a whole line: the writer cuts off what a failed write left, and the
//! next start seals what a crash left. A failing log is tried four times a second, and works again by itself once the
//! disk has room for more than the next line. Before anything else, the writer writes again, from memory, what a failed
//! flush may have lost.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::SyncMode;
use super::chain::{Head, Line, torn_mac};
use super::log_file::{LogFile, end_of, last_of_aside};
use super::progress::{Shared, Surplus, Written};
use crate::crypto::MacKey;
use crate::model::{AuditKind, AuditRecord, Clock};

/// How often a failing sink is tried.
const PROBE: Duration = Duration::from_millis(250);
/// Most callers whose records share one write.
const BATCH: usize = 512;
/// Most bytes that wait for their flush. They are kept in memory until then.
const UNFLUSHED: usize = 64 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Job {
    pub(super) bodies: Vec<String>,
    /// Receives the number of the last record written, which is this job's last or a later one.
    pub(super) reply: oneshot::Sender<u64>,
    pub(super) last: bool,
}

pub(super) enum Target {
    File(Box<LogFile>),
    Stdout {
        /// The incomplete line that a failed write left.
        torn: Vec<u8>,
    },
}

pub(super) struct Writer {
    pub(super) target: Target,
    pub(super) head: Head,
    pub(super) key: MacKey,
    pub(super) clock: Clock,
    pub(super) sync: SyncMode,
    pub(super) max_bytes: u64,
    pub(super) keep: Option<usize>,
    pub(super) shared: Arc<Shared>,
    pub(super) buffer: Vec<u8>,
    /// Whether the chain has its first record.
    pub(super) begun: bool,
}

impl Writer {
    /// Writes the first record of the chain, which proves that the log can be written. After a failure it may be called
    /// again.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        let mut record = AuditRecord::new(AuditKind::Opened, self.clock.now());
        let mut sealed = Vec::new();
        if let Target::File(log) = &mut self.target {
            let file = log.open()?;
            self.shared.progress().flushed_length = log.length;
            let (last, torn) = end_of(&file, log.length)?;
            record.follows = match last {
                Some(line) => line,
                // A crash came between putting a file aside and the first line of the next.
                None => last_of_aside(&log.set)?,
            };
            let whole = torn.as_deref().and_then(|torn| Line::read(&self.key, torn));
            if let Some(line) = whole {
                // Only the line's end is missing.
                record.follows = hex::encode(line.mac);
                sealed.push(b'\n');
            } else if let Some(torn) = torn {
                tracing::warn!(
                    bytes = torn.len(),
                    "a crash tore the last line of the audit log; it is sealed"
                );
                record.kind = AuditKind::Recovered;
                record.torn_bytes = u64::try_from(torn.len()).ok();
                record.torn_mac = torn_mac(&self.key, &torn);
                sealed.push(b'\n');
            }
        }
        self.buffer = sealed;
        let before = self.head;
        self.head.append(&self.key, &body(&record), &mut self.buffer);
        if let Err(error) = self.put() {
            self.head = before;
            return Err(error);
        }
        self.begun = true;
        self.flush_now()
    }

    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        let mut batch = Vec::new();
        loop {
            // Continue after a time-out too: the flushing thread may have found that the sink fails.
            match jobs.recv_timeout(PROBE) {
                Ok(job) => {
                    batch.push(job);
                    batch.extend(jobs.try_iter().take(BATCH - 1));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let outcome = self.write(&batch);
            match outcome {
                Ok(()) => {
                    self.shared.works();
                    let last = batch.iter().any(|job| job.last);
                    for job in batch.drain(..) {
                        let _ = job.reply.send(self.head.number);
                    }
                    if last {
                        break;
                    }
                }
                Err(error) => {
                    self.shared.fails(&error);
                    // The callers learn of it when their channels close.
                    batch.clear();
                }
            }
        }
        self.shared.progress().ended = true;
        self.shared.work.notify_all();
    }

    fn write(&mut self, batch: &[Job]) -> io::Result<()> {
        if let Target::File(log) = &mut self.target
            && let Err(error) = log.check_place()
        {
            let mut progress = self.shared.progress();
            (progress.written, progress.flushed_length, progress.lost) = (None, 0, false);
            return Err(error);
        }
        let failing = self.shared.failing.load(Ordering::Acquire);
        let kept: Vec<&String> =
            batch.iter().filter(|job| !job.reply.is_closed()).flat_map(|job| &job.bodies).collect();
        if kept.is_empty() && !failing {
            return Ok(());
        }
        self.mend()?;
        if !self.begun {
            self.begin()?;
        }
        let bytes: usize = kept.iter().map(|body| body.len() + 256).sum();
        self.rotate_before(bytes)?;
        let before = self.head;
        self.buffer.clear();
        self.seal_stdout();
        if failing {
            let record = AuditRecord::new(AuditKind::Resumed, self.clock.now());
            self.head.append(&self.key, &body(&record), &mut self.buffer);
        }
        for body in kept {
            self.head.append(&self.key, body, &mut self.buffer);
        }
        let written = self.put();
        if written.is_err() && matches!(self.target, Target::File(_)) {
            // The remains of the failed write are cut off, so the chain stays where it was.
            self.head = before;
        }
        written?;
        if self.sync == SyncMode::Always || batch.iter().any(|job| job.last) {
            self.flush_now()
        } else {
            Ok(())
        }
    }

    /// After a failure, writes again what may be lost, and makes sure that there is room.
    fn mend(&mut self) -> io::Result<()> {
        let Target::File(log) = &mut self.target else { return Ok(()) };
        let (lost, flushed_length) = {
            let progress = self.shared.progress();
            (progress.lost, progress.flushed_length)
        };
        if lost {
            log.restore(flushed_length)?;
            log.unflushed.clear();
            let mut progress = self.shared.progress();
            progress.written = None;
            progress.flushed = Some(self.head);
            progress.flushed_length = log.length;
            progress.lost = false;
        }
        if self.shared.failing.load(Ordering::Acquire) { log.make_room() } else { Ok(()) }
    }

    /// Writes the whole buffer, and asks for a flush soon.
    fn put(&mut self) -> io::Result<()> {
        match &mut self.target {
            Target::File(log) => {
                let flushed_length = self.shared.progress().flushed_length;
                log.forget_flushed(flushed_length);
                if log.unflushed.len() > UNFLUSHED {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "the disk is far behind"));
                }
                let file = log.open()?;
                log.dirty = true;
                (&*file).write_all(&self.buffer)?;
                log.dirty = false;
                log.length += u64::try_from(self.buffer.len()).unwrap_or(u64::MAX);
                log.unflushed.extend_from_slice(&self.buffer);
                self.shared.progress().written = Some(Written { file, head: self.head, length: log.length });
                self.shared.work.notify_all();
                Ok(())
            }
            Target::Stdout { torn } => {
                let mut stdout = io::stdout().lock();
                let mut done = 0;
                let outcome = loop {
                    let Some(rest) = self.buffer.get(done..).filter(|rest| !rest.is_empty()) else {
                        break Ok(());
                    };
                    match stdout.write(rest) {
                        Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                        Ok(more) => done += more,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => break Err(error),
                    }
                };
                let outcome = outcome.and_then(|()| stdout.flush());
                if outcome.is_err() {
                    // Whole lines that were written stay: the chain continues after the last of them.
                    let out = self.buffer.get(..done).unwrap_or_default();
                    let end = out.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                    torn.extend_from_slice(out.get(end..).unwrap_or_default());
                    let last = out.get(..end).unwrap_or_default().split(|byte| *byte == b'\n').rev().nth(1);
                    if let Some(line) = last.and_then(Line::read_unchecked) {
                        self.head = Head { chain: line.chain, number: line.number, mac: line.mac };
                    } else if let Some(first) =
                        self.buffer.split(|byte| *byte == b'\n').find_map(Line::read_unchecked)
                    {
                        self.head = Head { chain: first.chain, number: first.number - 1, mac: first.prev };
                    }
                }
                outcome?;
                self.shared.progress().flushed = Some(self.head);
                Ok(())
            }
        }
    }

    /// The remains of a failed write to stdout can't be cut off: they are recorded like a torn line.
    fn seal_stdout(&mut self) {
        let Target::Stdout { torn } = &mut self.target else { return };
        if torn.is_empty() {
            return;
        }
        let torn = std::mem::take(torn);
        let mut record = AuditRecord::new(AuditKind::Recovered, self.clock.now());
        record.torn_bytes = u64::try_from(torn.len()).ok();
        record.torn_mac = torn_mac(&self.key, &torn);
        self.buffer.push(b'\n');
        self.head.append(&self.key, &body(&record), &mut self.buffer);
    }

    fn flush_now(&mut self) -> io::Result<()> {
        if let Target::File(log) = &mut self.target {
            let written = Written { file: log.open()?, head: self.head, length: log.length };
            self.shared.flush(&written)?;
        }
        Ok(())
    }

    /// Puts a full file aside and continues in a new one, whose first record names the old one.
    fn rotate_before(&mut self, bytes: usize) -> io::Result<()> {
        let Target::File(log) = &mut self.target else { return Ok(()) };
        log.open()?;
        let after = log.length.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        if log.length == 0 || after <= self.max_bytes {
            return Ok(());
        }
        self.flush_now()?;
        let Target::File(log) = &mut self.target else { return Ok(()) };
        let aside = log.set.next_aside()?;
        fs::rename(&log.set.base, &aside)?;
        log.file = None;
        log.unflushed.clear();
        log.open()?;
        self.shared.progress().flushed_length = 0;
        let mut record = AuditRecord::new(AuditKind::Continued, self.clock.now());
        record.continues =
            aside.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let before = self.head;
        self.buffer.clear();
        self.head.append(&self.key, &body(&record), &mut self.buffer);
        if let Err(error) = self.put() {
            self.head = before;
            return Err(error);
        }
        self.find_surplus();
        Ok(())
    }

    /// Lists the files beyond `keep`. Failure is harmless.
    fn find_surplus(&mut self) {
        let (Target::File(log), Some(keep)) = (&self.target, self.keep) else { return };
        let files: Vec<PathBuf> = match log.set.aside() {
            Ok(files) => files.into_iter().map(|(_, path)| path).collect(),
            Err(error) => {
                tracing::warn!(%error, "old audit files could not be listed");
                return;
            }
        };
        for file in files.iter().take(files.len().saturating_sub(keep)) {
            if self.shared.progress().surplus.iter().any(|known| known.file == *file) {
                continue;
            }
            let Ok(text) = fs::read(file) else { continue };
            let mut heads: Vec<Head> = Vec::new();
            for line in text.split(|byte| *byte == b'\n').filter_map(|line| Line::read(&self.key, line)) {
                let head = Head { chain: line.chain, number: line.number, mac: line.mac };
                match heads.iter_mut().find(|known| known.chain == line.chain) {
                    Some(known) => *known = head,
                    None => heads.push(head),
                }
            }
            self.shared.progress().surplus.push(Surplus { file: file.clone(), heads });
        }
    }
}

/// A record as the sink takes it.
pub(super) fn body(record: &AuditRecord) -> String {
    // A record holds only strings and numbers, so this can't fail.
    serde_json::to_string(record).unwrap_or_else(|_| "{}".to_owned())
}
