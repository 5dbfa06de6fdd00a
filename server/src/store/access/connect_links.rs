//! Table `connect_links`.

use uuid::Uuid;

use crate::model::{ConnectLink, ConnectLinkId, ConnectionId, ProviderId, Timestamp, WorkspaceId};
use crate::store::sql::{Session, StoreError, Tx};

/// A link's row. Its reader must check `mac`, because the database alone is not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectLinkRecord {
    pub link: ConnectLink,
    /// SHA-256 of the secret part of the link's token.
    pub hash: Vec<u8>,
    /// A MAC over the row by the authorization key.
    pub mac: Vec<u8>,
}

#[derive(sqlx::FromRow)]
struct LinkRow {
    link_id: String,
    workspace_id: String,
    provider: String,
    connection_id: Option<Uuid>,
    return_url: String,
    max_uses: i64,
    uses: i64,
    created_by: String,
    created_at: i64,
    expires_at: i64,
    opened_at: Option<i64>,
    last_used_at: Option<i64>,
    last_connection_id: Option<Uuid>,
    revoked_at: Option<i64>,
    hash: Vec<u8>,
    mac: Vec<u8>,
}

impl TryFrom<LinkRow> for ConnectLinkRecord {
    type Error = StoreError;

    fn try_from(row: LinkRow) -> Result<Self, StoreError> {
        let bad =
            |column| StoreError::Inconsistent { table: "connect_links", column, row: row.link_id.clone() };
        let count = |number: i64, column| u32::try_from(number).map_err(|_| bad(column));
        Ok(Self {
            link: ConnectLink {
                id: ConnectLinkId::parse(row.link_id.clone()).map_err(|_| bad("link_id"))?,
                workspace: WorkspaceId::parse(row.workspace_id.clone()).map_err(|_| bad("workspace_id"))?,
                provider: ProviderId::parse(row.provider.clone()).map_err(|_| bad("provider"))?,
                connection: row.connection_id.map(ConnectionId::from_uuid),
                return_url: row.return_url.clone(),
                max_uses: count(row.max_uses, "max_uses")?,
                uses: count(row.uses, "uses")?,
                created_by: row.created_by.clone(),
                created_at: Timestamp::from_micros(row.created_at),
                expires_at: Timestamp::from_micros(row.expires_at),
                opened_at: row.opened_at.map(Timestamp::from_micros),
                last_used_at: row.last_used_at.map(Timestamp::from_micros),
                last_connection: row.last_connection_id.map(ConnectionId::from_uuid),
                revoked_at: row.revoked_at.map(Timestamp::from_micros),
            },
            hash: row.hash,
            mac: row.mac,
        })
    }
}

/// The columns of a link; `LinkRow` reads them.
macro_rules! links_where {
    ($rest:literal) => {
        concat!(
            "SELECT link_id, workspace_id, provider, connection_id, return_url, max_uses, uses, created_by, created_at,
                    expires_at, opened_at, last_used_at, last_connection_id, revoked_at, hash, mac
               FROM connect_links WHERE ",
            $rest
        )
    };
}

impl Session {
    pub async fn connect_link(
        &mut self,
        id: &ConnectLinkId,
    ) -> Result<Option<ConnectLinkRecord>, StoreError> {
        let row: Option<LinkRow> =
            self.query(links_where!("link_id = $1")).bind(id.as_str().to_owned()).fetch_optional().await?;
        row.map(ConnectLinkRecord::try_from).transpose()
    }

    /// Links that come before `(created_at, id)` in time, the newest first; of one workspace or (if `workspace` is
    /// empty) of all.
    pub async fn connect_links_before(
        &mut self,
        workspace: &str,
        created_at: Timestamp,
        id: &str,
        limit: i64,
    ) -> Result<Vec<ConnectLinkRecord>, StoreError> {
        let query = if workspace.is_empty() {
            self.query(links_where!(
                "$1 = '' AND (created_at, link_id) < ($2, $3) ORDER BY created_at DESC, link_id DESC LIMIT $4"
            ))
        } else {
            self.query(links_where!(
                "workspace_id = $1 AND (created_at, link_id) < ($2, $3) ORDER BY created_at DESC, link_id DESC LIMIT $4"
            ))
        };
        let rows: Vec<LinkRow> = query
            .bind(workspace.to_owned())
            .bind(created_at.as_micros())
            .bind(id.to_owned())
            .bind(limit)
            .fetch_all()
            .await?;
        rows.into_iter().map(ConnectLinkRecord::try_from).collect()
    }
}

impl Tx {
    pub async fn insert_connect_link(&mut self, record: &ConnectLinkRecord) -> Result<(), StoreError> {
        let link = &record.link;
        self.query(
            "INSERT INTO connect_links (link_id, workspace_id, provider, connection_id, return_url, max_uses, uses, created_by,
                                        created_at, expires_at, hash, mac)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        )
        .bind(link.id.as_str().to_owned())
        .bind(link.workspace.as_str().to_owned())
        .bind(link.provider.as_str().to_owned())
        .bind(link.connection.map(ConnectionId::as_uuid))
        .bind(link.return_url.clone())
        .bind(i64::from(link.max_uses))
        .bind(i64::from(link.uses))
        .bind(link.created_by.clone())
        .bind(link.created_at.as_micros())
        .bind(link.expires_at.as_micros())
        .bind(record.hash.clone())
        .bind(record.mac.clone())
        .execute()
        .await?;
        Ok(())
    }

    /// Locks a link's row until the transaction ends.
    pub async fn lock_connect_link(
        &mut self,
        id: &ConnectLinkId,
    ) -> Result<Option<ConnectLinkRecord>, StoreError> {
        let row: Option<LinkRow> = self
            .query_for(links_where!("link_id = $1"), links_where!("link_id = $1 FOR UPDATE"))
            .bind(id.as_str().to_owned())
            .fetch_optional()
            .await?;
        row.map(ConnectLinkRecord::try_from).transpose()
    }

    /// Writes what changes in a link's life.
    pub async fn update_connect_link(&mut self, record: &ConnectLinkRecord) -> Result<(), StoreError> {
        let link = &record.link;
        self.query(
            "UPDATE connect_links SET uses = $2, last_used_at = $3, last_connection_id = $4, revoked_at = $5, mac = $6
              WHERE link_id = $1",
        )
        .bind(link.id.as_str().to_owned())
        .bind(i64::from(link.uses))
        .bind(link.last_used_at.map(Timestamp::as_micros))
        .bind(link.last_connection.map(ConnectionId::as_uuid))
        .bind(link.revoked_at.map(Timestamp::as_micros))
        .bind(record.mac.clone())
        .execute()
        .await?;
        Ok(())
    }

    /// Notes when a link was first opened.
    pub async fn note_connect_link_opened(
        &mut self,
        id: &ConnectLinkId,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.query("UPDATE connect_links SET opened_at = $2 WHERE link_id = $1 AND opened_at IS NULL")
            .bind(id.as_str().to_owned())
            .bind(now.as_micros())
            .execute()
            .await?;
        Ok(())
    }

    /// Forgets the links whose time was over before an instant.
    pub async fn forget_connect_links(&mut self, before: Timestamp) -> Result<u64, StoreError> {
        self.query("DELETE FROM connect_links WHERE expires_at < $1").bind(before.as_micros()).execute().await
    }

    pub(super) async fn forget_connect_links_of(
        &mut self,
        workspace: &WorkspaceId,
    ) -> Result<(), StoreError> {
        self.query("DELETE FROM connect_links WHERE workspace_id = $1")
            .bind(workspace.as_str().to_owned())
            .execute()
            .await?;
        Ok(())
    }
}
