//! The keys in use, and their rotation.

pub(super) mod keyring;
pub(super) mod rekey;
