//! Table `authorizations`: people who are at a provider's consent dialog, and what became of it.

use sqlx::types::Json;
use uuid::Uuid;

use crate::model::{
    AuthorizationId, ConnectLinkId, ConnectionId, Incarnation, ProviderId, Timestamp, WorkspaceId,
};
use crate::store::sql::{Session, StoreError, Tx};

/// How an ended authorization is remembered, in the verb's own form. Never holds a secret, nor whose token it was.
pub type AuthorizationOutcome = serde_json::Value;

/// What an authorization is bound to. None of it changes after it began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationScope {
    pub id: AuthorizationId,
    pub workspace: WorkspaceId,
    pub provider: ProviderId,
    /// The connection to reconnect; `None`: whichever has the subject that comes back.
    pub connection: Option<ConnectionId>,
    pub redirect_uri: String,
    /// Keyed hash of what ties it to the person's browser session.
    pub session_binding: Vec<u8>,
    /// What to accept from the new token, as bits.
    pub options: i64,
    pub expires_at: Timestamp,
    /// The connect link that its caller acts for.
    pub link: Option<ConnectLinkId>,
}

/// What became of an authorization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthorizationState {
    Open,
    /// A process is completing it, or died while it did.
    Taken(Incarnation),
    Stored(AuthorizationOutcome),
    /// No token was stored.
    Failed(Option<AuthorizationOutcome>),
}

#[derive(sqlx::FromRow)]
struct Row {
    workspace_id: String,
    provider: String,
    connection_id: Option<Uuid>,
    redirect_uri: String,
    session_binding: Vec<u8>,
    options: i64,
    expires_at: i64,
    link_id: Option<String>,
    ended: String,
    taken_by: Option<Uuid>,
    outcome: Option<Json<AuthorizationOutcome>>,
}

impl Row {
    fn parse(self, id: AuthorizationId) -> Result<(AuthorizationScope, AuthorizationState), StoreError> {
        let bad = |column| StoreError::Inconsistent { table: "authorizations", column, row: id.to_string() };
        let state = match (self.ended.as_str(), self.taken_by, self.outcome) {
            ("", ..) => AuthorizationState::Open,
            ("TAKEN", Some(by), _) => AuthorizationState::Taken(Incarnation::from_uuid(by)),
            ("STORED", _, Some(outcome)) => AuthorizationState::Stored(outcome.0),
            // A newer release may know further ends, all of them without a token.
            (_, _, outcome) => AuthorizationState::Failed(outcome.map(|outcome| outcome.0)),
        };
        let scope = AuthorizationScope {
            id,
            workspace: WorkspaceId::parse(self.workspace_id).map_err(|_| bad("workspace_id"))?,
            provider: ProviderId::parse(self.provider).map_err(|_| bad("provider"))?,
            connection: self.connection_id.map(ConnectionId::from_uuid),
            redirect_uri: self.redirect_uri,
            session_binding: self.session_binding,
            options: self.options,
            expires_at: Timestamp::from_micros(self.expires_at),
            link: self.link_id.map(ConnectLinkId::parse).transpose().map_err(|_| bad("link_id"))?,
        };
        Ok((scope, state))
    }
}

impl Session {
    pub async fn authorization(
        &mut self,
        id: AuthorizationId,
    ) -> Result<Option<(AuthorizationScope, AuthorizationState)>, StoreError> {
        let row: Option<Row> = self
            .query(
                "SELECT workspace_id, provider, connection_id, redirect_uri, session_binding, options, expires_at, link_id,
                        ended, taken_by, outcome
                   FROM authorizations WHERE authorization_id = $1",
            )
            .bind(id.as_uuid())
            .fetch_optional()
            .await?;
        row.map(|row| row.parse(id)).transpose()
    }
}

impl Tx {
    pub async fn insert_authorization(&mut self, scope: &AuthorizationScope) -> Result<(), StoreError> {
        self.query(
            "INSERT INTO authorizations (authorization_id, workspace_id, provider, connection_id, redirect_uri,
                                         session_binding, options, expires_at, link_id)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(scope.id.as_uuid())
        .bind(scope.workspace.as_str().to_owned())
        .bind(scope.provider.as_str().to_owned())
        .bind(scope.connection.map(ConnectionId::as_uuid))
        .bind(scope.redirect_uri.clone())
        .bind(scope.session_binding.clone())
        .bind(scope.options)
        .bind(scope.expires_at.as_micros())
        .bind(scope.link.as_ref().map(|link| link.as_str().to_owned()))
        .execute()
        .await?;
        Ok(())
    }

    /// Takes an open authorization. `false`: it is not open any more.
    pub async fn take_authorization(
        &mut self,
        id: AuthorizationId,
        by: Incarnation,
    ) -> Result<bool, StoreError> {
        let taken = self
            .query(
                "UPDATE authorizations SET ended = 'TAKEN', taken_by = $2
                  WHERE authorization_id = $1 AND ended = ''",
            )
            .bind(id.as_uuid())
            .bind(by.as_uuid())
            .execute()
            .await?;
        Ok(taken == 1)
    }

    /// Opens an authorization again whose code was not sent, or not looked at.
    pub async fn reopen_authorization(
        &mut self,
        id: AuthorizationId,
        by: Incarnation,
    ) -> Result<(), StoreError> {
        self.query(
            "UPDATE authorizations SET ended = '', taken_by = NULL
              WHERE authorization_id = $1 AND ended = 'TAKEN' AND taken_by = $2",
        )
        .bind(id.as_uuid())
        .bind(by.as_uuid())
        .execute()
        .await?;
        Ok(())
    }

    /// Notes what an authorization that this process took gave. `false`: this process has not taken it.
    pub async fn store_authorization(
        &mut self,
        id: AuthorizationId,
        by: Incarnation,
        outcome: &AuthorizationOutcome,
    ) -> Result<bool, StoreError> {
        self.end_authorization(id, by, "STORED", outcome).await
    }

    /// Ends an authorization that this process took, and that gave no token. `false`: this process has not taken it.
    pub async fn fail_authorization(
        &mut self,
        id: AuthorizationId,
        by: Incarnation,
        outcome: &AuthorizationOutcome,
    ) -> Result<bool, StoreError> {
        self.end_authorization(id, by, "FAILED", outcome).await
    }

    async fn end_authorization(
        &mut self,
        id: AuthorizationId,
        by: Incarnation,
        ended: &'static str,
        outcome: &AuthorizationOutcome,
    ) -> Result<bool, StoreError> {
        let ended = self
            .query(
                "UPDATE authorizations SET ended = $3, outcome = $4
                  WHERE authorization_id = $1 AND ended = 'TAKEN' AND taken_by = $2",
            )
            .bind(id.as_uuid())
            .bind(by.as_uuid())
            .bind(ended)
            .bind(Json(outcome.clone()))
            .execute()
            .await?;
        Ok(ended == 1)
    }

    /// Forgets the authorizations that expired before an instant.
    pub async fn forget_authorizations(&mut self, before: Timestamp) -> Result<u64, StoreError> {
        self.query("DELETE FROM authorizations WHERE expires_at < $1")
            .bind(before.as_micros())
            .execute()
            .await
    }

    pub(super) async fn forget_authorizations_of(
        &mut self,
        workspace: &WorkspaceId,
    ) -> Result<(), StoreError> {
        self.query("DELETE FROM authorizations WHERE workspace_id = $1")
            .bind(workspace.as_str().to_owned())
            .execute()
            .await?;
        Ok(())
    }
}
