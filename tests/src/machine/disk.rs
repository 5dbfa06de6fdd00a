//! A disk that can be filled.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small disk at a folder, which only root can make. Dropping it takes it away.
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
    size: usize,
}

impl SmallDisk {
    /// A disk of so many KiB at `folder`, which is made.
    pub fn at(folder: &Path, kib: usize) -> Self {
        fs::create_dir_all(folder).expect("the test's folder is writable");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={kib}k,mode=0700"), "token-vault-test"])
            .arg(folder)
            .status()
            .expect("mount runs");
        assert!(mounted.success(), "this test mounts a small disk and must run as root");
        Self { folder: folder.to_path_buf(), size: kib * 1024 }
    }

    /// Takes the last byte that is free.
    pub fn fill(&self) {
        let mut ballast = File::create(self.folder.join("ballast")).expect("a file");
        let mut size = self.size;
        while size > 0 {
            if ballast.write_all(&vec![1; size]).is_err() {
                size /= 2;
            }
        }
    }

    /// Gives back what `fill` took.
    pub fn free(&self) {
        fs::remove_file(self.folder.join("ballast")).expect("the ballast is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}
