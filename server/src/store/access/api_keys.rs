//! Table `api_keys`.

use std::collections::HashSet;

use sqlx::types::Json;

use crate::model::{ApiKeyId, Role, Timestamp, WorkspaceId, WorkspaceSet};
use crate::store::sql::{Change, Session, StoreError, Tx};

/// An API key's row. Its reader must check `mac`, because the database alone is not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyRecord {
    pub api_key: ApiKeyFacts,
    /// SHA-256 of the secret part.
    pub hash: Vec<u8>,
    /// A MAC over the row by the authorization key.
    pub mac: Vec<u8>,
}

/// An API key without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyFacts {
    pub id: ApiKeyId,
    /// The name of the service that uses it.
    pub principal: String,
    pub role: Role,
    /// Where its holder may act.
    pub workspaces: WorkspaceSet,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub last_used_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    /// The key that a rotation made in its place.
    pub replaced_by: Option<ApiKeyId>,
}

#[derive(sqlx::FromRow)]
struct KeyRow {
    api_key_id: String,
    principal: String,
    role: String,
    workspaces: Option<Json<Vec<String>>>,
    hash: Vec<u8>,
    mac: Vec<u8>,
    created_at: i64,
    expires_at: Option<i64>,
    last_used_at: Option<i64>,
    revoked_at: Option<i64>,
    replaced_by: Option<String>,
}

impl TryFrom<KeyRow> for ApiKeyRecord {
    type Error = StoreError;

    fn try_from(row: KeyRow) -> Result<Self, StoreError> {
        let bad =
            |column| StoreError::Inconsistent { table: "api_keys", column, row: row.api_key_id.clone() };
        let workspaces = match &row.workspaces {
            None => WorkspaceSet::All,
            Some(Json(names)) => WorkspaceSet::Named(
                names
                    .iter()
                    .map(|name| WorkspaceId::parse(name.clone()))
                    .collect::<Result<_, _>>()
                    .map_err(|_| bad("workspaces"))?,
            ),
        };
        Ok(Self {
            api_key: ApiKeyFacts {
                id: ApiKeyId::parse(row.api_key_id.clone()).map_err(|_| bad("api_key_id"))?,
                role: Role::parse(&row.role).map_err(|_| bad("role"))?,
                principal: row.principal,
                workspaces,
                created_at: Timestamp::from_micros(row.created_at),
                expires_at: row.expires_at.map(Timestamp::from_micros),
                last_used_at: row.last_used_at.map(Timestamp::from_micros),
                revoked_at: row.revoked_at.map(Timestamp::from_micros),
                replaced_by: row
                    .replaced_by
                    .map(ApiKeyId::parse)
                    .transpose()
                    .map_err(|_| bad("replaced_by"))?,
            },
            hash: row.hash,
            mac: row.mac,
        })
    }
}

impl Session {
    pub async fn api_key(&mut self, id: &ApiKeyId) -> Result<Option<ApiKeyRecord>, StoreError> {
        self.query(
            "SELECT api_key_id, principal, role, workspaces, hash, mac, created_at, expires_at, last_used_at, revoked_at,
                    replaced_by
               FROM api_keys WHERE api_key_id = $1",
        )
        .bind(id.as_str().to_owned())
        .fetch_optional::<KeyRow>()
        .await?
        .map(ApiKeyRecord::try_from)
        .transpose()
    }

    pub async fn api_key_ids(&mut self) -> Result<HashSet<ApiKeyId>, StoreError> {
        let ids = self.query("SELECT api_key_id FROM api_keys").fetch_all::<(String,)>().await?;
        // An id that can't be parsed belongs to no key.
        Ok(ids.iter().filter_map(|(id,)| ApiKeyId::parse(id).ok()).collect())
    }

