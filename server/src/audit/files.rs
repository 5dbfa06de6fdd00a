//! The files of one log: those that were put aside, and the one that is written.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The name of a log in a folder.
const NAME: &str = "audit";
/// Most processes that write in one folder.
const PROCESSES: usize = 64;

/// One log: `audit.jsonl`, and `audit.jsonl.000001` … that were put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSet {
    /// The file that is written.
    pub base: PathBuf,
}

impl FileSet {
    pub fn new(base: impl Into<PathBuf>) -> Self {
        Self { base: base.into() }
    }

    /// The files that were put aside, oldest first.
    pub fn aside(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let name = self.base.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut files = Vec::new();
        for entry in fs::read_dir(folder(&self.base))? {
            let entry = entry?;
            let file = entry.file_name().to_string_lossy().into_owned();
            let number = file.strip_prefix(&name).and_then(|rest| rest.strip_prefix('.'));
            let digits =
                number.filter(|digits| digits.len() >= 6 && digits.bytes().all(|b| b.is_ascii_digit()));
            if let Some(number) = digits.and_then(|digits| digits.parse().ok()) {
                files.push((number, entry.path()));
            }
        }
        files.sort();
        Ok(files)
    }

    /// All files, oldest first.
    pub fn all(&self) -> io::Result<Vec<PathBuf>> {
        let mut files: Vec<_> = self.aside()?.into_iter().map(|(_, path)| path).collect();
        if self.base.exists() {
            files.push(self.base.clone());
        }
        Ok(files)
    }

    /// The name that the file gets when it is full.
    pub(super) fn next_aside(&self) -> io::Result<PathBuf> {
        let number = self.aside()?.last().map_or(0, |(number, _)| *number) + 1;
        let mut path = self.base.as_os_str().to_owned();
        path.push(format!(".{number:06}"));
        Ok(path.into())
    }

    /// Locks the log for its one writer; `None` while another process holds the lock.
    pub(super) fn lock(&self) -> io::Result<Option<File>> {
        let mut path = self.base.as_os_str().to_owned();
        path.push(".lock");
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(Path::new(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    /// Opens the file for appending. Only its owner may read it.
    pub(super) fn open(&self) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(&self.base)
    }

    /// Host and path: the name of this log in the database.
    pub fn name(&self) -> String {
        let path = fs::canonicalize(&self.base)
            .or_else(|_| {
                fs::canonicalize(folder(&self.base)).map(|folder| match self.base.file_name() {
                    Some(name) => folder.join(name),
                    None => folder,
                })
            })
            .unwrap_or_else(|_| self.base.clone());
        format!("{}:{}", host(), path.display())
    }
}

/// The logs in a folder.
pub fn file_sets(folder: &Path) -> io::Result<Vec<FileSet>> {
    let sets = (1..=PROCESSES).map(|n| in_folder(folder, n));
    let mut found = Vec::new();
    for set in sets {
        if !set.all()?.is_empty() {
            found.push(set);
        }
    }
    Ok(found)
}

/// Locks the first log of a folder that no other process writes.
pub(super) fn first_free(folder: &Path) -> io::Result<Option<(FileSet, File)>> {
    for n in 1..=PROCESSES {
        let set = in_folder(folder, n);
        if let Some(lock) = set.lock()? {
            return Ok(Some((set, lock)));
        }
    }
    Ok(None)
}

fn in_folder(folder: &Path, n: usize) -> FileSet {
    let name = if n == 1 { format!("{NAME}.jsonl") } else { format!("{NAME}-{n}.jsonl") };
    FileSet::new(folder.join(name))
}

pub(super) fn folder(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// This machine's name, as the kernel knows it.
pub(super) fn host() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "localhost".to_owned(), |name| name.trim().to_owned())
}
