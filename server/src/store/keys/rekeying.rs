//! Rotation of data keys: adding the next one, moving secrets to it, deleting the old ones.

use sqlx::types::Json;
use uuid::Uuid;

use super::wrapped::{KeyPurpose, WrappedKey};
use crate::model::{ConnectionId, ProviderId, Sealed, SecretId, Timestamp, TokenVersion, WorkspaceId};
use crate::store::sql::{Change, Session, StoreError, Tx};

/// A sealed secret with what its sealing is bound to.
#[derive(Debug, Clone)]
pub struct SealedRow {
    pub connection: ConnectionId,
    pub provider: ProviderId,
    pub version: TokenVersion,
    pub secret_id: SecretId,
    /// `CURRENT` or `PENDING`.
    pub state: String,
    pub sealed: Sealed,
}

#[derive(sqlx::FromRow)]
struct SecretRow {
    connection_id: Uuid,
    provider: String,
    token_version: i64,
    secret_id: Uuid,
    state: String,
    data_key_version: i64,
    sealed: Vec<u8>,
}

impl SecretRow {
    fn into_row(self) -> Result<SealedRow, StoreError> {
        let row = self.connection_id.to_string();
        let bad = |column| StoreError::Inconsistent { table: "connection_secrets", column, row: row.clone() };
        let version =
            i32::try_from(self.token_version).ok().and_then(|version| TokenVersion::new(version).ok());
        let data_key_version = i32::try_from(self.data_key_version).map_err(|_| bad("data_key_version"))?;
        Ok(SealedRow {
            connection: ConnectionId::from_uuid(self.connection_id),
            provider: ProviderId::parse(self.provider).map_err(|_| bad("provider"))?,
            version: version.ok_or_else(|| bad("token_version"))?,
            secret_id: SecretId::from_uuid(self.secret_id),
            state: self.state,
            sealed: Sealed { data_key_version, bytes: self.sealed },
        })
    }
}

impl Session {
    /// Workspaces that still have an old data key, in order, and when the latest of these keys was replaced.
    pub async fn workspaces_with_old_keys(&mut self) -> Result<(Vec<WorkspaceId>, Timestamp), StoreError> {
        let rows: Vec<(String, i64)> = self
            .query(
                "SELECT workspace_id AS name, max(retired_at) AS n FROM workspace_keys
                  WHERE retired_at IS NOT NULL AND purpose = 'data' GROUP BY workspace_id ORDER BY workspace_id",
            )
            .fetch_all()
            .await?;
        let latest = rows.iter().map(|(_, at)| *at).max().unwrap_or(0);
        let ids = rows.into_iter().filter_map(|(name, _)| WorkspaceId::parse(name).ok()).collect();
        Ok((ids, Timestamp::from_micros(latest)))
    }

    /// How many secrets of a workspace are sealed under a data key older than `newest`.
    pub async fn count_old_secrets(
        &mut self,
        workspace: &WorkspaceId,
        newest: i32,
    ) -> Result<i64, StoreError> {
        let (count,): (i64,) = self
            .query(
                "SELECT count(*) AS n FROM ad_platform_connections c
                   JOIN connection_secrets s ON s.connection_id = c.connection_id
                  WHERE c.workspace_id = $1 AND s.data_key_version < $2",
            )
            .bind(workspace.as_str().to_owned())
            .bind(i64::from(newest))
            .fetch_one()
            .await?;
        Ok(count)
    }

    /// Connections of a workspace after one, with a secret under a data key older than `newest`.
    pub async fn connections_with_old_secrets(
        &mut self,
        workspace: &WorkspaceId,
        newest: i32,
        after: Option<ConnectionId>,
        limit: i64,
    ) -> Result<Vec<ConnectionId>, StoreError> {
        let rows: Vec<(Uuid,)> = self
            .query(
                "SELECT DISTINCT c.connection_id FROM ad_platform_connections c
                   JOIN connection_secrets s ON s.connection_id = c.connection_id
                  WHERE c.workspace_id = $1 AND c.connection_id > $2 AND s.data_key_version < $3
                  ORDER BY c.connection_id LIMIT $4",
            )
            .bind(workspace.as_str().to_owned())
            .bind(after.map_or_else(Uuid::nil, ConnectionId::as_uuid))
            .bind(i64::from(newest))
            .bind(limit)
            .fetch_all()
            .await?;
        Ok(rows.into_iter().map(|(id,)| ConnectionId::from_uuid(id)).collect())
    }

    /// The number of the last change that caches must drop.
    pub async fn last_revision(&mut self) -> Result<i64, StoreError> {
        let (last,): (i64,) =
            self.query("SELECT coalesce(max(revision), 0) AS n FROM changes").fetch_one().await?;
        Ok(last)
    }
}

impl Tx {
    /// Gives a workspace its next data key; older ones seal no new secrets. `false`: `key` is not the next one, or is
    /// not wrapped with the active master key.
    pub async fn add_data_key(
        &mut self,
        workspace: &WorkspaceId,
        key: &WrappedKey,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let active = self.hold_active_master_key().await?;
        let (newest,): (i64,) = self
            .query(
                "SELECT coalesce(max(version), 0) AS n FROM workspace_keys
                  WHERE workspace_id = $1 AND purpose = 'data'",
            )
            .bind(workspace.as_str().to_owned())
            .fetch_one()
            .await?;
        if key.master_key != active || i64::from(key.version) != newest + 1 {
            return Ok(false);
        }
        self.query(
            "UPDATE workspace_keys SET retired_at = $2
              WHERE workspace_id = $1 AND purpose = 'data' AND retired_at IS NULL",
        )
        .bind(workspace.as_str().to_owned())
        .bind(now.as_micros())
        .execute()
        .await?;
        self.insert_workspace_key(workspace, KeyPurpose::Data, key, now).await?;
        self.changed(Change::Workspace(workspace.clone()));
        Ok(true)
    }

