//! The file for a new key: only its owner may read it, and an existing file is never touched.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::cli::Mistake;

/// A file that is created before the vault is called, because a key that can't be written is lost. Dropping it deletes
/// the file, unless the key was written.
pub(super) struct NewFile {
    path: PathBuf,
    file: File,
    filled: bool,
}

impl NewFile {
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let rule = format!("--output {} exists already, and is never overwritten", path.display());
                return Err(Mistake(rule).into());
            }
            opened => opened.with_context(|| format!("cannot make {}", path.display()))?,
        };
        Ok(Self { path: path.to_path_buf(), file, filled: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn fill(mut self, key: &str) -> anyhow::Result<()> {
        self.filled = true;
        let written = writeln!(self.file, "{key}").and_then(|()| self.file.sync_all());
        written.with_context(|| {
            format!("cannot write the key to {}; revoke it and make another", self.path.display())
        })
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.filled {
            let _ = fs::remove_file(&self.path);
        }
    }
}
