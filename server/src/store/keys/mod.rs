//! Keys at rest: the vault's row, master keys, wrapped keys, and how data keys succeed each other.

mod master;
mod rekeying;
mod vault;
mod wrapped;

pub use master::MasterKeyRecord;
pub use rekeying::SealedRow;
pub use vault::VaultRecord;
pub use wrapped::{
    BreakGlassWrap, KeyPosition, KeyPurpose, StoredKey, VaultKeyPurpose, WorkspaceKeyRows, WrappedKey,
};
