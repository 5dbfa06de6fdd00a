//! The sink: one thread writes whatever waits in one go, a second one flushes it to the disk.
//!
//! The file ends with a whole line at all times but during a write: what a failed write left is cut off again, and
//! what a crash left is sealed at the next start. While the sink fails it is tried four times a second, and works
//! again by itself, once there is room for more than the next line. What a failed flush may have lost is written
//! once more, from memory, before anything else.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use tokio::sync::{oneshot, watch};

use super::chain::{Head, Line, torn_mac};
use super::files::{FileSet, first_free, folder, host};
use super::{AuditConfig, AuditOpenError, AuditUnavailable, SinkConfig, SyncMode};
use crate::crypto::MacKey;
use crate::model::{AuditKind, AuditRecord, Clock};

/// Longest wait for a record to be written.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a failing sink is tried.
const PROBE: Duration = Duration::from_millis(250);
/// Longest time between a write and its flush begins.
const FLUSH: Duration = Duration::from_millis(50);
/// Callers that wait at once; more are refused.
const QUEUE: usize = 4_096;
/// Callers whose records share one write.
const BATCH: usize = 512;
/// Room that a disk which was full must have before the log goes on, in bytes: not for the next line only.
const ROOM: u64 = 64 * 1024;
/// Most bytes that wait for their flush. They are kept in memory until then.
const UNFLUSHED: usize = 64 * 1024 * 1024;

/// A file of which there are more than are to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surplus {
    /// The file.
    pub file: PathBuf,
    /// The last record of each chain in it.
    pub heads: Vec<Head>,
}

/// The sink. Without one, nothing is recorded and everything is allowed.
#[derive(Debug)]
pub struct Audit {
    place: String,
    queue: Option<SyncSender<Job>>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Job {
    bodies: Vec<String>,
    /// Gets a number that the job's last record has at most.
    reply: oneshot::Sender<u64>,
    last: bool,
}

#[derive(Debug)]
struct Shared {
    failing: AtomicBool,
    healthy: watch::Sender<bool>,
    progress: Mutex<Progress>,
    work: Condvar,
    /// One flush at a time: of two, the system tells only one of an error.
    flushing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Progress {
    /// What was written and is to be flushed.
    written: Option<Written>,
    /// What is on the disk.
    flushed: Option<Head>,
    /// The length of the file up to there.
    flushed_length: u64,
    /// A flush failed: what was written since the last good one may be gone, and no later flush would tell.
    lost: bool,
    surplus: Vec<Surplus>,
    ended: bool,
}

#[derive(Debug, Clone)]
struct Written {
    file: Arc<File>,
    head: Head,
    length: u64,
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
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fails(&self, why: &dyn std::fmt::Display) {
        if !self.failing.swap(true, Ordering::AcqRel) {
            tracing::error!(%why, "the audit log can't be written: nothing is handed out or changed until it can");
        }
        self.healthy.send_if_modified(|was| std::mem::replace(was, false));
    }

    /// Flushes what was written. After a failure nothing counts as flushed until it was written again.
    fn flush(&self, written: &Written) -> io::Result<()> {
        let _alone = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
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

    fn works(&self) {
        if self.progress().lost {
            return;
        }
        if self.failing.swap(false, Ordering::AcqRel) {
            tracing::info!("the audit log can be written again");
        }
        self.healthy.send_if_modified(|was| !std::mem::replace(was, true));
    }
}

impl Audit {
    /// A sink that records nothing.
    pub fn off() -> Self {
        let (healthy, _) = watch::channel(true);
        let shared = Shared {
            failing: AtomicBool::new(false),
            healthy,
            progress: Mutex::default(),
            work: Condvar::new(),
            flushing: Mutex::default(),
        };
        Self { place: String::new(), queue: None, shared: Arc::new(shared) }
    }

