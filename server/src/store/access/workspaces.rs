//! Table `workspaces`, and shredding a workspace: its keys are deleted, and `shred_ledger` keeps its id.

use sqlx::types::Json;
use uuid::Uuid;

use crate::model::{ConnectionId, Timestamp, WorkspaceId};
use crate::store::sql::{Change, Session, StoreError, Tx};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceFacts {
    pub id: WorkspaceId,
    /// The name for people.
    pub display_name: String,
    pub alert_emails: Vec<String>,
    pub alerts_muted: bool,
    /// How many connections are not revoked.
    pub tokens: i64,
    /// The version of the newest data key; 0 once shredded.
    pub data_key_version: i32,
    pub created_at: Timestamp,
    pub shredded_at: Option<Timestamp>,
}

/// An entry of the shred ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shredding {
    pub workspace: WorkspaceId,
    pub at: Timestamp,
    /// The principal that shredded the workspace.
    pub by: String,
}

#[derive(sqlx::FromRow)]
struct WorkspaceRow {
    workspace_id: String,
    display_name: String,
    alert_emails: Json<Vec<String>>,
    alerts_muted_at: Option<i64>,
    tokens: i64,
    data_key_version: i64,
    created_at: i64,
    shredded_at: Option<i64>,
}

impl WorkspaceRow {
    fn into_facts(self) -> Result<WorkspaceFacts, StoreError> {
        let id = WorkspaceId::parse(self.workspace_id.as_str()).map_err(|_| StoreError::Inconsistent {
            table: "workspaces",
            column: "workspace_id",
            row: self.workspace_id,
        })?;
        Ok(WorkspaceFacts {
            id,
            display_name: self.display_name,
            alert_emails: self.alert_emails.0,
            alerts_muted: self.alerts_muted_at.is_some(),
            tokens: self.tokens,
            data_key_version: i32::try_from(self.data_key_version).unwrap_or(i32::MAX),
            created_at: Timestamp::from_micros(self.created_at),
            shredded_at: self.shredded_at.map(Timestamp::from_micros),
        })
    }
}

/// The columns of a workspace; `WorkspaceRow` reads them.
macro_rules! workspaces_where {
    ($rest:literal) => {
        concat!(
            "SELECT w.workspace_id, w.display_name, w.alert_emails, w.alerts_muted_at,
                    (SELECT count(*) FROM ad_platform_connections c
                      WHERE c.workspace_id = w.workspace_id AND c.standing IN ('LIVE', 'INVALID')) AS tokens,
                    coalesce((SELECT max(k.version) FROM workspace_keys k
                               WHERE k.workspace_id = w.workspace_id AND k.purpose = 'data'), 0) AS data_key_version,
                    w.created_at, w.shredded_at
               FROM workspaces w WHERE ",
            $rest
        )
    };
}

#[derive(sqlx::FromRow)]
struct LedgerRow {
    workspace_id: String,
    shredded_at: i64,
    shredded_by: String,
}

impl Session {
    /// Connections of a workspace after one, in order, including revoked ones.
    pub async fn connections_of_workspace(
        &mut self,
        workspace: &WorkspaceId,
        after: Option<ConnectionId>,
        limit: i64,
    ) -> Result<Vec<ConnectionId>, StoreError> {
        let rows: Vec<(Uuid,)> = self
            .query(
                "SELECT connection_id FROM ad_platform_connections
                  WHERE workspace_id = $1 AND connection_id > $2 ORDER BY connection_id LIMIT $3",
            )
            .bind(workspace.as_str().to_owned())
            .bind(after.map_or_else(Uuid::nil, ConnectionId::as_uuid))
            .bind(limit)
            .fetch_all()
            .await?;
        Ok(rows.into_iter().map(|(id,)| ConnectionId::from_uuid(id)).collect())
    }

    pub async fn workspace(&mut self, id: &WorkspaceId) -> Result<Option<WorkspaceFacts>, StoreError> {
        let row: Option<WorkspaceRow> = self
            .query(workspaces_where!("w.workspace_id = $1"))
            .bind(id.as_str().to_owned())
            .fetch_optional()
            .await?;
        row.map(WorkspaceRow::into_facts).transpose()
    }

    pub async fn workspaces_after(
        &mut self,
        after: &str,
        limit: i64,
    ) -> Result<Vec<WorkspaceFacts>, StoreError> {
        let rows: Vec<WorkspaceRow> = self
            .query(workspaces_where!("w.workspace_id > $1 ORDER BY w.workspace_id LIMIT $2"))
            .bind(after.to_owned())
            .bind(limit)
            .fetch_all()
            .await?;
        rows.into_iter().map(WorkspaceRow::into_facts).collect()
    }

