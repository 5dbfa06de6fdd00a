//! The vault's row, master keys, and wrapped keys: the vault's own and each workspace's.

use uuid::Uuid;

use super::{Session, StoreError, Tx};
use crate::model::{Timestamp, WorkspaceId};

/// What this vault is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultRecord {
    /// Its id; part of what its own keys are bound to.
    pub vault_id: Uuid,
    /// Changes only when a backup is restored.
    pub feed_epoch: Uuid,
    /// The master key that wraps new keys.
    pub active_master_key: String,
    /// When it was founded.
    pub created_at: Timestamp,
}

/// A master key that this vault has known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterKeyRecord {
    /// Its id in the key file.
    pub id: String,
    /// A known text, sealed by it.
    pub check_value: Vec<u8>,
}

/// What a key of the vault is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VaultKeyPurpose {
    /// MACs rows of API keys.
    Authorization,
    /// MACs the audit chain.
    Audit,
    /// Hashes requests and page tokens.
    Index,
}

impl VaultKeyPurpose {
    /// Every purpose.
    pub const ALL: [Self; 3] = [Self::Authorization, Self::Audit, Self::Index];

    /// The name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Authorization => "authorization",
            Self::Audit => "audit",
            Self::Index => "index",
        }
    }
}

/// What a key of a workspace is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyPurpose {
    /// Seals its secrets.
    Data,
    /// Fingerprints them.
    Index,
}

impl KeyPurpose {
    /// The name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Index => "index",
        }
    }
}

/// A wrapped key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// Which version.
    pub version: i32,
    /// Its id; part of what the wrapping is bound to.
    pub key_id: Uuid,
    /// The master key that opens it.
    pub master_key: String,
    /// The ciphertext.
    pub wrapped: Vec<u8>,
}

#[derive(sqlx::FromRow)]
struct VaultRow {
    vault_id: Uuid,
    feed_epoch: Uuid,
    active_master_key: String,
    created_at: i64,
}

#[derive(sqlx::FromRow)]
struct MasterRow {
    master_key_id: String,
    check_value: Vec<u8>,
}

#[derive(sqlx::FromRow)]
struct KeyRow {
    purpose: String,
    version: i64,
    key_id: Uuid,
    master_key_id: String,
    wrapped: Vec<u8>,
}

#[derive(sqlx::FromRow)]
struct Name {
    name: String,
}

#[derive(sqlx::FromRow)]
struct Shredded {
    shredded_at: Option<i64>,
}

impl KeyRow {
    fn into_key(self) -> Result<WrappedKey, StoreError> {
        let version = i32::try_from(self.version).map_err(|_| StoreError::Inconsistent {
            table: "keys",
            column: "version",
            row: self.key_id.to_string(),
        })?;
        Ok(WrappedKey { version, key_id: self.key_id, master_key: self.master_key_id, wrapped: self.wrapped })
    }
}

impl Session {
    /// What this vault is; `None` before its first start.
    pub async fn vault(&mut self) -> Result<Option<VaultRecord>, StoreError> {
        let row: Option<VaultRow> = self
            .query(
                "SELECT vault_id, feed_epoch, active_master_key, created_at FROM vault WHERE singleton = 1",
            )
            .fetch_optional()
            .await?;
        Ok(row.map(|row| VaultRecord {
            vault_id: row.vault_id,
            feed_epoch: row.feed_epoch,
            active_master_key: row.active_master_key,
            created_at: Timestamp::from_micros(row.created_at),
        }))
    }

    /// The master keys that are not retired.
    pub async fn master_keys(&mut self) -> Result<Vec<MasterKeyRecord>, StoreError> {
        let rows: Vec<MasterRow> = self
            .query("SELECT master_key_id, check_value FROM master_keys WHERE retired_at IS NULL ORDER BY created_at")
            .fetch_all()
            .await?;
        Ok(rows
            .into_iter()
            .map(|row| MasterKeyRecord { id: row.master_key_id, check_value: row.check_value })
            .collect())
    }

    /// Ids of master keys that some key still needs.
    pub async fn needed_master_keys(&mut self) -> Result<Vec<String>, StoreError> {
        let rows: Vec<Name> = self
            .query(
                "SELECT master_key_id AS name FROM workspace_keys
                  UNION SELECT master_key_id FROM vault_keys
                  UNION SELECT active_master_key FROM vault",
            )
            .fetch_all()
            .await?;
        Ok(rows.into_iter().map(|row| row.name).collect())
    }

