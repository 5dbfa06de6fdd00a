//! Connections with work that is due, found by an index.

use sqlx::types::Json;
use uuid::Uuid;

use super::rows::{ConnectionRow, connection_columns};
use super::table::readable;
use crate::model::{Connection, ConnectionId, EventKind, ProviderId, Schedule, Timestamp};
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

fn names(providers: &[ProviderId]) -> Json<Vec<String>> {
    Json(providers.iter().map(ToString::to_string).collect())
}

/// A connection that the provider is to be asked about.
#[derive(Debug, Clone)]
pub struct DueValidation {
    pub id: ConnectionId,
    pub due_at: Timestamp,
    /// `None`: its row can't be read.
    pub connection: Option<Connection>,
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

    /// Connections whose renewal is due, or where an exchange waits to be finished, with their providers, the longest
    /// waiting first. Of dead tokens only those of pages, which may come back with their person's token. One that is due for both is named twice. None of the providers `held`.
    pub async fn due_renewals(
        &mut self,
        now: Timestamp,
        held: &[ProviderId],
        limit: i64,
    ) -> Result<Vec<(ConnectionId, ProviderId)>, StoreError> {
        #[derive(sqlx::FromRow)]
        struct Row {
            connection_id: Uuid,
            provider: String,
        }
        let rows: Vec<Row> = self
            .query_for(
                "SELECT connection_id, provider, due_at FROM (
                     SELECT connection_id, provider, next_renewal_at AS due_at FROM ad_platform_connections
                      WHERE next_renewal_at <= $1
                        AND (standing = 'LIVE' OR standing = 'INVALID' AND parent_connection_id IS NOT NULL)
                      UNION ALL
                     SELECT s.connection_id, c.provider, s.due_at FROM connection_secrets s
                       JOIN ad_platform_connections c ON c.connection_id = s.connection_id
                      WHERE s.state = 'PENDING' AND s.due_at <= $1) AS due
                  WHERE provider NOT IN (SELECT value FROM json_each($2)) ORDER BY due_at LIMIT $3",
                "SELECT connection_id, provider, due_at FROM (
                     SELECT connection_id, provider, next_renewal_at AS due_at FROM ad_platform_connections
                      WHERE next_renewal_at <= $1
                        AND (standing = 'LIVE' OR standing = 'INVALID' AND parent_connection_id IS NOT NULL)
                      UNION ALL
                     SELECT s.connection_id, c.provider, s.due_at FROM connection_secrets s
                       JOIN ad_platform_connections c ON c.connection_id = s.connection_id
                      WHERE s.state = 'PENDING' AND s.due_at <= $1) AS due
                  WHERE provider NOT IN (SELECT jsonb_array_elements_text($2)) ORDER BY due_at LIMIT $3",
            )
            .bind(now.as_micros())
            .bind(names(held))
            .bind(limit)
            .fetch_all()
            .await?;
        let due = |row: Row| {
            Some((ConnectionId::from_uuid(row.connection_id), ProviderId::parse(row.provider).ok()?))
        };
        Ok(rows.into_iter().filter_map(due).collect())
    }

    /// How many connections' renewals are due.
    pub async fn count_due_renewals(&mut self, now: Timestamp) -> Result<i64, StoreError> {
        let row: Count = self
            .query(
                "SELECT count(*) AS n FROM (
                     SELECT connection_id FROM ad_platform_connections
                      WHERE next_renewal_at <= $1
                        AND (standing = 'LIVE' OR standing = 'INVALID' AND parent_connection_id IS NOT NULL)
                      UNION
                     SELECT connection_id FROM connection_secrets WHERE state = 'PENDING' AND due_at <= $1) AS due",
            )
            .bind(now.as_micros())
            .fetch_one()
            .await?;
        Ok(row.n)
    }

    /// Connections with any work due, and since when. A validation counts, however often it was put off, once the last
    /// one is from before `validated_before`.
    pub async fn due_work(
        &mut self,
        now: Timestamp,
        validated_before: Timestamp,
        limit: i64,
    ) -> Result<Vec<(ConnectionId, Timestamp)>, StoreError> {
        let rows: Vec<Due> = self
            .query(
                "SELECT connection_id, next_renewal_at AS due_at FROM ad_platform_connections
                  WHERE next_renewal_at <= $1
                    AND (standing = 'LIVE' OR standing = 'INVALID' AND parent_connection_id IS NOT NULL)
                  UNION ALL
                 SELECT connection_id, next_deadline_at AS due_at FROM ad_platform_connections
                  WHERE next_deadline_at <= $1
                  UNION ALL
                 SELECT connection_id, coalesce(last_validated_at, created_at) AS due_at FROM ad_platform_connections
                  WHERE next_validation_at <= $1 + 3600000000 AND standing <> 'REVOKED'
                    AND coalesce(last_validated_at, created_at) < $3
                  ORDER BY due_at LIMIT $2",
            )
            .bind(now.as_micros())
            .bind(limit)
            .bind(validated_before.as_micros())
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

    /// Connections that the provider is to be asked about, the longest waiting first; none of the providers `held`.
    pub async fn due_validations(
        &mut self,
        now: Timestamp,
        held: &[ProviderId],
        limit: i64,
    ) -> Result<Vec<DueValidation>, StoreError> {
        let rows: Vec<ConnectionRow> = self
            .query_for(
                concat!(
                    "SELECT ",
                    connection_columns!(),
                    " FROM ad_platform_connections c
                      WHERE c.next_validation_at <= $1 AND c.provider NOT IN (SELECT value FROM json_each($2))
                      ORDER BY c.next_validation_at, c.last_validated_at LIMIT $3"
                ),
                concat!(
                    "SELECT ",
                    connection_columns!(),
                    " FROM ad_platform_connections c
                      WHERE c.next_validation_at <= $1
                        AND c.provider NOT IN (SELECT jsonb_array_elements_text($2))
                      ORDER BY c.next_validation_at, c.last_validated_at LIMIT $3"
                ),
            )
            .bind(now.as_micros())
            .bind(names(held))
            .bind(limit)
            .fetch_all()
            .await?;
        let due = |row: ConnectionRow| DueValidation {
            id: ConnectionId::from_uuid(row.connection_id),
            due_at: row.next_validation_at.map_or(now, Timestamp::from_micros),
            connection: readable(row),
        };
        Ok(rows.into_iter().map(due).collect())
    }

    /// How many connections the provider is to be asked about.
    pub async fn count_due_validations(&mut self, now: Timestamp) -> Result<i64, StoreError> {
        let row: Count = self
            .query("SELECT count(*) AS n FROM ad_platform_connections WHERE next_validation_at <= $1")
            .bind(now.as_micros())
            .fetch_one()
            .await?;
        Ok(row.n)
    }
}