    /// Whether a data key is the newest. It is not deleted before the transaction ends.
    pub(in crate::store) async fn keep_data_key(
        &mut self,
        workspace: &WorkspaceId,
        version: i32,
    ) -> Result<bool, StoreError> {
        let row: Option<(i64,)> = self
            .query_for(
                "SELECT version AS n FROM workspace_keys
                  WHERE workspace_id = $1 AND purpose = 'data' AND version = $2 AND retired_at IS NULL",
                "SELECT version AS n FROM workspace_keys
                  WHERE workspace_id = $1 AND purpose = 'data' AND version = $2 AND retired_at IS NULL FOR KEY SHARE",
            )
            .bind(workspace.as_str().to_owned())
            .bind(i64::from(version))
            .fetch_optional()
            .await?;
        Ok(row.is_some())
    }

    /// The secrets of connections that a data key older than `newest` seals.
    pub async fn old_secrets(
        &mut self,
        connections: &[ConnectionId],
        newest: i32,
    ) -> Result<Vec<SealedRow>, StoreError> {
        let rows: Vec<SecretRow> = self
            .query_for(
                "SELECT s.connection_id, c.provider, s.token_version, s.secret_id, s.state, s.data_key_version, s.sealed
                   FROM connection_secrets s JOIN ad_platform_connections c ON c.connection_id = s.connection_id
                  WHERE s.connection_id IN (SELECT unhex(value) FROM json_each($1)) AND s.data_key_version < $2",
                "SELECT s.connection_id, c.provider, s.token_version, s.secret_id, s.state, s.data_key_version, s.sealed
                   FROM connection_secrets s JOIN ad_platform_connections c ON c.connection_id = s.connection_id
                  WHERE s.connection_id IN (SELECT (jsonb_array_elements_text($1))::uuid) AND s.data_key_version < $2",
            )
            .bind(Json(connections.iter().map(|id| id.as_uuid().simple().to_string()).collect::<Vec<_>>()))
            .bind(i64::from(newest))
            .fetch_all()
            .await?;
        rows.into_iter().map(SecretRow::into_row).collect()
    }

    /// Writes resealed secrets, each over its old ciphertext. `false`: the key that sealed them is no longer the
    /// workspace's newest, and nothing changed.
    pub async fn put_resealed(
        &mut self,
        workspace: &WorkspaceId,
        version: i32,
        rows: &[SealedRow],
    ) -> Result<bool, StoreError> {
        if !self.keep_data_key(workspace, version).await? {
            return Ok(false);
        }
        let resealed: Vec<_> = rows
            .iter()
            .map(|row| {
                (
                    row.connection.as_uuid().simple().to_string(),
                    row.state.clone(),
                    row.secret_id.as_uuid().simple().to_string(),
                    row.sealed.data_key_version,
                    hex::encode(&row.sealed.bytes),
                )
            })
            .collect();
        self.query_for(
            "UPDATE connection_secrets AS s SET data_key_version = r.value->>3, sealed = unhex(r.value->>4)
               FROM json_each($1) AS r
              WHERE s.connection_id = unhex(r.value->>0) AND s.state = r.value->>1
                AND s.secret_id = unhex(r.value->>2)",
            "UPDATE connection_secrets AS s
                SET data_key_version = (r.value->>3)::bigint, sealed = decode(r.value->>4, 'hex')
               FROM jsonb_array_elements($1) AS r (value)
              WHERE s.connection_id = (r.value->>0)::uuid AND s.state = r.value->>1
                AND s.secret_id = (r.value->>2)::uuid",
        )
        .bind(Json(resealed))
        .execute()
        .await?;
        for row in rows {
            self.changed(Change::Connection(row.connection));
        }
        self.destroyed();
        Ok(true)
    }

    /// Deletes a workspace's data keys older than `newest`, except those that still seal something. Returns how many
    /// are left.
    pub async fn delete_old_data_keys(
        &mut self,
        workspace: &WorkspaceId,
        newest: i32,
    ) -> Result<i64, StoreError> {
        // Waits for transactions that are about to seal with one of them.
        let old: Vec<(i64,)> = self
            .query_for(
                "SELECT version AS n FROM workspace_keys
                  WHERE workspace_id = $1 AND purpose = 'data' AND version < $2 AND retired_at IS NOT NULL",
                "SELECT version AS n FROM workspace_keys
                  WHERE workspace_id = $1 AND purpose = 'data' AND version < $2 AND retired_at IS NOT NULL FOR UPDATE",
            )
            .bind(workspace.as_str().to_owned())
            .bind(i64::from(newest))
            .fetch_all()
            .await?;
        let mut left = 0;
        for (version,) in old {
            let deleted = self
                .query(
                    "DELETE FROM workspace_keys WHERE workspace_id = $1 AND purpose = 'data' AND version = $2
                        AND NOT EXISTS (SELECT 1 FROM ad_platform_connections c
                                          JOIN connection_secrets s ON s.connection_id = c.connection_id
                                         WHERE c.workspace_id = $1 AND s.data_key_version = $2)",
                )
                .bind(workspace.as_str().to_owned())
                .bind(version)
                .execute()
                .await?;
            left += i64::from(deleted == 0);
        }
        self.destroyed();
        self.changed(Change::Workspace(workspace.clone()));
        Ok(left)
    }
}