    /// The newest of the vault's own keys for each purpose.
    pub async fn vault_keys(&mut self) -> Result<Vec<(VaultKeyPurpose, WrappedKey)>, StoreError> {
        let rows: Vec<KeyRow> = self
            .query(
                "SELECT purpose, version, key_id, master_key_id, wrapped FROM vault_keys
                  WHERE retired_at IS NULL ORDER BY version",
            )
            .fetch_all()
            .await?;
        rows.into_iter()
            .filter_map(|row| {
                let purpose = VaultKeyPurpose::ALL.into_iter().find(|p| p.as_str() == row.purpose)?;
                Some(row.into_key().map(|key| (purpose, key)))
            })
            .collect()
    }

    /// Every key of a workspace for a purpose, newest first.
    pub async fn workspace_keys(
        &mut self,
        workspace: &WorkspaceId,
        purpose: KeyPurpose,
    ) -> Result<Vec<WrappedKey>, StoreError> {
        let rows: Vec<KeyRow> = self
            .query(
                "SELECT purpose, version, key_id, master_key_id, wrapped FROM workspace_keys
                  WHERE workspace_id = $1 AND purpose = $2 ORDER BY version DESC",
            )
            .bind(workspace.as_str().to_owned())
            .bind(purpose.as_str())
            .fetch_all()
            .await?;
        rows.into_iter().map(KeyRow::into_key).collect()
    }

    /// Whether the workspace is known: `Some(true)` when it was shredded.
    pub async fn workspace_is_shredded(
        &mut self,
        workspace: &WorkspaceId,
    ) -> Result<Option<bool>, StoreError> {
        let row: Option<Shredded> = self
            .query("SELECT shredded_at FROM workspaces WHERE workspace_id = $1")
            .bind(workspace.as_str().to_owned())
            .fetch_optional()
            .await?;
        Ok(row.map(|row| row.shredded_at.is_some()))
    }
}

impl Tx {
    /// Founds the vault. `false`: another process was first.
    pub async fn found_vault(
        &mut self,
        vault: &VaultRecord,
        master: &MasterKeyRecord,
        keys: &[(VaultKeyPurpose, WrappedKey)],
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let first = self
            .query(
                "INSERT INTO vault (singleton, vault_id, feed_epoch, min_binary, active_master_key, bootstrapped_at, created_at)
                 VALUES (1, $1, $2, 1, $3, $4, $4) ON CONFLICT (singleton) DO NOTHING",
            )
            .bind(vault.vault_id)
            .bind(vault.feed_epoch)
            .bind(vault.active_master_key.clone())
            .bind(now.as_micros())
            .execute()
            .await?;
        if first == 0 {
            return Ok(false);
        }
        self.query("INSERT INTO master_keys (master_key_id, check_value, created_at) VALUES ($1, $2, $3)")
            .bind(master.id.clone())
            .bind(master.check_value.clone())
            .bind(now.as_micros())
            .execute()
            .await?;
        for (purpose, key) in keys {
            self.query(
                "INSERT INTO vault_keys (purpose, version, key_id, master_key_id, wrapped, created_at)
                 VALUES ($1, $2, $3, $4, $5, $6)",
            )
            .bind(purpose.as_str())
            .bind(i64::from(key.version))
            .bind(key.key_id)
            .bind(key.master_key.clone())
            .bind(key.wrapped.clone())
            .bind(now.as_micros())
            .execute()
            .await?;
        }
        Ok(true)
    }

    /// Brings a workspace and its first keys into being. Nothing happens if it is there.
    pub async fn add_workspace(
        &mut self,
        workspace: &WorkspaceId,
        keys: &[(KeyPurpose, WrappedKey)],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let added = self
            .query(
                "INSERT INTO workspaces (workspace_id, created_at) VALUES ($1, $2) ON CONFLICT (workspace_id) DO NOTHING",
            )
            .bind(workspace.as_str().to_owned())
            .bind(now.as_micros())
            .execute()
            .await?;
        if added == 0 {
            return Ok(());
        }
        for (purpose, key) in keys {
            self.query(
                "INSERT INTO workspace_keys (workspace_id, purpose, version, key_id, master_key_id, wrapped, created_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
            )
            .bind(workspace.as_str().to_owned())
            .bind(purpose.as_str())
            .bind(i64::from(key.version))
            .bind(key.key_id)
            .bind(key.master_key.clone())
            .bind(key.wrapped.clone())
            .bind(now.as_micros())
            .execute()
            .await?;
        }
        Ok(())
    }
}
