//! Table `audit_chains`: how far each chain of audit records has come, so that a truncated log is noticed.

use uuid::Uuid;

use crate::model::Timestamp;
use crate::store::sql::{Session, StoreError, Tx};

#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ChainState {
    #[sqlx(rename = "chain_id")]
    pub chain: Uuid,
    /// The name of the log that it is in: host and path.
    #[sqlx(rename = "place")]
    pub log: String,
    /// The number of its last record.
    pub number: i64,
    /// That record's MAC.
    pub mac: Vec<u8>,
    /// Records up to this number were deleted with old files.
    pub dropped_to: i64,
}

impl Session {
    /// Every chain that ever began, oldest anchor first.
    pub async fn audit_chains(&mut self) -> Result<Vec<ChainState>, StoreError> {
        self.query("SELECT chain_id, place, number, mac, dropped_to FROM audit_chains ORDER BY anchored_at")
            .fetch_all()
            .await
    }
}

impl Tx {
    /// Notes how far a chain has come.
    pub async fn anchor_chain(&mut self, chain: &ChainState, now: Timestamp) -> Result<(), StoreError> {
        self.upsert_chain(
            "INSERT INTO audit_chains (chain_id, place, number, mac, anchored_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (chain_id) DO UPDATE SET number = excluded.number, mac = excluded.mac,
                                                  anchored_at = excluded.anchored_at",
            chain,
            now,
        )
        .await
    }

    /// Notes that records of a chain up to and including this one are deleted with an old file.
    pub async fn drop_chain_to(&mut self, chain: &ChainState, now: Timestamp) -> Result<(), StoreError> {
        // A short chain may have no row yet.
        self.upsert_chain(
            "INSERT INTO audit_chains (chain_id, place, number, mac, anchored_at, dropped_to)
                  VALUES ($1, $2, $3, $4, $5, $3)
             ON CONFLICT (chain_id) DO UPDATE SET dropped_to = excluded.dropped_to
                   WHERE audit_chains.dropped_to < excluded.dropped_to",
            chain,
            now,
        )
        .await
    }

    async fn upsert_chain(
        &mut self,
        sql: &'static str,
        chain: &ChainState,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.query(sql)
            .bind(chain.chain)
            .bind(chain.log.clone())
            .bind(chain.number)
            .bind(chain.mac.clone())
            .bind(now.as_micros())
            .execute()
            .await?;
        Ok(())
    }
}
