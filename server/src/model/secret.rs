//! Secrets in the clear, sealed, and as a fingerprint. The types carry the promise that none leaks.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use zeroize::Zeroizing;

/// A provider secret in the clear. Wiped on drop; never printed, compared or serialized.
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the secret over.
    pub fn new(value: String) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The only way out. Grep for it: every call site is a place to review.
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

/// Says so, with the remedy, where a file that holds a secret may be read by more than its owner. It is a warning
/// and no refusal: orchestrators mount secrets for a group, or for all within a container.
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
    /// Which version of the workspace's data key opens it.
    pub data_key_version: i32,
    /// Format version, nonce, ciphertext and tag; the layout is `crypto`'s alone.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed(key {}, {} bytes)", self.data_key_version, self.bytes.len())
    }
}

/// A keyed hash of a secret: the same secret in the same workspace gives the same fingerprint, so
/// that equality can be asked without decrypting. It tells nothing else.
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
