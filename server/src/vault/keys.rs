//! Keys in use: the vault's own, and each workspace's, unwrapped on first need and kept while they are needed.

use std::collections::BTreeMap;
use std::sync::Arc;

use moka::sync::Cache;
use uuid::Uuid;

use super::{OpenError, Vault, VaultError};
use crate::crypto::{CorruptCiphertext, DataKey, KeyBinding, MacKey, MasterKeys, RawKey};
use crate::model::WorkspaceId;
use crate::store::{Abort, KeyPurpose, Session, VaultKeyPurpose, VaultRecord, WrappedKey};

/// Workspaces whose keys are kept at most.
const WORKSPACES: u64 = 100_000;

/// The keys in use.
pub(super) struct Keys {
    pub(super) master: MasterKeys,
    pub(super) vault: VaultRecord,
    /// MACs rows of API keys.
    pub(super) authorization: MacKey,
    /// MACs the audit log.
    pub(super) audit: MacKey,
    /// Hashes requests and queries.
    pub(super) index: MacKey,
    /// Seals page tokens.
    pub(super) pages: DataKey,
    workspaces: Cache<WorkspaceId, Arc<WorkspaceKeys>>,
}

/// One workspace's keys.
pub(super) struct WorkspaceKeys {
    data: BTreeMap<i32, DataKey>,
    /// Fingerprints its secrets.
    pub(super) index: MacKey,
}

impl WorkspaceKeys {
    /// The key that seals now.
    pub(super) fn newest(&self) -> Option<&DataKey> {
        self.data.values().next_back()
    }

    /// The key of a version that sealed something earlier.
    pub(super) fn of_version(&self, version: i32) -> Option<&DataKey> {
        self.data.get(&version)
    }
}

/// A fresh key, wrapped by the active master key.
pub(super) fn fresh_wrapped(
    master: &MasterKeys,
    vault: &VaultRecord,
    purpose: &str,
    workspace: &str,
) -> Result<WrappedKey, CorruptCiphertext> {
    let (key_id, version) = (Uuid::new_v4(), 1);
    let binding = KeyBinding { vault: vault.vault_id, purpose, workspace, key_id, version };
    let wrapped = master.wrap(&vault.active_master_key, &binding, &RawKey::generate())?;
    Ok(WrappedKey { version, key_id, master_key: vault.active_master_key.clone(), wrapped })
}

fn unwrap(
    master: &MasterKeys,
    vault: &VaultRecord,
    purpose: &str,
    workspace: &str,
    key: &WrappedKey,
) -> Result<RawKey, CorruptCiphertext> {
    let binding =
        KeyBinding { vault: vault.vault_id, purpose, workspace, key_id: key.key_id, version: key.version };
    master.unwrap(&key.master_key, &binding, &key.wrapped)
}

impl Keys {
    /// Unwraps the vault's own keys.
    pub(super) async fn load(
        master: MasterKeys,
        vault: VaultRecord,
        session: &mut Session,
    ) -> Result<Self, OpenError> {
        let wrapped = session.vault_keys().await.map_err(|error| OpenError(error.to_string()))?;
        let newest = |purpose: VaultKeyPurpose| {
            let (_, key) = wrapped.iter().rfind(|(of, _)| *of == purpose).ok_or_else(|| {
                OpenError(format!("the vault's {} key is gone from the database", purpose.as_str()))
            })?;
            unwrap(&master, &vault, purpose.as_str(), "", key).map(|raw| MacKey::new(&raw)).map_err(|_| {
                OpenError(format!(
                    "the vault's {} key does not open under master key {}: the database was altered",
                    purpose.as_str(),
                    key.master_key
                ))
            })
        };
        let (authorization, index) =
            (newest(VaultKeyPurpose::Authorization)?, newest(VaultKeyPurpose::Index)?);
        let audit = newest(VaultKeyPurpose::Audit)?;
        let pages = DataKey::new(1, &index.derive("page-tokens"));
        Ok(Self { authorization, audit, index, pages, master, vault, workspaces: Cache::new(WORKSPACES) })
    }

    fn open_workspace(
        &self,
        workspace: &WorkspaceId,
        data: &[WrappedKey],
        index: &[WrappedKey],
    ) -> Result<WorkspaceKeys, CorruptCiphertext> {
        let of = |purpose: KeyPurpose, key: &WrappedKey| {
            unwrap(&self.master, &self.vault, purpose.as_str(), workspace.as_str(), key)
        };
        let data = data
            .iter()
            .map(|key| Ok((key.version, DataKey::new(key.version, &of(KeyPurpose::Data, key)?))))
            .collect::<Result<_, CorruptCiphertext>>()?;
        let index = index.first().ok_or(CorruptCiphertext)?;
        Ok(WorkspaceKeys { data, index: MacKey::new(&of(KeyPurpose::Index, index)?) })
    }
}

impl Vault {
    /// A workspace's keys; `None` when it has none yet.
    pub(super) async fn workspace_keys(
        &self,
        workspace: &WorkspaceId,
    ) -> Result<Option<Arc<WorkspaceKeys>>, VaultError> {
        if let Some(keys) = self.keys.workspaces.get(workspace) {
            return Ok(Some(keys));
        }
        let mut session = self.store.read().await?;
        match session.workspace_is_shredded(workspace).await? {
            None => return Ok(None),
            Some(true) => return Err(VaultError::WorkspaceShredded(workspace.clone())),
            Some(false) => {}
        }
        let data = session.workspace_keys(workspace, KeyPurpose::Data).await?;
        let index = session.workspace_keys(workspace, KeyPurpose::Index).await?;
        let keys = self.keys.open_workspace(workspace, &data, &index).map_err(|error| {
            tracing::error!(%workspace, %error, "a workspace's keys do not open: the database was altered");
            VaultError::Internal
        })?;
        let keys = Arc::new(keys);
        self.keys.workspaces.insert(workspace.clone(), Arc::clone(&keys));
        Ok(Some(keys))
    }

    /// A workspace's keys, made now if it is new.
    pub(super) async fn workspace_keys_or_new(
        &self,
        workspace: &WorkspaceId,
    ) -> Result<Arc<WorkspaceKeys>, VaultError> {
        if let Some(keys) = self.workspace_keys(workspace).await? {
            return Ok(keys);
        }
        let fresh = |purpose: KeyPurpose| {
            fresh_wrapped(&self.keys.master, &self.keys.vault, purpose.as_str(), workspace.as_str())
                .map(|key| (purpose, key))
                .map_err(|_| VaultError::Internal)
        };
        let keys = [fresh(KeyPurpose::Data)?, fresh(KeyPurpose::Index)?];
        let (id, now) = (workspace.clone(), self.clock.now());
        self.store
            .write(move |tx| {
                let (id, keys) = (id.clone(), keys.clone());
                Box::pin(async move {
                    tx.add_workspace(&id, &keys, now).await?;
                    Ok::<_, Abort<VaultError>>(())
                })
            })
            .await?;
        self.workspace_keys(workspace).await?.ok_or(VaultError::Internal)
    }
}
