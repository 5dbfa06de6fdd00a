//! How sealing and wrapping fail.

/// A ciphertext that does not open. One error for every cause, so that it does not reveal which check failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ciphertext does not open under its key and binding")]
pub struct CorruptCiphertext;

/// Why a key could not be wrapped or unwrapped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WrapError {
    #[error("the wrapped key does not open under its master key and binding")]
    Corrupt,
    /// This process does not hold the master key of that id.
    #[error("this process does not hold the master key {0}")]
    NotHeld(String),
    /// The key service can't be reached, or has trouble of its own.
    #[error("{0}")]
    Unavailable(String),
    /// The key service does not let us in, or its key is of no use here. Time alone does not change that.
    #[error("{0}")]
    Denied(String),
}

impl From<CorruptCiphertext> for WrapError {
    fn from(_: CorruptCiphertext) -> Self {
        Self::Corrupt
    }
}
