//! Tables `data_deletions` and `data_deletion_connections`: people's requests to delete their data, and which connections
//! each still has to end. Nothing here names a person.

use uuid::Uuid;

use crate::model::{ConnectionId, ProviderId, Timestamp};
use crate::store::sql::{Session, StoreError, Tx};

/// A request to delete a person's data.
#[derive(Debug, Clone)]
pub struct DataDeletion {
    /// Whoever has it may ask for the state.
    pub code: String,
    pub provider: ProviderId,
    /// Keyed hash by which the same request is known again.
    pub hash: Vec<u8>,
    pub requested_at: Timestamp,
}

impl Session {
    /// Whether a request is done; `None` if there is none with this code.
    pub async fn is_deletion_done(
        &mut self,
        provider: &ProviderId,
        code: &str,
    ) -> Result<Option<bool>, StoreError> {
        let row: Option<(Option<i64>,)> = self
            .query("SELECT completed_at FROM data_deletions WHERE confirmation_code = $1 AND provider = $2")
            .bind(code.to_owned())
            .bind(provider.as_str().to_owned())
            .fetch_optional()
            .await?;
        Ok(row.map(|(completed_at,)| completed_at.is_some()))
    }

    /// When the newest request was made that is not done.
    pub async fn newest_open_deletion(&mut self) -> Result<Option<Timestamp>, StoreError> {
        let (at,): (Option<i64>,) = self
            .query("SELECT max(requested_at) AS at FROM data_deletions WHERE completed_at IS NULL")
            .fetch_one()
            .await?;
        Ok(at.map(Timestamp::from_micros))
    }

    /// The next request that is not done after one, the longest waiting first: when it was made, and its code.
    pub async fn open_deletion_after(
        &mut self,
        after: Option<&(i64, String)>,
    ) -> Result<Option<(i64, String)>, StoreError> {
        let (at, code) = after.cloned().unwrap_or((i64::MIN, String::new()));
        self.query(
            "SELECT requested_at, confirmation_code FROM data_deletions
              WHERE completed_at IS NULL AND (requested_at, confirmation_code) > ($1, $2)
              ORDER BY requested_at, confirmation_code LIMIT 1",
        )
        .bind(at)
        .bind(code)
        .fetch_optional()
        .await
    }

    /// Connections that a request still has to end after one, in order.
    pub async fn connections_to_delete(
        &mut self,
        code: &str,
        after: Option<ConnectionId>,
        limit: i64,
    ) -> Result<Vec<ConnectionId>, StoreError> {
        let rows: Vec<(Uuid,)> = self
            .query(
                "SELECT connection_id FROM data_deletion_connections
                  WHERE confirmation_code = $1 AND connection_id > $2 ORDER BY connection_id LIMIT $3",
            )
            .bind(code.to_owned())
            .bind(after.map_or_else(Uuid::nil, ConnectionId::as_uuid))
            .bind(limit)
            .fetch_all()
            .await?;
        Ok(rows.into_iter().map(|(id,)| ConnectionId::from_uuid(id)).collect())
    }
}

impl Tx {
    /// Writes a request, and which connections it has to end: all of the person's, revoked ones included, and the pages
    /// that are read with their tokens. Returns its code, or that of the same request, if it was made before.
    pub async fn insert_deletion(
        &mut self,
        deletion: &DataDeletion,
        app_id: &str,
        subject_id: &str,
    ) -> Result<(String, bool), StoreError> {
        let inserted = self
            .query(
                "INSERT INTO data_deletions (confirmation_code, provider, request_hash, requested_at)
                 VALUES ($1, $2, $3, $4) ON CONFLICT (request_hash) DO NOTHING",
            )
            .bind(deletion.code.clone())
            .bind(deletion.provider.as_str().to_owned())
            .bind(deletion.hash.clone())
            .bind(deletion.requested_at.as_micros())
            .execute()
            .await?;
        if inserted == 0 {
            let (code,): (String,) = self
                .query("SELECT confirmation_code FROM data_deletions WHERE request_hash = $1")
                .bind(deletion.hash.clone())
                .fetch_one()
                .await?;
            return Ok((code, false));
        }
        self.query(
            "INSERT INTO data_deletion_connections (confirmation_code, connection_id)
             SELECT $4, connection_id FROM ad_platform_connections
              WHERE subject_id = $1 AND provider = $2 AND app_id = $3
              UNION
             SELECT $4, page.connection_id FROM ad_platform_connections page
               JOIN ad_platform_connections person ON page.parent_connection_id = person.connection_id
              WHERE person.subject_id = $1 AND person.provider = $2 AND person.app_id = $3",
        )
        .bind(subject_id.to_owned())
        .bind(deletion.provider.as_str().to_owned())
        .bind(app_id.to_owned())
        .bind(deletion.code.clone())
        .execute()
        .await?;
        Ok((deletion.code.clone(), true))
    }

    /// Notes that a request has ended these connections, and that it is done if none is left.
    pub async fn note_deleted(
        &mut self,
        code: &str,
        ended: &[ConnectionId],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        for id in ended {
            self.query(
                "DELETE FROM data_deletion_connections WHERE confirmation_code = $1 AND connection_id = $2",
            )
            .bind(code.to_owned())
            .bind(id.as_uuid())
            .execute()
            .await?;
        }
        self.query(
            "UPDATE data_deletions SET completed_at = $2
              WHERE confirmation_code = $1 AND completed_at IS NULL
                AND NOT EXISTS (SELECT 1 FROM data_deletion_connections WHERE confirmation_code = $1)",
        )
        .bind(code.to_owned())
        .bind(now.as_micros())
        .execute()
        .await?;
        Ok(())
    }

    /// Forgets the requests that were done before an instant.
    pub async fn forget_deletions(&mut self, before: Timestamp) -> Result<u64, StoreError> {
        self.query("DELETE FROM data_deletions WHERE completed_at < $1")
            .bind(before.as_micros())
            .execute()
            .await
    }
}
