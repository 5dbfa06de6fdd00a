//! Table `vault`: the one row that says what this vault is.

use uuid::Uuid;

use super::master::MasterKeyRecord;
use super::wrapped::{VaultKeyPurpose, WrappedKey};
use crate::model::Timestamp;
use crate::store::sql::{Session, StoreError, Tx};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultRecord {
    /// The wrapping of the vault's own keys is bound to it.
    pub vault_id: Uuid,
    /// Changes only when a backup is restored.
    pub feed_epoch: Uuid,
    /// The master key that wraps new keys.
    pub active_master_key: String,
    pub created_at: Timestamp,
}

#[derive(sqlx::FromRow)]
struct VaultRow {
    vault_id: Uuid,
    feed_epoch: Uuid,
    active_master_key: String,
    created_at: i64,
}

impl Session {
    /// `None` before the vault's first start.
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
}

impl Tx {
    /// Creates the vault's row and keys. `false`: another process was first.
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
}
