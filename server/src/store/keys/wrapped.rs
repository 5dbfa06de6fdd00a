//! Tables `vault_keys` and `workspace_keys`: the wrapped keys of the vault and of each workspace.

use uuid::Uuid;

use crate::model::{Timestamp, WorkspaceId};
use crate::store::sql::{Change, Session, StoreError, Tx};

/// What a key of the vault is for.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::EnumString, strum::VariantArray,
)]
#[strum(const_into_str, serialize_all = "lowercase")]
pub enum VaultKeyPurpose {
    /// MACs rows of API keys.
    Authorization,
    /// MACs the audit chain.
    Audit,
    /// Hashes requests and page tokens.
    Index,
}

impl VaultKeyPurpose {
    pub const ALL: &[Self] = <Self as strum::VariantArray>::VARIANTS;

    pub const fn as_str(self) -> &'static str {
        self.into_str()
    }
}

/// What a key of a workspace is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::EnumString)]
#[strum(const_into_str, serialize_all = "lowercase")]
pub enum KeyPurpose {
    /// Seals the workspace's secrets.
    Data,
    /// Computes the fingerprints of the secrets.
    Index,
}

impl KeyPurpose {
    pub const fn as_str(self) -> &'static str {
        self.into_str()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    pub version: i32,
    /// The wrapping is bound to it.
    pub key_id: Uuid,
    /// The master key that opens it.
    pub master_key: String,
    pub wrapped: Vec<u8>,
    /// The same key, encrypted to the break-glass public key.
    pub break_glass: Option<BreakGlassWrap>,
}

/// A key encrypted to a break-glass public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakGlassWrap {
    /// Identifies the public key.
    pub recipient: String,
    pub sealed: Vec<u8>,
}

/// A wrapped key's position in the walk over all keys. Its wrapping is bound to both texts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct KeyPosition {
    /// Empty for the vault's own keys.
    pub workspace: String,
    pub purpose: String,
}

/// A wrapped key and its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    pub position: KeyPosition,
    pub key: WrappedKey,
}

/// One workspace's wrapped keys, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceKeyRows {
    pub workspace: WorkspaceId,
    /// Whether its keys are destroyed.
    pub shredded: bool,
    pub data: Vec<WrappedKey>,
    pub index: Vec<WrappedKey>,
}

#[derive(sqlx::FromRow)]
struct KeyRow {
    purpose: String,
    version: i64,
    key_id: Uuid,
    master_key_id: String,
    wrapped: Vec<u8>,
    break_glass: Option<Vec<u8>>,
    break_glass_id: String,
}

#[derive(sqlx::FromRow)]
struct PlacedRow {
    workspace_id: String,
    #[sqlx(flatten)]
    key: KeyRow,
}

impl PlacedRow {
    fn into_key(self) -> Result<StoredKey, StoreError> {
        let position = KeyPosition { workspace: self.workspace_id, purpose: self.key.purpose.clone() };
        Ok(StoredKey { position, key: self.key.into_key()? })
    }
}

/// Which keys a walk visits: those that lack this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lacking {
    Master,
    BreakGlass,
}

impl KeyRow {
    fn into_key(self) -> Result<WrappedKey, StoreError> {
        let version = i32::try_from(self.version).map_err(|_| StoreError::Inconsistent {
            table: "keys",
            column: "version",
            row: self.key_id.to_string(),
        })?;
        let recipient = self.break_glass_id;
        Ok(WrappedKey {
            version,
            key_id: self.key_id,
            master_key: self.master_key_id,
            wrapped: self.wrapped,
            break_glass: self.break_glass.map(|sealed| BreakGlassWrap { recipient, sealed }),
        })
    }
}

impl Session {
    /// The newest of the vault's own keys for each purpose.
    pub async fn vault_keys(&mut self) -> Result<Vec<(VaultKeyPurpose, WrappedKey)>, StoreError> {
        let rows: Vec<KeyRow> = self
            .query(
                "SELECT purpose, version, key_id, master_key_id, wrapped, break_glass, break_glass_id
                   FROM vault_keys WHERE retired_at IS NULL ORDER BY version",
            )
            .fetch_all()
            .await?;
        rows.into_iter()
            .filter_map(|row| {
                let purpose: VaultKeyPurpose = row.purpose.parse().ok()?;
                Some(row.into_key().map(|key| (purpose, key)))
            })
            .collect()
    }

