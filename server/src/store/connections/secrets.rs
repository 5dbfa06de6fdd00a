//! Table `connection_secrets`: the sealed secret of each connection, and one that waits to take its place.

use uuid::Uuid;

use super::rows::{ConnectionRow, connection_columns};
use crate::model::{Connection, ConnectionId, Sealed, SecretId, Timestamp, TokenVersion, WorkspaceId};
use crate::store::sql::{Change, Session, StoreError, Tx};

/// A connection and the sealed secret that it holds.
#[derive(Debug, Clone)]
pub struct HeldToken {
    pub connection: Connection,
    /// `None` once it is destroyed.
    pub sealed: Option<Sealed>,
}

/// A sealed secret that the provider gave in exchange, and that is not yet weighed against the one held.
#[derive(Debug, Clone)]
pub struct PendingSecret {
    /// The version that it gets if it is taken.
    pub version: TokenVersion,
    pub sealed: Sealed,
    pub since: Timestamp,
}

/// A sealed secret for a connection.
#[derive(Debug, Clone)]
pub struct NewSecret {
    pub connection: ConnectionId,
    pub version: TokenVersion,
    pub secret_id: SecretId,
    pub sealed: Sealed,
}

#[derive(sqlx::FromRow)]
struct PendingRow {
    token_version: i64,
    data_key_version: i64,
    sealed: Vec<u8>,
    created_at: i64,
}

#[derive(sqlx::FromRow)]
struct HeldRow {
    #[sqlx(flatten)]
    connection: ConnectionRow,
    data_key_version: Option<i64>,
    sealed: Option<Vec<u8>>,
}

impl Session {
    /// A connection with its current sealed secret.
    pub async fn held_token(&mut self, id: ConnectionId) -> Result<Option<HeldToken>, StoreError> {
        let row = self
            .query(concat!(
                "SELECT ",
                connection_columns!(),
                ", s.data_key_version, s.sealed
                   FROM ad_platform_connections c
                   LEFT JOIN connection_secrets s
                     ON s.connection_id = c.connection_id AND s.state = 'CURRENT' AND s.secret_id = c.secret_id
                  WHERE c.connection_id = $1"
            ))
            .bind(id.as_uuid())
            .fetch_optional::<HeldRow>()
            .await?;
        let Some(row) = row else { return Ok(None) };
        let sealed = match (row.data_key_version.map(i32::try_from), row.sealed) {
            (Some(Ok(data_key_version)), Some(bytes)) => Some(Sealed { data_key_version, bytes }),
            (None, None) => None,
            _ => {
                return Err(StoreError::Inconsistent {
                    table: "connection_secrets",
                    column: "data_key_version",
                    row: id.to_string(),
                });
            }
        };
        Ok(Some(HeldToken { connection: row.connection.try_into()?, sealed }))
    }

    /// The secret that waits to take the place of the connection's current one.
    pub async fn pending_secret(&mut self, id: ConnectionId) -> Result<Option<PendingSecret>, StoreError> {
        let row = self
            .query(
                "SELECT token_version, data_key_version, sealed, created_at FROM connection_secrets
                  WHERE connection_id = $1 AND state = 'PENDING'",
            )
            .bind(id.as_uuid())
            .fetch_optional::<PendingRow>()
            .await?;
        let Some(row) = row else { return Ok(None) };
        let bad =
            |column| StoreError::Inconsistent { table: "connection_secrets", column, row: id.to_string() };
        let version = i32::try_from(row.token_version).ok().and_then(|n| TokenVersion::new(n).ok());
        let data_key_version = i32::try_from(row.data_key_version).map_err(|_| bad("data_key_version"))?;
        Ok(Some(PendingSecret {
            version: version.ok_or_else(|| bad("token_version"))?,
            sealed: Sealed { data_key_version, bytes: row.sealed },
            since: Timestamp::from_micros(row.created_at),
        }))
    }

