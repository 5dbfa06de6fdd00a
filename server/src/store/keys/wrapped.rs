//! The vault's row, master keys, and wrapped keys: the vault's own and each workspace's.

use uuid::Uuid;

use crate::model::{Timestamp, WorkspaceId};
use crate::store::access::Shredded;
use crate::store::engine::Change;
use crate::store::{Session, StoreError, Tx};

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
    /// The same key, encrypted to the break-glass public key.
    pub break_glass: Option<BreakGlassWrap>,
}

/// A key encrypted to a break-glass public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakGlassWrap {
    /// Names the public key.
    pub recipient: String,
    /// The ciphertext.
    pub sealed: Vec<u8>,
}

/// Where a wrapped key stands. The words are those that its wrapping is bound to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct KeyPlace {
    /// Whose; empty for the vault's own.
    pub workspace: String,
    /// What the key is for.
    pub purpose: String,
}

/// A wrapped key and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// Where.
    pub place: KeyPlace,
    /// The key.
    pub key: WrappedKey,
}

/// One workspace's wrapped keys, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceKeyRows {
    /// Whose.
    pub workspace: WorkspaceId,
    /// Its keys are destroyed.
    pub shredded: bool,
    /// They seal its secrets.
    pub data: Vec<WrappedKey>,
    /// They fingerprint them.
    pub index: Vec<WrappedKey>,
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
        let place = KeyPlace { workspace: self.workspace_id, purpose: self.key.purpose.clone() };
        Ok(StoredKey { place, key: self.key.into_key()? })
    }
}

#[derive(sqlx::FromRow)]
pub(in crate::store) struct Number {
    pub(in crate::store) n: i64,
}

#[derive(sqlx::FromRow)]
pub(in crate::store) struct Counted {
    pub(in crate::store) name: String,
    pub(in crate::store) n: i64,
}

#[derive(sqlx::FromRow)]
pub(in crate::store) struct Id {
    pub(in crate::store) connection_id: Uuid,
}

/// Which wrapped keys a walk is after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lacking {
    Master,
    BreakGlass,
}

#[derive(sqlx::FromRow)]
pub(in crate::store) struct Name {
    pub(in crate::store) name: String,
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