    /// A workspace's wrapped keys; `None` if there is no such workspace.
    pub async fn workspace_key_rows(
        &mut self,
        workspace: &WorkspaceId,
    ) -> Result<Option<WorkspaceKeyRows>, StoreError> {
        let known: Option<(Option<i64>,)> = self
            .query("SELECT shredded_at FROM workspaces WHERE workspace_id = $1")
            .bind(workspace.as_str().to_owned())
            .fetch_optional()
            .await?;
        let Some((shredded_at,)) = known else { return Ok(None) };
        let rows: Vec<KeyRow> = self
            .query(
                "SELECT purpose, version, key_id, master_key_id, wrapped, break_glass, break_glass_id
                   FROM workspace_keys WHERE workspace_id = $1 ORDER BY version DESC",
            )
            .bind(workspace.as_str().to_owned())
            .fetch_all()
            .await?;
        let (data, index): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|row| row.purpose == KeyPurpose::Data.as_str());
        Ok(Some(WorkspaceKeyRows {
            workspace: workspace.clone(),
            shredded: shredded_at.is_some(),
            data: data.into_iter().map(KeyRow::into_key).collect::<Result<_, _>>()?,
            index: index.into_iter().map(KeyRow::into_key).collect::<Result<_, _>>()?,
        }))
    }

    /// Keys after a position that are wrapped with a master key other than `active`, in order; the vault's own come
    /// first.
    pub async fn keys_not_under(
        &mut self,
        active: &str,
        after: &KeyPosition,
        limit: i64,
    ) -> Result<Vec<StoredKey>, StoreError> {
        self.keys_lacking(Lacking::Master, active, after, limit).await
    }

    /// Keys after a position that are not encrypted to the break-glass key `recipient`, in order.
    pub async fn keys_not_for(
        &mut self,
        recipient: &str,
        after: &KeyPosition,
        limit: i64,
    ) -> Result<Vec<StoredKey>, StoreError> {
        self.keys_lacking(Lacking::BreakGlass, recipient, after, limit).await
    }

    async fn keys_lacking(
        &mut self,
        lacking: Lacking,
        wanted: &str,
        after: &KeyPosition,
        limit: i64,
    ) -> Result<Vec<StoredKey>, StoreError> {
        let mut found = Vec::new();
        if after.workspace.is_empty() {
            let sql = match lacking {
                Lacking::Master => {
                    "SELECT '' AS workspace_id, purpose, version, key_id, master_key_id, wrapped, break_glass,
                            break_glass_id
                       FROM vault_keys WHERE master_key_id <> $1 AND purpose > $2 ORDER BY purpose, version"
                }
                Lacking::BreakGlass => {
                    "SELECT '' AS workspace_id, purpose, version, key_id, master_key_id, wrapped, break_glass,
                            break_glass_id
                       FROM vault_keys WHERE break_glass_id <> $1 AND purpose > $2 ORDER BY purpose, version"
                }
            };
            let rows: Vec<PlacedRow> =
                self.query(sql).bind(wanted.to_owned()).bind(after.purpose.clone()).fetch_all().await?;
            found.extend(rows);
        }
        let sql = match lacking {
            Lacking::Master => {
                "SELECT workspace_id, purpose, version, key_id, master_key_id, wrapped, break_glass, break_glass_id
                   FROM workspace_keys WHERE master_key_id <> $1 AND workspace_id > $2
                  ORDER BY workspace_id, purpose, version LIMIT $3"
            }
            Lacking::BreakGlass => {
                "SELECT workspace_id, purpose, version, key_id, master_key_id, wrapped, break_glass, break_glass_id
                   FROM workspace_keys WHERE break_glass_id <> $1 AND workspace_id > $2
                  ORDER BY workspace_id, purpose, version LIMIT $3"
            }
        };
        let mut rows: Vec<PlacedRow> = self
            .query(sql)
            .bind(wanted.to_owned())
            .bind(after.workspace.clone())
            .bind(limit)
            .fetch_all()
            .await?;
        // A page ends with a workspace's last key, so that the next one can begin after that workspace.
        let full = i64::try_from(rows.len()).is_ok_and(|count| count >= limit);
        if full
            && let Some(last) = rows.last().map(|row| row.workspace_id.clone())
            && rows.first().is_some_and(|first| first.workspace_id != last)
        {
            rows.retain(|row| row.workspace_id != last);
        }
        found.extend(rows);
        found.into_iter().map(PlacedRow::into_key).collect()
    }
}

