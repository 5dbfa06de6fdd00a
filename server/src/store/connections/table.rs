//! Table `ad_platform_connections`: a row for each connection, without its secret.

use sqlx::types::Json;
use uuid::Uuid;

use super::rows::{ConnectionRow, FactColumns, ListingColumn, connection_columns, renewal_failure_name};
use crate::model::{Connection, ConnectionId, ProviderId, Timestamp, WorkspaceId};
use crate::store::sql::{Backend, Change, Query, Session, StoreError, Tx};

impl Session {
    pub async fn connection(&mut self, id: ConnectionId) -> Result<Option<Connection>, StoreError> {
        self.query(concat!(
            "SELECT ",
            connection_columns!(),
            " FROM ad_platform_connections c WHERE c.connection_id = $1"
        ))
        .bind(id.as_uuid())
        .fetch_optional::<ConnectionRow>()
        .await?
        .map(Connection::try_from)
        .transpose()
    }

    /// The newest connections of a workspace with a provider that are not revoked, `first` before all others, and how many
    /// there are in all.
    pub async fn connections_with(
        &mut self,
        workspace: &WorkspaceId,
        provider: &ProviderId,
        first: Option<ConnectionId>,
        limit: i64,
    ) -> Result<(Vec<Connection>, usize), StoreError> {
        let rows: Vec<ConnectionRow> = self
            .query(concat!(
                "SELECT ",
                connection_columns!(),
                " FROM ad_platform_connections c
                 WHERE c.workspace_id = $1 AND c.provider = $2 AND c.standing IN ('LIVE', 'INVALID')
                 ORDER BY c.connection_id = $3 DESC, c.connection_id DESC LIMIT $4"
            ))
            .bind(workspace.as_str().to_owned())
            .bind(provider.as_str().to_owned())
            .bind(first.map_or_else(Uuid::nil, ConnectionId::as_uuid))
            .bind(limit)
            .fetch_all()
            .await?;
        let (all,): (i64,) = self
            .query(
                "SELECT count(*) FROM ad_platform_connections
                  WHERE workspace_id = $1 AND provider = $2 AND standing IN ('LIVE', 'INVALID')",
            )
            .bind(workspace.as_str().to_owned())
            .bind(provider.as_str().to_owned())
            .fetch_one()
            .await?;
        let connections = rows.into_iter().map(Connection::try_from).collect::<Result<_, _>>()?;
        Ok((connections, usize::try_from(all).unwrap_or(usize::MAX)))
    }

    /// The connection of one subject and app in a workspace.
    pub async fn connection_of_subject(
        &mut self,
        workspace: &WorkspaceId,
        provider: &ProviderId,
        app_id: &str,
        subject_key: &str,
    ) -> Result<Option<Connection>, StoreError> {
        self.query(concat!(
            "SELECT ",
            connection_columns!(),
            " FROM ad_platform_connections c
             WHERE c.workspace_id = $1 AND c.provider = $2 AND c.app_id = $3 AND c.subject_key = $4"
        ))
        .bind(workspace.as_str().to_owned())
        .bind(provider.as_str().to_owned())
        .bind(app_id.to_owned())
        .bind(subject_key.to_owned())
        .fetch_optional::<ConnectionRow>()
        .await?
        .map(Connection::try_from)
        .transpose()
    }
}

/// The value of `subject_key`: the connection's own id if its provider names no subject.
fn subject_key(connection: &Connection) -> String {
    if connection.subject.id.is_empty() { connection.id.to_string() } else { connection.subject.id.clone() }
}

/// The columns that both INSERT and UPDATE write, in the order in which [`bind_facts`] binds them.
macro_rules! written_columns {
    () => {
        "app_id, subject_key, subject_id, subject_name, subject_kind, token_version, secret_id, fingerprint, revision, \
         kind, expires_at, expiry_source, expires_sort, data_access_ends_at, data_access_source, issued_at, scopes, \
         granular_scopes, standing, standing_since, standing_reason, provider_code, last_validated_at, last_rotated_at, \
         last_known_good, ad_account_count, unreachable_count, next_deadline_at, next_renewal_at, renewal_attempts, \
         last_event_sequence, updated_at, data_refused_at, data_refusal, renewal_failed_at, renewal_failure, \
         overdue_since, next_validation_at, failed_validations, listing"
    };
}