impl Tx {
    /// Makes connections due for validation that have not been validated since `since`, at most `limit`; returns how
    /// many. Among them are those that an older binary wrote, which does not know when they are due. Skips those that another transaction has locked: it validates them, or they are found the next time.
    pub async fn make_due(
        &mut self,
        since: Timestamp,
        now: Timestamp,
        limit: i64,
    ) -> Result<u64, StoreError> {
        self.query_for(
            "UPDATE ad_platform_connections SET next_validation_at = $2, failed_validations = 0
              WHERE connection_id IN (
                    SELECT connection_id FROM ad_platform_connections
                     WHERE (next_validation_at > $2
                            OR next_validation_at IS NULL AND standing <> 'REVOKED' AND coalesce(expires_at > $2, TRUE))
                       AND coalesce(last_validated_at, 0) < $1 LIMIT $3)",
            "UPDATE ad_platform_connections SET next_validation_at = $2, failed_validations = 0
              WHERE connection_id IN (
                    SELECT connection_id FROM ad_platform_connections
                     WHERE (next_validation_at > $2
                            OR next_validation_at IS NULL AND standing <> 'REVOKED' AND coalesce(expires_at > $2, TRUE))
                       AND coalesce(last_validated_at, 0) < $1 LIMIT $3
                       FOR UPDATE SKIP LOCKED)",
        )
        .bind(since.as_micros())
        .bind(now.as_micros())
        .bind(limit)
        .execute()
        .await
    }

