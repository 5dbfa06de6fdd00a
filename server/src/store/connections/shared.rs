//! Which connections end together at the provider. A grant belongs to a person and an app, so ending one token of it
//! ends all of them, in every workspace, and those of the pages that were read with them.

use crate::model::{Connection, ProviderId, RefusalReason, Subject, Timestamp};
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

impl Session {
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