/// The values of the written columns.
macro_rules! written_values {
    () => {
        "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, \
         $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, $40"
    };
}

/// Binds $1 to $40.
fn bind_facts<'c>(query: Query<'c>, connection: &Connection) -> Query<'c> {
    let facts = FactColumns::of(connection);
    query
        .bind(connection.app_id.clone())
        .bind(subject_key(connection))
        .bind(connection.subject.id.clone())
        .bind(connection.subject.name.clone())
        .bind(connection.subject.kind.as_str())
        .bind(i64::from(connection.version.get()))
        .bind(connection.secret_id.as_uuid())
        .bind(connection.fingerprint.map(|f| f.0.to_vec()))
        .bind(connection.revision)
        .bind(facts.kind)
        .bind(facts.expires_at)
        .bind(facts.expiry_source)
        .bind(facts.expires_sort)
        .bind(facts.data_access_ends_at)
        .bind(facts.data_access_source)
        .bind(facts.issued_at)
        .bind(facts.scopes)
        .bind(facts.granular_scopes)
        .bind(facts.standing)
        .bind(facts.standing_since)
        .bind(facts.standing_reason)
        .bind(facts.provider_code)
        .bind(connection.seen.last_validated_at.map(Timestamp::as_micros))
        .bind(connection.seen.last_rotated_at.map(Timestamp::as_micros))
        .bind(connection.seen.last_known_good.map(Timestamp::as_micros))
        .bind(connection.seen.ad_accounts.map(i64::from))
        .bind(i64::from(connection.seen.unreachable_ad_accounts))
        .bind(connection.schedule.next_deadline_at.map(Timestamp::as_micros))
        .bind(connection.schedule.next_renewal_at.map(Timestamp::as_micros))
        .bind(i64::from(connection.schedule.attempts))
        .bind(connection.last_event)
        .bind(connection.updated_at.as_micros())
        .bind(connection.seen.data_refusal.map(|refusal| refusal.at.as_micros()))
        .bind(connection.seen.data_refusal.map_or("", |refusal| refusal.reason.as_str()))
        .bind(connection.schedule.renewal_failure.map(|failure| failure.since.as_micros()))
        .bind(renewal_failure_name(connection.schedule.renewal_failure))
        .bind(connection.schedule.overdue_since.map(Timestamp::as_micros))
        .bind(connection.schedule.next_validation_at.map(Timestamp::as_micros))
        .bind(i64::from(connection.schedule.failed_validations))
        .bind(Json(ListingColumn::from(connection.seen.listing)))
}

impl Tx {
    /// Locks connections in the order of their ids. All replicas use this order, so that two batches can't deadlock. On
    /// SQLite there is only one writer.
    pub(in crate::store) async fn lock_connections(
        &mut self,
        ids: &[ConnectionId],
    ) -> Result<(), StoreError> {
        if self.backend() == Backend::Sqlite {
            return Ok(());
        }
        let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
        self.query(
            "SELECT connection_id FROM ad_platform_connections
              WHERE connection_id IN (SELECT (jsonb_array_elements_text($1))::uuid)
              ORDER BY connection_id FOR UPDATE",
        )
        .bind(Json(ids))
        .fetch_all::<(Uuid,)>()
        .await?;
        Ok(())
    }

    /// Locks connections with a deadline that has passed, the most overdue first. Skips those that another transaction
    /// has locked.
    pub async fn lock_due_connections(
        &mut self,
        now: Timestamp,
        limit: i64,
    ) -> Result<Vec<Connection>, StoreError> {
        self.query_for(
            concat!(
                "SELECT ",
                connection_columns!(),
                " FROM ad_platform_connections c WHERE c.next_deadline_at <= $1 ORDER BY c.next_deadline_at LIMIT $2"
            ),
            concat!(
                "SELECT ",
                connection_columns!(),
                " FROM ad_platform_connections c WHERE c.next_deadline_at <= $1 ORDER BY c.next_deadline_at LIMIT $2
                  FOR UPDATE SKIP LOCKED"
            ),
        )
        .bind(now.as_micros())
        .bind(limit)
        .fetch_all::<ConnectionRow>()
        .await
        .map(|rows| rows.into_iter().filter_map(readable).collect())
    }

