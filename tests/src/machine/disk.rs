//! A disk that can be filled.

use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An environment variable that is set in the namespace that [`SmallDisk::rerun`] makes.
const IN_NAMESPACE: &str = "TOKEN_VAULT_TEST_IN_NAMESPACE";

/// What to do if the disk can't be mounted.
const NEED: &str = "this test mounts a small disk: run it as root, or where a user may make user and mount namespaces \
                    (`unshare --user --mount`, of util-linux 2.38 or later)";

/// A small disk, mounted at a folder until it is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
    size: usize,
}

impl SmallDisk {
    /// Returns whether the test `name` of the module `module` has already run elsewhere. A test calls this first. Only
    /// root may mount a disk; for other users, this runs the test once more in a process with its own user namespace,
    /// where mounting is allowed.
    pub fn rerun(module: &str, name: &str) -> bool {
        if rustix::process::geteuid().is_root() || env::var_os(IN_NAMESPACE).is_some() {
            return false;
        }
        let path = module.split_once("::").map_or(module, |(_, path)| path);
        let done = Command::new("unshare")
            .args(["--user", "--map-current-user", "--keep-caps", "--mount"])
            .arg(env::current_exe().expect("a running program knows where it is"))
            .args(["--exact", &format!("{path}::{name}"), "--nocapture"])
            .env(IN_NAMESPACE, "1")
            .output();
        let done = done.unwrap_or_else(|error| panic!("{NEED}: unshare: {error}"));
        let words =
            [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(done.status.success() && words.contains("1 passed"), "{NEED}, or it failed there:\n{words}");
        true
    }

    /// Mounts a disk of this many KiB at `folder`, which it creates.
    pub fn at(folder: &Path, kib: usize) -> Self {
        fs::create_dir_all(folder).expect("the test's folder is writable");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={kib}k,mode=0700"), "token-vault-test"])
            .arg(folder)
            .status()
            .expect("mount runs");
        assert!(mounted.success(), "{NEED}");
        Self { folder: folder.to_path_buf(), size: kib * 1024 }
    }

    /// Fills the disk to the last byte.
    pub fn fill(&self) {
        let mut ballast = File::create(self.folder.join("ballast")).expect("a file");
        let mut size = self.size;
        while size > 0 {
            if ballast.write_all(&vec![1; size]).is_err() {
                size /= 2;
            }
        }
    }

    /// Frees the space that `fill` took.
    pub fn free(&self) {
        fs::remove_file(self.folder.join("ballast")).expect("the ballast is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}
