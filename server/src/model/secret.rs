//! Secrets in the clear, sealed, and as a fingerprint. The types make sure that none leaks.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use zeroize::Zeroizing;

/// A provider secret in the clear. Wiped on drop; never printed, compared or serialized.
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(value: String) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The only way to the text. Search for it: every call site needs review.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<Zeroizing<String>> for Secret {
    fn from(value: Zeroizing<String>) -> Self {
        Self(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// Everybody's permissions in a file's mode.
const OTHERS: u32 = 0o007;

/// Why a file that holds a secret is refused, with the remedy: others than its owner and its group may use it. The rule
/// is the same for every such file. The group may read it, because orchestrators mount secrets for a group.
pub fn exposure_of(file: &Path) -> Option<String> {
    let mode = fs::metadata(file).map_or(0, |metadata| metadata.permissions().mode());
    let shown = file.display();
    (mode & OTHERS != 0).then(|| {
        format!(
            "{shown} holds a secret, and others may read it, not only its owner and its group; run: chmod 600 {shown}, or \
             let the orchestrator mount it with mode 0440"
        )
    })
}

/// Reads a file that holds a secret.
///
/// # Errors
/// The file can't be read, or [`exposure_of`] says why it is refused.
pub fn read_secret_file(file: &Path) -> io::Result<Secret> {
    if let Some(why) = exposure_of(file) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    fs::read_to_string(file).map(Secret::new)
}

/// How a file is named in messages: by its path if something is there, otherwise by the deepest folder on the way that is
/// there. What was written where a path belongs may be the secret itself.
pub fn shown_path(file: &Path) -> String {
    let is_there = |path: &Path| match fs::symlink_metadata(path) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    };
    if is_there(file) {
        return file.display().to_string();
    }
    let folder = file.ancestors().skip(1).find(|folder| !folder.as_os_str().is_empty() && is_there(folder));
    match folder {
        Some(folder) => format!("a file below {}", folder.display()),
        None => "a file below the working directory".to_owned(),
    }
}

/// A secret as the database may hold it. `crypto` makes one from a [`Secret`], and `store` accepts
/// nothing else: plaintext cannot be saved.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The version of the workspace's data key that opens it.
    pub data_key_version: i32,
    /// Format version, nonce, ciphertext and tag; only `crypto` knows the layout.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed(key {}, {} bytes)", self.data_key_version, self.bytes.len())
    }
}

/// A keyed hash of a secret. The same secret in the same workspace has the same fingerprint, so that two secrets can
/// be compared without decrypting them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 16]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_file_is_refused_if_others_than_owner_and_group_may_use_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("app.secret");
        fs::write(&file, "x").unwrap();
        for mode in 0..=0o777 {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let refused = exposure_of(&file);
            assert_eq!(refused.is_some(), mode % 8 != 0, "{mode:o}: {refused:?}");
            assert!(refused.is_none_or(|why| why.contains("chmod 600") && why.contains("0440")));
        }
    }

    #[test]
    fn a_path_is_shown_only_as_far_as_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let (here, file) = (folder.path(), folder.path().join("app.secret"));
        let below = format!("a file below {}", here.display());
        assert_eq!(shown_path(&file), below);
        assert_eq!(shown_path(&here.join("dGhpcw/aXMgYS/c2VjcmV0")), below);
        fs::write(&file, "").unwrap();
        assert_eq!(shown_path(&file), file.display().to_string());
        for secret in ["0123456789abcdef", "c2Vj/cmV0", ""] {
            assert_eq!(shown_path(Path::new(secret)), "a file below the working directory");
        }
        assert_eq!(shown_path(Path::new("/c2VjcmV0")), "a file below /");
    }

    #[test]
    fn debug_shows_no_secret() {
        let secret = Secret::new("EAABsecret".into());
        assert_eq!(format!("{secret:?}"), "Secret(***)");
        let sealed = Sealed { data_key_version: 3, bytes: vec![1, 2, 3] };
        assert_eq!(format!("{sealed:?}"), "Sealed(key 3, 3 bytes)");
    }
}