    /// Every master key that this vault has known, retired ones too: an id never comes back with other bytes.
    pub async fn master_keys(&mut self) -> Result<Vec<MasterKeyRecord>, StoreError> {
        let rows: Vec<MasterRow> = self
            .query("SELECT master_key_id, check_value FROM master_keys ORDER BY created_at")
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
                "SELECT purpose, version, key_id, master_key_id, wrapped, break_glass, break_glass_id
                   FROM vault_keys WHERE retired_at IS NULL ORDER BY version",
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

    /// A workspace's wrapped keys; `None` for one that is not there.
    pub async fn workspace_key_rows(
        &mut self,
        workspace: &WorkspaceId,
    ) -> Result<Option<WorkspaceKeyRows>, StoreError> {
        let known: Option<Shredded> = self
            .query("SELECT shredded_at FROM workspaces WHERE workspace_id = $1")
            .bind(workspace.as_str().to_owned())
            .fetch_optional()
            .await?;
        let Some(known) = known else { return Ok(None) };
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
            shredded: known.shredded_at.is_some(),
            data: data.into_iter().map(KeyRow::into_key).collect::<Result<_, _>>()?,
            index: index.into_iter().map(KeyRow::into_key).collect::<Result<_, _>>()?,
        }))
    }

    /// Keys after a place that another master key than `active` wraps, in order: the vault's own come first.
    pub async fn keys_not_under(
        &mut self,
        active: &str,
        after: &KeyPlace,
        limit: i64,
    ) -> Result<Vec<StoredKey>, StoreError> {
        self.keys_lacking(Lacking::Master, active, after, limit).await
    }

    /// Keys after a place that are not encrypted to the break-glass key `recipient`, in order.
    pub async fn keys_not_for(
        &mut self,
        recipient: &str,
        after: &KeyPlace,
        limit: i64,
    ) -> Result<Vec<StoredKey>, StoreError> {
        self.keys_lacking(Lacking::BreakGlass, recipient, after, limit).await
    }

    async fn keys_lacking(
        &mut self,
        lacking: Lacking,
        wanted: &str,
        after: &KeyPlace,
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
        // A page ends with a workspace's last key, so that the next one may begin after the workspace.
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

    /// How many keys another master key than `active` wraps.
    pub async fn count_keys_not_under(&mut self, active: &str) -> Result<i64, StoreError> {
        let count: Number = self
            .query(
                "SELECT (SELECT count(*) FROM vault_keys WHERE master_key_id <> $1)
                      + (SELECT count(*) FROM workspace_keys WHERE master_key_id <> $1) AS n",
            )
            .bind(active.to_owned())
            .fetch_one()
            .await?;
        Ok(count.n)
    }

    /// How many keys are not encrypted to the break-glass key `recipient`.
    pub async fn count_keys_not_for(&mut self, recipient: &str) -> Result<i64, StoreError> {
        let count: Number = self
            .query(
                "SELECT (SELECT count(*) FROM vault_keys WHERE break_glass_id <> $1)
                      + (SELECT count(*) FROM workspace_keys WHERE break_glass_id <> $1) AS n",
            )
            .bind(recipient.to_owned())
            .fetch_one()
            .await?;
        Ok(count.n)
    }

    /// How many keys each master key wraps now; the vault's own are among them.
    pub async fn count_keys_by_master(&mut self) -> Result<Vec<(String, i64)>, StoreError> {
        let rows: Vec<Counted> = self
            .query(
                "SELECT master_key_id AS name, count(*) AS n FROM
                        (SELECT master_key_id FROM workspace_keys UNION ALL SELECT master_key_id FROM vault_keys) AS k
                  GROUP BY master_key_id",
            )
            .fetch_all()
            .await?;
        Ok(rows.into_iter().map(|row| (row.name, row.n)).collect())
    }

    /// When the active master key became known.
    pub async fn active_since(&mut self) -> Result<Timestamp, StoreError> {
        let row: Number = self
            .query(
                "SELECT m.created_at AS n FROM master_keys m JOIN vault v ON v.active_master_key = m.master_key_id",
            )
            .fetch_one()
            .await?;
        Ok(Timestamp::from_micros(row.n))
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
                "INSERT INTO vault_keys (purpose, version, key_id, master_key_id, wrapped, created_at, break_glass,
                                         break_glass_id)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            )
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
        }
        Ok(true)
    }

    /// The master key that wraps new keys; it stays so until the transaction ends.
    pub(in crate::store) async fn hold_active_master_key(&mut self) -> Result<String, StoreError> {
        let row: Name = self
            .query_for(
                "SELECT active_master_key AS name FROM vault WHERE singleton = 1",
                "SELECT active_master_key AS name FROM vault WHERE singleton = 1 FOR SHARE",
            )
            .fetch_one()
            .await?;
        Ok(row.name)
    }

    /// Whether a master key is the active one; it stays so until the transaction ends.
    pub async fn is_active_master_key(&mut self, id: &str) -> Result<bool, StoreError> {
        Ok(self.hold_active_master_key().await? == id)
    }

    /// Brings a workspace and its first keys into being. Nothing happens if it is there. `false`: the keys are not
    /// wrapped by the master key that is active now.
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

    /// Makes a master key the active one. Its record is kept for ever.
    pub async fn activate_master_key(
        &mut self,
        master: &MasterKeyRecord,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.query(
            "INSERT INTO master_keys (master_key_id, check_value, created_at) VALUES ($1, $2, $3)
             ON CONFLICT (master_key_id) DO UPDATE SET created_at = excluded.created_at, retired_at = NULL",
        )
        .bind(master.id.clone())
        .bind(master.check_value.clone())
        .bind(now.as_micros())
        .execute()
        .await?;
        self.query("UPDATE vault SET active_master_key = $1 WHERE singleton = 1")
            .bind(master.id.clone())
            .execute()
            .await?;
        Ok(())
    }

    /// Notes which master keys no key needs any more.
    pub async fn retire_master_keys(&mut self, now: Timestamp) -> Result<u64, StoreError> {
        self.query(
            "UPDATE master_keys SET retired_at = $1
              WHERE retired_at IS NULL
                AND master_key_id NOT IN (SELECT active_master_key FROM vault)
                AND master_key_id NOT IN (SELECT master_key_id FROM workspace_keys)
                AND master_key_id NOT IN (SELECT master_key_id FROM vault_keys)",
        )
        .bind(now.as_micros())
        .execute()
        .await
    }

    /// Writes a key that was wrapped anew over what it was. `false`: somebody else wrote it meanwhile.
    pub async fn rewrap(&mut self, before: &StoredKey, after: &WrappedKey) -> Result<bool, StoreError> {
        let own = before.place.workspace.is_empty();
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
                .bind(before.place.workspace.clone())
                .bind(before.place.purpose.clone())
                .bind(i64::from(before.key.version));
        }
        let written = query.execute().await?;
        if let Ok(workspace) = WorkspaceId::parse(before.place.workspace.as_str()) {
            self.changed(Change::Workspace(workspace));
        }
        Ok(written == 1)
    }
}
