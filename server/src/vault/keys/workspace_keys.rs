//! Finds each workspace's keys, unwraps them when they are first needed, and creates them with the workspace.

use std::sync::Arc;

use crate::crypto::WrapError;
use crate::model::WorkspaceId;
use crate::store::{Abort, KeyPurpose, WrappedKey};
use crate::vault::error::VaultError;
use crate::vault::state::Vault;
use crate::vault::state::keyring::{KeyUse, Ring, TRIES, WorkspaceKeys, fresh_wrapped};

impl Vault {
    /// A workspace's keys; `None` when it has none yet.
    ///
    /// # Errors
    /// `WorkspaceShredded`, `WorkspaceKeysCorrupt`, `KeyServiceUnavailable`.
    pub(in crate::vault) async fn workspace_keys(
        &self,
        workspace: &WorkspaceId,
    ) -> Result<Option<Arc<WorkspaceKeys>>, VaultError> {
        let Some(rows) = self.store.workspace_key_rows(workspace).await? else { return Ok(None) };
        if rows.shredded {
            self.keys.workspaces.invalidate(workspace);
            return Err(VaultError::WorkspaceShredded(workspace.clone()));
        }
        let known = self.keys.workspaces.get(workspace);
        if let Some(known) = &known
            && Arc::ptr_eq(&known.rows, &rows)
        {
            return Ok(Some(Arc::clone(known)));
        }
        let keys = match self.keys.open_workspace(rows, known.as_deref()).await {
            Ok(keys) => Arc::new(keys),
            Err(error) => return Err(wrap_failed(&error, workspace)),
        };
        self.keys.workspaces.insert(workspace.clone(), Arc::clone(&keys));
        Ok(Some(keys))
    }

    /// A workspace's keys, created now if the workspace is new.
    pub(in crate::vault) async fn workspace_keys_or_new(
        &self,
        workspace: &WorkspaceId,
    ) -> Result<Arc<WorkspaceKeys>, VaultError> {
        for _ in 0..TRIES {
            if let Some(keys) = self.workspace_keys(workspace).await? {
                return Ok(keys);
            }
            let ring = self.keys.ring();
            let (id, now) = (workspace.clone(), self.clock.now());
            let mut keys = Vec::new();
            for purpose in [KeyPurpose::Data, KeyPurpose::Index] {
                let key_use = KeyUse { purpose: purpose.as_str(), workspace: workspace.as_str(), version: 1 };
                keys.push((purpose, self.fresh_key(&ring, key_use).await?));
            }
            let added = self
                .store
                .write(move |tx| {
                    let (id, keys) = (id.clone(), keys.clone());
                    Box::pin(
                        async move { Ok::<_, Abort<VaultError>>(tx.add_workspace(&id, &keys, now).await?) },
                    )
                })
                .await?;
            if !added {
                // Another master key has become the active one.
                self.adopt_keys().await?;
            }
        }
        self.workspace_keys(workspace).await?.ok_or(VaultError::Overloaded)
    }

    pub(in crate::vault) async fn fresh_key(
        &self,
        ring: &Ring,
        key_use: KeyUse<'_>,
    ) -> Result<WrappedKey, VaultError> {
        fresh_wrapped(ring, self.keys.vault.vault_id, self.keys.break_glass.as_ref(), key_use)
            .await
            .map_err(|error| key_service_failed(&error))
    }
}

fn wrap_failed(error: &WrapError, workspace: &WorkspaceId) -> VaultError {
    match error {
        WrapError::Corrupt => {
            tracing::error!(%workspace, "a workspace's keys do not open: the database was altered");
            VaultError::WorkspaceKeysCorrupt(workspace.clone())
        }
        other => key_service_failed(other),
    }
}

pub fn key_service_failed(error: &WrapError) -> VaultError {
    tracing::warn!(%error, "a key can't be wrapped or unwrapped now");
    VaultError::KeyServiceUnavailable
}