impl Tx {
    /// Creates a workspace and its first keys, unless it exists. `false`: the keys are not wrapped with the active
    /// master key.
    pub async fn add_workspace(
        &mut self,
        workspace: &WorkspaceId,
        keys: &[(KeyPurpose, WrappedKey)],
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let active = self.hold_active_master_key().await?;
        if keys.iter().any(|(_, key)| key.master_key != active) {
            return Ok(false);
        }
        let added = self
            .query(
                "INSERT INTO workspaces (workspace_id, created_at) VALUES ($1, $2) ON CONFLICT (workspace_id) DO NOTHING",
            )
            .bind(workspace.as_str().to_owned())
            .bind(now.as_micros())
            .execute()
            .await?;
        if added == 1 {
            for (purpose, key) in keys {
                self.insert_workspace_key(workspace, *purpose, key, now).await?;
            }
            self.changed(Change::Workspace(workspace.clone()));
        }
        Ok(true)
    }

    pub(in crate::store) async fn insert_workspace_key(
        &mut self,
        workspace: &WorkspaceId,
        purpose: KeyPurpose,
        key: &WrappedKey,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.query(
            "INSERT INTO workspace_keys (workspace_id, purpose, version, key_id, master_key_id, wrapped, created_at,
                                         break_glass, break_glass_id)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(workspace.as_str().to_owned())
        .bind(purpose.as_str())
        .bind(i64::from(key.version))
        .bind(key.key_id)
        .bind(key.master_key.clone())
        .bind(key.wrapped.clone())
        .bind(now.as_micros())
        .bind(key.break_glass.as_ref().map(|wrap| wrap.sealed.clone()))
        .bind(key.break_glass.as_ref().map_or_else(String::new, |wrap| wrap.recipient.clone()))
        .execute()
        .await?;
        Ok(())
    }

    /// Replaces a key by its new wrapping. `false`: another process wrote it meanwhile.
    pub async fn rewrap(&mut self, before: &StoredKey, after: &WrappedKey) -> Result<bool, StoreError> {
        let own = before.position.workspace.is_empty();
        let sql = if own {
            "UPDATE vault_keys SET master_key_id = $2, wrapped = $3, break_glass = $4, break_glass_id = $5
              WHERE key_id = $1 AND wrapped = $6 AND break_glass_id = $7"
        } else {
            "UPDATE workspace_keys SET master_key_id = $2, wrapped = $3, break_glass = $4, break_glass_id = $5
              WHERE key_id = $1 AND wrapped = $6 AND break_glass_id = $7
                AND workspace_id = $8 AND purpose = $9 AND version = $10"
        };
        let mut query = self
            .query(sql)
            .bind(before.key.key_id)
            .bind(after.master_key.clone())
            .bind(after.wrapped.clone())
            .bind(after.break_glass.as_ref().map(|wrap| wrap.sealed.clone()))
            .bind(after.break_glass.as_ref().map_or_else(String::new, |wrap| wrap.recipient.clone()))
            .bind(before.key.wrapped.clone())
            .bind(before.key.break_glass.as_ref().map_or_else(String::new, |wrap| wrap.recipient.clone()));
        if !own {
            query = query
                .bind(before.position.workspace.clone())
                .bind(before.position.purpose.clone())
                .bind(i64::from(before.key.version));
        }
        let written = query.execute().await?;
        self.destroyed();
        if let Ok(workspace) = WorkspaceId::parse(before.position.workspace.as_str()) {
            self.changed(Change::Workspace(workspace));
        }
        Ok(written == 1)
    }
}
