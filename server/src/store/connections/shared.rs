//! Which connections end together at the provider. A grant belongs to a person and an app, so ending one token of it
//! ends all of them, in every workspace, and those of the pages that were read with them.

use uuid::Uuid;

use crate::model::{Connection, ConnectionId, ProviderId, RefusalReason, Subject, Timestamp, WorkspaceId};
use crate::store::sql::{Session, StoreError};

/// How many other connections end with one: those of the same subject and app, and the pages of it and of those. A
/// revoked connection does not count, but its pages do, since their tokens are of the same grant. Without a subject,
/// only its own pages end with it. `$and` narrows the others, `o`, further.
macro_rules! shared_count {
    ($id:literal, $subject:literal, $provider:literal, $app:literal, $and:literal) => {
        concat!(
            "(CASE WHEN ",
            $subject,
            " = '' THEN (
                SELECT count(*) FROM ad_platform_connections o
                 WHERE o.parent_connection_id = ",
            $id,
            " AND o.standing <> 'REVOKED'",
            $and,
            ")
             ELSE (
                SELECT count(*) FROM ad_platform_connections o
                 WHERE o.subject_id = ",
            $subject,
            " AND o.provider = ",
            $provider,
            " AND o.app_id = ",
            $app,
            "
                   AND o.connection_id <> ",
            $id,
            " AND o.standing <> 'REVOKED'",
            $and,
            ") + (
                SELECT count(*) FROM ad_platform_connections p
                  JOIN ad_platform_connections o ON o.parent_connection_id = p.connection_id
                 WHERE p.subject_id = ",
            $subject,
            " AND p.provider = ",
            $provider,
            " AND p.app_id = ",
            $app,
            "
                   AND o.standing <> 'REVOKED'",
            $and,
            ")
             END)"
        )
    };
}
pub(super) use shared_count;

#[derive(sqlx::FromRow)]
struct Count {
    n: i64,
}

#[derive(sqlx::FromRow)]
struct PlaceRow {
    connection_id: Uuid,
    workspace_id: String,
}

impl PlaceRow {
    fn read(self) -> Result<(ConnectionId, WorkspaceId), StoreError> {
        let workspace = WorkspaceId::parse(self.workspace_id).map_err(|_| StoreError::Inconsistent {
            table: "ad_platform_connections",
            column: "workspace_id",
            row: self.connection_id.to_string(),
        })?;
        Ok((ConnectionId::from_uuid(self.connection_id), workspace))
    }
}

impl Session {
    /// The connections of a subject and app in every workspace, revoked ones included, and the pages that are read with
    /// their tokens.
    pub async fn connections_of_subject(
        &mut self,
        provider: &ProviderId,
        app_id: &str,
        subject_id: &str,
    ) -> Result<Vec<(ConnectionId, WorkspaceId)>, StoreError> {
        let rows: Vec<PlaceRow> = self
            .query(
                "SELECT connection_id, workspace_id FROM ad_platform_connections
                  WHERE subject_id = $1 AND subject_id <> '' AND provider = $2 AND app_id = $3
                  UNION
                 SELECT page.connection_id, page.workspace_id FROM ad_platform_connections page
                   JOIN ad_platform_connections person ON page.parent_connection_id = person.connection_id
                  WHERE person.subject_id = $1 AND person.subject_id <> '' AND person.provider = $2
                    AND person.app_id = $3",
            )
            .bind(subject_id.to_owned())
            .bind(provider.as_str().to_owned())
            .bind(app_id.to_owned())
            .fetch_all()
            .await?;
        rows.into_iter().map(PlaceRow::read).collect()
    }

    /// The connections of an app that reach an ad account, or once reached it, in every workspace.
    pub async fn connections_of_ad_account(
        &mut self,
        provider: &ProviderId,
        app_id: &str,
        ad_account_id: &str,
    ) -> Result<Vec<(ConnectionId, WorkspaceId)>, StoreError> {
        let rows: Vec<PlaceRow> = self
            .query(
                "SELECT c.connection_id, c.workspace_id FROM connection_ad_accounts a
                   JOIN ad_platform_connections c ON c.connection_id = a.connection_id
                  WHERE a.ad_account_id = $1 AND c.provider = $2 AND c.app_id = $3",
            )
            .bind(ad_account_id.to_owned())
            .bind(provider.as_str().to_owned())
            .bind(app_id.to_owned())
            .fetch_all()
            .await?;
        rows.into_iter().map(PlaceRow::read).collect()
    }

    /// How many other connections, of any workspace, end with this one at the provider.
    pub async fn shared_with(&mut self, connection: &Connection) -> Result<u32, StoreError> {
        self.count_shared(concat!("SELECT ", shared_count!("$4", "$1", "$2", "$3", ""), " AS n"), connection)
            .await
    }

    /// [`Self::shared_with`], counting only connections of other workspaces.
    pub async fn shared_outside(&mut self, connection: &Connection) -> Result<u32, StoreError> {
        self.count_shared(
            concat!(
                "SELECT ",
                shared_count!(
                    "$4",
                    "$1",
                    "$2",
                    "$3",
                    " AND o.workspace_id <> (
                    SELECT h.workspace_id FROM ad_platform_connections h WHERE h.connection_id = $4)"
                ),
                " AS n"
            ),
            connection,
        )
        .await
    }

    /// The cause that the provider lately named for the death of a subject's token: the reason, and its code. `None` if it
    /// named none.
    pub async fn cause_of_subject(
        &mut self,
        provider: &ProviderId,
        app_id: &str,
        subject: &Subject,
        since: Timestamp,
    ) -> Result<Option<(RefusalReason, String)>, StoreError> {
        if subject.id.is_empty() {
            return Ok(None);
        }
        let cause: Option<(String, String)> = self
            .query(
                "SELECT standing_reason, provider_code FROM ad_platform_connections
                  WHERE subject_id = $1 AND provider = $2 AND app_id = $3 AND standing = 'INVALID'
                    AND standing_since >= $4 AND provider_code LIKE '%/%' ORDER BY standing_since DESC LIMIT 1",
            )
            .bind(subject.id.clone())
            .bind(provider.as_str().to_owned())
            .bind(app_id.to_owned())
            .bind(since.as_micros())
            .fetch_optional()
            .await?;
        Ok(cause.map(|(reason, code)| (RefusalReason::from_name(&reason), code)))
    }

    async fn count_shared(&mut self, sql: &'static str, connection: &Connection) -> Result<u32, StoreError> {
        let count: Count = self
            .query(sql)
            .bind(connection.subject.id.clone())
            .bind(connection.provider.as_str().to_owned())
            .bind(connection.app_id.clone())
            .bind(connection.id.as_uuid())
            .fetch_one()
            .await?;
        Ok(u32::try_from(count.n).unwrap_or(u32::MAX))
    }
}