    /// Writes the fields that announcing changes, and no facts. The revision stays the same, so that a provider's reply
    /// in flight can still be applied.
    pub async fn note_announced(&mut self, connections: &[Connection]) -> Result<(), StoreError> {
        let rows: Vec<(String, Option<i64>, i64, Option<i64>)> = connections
            .iter()
            .map(|c| {
                let deadline = c.schedule.next_deadline_at.map(Timestamp::as_micros);
                let overdue = c.schedule.overdue_since.map(Timestamp::as_micros);
                (c.id.as_uuid().simple().to_string(), deadline, c.last_event, overdue)
            })
            .collect();
        self.query_for(
            "UPDATE ad_platform_connections AS c
                SET next_deadline_at = r.value->>1, last_event_sequence = r.value->>2, overdue_since = r.value->>3
               FROM json_each($1) AS r WHERE c.connection_id = unhex(r.value->>0)",
            "UPDATE ad_platform_connections AS c
                SET next_deadline_at = (r.value->>1)::bigint, last_event_sequence = (r.value->>2)::bigint,
                    overdue_since = (r.value->>3)::bigint
               FROM jsonb_array_elements($1) AS r (value) WHERE c.connection_id = (r.value->>0)::uuid",
        )
        .bind(Json(rows))
        .execute()
        .await?;
        for connection in connections {
            self.changed(Change::Connection(connection.id));
        }
        Ok(())
    }

    /// A connection, locked until the transaction ends.
    pub async fn lock_connection(&mut self, id: ConnectionId) -> Result<Option<Connection>, StoreError> {
        self.query_for(
            concat!(
                "SELECT ",
                connection_columns!(),
                " FROM ad_platform_connections c WHERE c.connection_id = $1"
            ),
            concat!(
                "SELECT ",
                connection_columns!(),
                " FROM ad_platform_connections c WHERE c.connection_id = $1 FOR UPDATE"
            ),
        )
        .bind(id.as_uuid())
        .fetch_optional::<ConnectionRow>()
        .await?
        .map(Connection::try_from)
        .transpose()
    }

    /// Adds a connection. If another transaction adds the same identity first, this unit runs again and finds that one.
    pub async fn insert_connection(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let query = self.query(concat!(
            "INSERT INTO ad_platform_connections (",
            written_columns!(),
            ", connection_id, workspace_id, provider, parent_connection_id, created_at)
             VALUES (",
            written_values!(),
            ", $41, $42, $43, $44, $45)
             ON CONFLICT (workspace_id, provider, app_id, subject_key) DO NOTHING"
        ));
        let added = bind_facts(query, connection)
            .bind(connection.id.as_uuid())
            .bind(connection.workspace.as_str().to_owned())
            .bind(connection.provider.as_str().to_owned())
            .bind(connection.parent.map(ConnectionId::as_uuid))
            .bind(connection.created_at.as_micros())
            .execute()
            .await?;
        if added == 0 {
            return Err(StoreError::Race("another connection of the same identity came first".into()));
        }
        Ok(())
    }

    /// Writes a connection's facts over those of the previous revision. `false`: another transaction wrote meanwhile,
    /// and nothing changed.
    pub async fn update_connection(&mut self, connection: &Connection) -> Result<bool, StoreError> {
        let query = self.query(concat!(
            "UPDATE ad_platform_connections SET (",
            written_columns!(),
            ") = (",
            written_values!(),
            ") WHERE connection_id = $41 AND revision = $42"
        ));
        let updated = bind_facts(query, connection)
            .bind(connection.id.as_uuid())
            .bind(connection.revision.saturating_sub(1))
            .execute()
            .await?;
        self.changed(Change::Connection(connection.id));
        Ok(updated == 1)
    }
}

/// Logs a row that can't be read, and skips it: it must not hold up the others.
pub(in crate::store) fn readable(row: ConnectionRow) -> Option<Connection> {
    let id = row.connection_id;
    Connection::try_from(row)
        .inspect_err(|error| tracing::error!(connection = %id, %error, "a connection's row can't be read"))
        .ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_written_column_has_a_value() {
        let columns = written_columns!().split(',').count();
        let values: Vec<String> = written_values!().split(',').map(|value| value.trim().to_owned()).collect();
        assert_eq!(values, (1..=columns).map(|n| format!("${n}")).collect::<Vec<_>>());
    }
}
