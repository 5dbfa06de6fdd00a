//! The vault's row, master keys, and wrapped keys: the vault's own and each workspace's.

use sqlx::types::Json;
use uuid::Uuid;

use super::cache::Change;
use super::{Session, StoreError, Tx};
use crate::model::{ConnectionId, ProviderId, Sealed, SecretId, Timestamp, TokenVersion, WorkspaceId};

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

/// A sealed secret with what its sealing is bound to.
#[derive(Debug, Clone)]
pub struct SealedRow {
    /// Whose.
    pub connection: ConnectionId,
    /// At which provider.
    pub provider: ProviderId,
    /// Which version of its secret.
    pub version: TokenVersion,
    /// Which secret.
    pub secret_id: SecretId,
    /// `CURRENT` or `PENDING`.
    pub state: String,
    /// The ciphertext.
    pub sealed: Sealed,
}

/// A workspace as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceFacts {
    /// Its id.
    pub id: WorkspaceId,
    /// Its name for people.
    pub display_name: String,
    /// Where alerts go.
    pub alert_emails: Vec<String>,
    /// Alerts are not sent.
    pub alerts_muted: bool,
    /// Connections that are not revoked.
    pub tokens: i64,
    /// The version of the data key that seals now; 0 once shredded.
    pub data_key_version: i32,
    /// When it came into being.
    pub created_at: Timestamp,
    /// When its keys were destroyed.
    pub shredded_at: Option<Timestamp>,
}

/// An entry of the shred ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shredding {
    /// Which workspace.
    pub workspace: WorkspaceId,
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: String,
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
struct SecretRow {
    connection_id: Uuid,
    provider: String,
    token_version: i64,
    secret_id: Uuid,
    state: String,
    data_key_version: i64,
    sealed: Vec<u8>,
}

impl SecretRow {
    fn into_row(self) -> Result<SealedRow, StoreError> {
        let row = self.connection_id.to_string();
        let bad = |column| StoreError::Inconsistent { table: "connection_secrets", column, row: row.clone() };
        let version =
            i32::try_from(self.token_version).ok().and_then(|version| TokenVersion::new(version).ok());
        let data_key_version = i32::try_from(self.data_key_version).map_err(|_| bad("data_key_version"))?;
        Ok(SealedRow {
            connection: ConnectionId::from_uuid(self.connection_id),
            provider: ProviderId::parse(self.provider).map_err(|_| bad("provider"))?,
            version: version.ok_or_else(|| bad("token_version"))?,
            secret_id: SecretId::from_uuid(self.secret_id),
            state: self.state,
            sealed: Sealed { data_key_version, bytes: self.sealed },
        })
    }
}

#[derive(sqlx::FromRow)]
struct WorkspaceRow {
    workspace_id: String,
    display_name: String,
    alert_emails: Json<Vec<String>>,
    alerts_muted_at: Option<i64>,
    tokens: i64,
    data_key_version: i64,
    created_at: i64,
    shredded_at: Option<i64>,
}

impl WorkspaceRow {
    fn into_facts(self) -> Result<WorkspaceFacts, StoreError> {
        let id = WorkspaceId::parse(self.workspace_id.as_str()).map_err(|_| StoreError::Inconsistent {
            table: "workspaces",
            column: "workspace_id",
            row: self.workspace_id,
        })?;
        Ok(WorkspaceFacts {
            id,
            display_name: self.display_name,
            alert_emails: self.alert_emails.0,
            alerts_muted: self.alerts_muted_at.is_some(),
            tokens: self.tokens,
            data_key_version: i32::try_from(self.data_key_version).unwrap_or(i32::MAX),
            created_at: Timestamp::from_micros(self.created_at),
            shredded_at: self.shredded_at.map(Timestamp::from_micros),
        })
    }
}

