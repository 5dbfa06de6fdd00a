//! The vault's row, master keys, wrapped keys, and how data keys succeed each other.

mod rekeying;
mod wrapped;

pub use rekeying::SealedRow;
pub use wrapped::{
    BreakGlassWrap, KeyPlace, KeyPurpose, MasterKeyRecord, StoredKey, VaultKeyPurpose, VaultRecord,
    WorkspaceKeyRows, WrappedKey,
};
pub(in crate::store) use wrapped::{Id, Name};
