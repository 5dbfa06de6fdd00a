//! Table `master_keys`, and which master key wraps what.

use crate::model::Timestamp;
use crate::store::sql::{Session, StoreError, Tx};

/// A master key that this vault has known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterKeyRecord {
    /// Its id in the key file.
    pub id: String,
    /// A known text that this key sealed: a key that opens it is the same key.
    pub check_value: Vec<u8>,
}

#[derive(sqlx::FromRow)]
struct MasterRow {
    master_key_id: String,
    check_value: Vec<u8>,
}

impl Session {
    /// Every master key that this vault has known, including retired ones: an id is never used again for other bytes.
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
        let rows: Vec<(String,)> = self
            .query(
                "SELECT master_key_id AS name FROM workspace_keys
                  UNION SELECT master_key_id FROM vault_keys
                  UNION SELECT active_master_key FROM vault",
            )
            .fetch_all()
            .await?;
        Ok(rows.into_iter().map(|(name,)| name).collect())
    }

    /// How many keys are wrapped with a master key other than `active`.
    pub async fn count_keys_not_under(&mut self, active: &str) -> Result<i64, StoreError> {
        let (count,): (i64,) = self
            .query(
                "SELECT (SELECT count(*) FROM vault_keys WHERE master_key_id <> $1)
                      + (SELECT count(*) FROM workspace_keys WHERE master_key_id <> $1) AS n",
            )
            .bind(active.to_owned())
            .fetch_one()
            .await?;
        Ok(count)
    }

    /// How many keys are not encrypted to the break-glass key `recipient`.
    pub async fn count_keys_not_for(&mut self, recipient: &str) -> Result<i64, StoreError> {
        let (count,): (i64,) = self
            .query(
                "SELECT (SELECT count(*) FROM vault_keys WHERE break_glass_id <> $1)
                      + (SELECT count(*) FROM workspace_keys WHERE break_glass_id <> $1) AS n",
            )
            .bind(recipient.to_owned())
            .fetch_one()
            .await?;
        Ok(count)
    }

    /// How many keys each master key wraps now, the vault's own keys included.
    pub async fn count_keys_by_master(&mut self) -> Result<Vec<(String, i64)>, StoreError> {
        let rows: Vec<(String, i64)> = self
            .query(
                "SELECT master_key_id AS name, count(*) AS n FROM
                        (SELECT master_key_id FROM workspace_keys UNION ALL SELECT master_key_id FROM vault_keys) AS k
                  GROUP BY master_key_id",
            )
            .fetch_all()
            .await?;
        Ok(rows)
    }

    /// When the active master key became known.
    pub async fn active_since(&mut self) -> Result<Timestamp, StoreError> {
        let (at,): (i64,) = self
            .query(
                "SELECT m.created_at AS n FROM master_keys m JOIN vault v ON v.active_master_key = m.master_key_id",
            )
            .fetch_one()
            .await?;
        Ok(Timestamp::from_micros(at))
    }
}

impl Tx {
    /// The master key that wraps new keys. It can't change until the transaction ends.
    pub(in crate::store) async fn hold_active_master_key(&mut self) -> Result<String, StoreError> {
        let (name,): (String,) = self
            .query_for(
                "SELECT active_master_key AS name FROM vault WHERE singleton = 1",
                "SELECT active_master_key AS name FROM vault WHERE singleton = 1 FOR SHARE",
            )
            .fetch_one()
            .await?;
        Ok(name)
    }

    /// Whether a master key is the active one. That can't change until the transaction ends.
    pub async fn is_active_master_key(&mut self, id: &str) -> Result<bool, StoreError> {
        Ok(self.hold_active_master_key().await? == id)
    }

    /// Makes a master key the active one. Its row is kept forever.
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

    /// Retires the master keys that no longer wrap anything.
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
}