    /// Keys after `after` by id, of one principal or (if `principal` is empty) of all.
    pub async fn api_keys(
        &mut self,
        principal: &str,
        after: &str,
        limit: i64,
    ) -> Result<Vec<ApiKeyRecord>, StoreError> {
        self.query(
            "SELECT api_key_id, principal, role, workspaces, hash, mac, created_at, expires_at, last_used_at, revoked_at,
                    replaced_by
               FROM api_keys WHERE ($1 = '' OR principal = $1) AND api_key_id > $2 ORDER BY api_key_id LIMIT $3",
        )
        .bind(principal.to_owned())
        .bind(after.to_owned())
        .bind(limit)
        .fetch_all::<KeyRow>()
        .await?
        .into_iter()
        .map(ApiKeyRecord::try_from)
        .collect()
    }
}

impl Tx {
    /// A key, locked until the transaction ends.
    pub async fn lock_api_key(&mut self, id: &ApiKeyId) -> Result<Option<ApiKeyRecord>, StoreError> {
        self.query_for(
            "SELECT api_key_id FROM api_keys WHERE api_key_id = $1",
            "SELECT api_key_id FROM api_keys WHERE api_key_id = $1 FOR UPDATE",
        )
        .bind(id.as_str().to_owned())
        .execute()
        .await?;
        self.api_key(id).await
    }

    pub async fn insert_api_key(&mut self, record: &ApiKeyRecord) -> Result<(), StoreError> {
        let key = &record.api_key;
        let workspaces = match &key.workspaces {
            WorkspaceSet::All => None,
            WorkspaceSet::Named(names) => {
                Some(Json(names.iter().map(|w| w.as_str().to_owned()).collect::<Vec<_>>()))
            }
        };
        self.query(
            "INSERT INTO api_keys (api_key_id, principal, role, workspaces, hash, mac, created_at, expires_at, revoked_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(key.id.as_str().to_owned())
        .bind(key.principal.clone())
        .bind(key.role.as_str())
        .bind(workspaces)
        .bind(record.hash.clone())
        .bind(record.mac.clone())
        .bind(key.created_at.as_micros())
        .bind(key.expires_at.map(Timestamp::as_micros))
        .bind(key.revoked_at.map(Timestamp::as_micros))
        .execute()
        .await?;
        self.changed(Change::ApiKey(key.id.clone()));
        Ok(())
    }

    pub async fn mark_api_key_revoked(
        &mut self,
        id: &ApiKeyId,
        at: Timestamp,
        mac: Vec<u8>,
    ) -> Result<(), StoreError> {
        self.query(
            "UPDATE api_keys SET revoked_at = $2, mac = $3 WHERE api_key_id = $1 AND revoked_at IS NULL",
        )
        .bind(id.as_str().to_owned())
        .bind(at.as_micros())
        .bind(mac)
        .execute()
        .await?;
        self.changed(Change::ApiKey(id.clone()));
        Ok(())
    }

    /// Marks a key as replaced by another. `expires_at` is its end from now on; `mac` covers the new row.
    pub async fn mark_api_key_replaced(
        &mut self,
        id: &ApiKeyId,
        by: &ApiKeyId,
        expires_at: Timestamp,
        mac: Vec<u8>,
    ) -> Result<(), StoreError> {
        self.query("UPDATE api_keys SET replaced_by = $2, expires_at = $3, mac = $4 WHERE api_key_id = $1")
            .bind(id.as_str().to_owned())
            .bind(by.as_str().to_owned())
            .bind(expires_at.as_micros())
            .bind(mac)
            .execute()
            .await?;
        self.changed(Change::ApiKey(id.clone()));
        Ok(())
    }

    /// Notes that a key was used. Caches may keep the row.
    pub async fn note_api_key_use(&mut self, id: &ApiKeyId, at: Timestamp) -> Result<(), StoreError> {
        self.query("UPDATE api_keys SET last_used_at = $2 WHERE api_key_id = $1")
            .bind(id.as_str().to_owned())
            .bind(at.as_micros())
            .execute()
            .await?;
        Ok(())
    }
}
