//! Reads a log line by line, so that memory does not grow with the log.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

use super::files::FileSet;

/// Longest line that can be a record. No record comes near it; the rest of a longer line is not kept.
const LONGEST: u64 = 1024 * 1024;
/// How often the files are listed again when one was put aside meanwhile.
const TRIES: usize = 5;

/// A line, and where it stands.
pub(super) struct RawLine {
    pub(super) file: PathBuf,
    /// Counts from 1.
    pub(super) line: usize,
    /// Without its line end.
    pub(super) bytes: Vec<u8>,
    /// Whether it has a line end.
    pub(super) ended: bool,
}

/// The opened files of a log: if one is put aside meanwhile, the same files are still read.
pub(super) struct Log {
    files: Vec<(PathBuf, BufReader<File>)>,
    at: usize,
    line: usize,
}

impl Log {
    pub(super) fn open(set: &FileSet) -> io::Result<Self> {
        let mut names = set.all()?;
        for _ in 0..TRIES {
            let opened: io::Result<Vec<_>> = names.iter().map(File::open).collect();
            let now = set.all()?;
            if now == names {
                let files = names.into_iter().zip(opened?.into_iter().map(BufReader::new)).collect();
                return Ok(Self { files, at: 0, line: 0 });
            }
            names = now;
        }
        Err(io::Error::other("its files change faster than they can be listed"))
    }

    pub(super) fn files(&self) -> usize {
        self.files.len()
    }

    /// The next line, oldest file first.
    pub(super) fn next_line(&mut self) -> io::Result<Option<RawLine>> {
        while let Some((name, file)) = self.files.get_mut(self.at) {
            let mut bytes = Vec::new();
            if file.by_ref().take(LONGEST).read_until(b'\n', &mut bytes)? == 0 {
                (self.at, self.line) = (self.at + 1, 0);
                continue;
            }
            self.line += 1;
            let mut ended = bytes.pop_if(|byte| *byte == b'\n').is_some();
            if !ended && u64::try_from(bytes.len()).is_ok_and(|length| length == LONGEST) {
                ended = skip_line(file)?;
            }
            return Ok(Some(RawLine { file: name.clone(), line: self.line, bytes, ended }));
        }
        Ok(None)
    }
}

/// Skips the rest of a line; returns whether it has a line end.
fn skip_line(file: &mut BufReader<File>) -> io::Result<bool> {
    loop {
        let chunk = file.fill_buf()?;
        if chunk.is_empty() {
            return Ok(false);
        }
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let passed = end.map_or(chunk.len(), |end| end + 1);
        file.consume(passed);
        if end.is_some() {
            return Ok(true);
        }
    }
}