    /// Every workspace that was shredded, oldest first.
    pub async fn shred_ledger(&mut self) -> Result<Vec<Shredding>, StoreError> {
        let rows: Vec<LedgerRow> = self
            .query(
                "SELECT workspace_id, shredded_at, shredded_by FROM shred_ledger ORDER BY shredded_at, workspace_id",
            )
            .fetch_all()
            .await?;
        let entry = |row: LedgerRow| {
            let at = Timestamp::from_micros(row.shredded_at);
            WorkspaceId::parse(row.workspace_id).ok().map(|workspace| Shredding {
                workspace,
                at,
                by: row.shredded_by,
            })
        };
        Ok(rows.into_iter().filter_map(entry).collect())
    }

    /// Shredded workspaces with connections that are not revoked yet, or that still hold names.
    pub async fn workspaces_to_bury(&mut self) -> Result<Vec<WorkspaceId>, StoreError> {
        let rows: Vec<(String,)> = self
            .query(
                "SELECT l.workspace_id AS name FROM shred_ledger l
                  WHERE EXISTS (SELECT 1 FROM ad_platform_connections c
                                 WHERE c.workspace_id = l.workspace_id AND (c.standing <> 'REVOKED' OR c.subject_name <> ''))
                  ORDER BY l.workspace_id",
            )
            .fetch_all()
            .await?;
        Ok(rows.into_iter().filter_map(|(name,)| WorkspaceId::parse(name).ok()).collect())
    }
}

impl Tx {
    /// Locks a workspace until the transaction ends; `Some(true)` if it was shredded.
    pub async fn lock_workspace(&mut self, workspace: &WorkspaceId) -> Result<Option<bool>, StoreError> {
        let row: Option<(Option<i64>,)> = self
            .query_for(
                "SELECT shredded_at FROM workspaces WHERE workspace_id = $1",
                "SELECT shredded_at FROM workspaces WHERE workspace_id = $1 FOR NO KEY UPDATE",
            )
            .bind(workspace.as_str().to_owned())
            .fetch_optional()
            .await?;
        Ok(row.map(|(shredded_at,)| shredded_at.is_some()))
    }

    /// Destroys a workspace's keys. Its row stays, so that its id is never used again.
    pub async fn shred_workspace(&mut self, entry: &Shredding) -> Result<(), StoreError> {
        let id = entry.workspace.as_str();
        self.query(
            "UPDATE workspaces SET shredded_at = $2, display_name = '', alert_emails = '[]' WHERE workspace_id = $1",
        )
        .bind(id.to_owned())
        .bind(entry.at.as_micros())
        .execute()
        .await?;
        self.query("DELETE FROM workspace_keys WHERE workspace_id = $1")
            .bind(id.to_owned())
            .execute()
            .await?;
        self.query(
            "INSERT INTO shred_ledger (workspace_id, shredded_at, shredded_by) VALUES ($1, $2, $3)
             ON CONFLICT (workspace_id) DO NOTHING",
        )
        .bind(id.to_owned())
        .bind(entry.at.as_micros())
        .bind(entry.by.clone())
        .execute()
        .await?;
        self.forget_authorizations_of(&entry.workspace).await?;
        self.forget_connect_links_of(&entry.workspace).await?;
        // The connections end one after the other, but nobody is named from here on.
        self.query_for(
            "UPDATE ad_platform_connections
                SET revision = revision + 1, subject_id = '', subject_name = '',
                    subject_key = lower(substr(hex(connection_id), 1, 8) || '-' || substr(hex(connection_id), 9, 4)
                        || '-' || substr(hex(connection_id), 13, 4) || '-' || substr(hex(connection_id), 17, 4)
                        || '-' || substr(hex(connection_id), 21))
              WHERE workspace_id = $1",
            "UPDATE ad_platform_connections
                SET revision = revision + 1, subject_id = '', subject_name = '', subject_key = connection_id::text
              WHERE workspace_id = $1",
        )
        .bind(id.to_owned())
        .execute()
        .await?;
        self.query(
            "DELETE FROM connection_ad_accounts WHERE connection_id IN
                (SELECT connection_id FROM ad_platform_connections WHERE workspace_id = $1)",
        )
        .bind(id.to_owned())
        .execute()
        .await?;
        self.destroyed();
        self.changed(Change::Erasure);
        self.changed(Change::Workspace(entry.workspace.clone()));
        Ok(())
    }
}