/// The columns of a workspace; `WorkspaceRow` reads them.
macro_rules! workspaces_where {
    ($rest:literal) => {
        concat!(
            "SELECT w.workspace_id, w.display_name, w.alert_emails, w.alerts_muted_at,
                    (SELECT count(*) FROM ad_platform_connections c
                      WHERE c.workspace_id = w.workspace_id AND c.standing IN ('LIVE', 'INVALID')) AS tokens,
                    coalesce((SELECT max(k.version) FROM workspace_keys k
                               WHERE k.workspace_id = w.workspace_id AND k.purpose = 'data'), 0) AS data_key_version,
                    w.created_at, w.shredded_at
               FROM workspaces w WHERE ",
            $rest
        )
    };
}

#[derive(sqlx::FromRow)]
struct LedgerRow {
    workspace_id: String,
    shredded_at: i64,
    shredded_by: String,
}

#[derive(sqlx::FromRow)]
struct Number {
    n: i64,
}

#[derive(sqlx::FromRow)]
struct Counted {
    name: String,
    n: i64,
}

#[derive(sqlx::FromRow)]
struct Id {
    connection_id: Uuid,
}

/// Which wrapped keys a walk is after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lacking {
    Master,
    BreakGlass,
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

    /// Workspaces that have a data key which a newer one has followed, in order, and when the last of them got it.
    pub async fn workspaces_with_old_keys(&mut self) -> Result<(Vec<WorkspaceId>, Timestamp), StoreError> {
        let rows: Vec<Counted> = self
            .query(
                "SELECT workspace_id AS name, max(retired_at) AS n FROM workspace_keys
                  WHERE retired_at IS NOT NULL AND purpose = 'data' GROUP BY workspace_id ORDER BY workspace_id",
            )
            .fetch_all()
            .await?;
        let latest = rows.iter().map(|row| row.n).max().unwrap_or(0);
        let ids = rows.into_iter().filter_map(|row| WorkspaceId::parse(row.name).ok()).collect();
        Ok((ids, Timestamp::from_micros(latest)))
    }

    /// How many secrets of a workspace are sealed under a data key older than `newest`.
    pub async fn count_old_secrets(
        &mut self,
        workspace: &WorkspaceId,
        newest: i32,
    ) -> Result<i64, StoreError> {
        let count: Number = self
            .query(
                "SELECT count(*) AS n FROM ad_platform_connections c
                   JOIN connection_secrets s ON s.connection_id = c.connection_id
                  WHERE c.workspace_id = $1 AND s.data_key_version < $2",
            )
            .bind(workspace.as_str().to_owned())
            .bind(i64::from(newest))
            .fetch_one()
            .await?;
        Ok(count.n)
    }

    /// Connections of a workspace after one, with a secret under a data key older than `newest`.
    pub async fn connections_with_old_secrets(
        &mut self,
        workspace: &WorkspaceId,
        newest: i32,
        after: Option<ConnectionId>,
        limit: i64,
    ) -> Result<Vec<ConnectionId>, StoreError> {
        let rows: Vec<Id> = self
            .query(
                "SELECT DISTINCT c.connection_id FROM ad_platform_connections c
                   JOIN connection_secrets s ON s.connection_id = c.connection_id
                  WHERE c.workspace_id = $1 AND c.connection_id > $2 AND s.data_key_version < $3
                  ORDER BY c.connection_id LIMIT $4",
            )
            .bind(workspace.as_str().to_owned())
            .bind(after.map_or_else(Uuid::nil, ConnectionId::as_uuid))
            .bind(i64::from(newest))
            .bind(limit)
            .fetch_all()
            .await?;
        Ok(rows.into_iter().map(|row| ConnectionId::from_uuid(row.connection_id)).collect())
    }

    /// Connections of a workspace after one, ended ones too, in order.
    pub async fn connections_of_workspace(
        &mut self,
        workspace: &WorkspaceId,
        after: Option<ConnectionId>,
        limit: i64,
    ) -> Result<Vec<ConnectionId>, StoreError> {
        let rows: Vec<Id> = self
            .query(
                "SELECT connection_id FROM ad_platform_connections
                  WHERE workspace_id = $1 AND connection_id > $2 ORDER BY connection_id LIMIT $3",
            )
            .bind(workspace.as_str().to_owned())
            .bind(after.map_or_else(Uuid::nil, ConnectionId::as_uuid))
            .bind(limit)
            .fetch_all()
            .await?;
        Ok(rows.into_iter().map(|row| ConnectionId::from_uuid(row.connection_id)).collect())
    }

    /// The last number of what caches must drop.
    pub async fn last_revision(&mut self) -> Result<i64, StoreError> {
        let row: Number =
            self.query("SELECT coalesce(max(revision), 0) AS n FROM changes").fetch_one().await?;
        Ok(row.n)
    }

    /// A workspace.
    pub async fn workspace(&mut self, id: &WorkspaceId) -> Result<Option<WorkspaceFacts>, StoreError> {
        let row: Option<WorkspaceRow> = self
            .query(workspaces_where!("w.workspace_id = $1"))
            .bind(id.as_str().to_owned())
            .fetch_optional()
            .await?;
        row.map(WorkspaceRow::into_facts).transpose()
    }

    /// Workspaces after one, by id.
    pub async fn workspaces_after(
        &mut self,
        after: &str,
        limit: i64,
    ) -> Result<Vec<WorkspaceFacts>, StoreError> {
        let rows: Vec<WorkspaceRow> = self
            .query(workspaces_where!("w.workspace_id > $1 ORDER BY w.workspace_id LIMIT $2"))
            .bind(after.to_owned())
            .bind(limit)
            .fetch_all()
            .await?;
        rows.into_iter().map(WorkspaceRow::into_facts).collect()
    }

    /// Every workspace that was shredded, in the order in which it was done.
    pub async fn shred_ledger(&mut self) -> Result<Vec<Shredding>, StoreError> {
        let rows: Vec<LedgerRow> = self
            .query(
                "SELECT workspace_id, shredded_at, shredded_by FROM shred_ledger ORDER BY shredded_at, workspace_id",
            )
            .fetch_all()
            .await?;
        let entry = |row: LedgerRow| {
            let at = Timestamp::from_micros(row.shredded_at);
            WorkspaceId::parse(row.workspace_id).ok().map(|workspace| Shredding {
                workspace,
                at,
                by: row.shredded_by,
            })
        };
        Ok(rows.into_iter().filter_map(entry).collect())
    }

    /// Shredded workspaces that still have connections which are not ended, or secrets.
    pub async fn workspaces_to_bury(&mut self) -> Result<Vec<WorkspaceId>, StoreError> {
        let rows: Vec<Name> = self
            .query(
                "SELECT l.workspace_id AS name FROM shred_ledger l
                  WHERE EXISTS (SELECT 1 FROM ad_platform_connections c
                                 WHERE c.workspace_id = l.workspace_id AND (c.standing <> 'REVOKED' OR c.subject_name <> ''))
                  ORDER BY l.workspace_id",
            )
            .fetch_all()
            .await?;
        Ok(rows.into_iter().filter_map(|row| WorkspaceId::parse(row.name).ok()).collect())
    }

    /// Writes SQLite's log back and cuts it to nothing. `false`: somebody was reading or writing.
    pub(super) async fn cut_log(&mut self) -> Result<bool, StoreError> {
        #[derive(sqlx::FromRow)]
        struct Row {
            busy: i64,
        }
        let row: Row = self.query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one().await?;
        Ok(row.busy == 0)
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
    async fn hold_active_master_key(&mut self) -> Result<String, StoreError> {
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

    async fn insert_workspace_key(
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

    /// A workspace, locked until the transaction ends: `Some(true)` when it was shredded.
    pub async fn lock_workspace(&mut self, workspace: &WorkspaceId) -> Result<Option<bool>, StoreError> {
        let row: Option<Shredded> = self
            .query_for(
                "SELECT shredded_at FROM workspaces WHERE workspace_id = $1",
                "SELECT shredded_at FROM workspaces WHERE workspace_id = $1 FOR NO KEY UPDATE",
            )
            .bind(workspace.as_str().to_owned())
            .fetch_optional()
            .await?;
        Ok(row.map(|row| row.shredded_at.is_some()))
    }

    /// Gives a workspace its next data key; those before seal nothing more. `false`: it is not the next, or not
    /// wrapped by the master key that is active now.
    pub async fn add_data_key(
        &mut self,
        workspace: &WorkspaceId,
        key: &WrappedKey,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let active = self.hold_active_master_key().await?;
        let newest: Number = self
            .query(
                "SELECT coalesce(max(version), 0) AS n FROM workspace_keys
                  WHERE workspace_id = $1 AND purpose = 'data'",
            )
            .bind(workspace.as_str().to_owned())
            .fetch_one()
            .await?;
        if key.master_key != active || i64::from(key.version) != newest.n + 1 {
            return Ok(false);
        }
        self.query(
            "UPDATE workspace_keys SET retired_at = $2
              WHERE workspace_id = $1 AND purpose = 'data' AND retired_at IS NULL",
        )
        .bind(workspace.as_str().to_owned())
        .bind(now.as_micros())
        .execute()
        .await?;
        self.insert_workspace_key(workspace, KeyPurpose::Data, key, now).await?;
        self.changed(Change::Workspace(workspace.clone()));
        Ok(true)
    }

    /// Whether a data key is the one that seals now; it is not deleted before the transaction ends.
    pub(super) async fn keep_data_key(
        &mut self,
        workspace: &WorkspaceId,
        version: i32,
    ) -> Result<bool, StoreError> {
        let row: Option<Number> = self
            .query_for(
                "SELECT version AS n FROM workspace_keys
                  WHERE workspace_id = $1 AND purpose = 'data' AND version = $2 AND retired_at IS NULL",
                "SELECT version AS n FROM workspace_keys
                  WHERE workspace_id = $1 AND purpose = 'data' AND version = $2 AND retired_at IS NULL FOR KEY SHARE",
            )
            .bind(workspace.as_str().to_owned())
            .bind(i64::from(version))
            .fetch_optional()
            .await?;
        Ok(row.is_some())
    }

    /// The secrets of connections that a data key older than `newest` seals.
    pub async fn old_secrets(
        &mut self,
        connections: &[ConnectionId],
        newest: i32,
    ) -> Result<Vec<SealedRow>, StoreError> {
        let rows: Vec<SecretRow> = self
            .query_for(
                "SELECT s.connection_id, c.provider, s.token_version, s.secret_id, s.state, s.data_key_version, s.sealed
                   FROM connection_secrets s JOIN ad_platform_connections c ON c.connection_id = s.connection_id
                  WHERE s.connection_id IN (SELECT unhex(value) FROM json_each($1)) AND s.data_key_version < $2",
                "SELECT s.connection_id, c.provider, s.token_version, s.secret_id, s.state, s.data_key_version, s.sealed
                   FROM connection_secrets s JOIN ad_platform_connections c ON c.connection_id = s.connection_id
                  WHERE s.connection_id IN (SELECT (jsonb_array_elements_text($1))::uuid) AND s.data_key_version < $2",
            )
            .bind(Json(connections.iter().map(|id| id.as_uuid().simple().to_string()).collect::<Vec<_>>()))
            .bind(i64::from(newest))
            .fetch_all()
            .await?;
        rows.into_iter().map(SecretRow::into_row).collect()
    }

    /// Writes secrets that were sealed anew, each over the same secret.
    /// `false`: the key that sealed them is no longer the workspace's newest, and nothing changed.
    pub async fn put_resealed(
        &mut self,
        workspace: &WorkspaceId,
        version: i32,
        rows: &[SealedRow],
    ) -> Result<bool, StoreError> {
        if !self.keep_data_key(workspace, version).await? {
            return Ok(false);
        }
        let told: Vec<_> = rows
            .iter()
            .map(|row| {
                (
                    row.connection.as_uuid().simple().to_string(),
                    row.state.clone(),
                    row.secret_id.as_uuid().simple().to_string(),
                    row.sealed.data_key_version,
                    hex::encode(&row.sealed.bytes),
                )
            })
            .collect();
        self.query_for(
            "UPDATE connection_secrets AS s SET data_key_version = r.value->>3, sealed = unhex(r.value->>4)
               FROM json_each($1) AS r
              WHERE s.connection_id = unhex(r.value->>0) AND s.state = r.value->>1
                AND s.secret_id = unhex(r.value->>2)",
            "UPDATE connection_secrets AS s
                SET data_key_version = (r.value->>3)::bigint, sealed = decode(r.value->>4, 'hex')
               FROM jsonb_array_elements($1) AS r (value)
              WHERE s.connection_id = (r.value->>0)::uuid AND s.state = r.value->>1
                AND s.secret_id = (r.value->>2)::uuid",
        )
        .bind(Json(told))
        .execute()
        .await?;
        for row in rows {
            self.changed(Change::Connection(row.connection));
        }
        Ok(true)
    }

    /// Deletes a workspace's data keys older than `newest`, each only if it seals nothing any more. Says how many
    /// are left.
    pub async fn delete_old_data_keys(
        &mut self,
        workspace: &WorkspaceId,
        newest: i32,
    ) -> Result<i64, StoreError> {
        // Whoever is about to seal with one of them ends first.
        let old: Vec<Number> = self
            .query_for(
                "SELECT version AS n FROM workspace_keys
                  WHERE workspace_id = $1 AND purpose = 'data' AND version < $2 AND retired_at IS NOT NULL",
                "SELECT version AS n FROM workspace_keys
                  WHERE workspace_id = $1 AND purpose = 'data' AND version < $2 AND retired_at IS NOT NULL FOR UPDATE",
            )
            .bind(workspace.as_str().to_owned())
            .bind(i64::from(newest))
            .fetch_all()
            .await?;
        let mut left = 0;
        for Number { n: version } in old {
            let deleted = self
                .query(
                    "DELETE FROM workspace_keys WHERE workspace_id = $1 AND purpose = 'data' AND version = $2
                        AND NOT EXISTS (SELECT 1 FROM ad_platform_connections c
                                          JOIN connection_secrets s ON s.connection_id = c.connection_id
                                         WHERE c.workspace_id = $1 AND s.data_key_version = $2)",
                )
                .bind(workspace.as_str().to_owned())
                .bind(version)
                .execute()
                .await?;
            left += i64::from(deleted == 0);
        }
        self.changed(Change::Workspace(workspace.clone()));
        Ok(left)
    }

    /// Destroys a workspace's keys for good. Its row stays as a tombstone, so that its id is never used again.
    pub async fn shred_workspace(&mut self, entry: &Shredding) -> Result<(), StoreError> {
        let id = entry.workspace.as_str();
        self.query(
            "UPDATE workspaces SET shredded_at = $2, display_name = '', alert_emails = '[]' WHERE workspace_id = $1",
        )
        .bind(id.to_owned())
        .bind(entry.at.as_micros())
        .execute()
        .await?;
        self.query("DELETE FROM workspace_keys WHERE workspace_id = $1")
            .bind(id.to_owned())
            .execute()
            .await?;
        self.query(
            "INSERT INTO shred_ledger (workspace_id, shredded_at, shredded_by) VALUES ($1, $2, $3)
             ON CONFLICT (workspace_id) DO NOTHING",
        )
        .bind(id.to_owned())
        .bind(entry.at.as_micros())
        .bind(entry.by.clone())
        .execute()
        .await?;
        self.changed(Change::Workspace(entry.workspace.clone()));
        Ok(())
    }
}
