//! The MAC over an API key's row: write access to the database is not enough to make a key.

use crate::crypto::MacKey;
use crate::model::{Timestamp, WorkspaceSet};
use crate::store::{ApiKeyFacts, ApiKeyRecord};
use crate::vault::error::VaultError;
use crate::vault::state::Vault;

pub fn row_mac(authorization: &MacKey, key: &ApiKeyFacts, hash: &[u8]) -> [u8; 32] {
    let workspaces = match &key.workspaces {
        WorkspaceSet::All => "*".to_owned(),
        WorkspaceSet::Named(names) => {
            names.iter().map(|name| format!("={name}")).collect::<Vec<_>>().join("\n")
        }
    };
    let time = |at: Option<Timestamp>| at.map_or(i64::MIN, Timestamp::as_micros).to_be_bytes();
    let (created_at, expires_at, revoked_at) =
        (key.created_at.as_micros().to_be_bytes(), time(key.expires_at), time(key.revoked_at));
    let mut parts = vec![
        key.id.as_str().as_bytes(),
        hash,
        key.principal.as_bytes(),
        key.role.as_str().as_bytes(),
        workspaces.as_bytes(),
        &created_at,
        &expires_at,
        &revoked_at,
    ];
    // Included only if set, so that the MACs of rows from before this column stay valid.
    parts.extend(key.replaced_by.iter().map(|by| by.as_str().as_bytes()));
    authorization.mac("api-key", &parts)
}

impl Vault {
    pub(super) fn check_row(&self, record: &ApiKeyRecord) -> Result<(), VaultError> {
        if row_mac(&self.keys.authorization, &record.api_key, &record.hash).as_slice() == record.mac {
            return Ok(());
        }
        tracing::error!(api_key = %record.api_key.id, "an API key's row was altered outside the vault; the key is denied");
        Err(VaultError::ApiKeyInvalid)
    }
}
