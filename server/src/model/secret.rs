//! Secrets in the clear, sealed, and as a fingerprint. The types make sure that none leaks.

use std::fmt;
use std::fs;
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

/// A warning, with the remedy, if others than its owner may read a file that holds a secret. It is not an error,
/// since orchestrators mount secrets for a group, or for everybody within a container.
pub fn exposure_of(file: &Path) -> Option<String> {
    let mode = fs::metadata(file).map_or(0, |metadata| metadata.permissions().mode());
    let shown = file.display();
    (mode & 0o077 != 0)
        .then(|| format!("{shown} holds a secret and others may read it; run: chmod 600 {shown}"))
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
    fn debug_shows_no_secret() {
        let secret = Secret::new("EAABsecret".into());
        assert_eq!(format!("{secret:?}"), "Secret(***)");
        let sealed = Sealed { data_key_version: 3, bytes: vec![1, 2, 3] };
        assert_eq!(format!("{sealed:?}"), "Sealed(key 3, 3 bytes)");
    }
}