    /// Makes every connection of a subject and app due for validation at once, in every workspace, with the pages that
    /// are read with their tokens: something has happened at the provider that may concern them all. Returns how many.
    /// Without a subject there is nothing to go by, and nothing happens.
    pub async fn make_subject_due(
        &mut self,
        provider: &ProviderId,
        app_id: &str,
        subject_id: &str,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        if subject_id.is_empty() {
            return Ok(0);
        }
        // The rows are locked in the order that every transaction uses.
        self.query_for(
            "UPDATE ad_platform_connections SET next_validation_at = $4, failed_validations = 0
              WHERE next_validation_at IS NOT NULL AND standing <> 'REVOKED' AND connection_id IN (
                    SELECT connection_id FROM ad_platform_connections
                     WHERE subject_id = $3 AND provider = $1 AND app_id = $2
                     UNION
                    SELECT page.connection_id FROM ad_platform_connections page
                      JOIN ad_platform_connections person ON page.parent_connection_id = person.connection_id
                     WHERE person.subject_id = $3 AND person.provider = $1 AND person.app_id = $2)",
            "UPDATE ad_platform_connections SET next_validation_at = $4, failed_validations = 0
              WHERE connection_id IN (
                    SELECT connection_id FROM ad_platform_connections
                     WHERE next_validation_at IS NOT NULL AND standing <> 'REVOKED' AND connection_id IN (
                           SELECT connection_id FROM ad_platform_connections
                            WHERE subject_id = $3 AND provider = $1 AND app_id = $2
                            UNION
                           SELECT page.connection_id FROM ad_platform_connections page
                             JOIN ad_platform_connections person ON page.parent_connection_id = person.connection_id
                            WHERE person.subject_id = $3 AND person.provider = $1 AND person.app_id = $2)
                     ORDER BY connection_id FOR UPDATE)",
        )
        .bind(provider.as_str().to_owned())
        .bind(app_id.to_owned())
        .bind(subject_id.to_owned())
        .bind(now.as_micros())
        .execute()
        .await
    }

    /// Makes a connection due for validation at once, unless it was validated after `since`, is due already, or waits after
    /// a failed validation. Returns whether it did.
    pub async fn make_connection_due(
        &mut self,
        id: ConnectionId,
        since: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let made = self
            .query(
                "UPDATE ad_platform_connections SET next_validation_at = $3
                  WHERE connection_id = $1 AND next_validation_at > $3 AND failed_validations = 0
                    AND standing <> 'REVOKED'
                    AND coalesce(last_validated_at, 0) <= $2",
            )
            .bind(id.as_uuid())
            .bind(since.as_micros())
            .bind(now.as_micros())
            .execute()
            .await?;
        Ok(made > 0)
    }

    /// Writes when the provider is to be asked again about a connection that was due at `due_at`, and none of its facts.
    /// Does nothing if it was made due at another time meanwhile.
    pub async fn reschedule_validation(
        &mut self,
        id: ConnectionId,
        due_at: Timestamp,
        schedule: &Schedule,
    ) -> Result<(), StoreError> {
        self.query(
            "UPDATE ad_platform_connections SET next_validation_at = $3, failed_validations = $4
              WHERE connection_id = $1 AND next_validation_at = $2",
        )
        .bind(id.as_uuid())
        .bind(due_at.as_micros())
        .bind(schedule.next_validation_at.map(Timestamp::as_micros))
        .bind(i64::from(schedule.failed_validations))
        .execute()
        .await?;
        Ok(())
    }

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