    /// Opens the log, seals what a crash tore, and proves that it can be written by opening a chain in it.
    ///
    /// # Errors
    /// With a sentence for the operator: the sink can't be written, or another process writes it.
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
                Target::file(set, lock)
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
                Target::file(set, lock)
            }
        };
        let (place, name) = match &target {
            Target::File(file) => (file.set.place(), file.set.base.display().to_string()),
            Target::Stdout { .. } => (format!("{}:stdout", host()), "stdout".to_owned()),
        };
        let (healthy, _) = watch::channel(true);
        let shared = Arc::new(Shared {
            failing: AtomicBool::new(false),
            healthy,
            progress: Mutex::default(),
            work: Condvar::new(),
            flushing: Mutex::default(),
        });
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
        };
        writer.begin().map_err(|error| {
            AuditOpenError(format!(
                "the audit log {name} can't be written: {error}; make room or give it a place by audit.file, or \
                 go without by audit.sink = \"off\""
            ))
        })?;
        let (queue, jobs) = sync_channel(QUEUE);
        let flusher = Arc::clone(&shared);
        let started = thread::Builder::new()
            .name("audit-flush".into())
            .spawn(move || flush(&flusher))
            .and_then(|_| thread::Builder::new().name("audit".into()).spawn(move || writer.run(&jobs)));
        started.map_err(|error| AuditOpenError(format!("the audit log's thread does not start: {error}")))?;
        Ok(Self { place, queue: Some(queue), shared })
    }

    /// Whether anything is recorded.
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// The name of this log in the database.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The gate before every change.
    ///
    /// # Errors
    /// The sink fails: nothing may begin.
    pub fn check(&self) -> Result<(), AuditUnavailable> {
        if self.shared.failing.load(Ordering::Acquire) { Err(AuditUnavailable) } else { Ok(()) }
    }

    /// False while the sink fails.
    pub fn health(&self) -> watch::Receiver<bool> {
        self.shared.healthy.subscribe()
    }

    /// Writes records, given as JSON objects, one after the other. `Ok`: the system has them.
    ///
    /// # Errors
    /// The sink failed, fails already, or did not answer within two seconds.
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
        let (reply, answer) = oneshot::channel();
        if queue.try_send(Job { bodies, reply, last }).is_err() {
            return Err(AuditUnavailable);
        }
        match tokio::time::timeout(PATIENCE, answer).await {
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

    /// Old files that may go, since this was last asked. They stay until the caller deletes them: the database has
    /// to know before, or their loss would look like tampering.
    pub fn take_surplus(&self) -> Vec<Surplus> {
        std::mem::take(&mut self.shared.progress().surplus)
    }
}

/// A record as the sink takes it.
pub(super) fn body(record: &AuditRecord) -> String {
    // Strings and numbers only: it can't fail.
    serde_json::to_string(record).unwrap_or_else(|_| "{}".to_owned())
}

fn unwritable(set: &FileSet, error: &io::Error) -> AuditOpenError {
    AuditOpenError(format!(
        "the audit log {} can't be opened: {error}; give it another place by audit.file",
        set.base.display()
    ))
}

enum Target {
    File(Box<LogFile>),
    Stdout {
        /// The part of a line that a failed write left.
        torn: Vec<u8>,
    },
}

struct LogFile {
    set: FileSet,
    file: Option<Arc<File>>,
    /// Its length, up to the end of the last whole line.
    length: u64,
    /// Whether bytes of a failed write may stand behind that.
    dirty: bool,
    /// What was written since the last flush that is known to have succeeded.
    unflushed: Vec<u8>,
    _lock: File,
}

impl Target {
    fn file(set: FileSet, lock: File) -> Self {
        Self::File(Box::new(LogFile {
            set,
            file: None,
            length: 0,
            dirty: false,
            unflushed: Vec::new(),
            _lock: lock,
        }))
    }
}

impl LogFile {
    fn open(&mut self) -> io::Result<Arc<File>> {
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => {
                let file = Arc::new(self.set.open()?);
                // Its name must outlive a crash as well as its content; a device has no folder to speak of.
                let _ = File::open(folder(&self.set.base)).and_then(|folder| folder.sync_all());
                self.length = file.metadata()?.len();
                self.file = Some(Arc::clone(&file));
                file
            }
        };
        if self.dirty {
            file.set_len(self.length)?;
            self.dirty = false;
        }
        Ok(file)
    }

    /// Sees to it that a disk which was full takes more than the next line. Where room can't be had in advance, on
    /// a pipe or an old file system, the next line shows it.
    fn make_room(&mut self) -> io::Result<()> {
        let file = self.open()?;
        match fallocate(&file, FallocateFlags::KEEP_SIZE, self.length, ROOM) {
            Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::IO) => {
                Err(io::Error::new(io::ErrorKind::StorageFull, "the disk has no room for 64 KiB"))
            }
            _ => Ok(()),
        }
    }

    /// Writes once more what a failed flush may have lost: the system may have thrown it away, and forgotten that.
    fn restore(&self, flushed_length: u64) -> io::Result<()> {
        // Opened anew: an appending file can't be written in its middle, and only a new one tells its own errors.
        let file = OpenOptions::new().write(true).open(&self.set.base)?;
        file.write_all_at(&self.unflushed, flushed_length)?;
        flush_file(&file)
    }

    /// Forgets what is on the disk.
    fn forget_flushed(&mut self, flushed_length: u64) {
        let kept = self.length.saturating_sub(flushed_length);
        let gone = self.unflushed.len().saturating_sub(usize::try_from(kept).unwrap_or(usize::MAX));
        self.unflushed.drain(..gone);
    }
}

