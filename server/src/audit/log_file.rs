//! The file that a log is written to. It holds whole lines even after a failed write; memory holds what is not flushed.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::chain::Line;
use super::files::{FileSet, folder};

/// Once a disk was full, the log waits for this many free bytes, so that the disk is not full again at once.
const ROOM: u64 = 64 * 1024;

pub(super) struct LogFile {
    pub(super) set: FileSet,
    pub(super) file: Option<Arc<File>>,
    /// Its length up to the end of the last whole line.
    pub(super) length: u64,
    /// Whether bytes of a failed write may follow.
    pub(super) dirty: bool,
    /// The bytes that were written since the last successful flush.
    pub(super) unflushed: Vec<u8>,
    _lock: File,
}

impl LogFile {
    pub(super) fn new(set: FileSet, lock: File) -> Self {
        Self { set, file: None, length: 0, dirty: false, unflushed: Vec::new(), _lock: lock }
    }

    pub(super) fn open(&mut self) -> io::Result<Arc<File>> {
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => {
                let file = Arc::new(self.set.open()?);
                // The file's name must survive a crash too. Failure is harmless: a device has no such folder.
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

    /// Fails if the file was moved or deleted since it was opened, and begins anew: what is written to it would be lost, or
    /// go where nobody looks.
    pub(super) fn check_place(&mut self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let place = |about: Metadata| (about.dev(), about.ino());
        let (own, there) = (file.metadata().map(place)?, fs::metadata(&self.set.base).map(place));
        if there.as_ref().is_ok_and(|there| *there == own) {
            return Ok(());
        }
        // A file that was only moved keeps what it has.
        let _ = flush_file(file);
        (self.file, self.length, self.dirty) = (None, 0, false);
        self.unflushed.clear();
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the file was moved or deleted; the log continues in a new one",
        ))
    }

    /// Fails while a disk that was full has too little room. If room can't be reserved, as on a pipe or an old file
    /// system, the next write shows whether there is some.
    pub(super) fn make_room(&mut self) -> io::Result<()> {
        let file = self.open()?;
        match fallocate(&file, FallocateFlags::KEEP_SIZE, self.length, ROOM) {
            Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::IO) => {
                Err(io::Error::new(io::ErrorKind::StorageFull, "the disk has no room for 64 KiB"))
            }
            _ => Ok(()),
        }
    }

    /// Writes again what a failed flush may have lost: the system may have dropped those pages and forgotten the error.
    pub(super) fn restore(&self, flushed_length: u64) -> io::Result<()> {
        // Open the file again: a file opened for appending can't be written in its middle, and only a new handle
        // reports errors of its own.
        let file = OpenOptions::new().write(true).open(&self.set.base)?;
        file.write_all_at(&self.unflushed, flushed_length)?;
        flush_file(&file)
    }

    /// Drops lines from memory that are on the disk.
    pub(super) fn forget_flushed(&mut self, flushed_length: u64) {
        let kept = self.length.saturating_sub(flushed_length);
        let gone = self.unflushed.len().saturating_sub(usize::try_from(kept).unwrap_or(usize::MAX));
        self.unflushed.drain(..gone);
    }
}

/// The MAC of the last whole line, and the bytes after it.
pub(super) fn end_of(file: &File, length: u64) -> io::Result<(Option<String>, Option<Vec<u8>>)> {
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

pub(super) fn last_of_aside(set: &FileSet) -> io::Result<String> {
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

/// Pipes and terminals can't be flushed, and need not be.
pub(super) fn flush_file(file: &File) -> io::Result<()> {
    match file.sync_data() {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        other => other,
    }
}
