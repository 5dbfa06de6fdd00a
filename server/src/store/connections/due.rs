//! Connections with work that is due, found by an index.

use uuid::Uuid;

use super::rows::{ConnectionRow, connection_columns};
use super::table::readable;
use crate::model::{Connection, ConnectionId, EventKind, Timestamp};
use crate::store::sql::{Session, StoreError, Tx};

#[derive(sqlx::FromRow)]
struct Due {
    connection_id: Uuid,
    due_at: i64,
}

#[derive(sqlx::FromRow)]
struct ScopeRow {
    scope: String,
}

#[derive(sqlx::FromRow)]
struct Count {
    n: i64,
}

impl Session {
    /// Whether some connection's deadline has passed.
    pub async fn has_due_deadline(&mut self, now: Timestamp) -> Result<bool, StoreError> {
        let row: Option<Due> = self
            .query(
                "SELECT connection_id, next_deadline_at AS due_at FROM ad_platform_connections
                  WHERE next_deadline_at <= $1 LIMIT 1",
            )
            .bind(now.as_micros())
            .fetch_optional()
            .await?;
        Ok(row.is_some())
    }

    /// Connections whose renewal is due, or where an exchange waits to be finished, the longest waiting first. One that
    /// is due for both is named twice.
    pub async fn due_renewals(
        &mut self,
        now: Timestamp,
        limit: i64,
    ) -> Result<Vec<ConnectionId>, StoreError> {
        let rows: Vec<Due> = self
            .query(
                "SELECT connection_id, next_renewal_at AS due_at FROM ad_platform_connections
                  WHERE next_renewal_at <= $1
                  UNION ALL
                 SELECT connection_id, due_at FROM connection_secrets WHERE state = 'PENDING' AND due_at <= $1
                  ORDER BY due_at LIMIT $2",
            )
            .bind(now.as_micros())
            .bind(limit)
            .fetch_all()
            .await?;
        Ok(rows.into_iter().map(|row| ConnectionId::from_uuid(row.connection_id)).collect())
    }

    /// Connections with any work due, and since when.
    pub async fn due_work(
        &mut self,
        now: Timestamp,
        limit: i64,
    ) -> Result<Vec<(ConnectionId, Timestamp)>, StoreError> {
        let rows: Vec<Due> = self
            .query(
                "SELECT connection_id, next_renewal_at AS due_at FROM ad_platform_connections
                  WHERE next_renewal_at <= $1
                  UNION ALL
                 SELECT connection_id, next_deadline_at AS due_at FROM ad_platform_connections
                  WHERE next_deadline_at <= $1
                  ORDER BY due_at LIMIT $2",
            )
            .bind(now.as_micros())
            .bind(limit)
            .fetch_all()
            .await?;
        Ok(rows
            .into_iter()
            .map(|row| (ConnectionId::from_uuid(row.connection_id), Timestamp::from_micros(row.due_at)))
            .collect())
    }

    /// Connections with an open incident of a kind.
    pub async fn open_scopes(
        &mut self,
        kind: EventKind,
        limit: i64,
    ) -> Result<Vec<ConnectionId>, StoreError> {
        let rows: Vec<ScopeRow> = self
            .query("SELECT scope FROM incidents WHERE kind = $1 AND closed_sequence IS NULL LIMIT $2")
            .bind(kind.as_str())
            .bind(limit)
            .fetch_all()
            .await?;
        let id =
            |row: ScopeRow| row.scope.strip_prefix("connection:").and_then(|id| ConnectionId::parse(id).ok());
        Ok(rows.into_iter().filter_map(id).collect())
    }

    /// Connections after one, by id, that are not revoked. `None` stands for a row that can't be read.
    pub async fn connections_after(
        &mut self,
        after: Option<ConnectionId>,
        limit: i64,
    ) -> Result<Vec<(ConnectionId, Option<Connection>)>, StoreError> {
        let rows: Vec<ConnectionRow> = self
            .query(concat!(
                "SELECT ",
                connection_columns!(),
                " FROM ad_platform_connections c
             WHERE c.connection_id > $1 AND c.standing <> 'REVOKED'
             ORDER BY c.connection_id LIMIT $2"
            ))
            .bind(after.map_or(Uuid::nil(), ConnectionId::as_uuid))
            .bind(limit)
            .fetch_all()
            .await?;
        Ok(rows.into_iter().map(|row| (ConnectionId::from_uuid(row.connection_id), readable(row))).collect())
    }

    /// How many connections are not revoked.
    pub async fn count_unrevoked(&mut self) -> Result<i64, StoreError> {
        let row: Count = self
            .query("SELECT count(*) AS n FROM ad_platform_connections WHERE standing <> 'REVOKED'")
            .fetch_one()
            .await?;
        Ok(row.n)
    }
}

impl Tx {
    /// Makes the tokens that are read with the parent's token due for reading again.
    pub async fn wake_children(&mut self, parent: ConnectionId, now: Timestamp) -> Result<u64, StoreError> {
        self.query(
            "UPDATE ad_platform_connections SET next_renewal_at = $2
              WHERE parent_connection_id = $1 AND standing <> 'REVOKED'",
        )
        .bind(parent.as_uuid())
        .bind(now.as_micros())
        .execute()
        .await
    }
}