struct Writer {
    target: Target,
    head: Head,
    key: MacKey,
    clock: Clock,
    sync: SyncMode,
    max_bytes: u64,
    keep: Option<usize>,
    shared: Arc<Shared>,
    buffer: Vec<u8>,
}

impl Writer {
    /// Opens the chain: the self-test.
    fn begin(&mut self) -> io::Result<()> {
        let mut record = AuditRecord::new(AuditKind::Opened, self.clock.now());
        let mut sealed = Vec::new();
        if let Target::File(log) = &mut self.target {
            let file = log.open()?;
            self.shared.progress().flushed_length = log.length;
            let (last, torn) = end_of(&file, log.length)?;
            record.follows = match last {
                Some(line) => line,
                // A crash between putting a file aside and the first line of the next.
                None => last_of_aside(&log.set)?,
            };
            let whole = torn.as_deref().and_then(|torn| Line::read(&self.key, torn));
            if let Some(line) = whole {
                // Only its end is missing.
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
        self.head.append(&self.key, &body(&record), &mut self.buffer);
        self.put()?;
        self.flush_now()
    }

    fn run(mut self, jobs: &Receiver<Job>) {
        let mut batch = Vec::new();
        loop {
            // The other thread, too, may have found that the sink fails.
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
                    // Nobody's answer may leave; the callers learn it from the end of their channels.
                    batch.clear();
                }
            }
        }
        self.shared.progress().ended = true;
        self.shared.work.notify_all();
    }

    fn write(&mut self, batch: &[Job]) -> io::Result<()> {
        let failing = self.shared.failing.load(Ordering::Acquire);
        let kept: Vec<&String> =
            batch.iter().filter(|job| !job.reply.is_closed()).flat_map(|job| &job.bodies).collect();
        if kept.is_empty() && !failing {
            return Ok(());
        }
        self.mend()?;
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
            // What a failed write left is cut off: the chain stands where it stood.
            self.head = before;
        }
        written?;
        if self.sync == SyncMode::Always || batch.iter().any(|job| job.last) {
            self.flush_now()
        } else {
            Ok(())
        }
    }

    /// After a failure: what may be lost is written again, and there must be room.
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

    /// Writes the buffer to its end, and has it flushed soon.
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
                    // Whole lines that went out stay; the chain stands behind the last of them.
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

    /// What a failed write left on stdout can't be taken back: it is sealed like a torn line.
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

    /// Puts a full file aside and goes on in a new one, whose first record names the one before.
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

    /// Names what is more than is to be kept. That this fails harms nobody.
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

/// The MAC of the last whole line, and the bytes behind it.
fn end_of(file: &File, length: u64) -> io::Result<(Option<String>, Option<Vec<u8>>)> {
    /// Longer than two lines.
    const REACH: u64 = 1024 * 1024;
    if length == 0 {
        return Ok((None, None));
    }
    let mut end = Vec::new();
    let mut reader = file;
    reader.seek(SeekFrom::Start(length.saturating_sub(REACH)))?;
    reader.take(REACH).read_to_end(&mut end)?;
    let start = end.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let torn = end.split_off(start);
    let lines = end.split(|byte| *byte == b'\n').rev();
    let last = lines.filter_map(Line::read_unchecked).next().map(|line| hex::encode(line.mac));
    Ok((last, (!torn.is_empty()).then_some(torn)))
}

fn last_of_aside(set: &FileSet) -> io::Result<String> {
    let files = match set.aside() {
        Ok(files) => files,
        // A device has no folder of its own.
        Err(_) => return Ok(String::new()),
    };
    let Some((_, path)) = files.last() else { return Ok(String::new()) };
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    Ok(end_of(&file, length)?.0.unwrap_or_default())
}

/// Pipes and terminals keep nothing that could be flushed.
fn flush_file(file: &File) -> io::Result<()> {
    match file.sync_data() {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        other => other,
    }
}

/// Flushes what was written, beside the writing.
fn flush(shared: &Shared) {
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
                progress = shared.work.wait(progress).unwrap_or_else(PoisonError::into_inner);
            }
        };
        if let Err(error) = shared.flush(&written) {
            shared.fails(&error);
        }
        thread::sleep(FLUSH);
    }
}
