//! Table `exchanged_tokens`: short-lived tokens that were pasted and exchanged, known by their fingerprints until they end.

use uuid::Uuid;

use crate::model::{ConnectionId, Fingerprint, SecretId, Timestamp, WorkspaceId};
use crate::store::sql::{Session, StoreError, Tx};

/// A short-lived token, and what it was exchanged for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExchangedToken {
    pub fingerprint: Fingerprint,
    pub connection: ConnectionId,
    /// The secret that the exchange gave.
    pub secret_id: SecretId,
    /// When the short-lived token ends.
    pub ends_at: Timestamp,
}

#[derive(sqlx::FromRow)]
struct Row {
    connection_id: Uuid,
    secret_id: Uuid,
    ends_at: i64,
}

impl Session {
    /// What a short-lived token was exchanged for, if it has not ended since.
    pub async fn exchanged_token(
        &mut self,
        workspace: &WorkspaceId,
        fingerprint: Fingerprint,
        now: Timestamp,
    ) -> Result<Option<ExchangedToken>, StoreError> {
        let row: Option<Row> = self
            .query(
                "SELECT connection_id, secret_id, ends_at FROM exchanged_tokens
                  WHERE workspace_id = $1 AND fingerprint = $2 AND ends_at > $3",
            )
            .bind(workspace.as_str().to_owned())
            .bind(fingerprint.0.to_vec())
            .bind(now.as_micros())
            .fetch_optional()
            .await?;
        Ok(row.map(|row| ExchangedToken {
            fingerprint,
            connection: ConnectionId::from_uuid(row.connection_id),
            secret_id: SecretId::from_uuid(row.secret_id),
            ends_at: Timestamp::from_micros(row.ends_at),
        }))
    }
}

impl Tx {
    /// Remembers what a short-lived token was exchanged for.
    pub async fn remember_exchanged(
        &mut self,
        workspace: &WorkspaceId,
        exchanged: ExchangedToken,
    ) -> Result<(), StoreError> {
        self.query(
            "INSERT INTO exchanged_tokens (workspace_id, fingerprint, connection_id, secret_id, ends_at)
             VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (workspace_id, fingerprint) DO UPDATE
                SET connection_id = excluded.connection_id, secret_id = excluded.secret_id,
                    ends_at = excluded.ends_at",
        )
        .bind(workspace.as_str().to_owned())
        .bind(exchanged.fingerprint.0.to_vec())
        .bind(exchanged.connection.as_uuid())
        .bind(exchanged.secret_id.as_uuid())
        .bind(exchanged.ends_at.as_micros())
        .execute()
        .await?;
        Ok(())
    }

    /// Forgets the short-lived tokens that have ended.
    pub async fn forget_exchanged(&mut self, now: Timestamp) -> Result<u64, StoreError> {
        self.query("DELETE FROM exchanged_tokens WHERE ends_at <= $1").bind(now.as_micros()).execute().await
    }

    /// Forgets the short-lived tokens whose exchange gave a connection its tokens.
    pub(super) async fn forget_exchanged_for(&mut self, id: ConnectionId) -> Result<(), StoreError> {
        self.query("DELETE FROM exchanged_tokens WHERE connection_id = $1")
            .bind(id.as_uuid())
            .execute()
            .await?;
        Ok(())
    }
}