    /// Other live connections of the same subject and app, in any workspace, with their sealed secrets.
    pub async fn siblings(&mut self, connection: &Connection) -> Result<Vec<HeldToken>, StoreError> {
        if connection.subject.id.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<(Uuid,)> = self
            .query(
                "SELECT connection_id FROM ad_platform_connections
                  WHERE subject_id = $1 AND provider = $2 AND app_id = $3
                    AND connection_id <> $4 AND standing = 'LIVE' ORDER BY connection_id LIMIT 1000",
            )
            .bind(connection.subject.id.clone())
            .bind(connection.provider.as_str().to_owned())
            .bind(connection.app_id.clone())
            .bind(connection.id.as_uuid())
            .fetch_all()
            .await?;
        let mut siblings = Vec::with_capacity(ids.len());
        for (id,) in ids {
            siblings.extend(self.held_token(ConnectionId::from_uuid(id)).await?);
        }
        Ok(siblings)
    }
}

impl Tx {
    /// Replaces the connection's current secret, and drops one that waited to take its place. `false`: the key that
    /// sealed the new one is no longer the workspace's newest, and nothing changed.
    pub async fn put_secret(
        &mut self,
        workspace: &WorkspaceId,
        secret: NewSecret,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let connection = secret.connection;
        if !self.write_secret(workspace, "CURRENT", secret, now, None).await? {
            return Ok(false);
        }
        self.drop_pending_secret(connection).await?;
        self.changed(Change::Connection(connection));
        Ok(true)
    }

    /// Stores a secret that waits to take the current one's place; it is due for that at once. `false`: as for
    /// [`Self::put_secret`].
    pub async fn put_pending_secret(
        &mut self,
        workspace: &WorkspaceId,
        secret: NewSecret,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write_secret(workspace, "PENDING", secret, now, Some(now)).await
    }

    async fn write_secret(
        &mut self,
        workspace: &WorkspaceId,
        state: &'static str,
        secret: NewSecret,
        now: Timestamp,
        due_at: Option<Timestamp>,
    ) -> Result<bool, StoreError> {
        if !self.keep_data_key(workspace, secret.sealed.data_key_version).await? {
            return Ok(false);
        }
        self.query(
            "INSERT INTO connection_secrets
                    (connection_id, state, token_version, secret_id, data_key_version, sealed, created_at, due_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (connection_id, state) DO UPDATE
                SET token_version = excluded.token_version, secret_id = excluded.secret_id,
                    data_key_version = excluded.data_key_version, sealed = excluded.sealed,
                    created_at = excluded.created_at, due_at = excluded.due_at",
        )
        .bind(secret.connection.as_uuid())
        .bind(state)
        .bind(i64::from(secret.version.get()))
        .bind(secret.secret_id.as_uuid())
        .bind(i64::from(secret.sealed.data_key_version))
        .bind(secret.sealed.bytes)
        .bind(now.as_micros())
        .bind(due_at.map(Timestamp::as_micros))
        .execute()
        .await?;
        if secret.version > TokenVersion::FIRST {
            self.destroyed();
        }
        Ok(true)
    }

    /// Makes a pending secret due for weighing at a later time.
    pub async fn postpone_pending_secret(
        &mut self,
        id: ConnectionId,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        self.query(
            "UPDATE connection_secrets SET due_at = $2 WHERE connection_id = $1 AND state = 'PENDING'",
        )
        .bind(id.as_uuid())
        .bind(until.as_micros())
        .execute()
        .await?;
        Ok(())
    }

    pub async fn drop_pending_secret(&mut self, id: ConnectionId) -> Result<(), StoreError> {
        self.query("DELETE FROM connection_secrets WHERE connection_id = $1 AND state = 'PENDING'")
            .bind(id.as_uuid())
            .execute()
            .await?;
        self.destroyed();
        Ok(())
    }

    /// Destroys a connection's secrets, and forgets what was reported about them.
    pub async fn destroy_secrets(&mut self, id: ConnectionId) -> Result<(), StoreError> {
        self.query("DELETE FROM connection_secrets WHERE connection_id = $1")
            .bind(id.as_uuid())
            .execute()
            .await?;
        self.query("DELETE FROM token_reports WHERE connection_id = $1").bind(id.as_uuid()).execute().await?;
        self.forget_exchanged_for(id).await?;
        self.destroyed();
        self.changed(Change::Connection(id));
        Ok(())
    }
}
