//! Table `policies`: the settings that all replicas share, by revision. `vault.config_revision` names the one in force.

use uuid::Uuid;

use crate::model::{Connection, ConnectionId, Timestamp};
use crate::store::sql::{Session, StoreError, Tx};

#[derive(sqlx::FromRow)]
struct Row {
    revision: i64,
    document: Option<String>,
}

#[derive(sqlx::FromRow)]
struct Id {
    connection_id: Uuid,
}

impl Session {
    /// The revision in force and its document; `None` before the first.
    pub async fn policy(&mut self) -> Result<(i64, Option<String>), StoreError> {
        let row: Row = self
            .query(
                "SELECT v.config_revision AS revision, CAST(p.document AS text) AS document
                   FROM vault v LEFT JOIN policies p ON p.revision = v.config_revision WHERE v.singleton = 1",
            )
            .fetch_one()
            .await?;
        Ok((row.revision, row.document))
    }

    pub async fn policy_of(&mut self, revision: i64) -> Result<Option<String>, StoreError> {
        #[derive(sqlx::FromRow)]
        struct Document {
            document: String,
        }
        let row: Option<Document> = self
            .query("SELECT CAST(document AS text) AS document FROM policies WHERE revision = $1")
            .bind(revision)
            .fetch_optional()
            .await?;
        Ok(row.map(|row| row.document))
    }

    /// Ids of live connections after one, in order.
    pub async fn live_connections_after(
        &mut self,
        after: Option<ConnectionId>,
        limit: i64,
    ) -> Result<Vec<ConnectionId>, StoreError> {
        let rows: Vec<Id> = self
            .query(
                "SELECT connection_id FROM ad_platform_connections
                  WHERE connection_id > $1 AND standing = 'LIVE' ORDER BY connection_id LIMIT $2",
            )
            .bind(after.map_or(Uuid::nil(), ConnectionId::as_uuid))
            .bind(limit)
            .fetch_all()
            .await?;
        Ok(rows.into_iter().map(|row| ConnectionId::from_uuid(row.connection_id)).collect())
    }
}

impl Tx {
    /// The policy in force, locked until the transaction ends.
    pub async fn lock_policy(&mut self) -> Result<(i64, Option<String>), StoreError> {
        self.query_for(
            "SELECT singleton FROM vault WHERE singleton = 1",
            "SELECT singleton FROM vault WHERE singleton = 1 FOR UPDATE",
        )
        .execute()
        .await?;
        self.policy().await
    }

    pub async fn put_policy(
        &mut self,
        revision: i64,
        document: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.query_for(
            "INSERT INTO policies (revision, document, created_at) VALUES ($1, $2, $3)",
            "INSERT INTO policies (revision, document, created_at) VALUES ($1, CAST($2 AS jsonb), $3)",
        )
        .bind(revision)
        .bind(document.to_owned())
        .bind(now.as_micros())
        .execute()
        .await?;
        self.query("UPDATE vault SET config_revision = $1 WHERE singleton = 1")
            .bind(revision)
            .execute()
            .await?;
        Ok(())
    }

    /// Writes when connections are due, and none of their facts.
    pub async fn note_dates(&mut self, connections: &[Connection]) -> Result<(), StoreError> {
        for connection in connections {
            self.query(
                "UPDATE ad_platform_connections SET next_deadline_at = $2, next_renewal_at = $3
                  WHERE connection_id = $1",
            )
            .bind(connection.id.as_uuid())
            .bind(connection.schedule.next_deadline_at.map(Timestamp::as_micros))
            .bind(connection.schedule.next_renewal_at.map(Timestamp::as_micros))
            .execute()
            .await?;
        }
        Ok(())
    }
}
