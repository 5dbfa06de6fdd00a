//! What callers see of a connection: its facts and everything that follows from them now.

use crate::model::{Badge, Connection, Policy, Problem, Renewal, Status, Timestamp};
use crate::vault::error::VaultError;
use crate::vault::state::Vault;

/// A connection as seen at an instant. No secret.
#[derive(Debug, Clone)]
pub struct TokenView {
    /// The facts.
    pub connection: Connection,
    /// Connections of the same subject and app in other workspaces.
    pub shared_connections: u32,
    /// What it is worth.
    pub status: Status,
    /// Whether FetchAccessToken would answer.
    pub usable: bool,
    /// What a person sees.
    pub badge: Badge,
    /// What is wrong, worst first.
    pub problems: Vec<Problem>,
    /// Whether rotation can be hoped for.
    pub renewal: Renewal,
    /// Required scopes that it lacks.
    pub missing_required_scopes: Vec<String>,
    /// Optional scopes that it lacks.
    pub missing_optional_scopes: Vec<String>,
    /// It is not kept: there is no connection of that id.
    pub is_new: bool,
    /// The instant of this view.
    pub as_of: Timestamp,
}

impl TokenView {
    /// Computes what follows from the facts at `now`.
    pub fn new(connection: Connection, shared_connections: u32, now: Timestamp, policy: &Policy) -> Self {
        let status = connection.status(now, policy);
        Self {
            status,
            usable: status.is_usable(),
            badge: connection.badge(now, policy),
            problems: connection.problems(now, policy),
            renewal: connection.renewal(),
            missing_required_scopes: policy.missing_required(&connection.facts.scopes),
            missing_optional_scopes: policy.missing_optional(&connection.facts.scopes),
            connection,
            shared_connections,
            is_new: false,
            as_of: now,
        }
    }
}

impl Vault {
    /// A connection as callers see it now.
    pub(in crate::vault) async fn view(&self, connection: Connection) -> Result<TokenView, VaultError> {
        let shared = self.store.read().await?.shared_with(&connection).await?;
        Ok(TokenView::new(connection, shared, self.clock.now(), &self.policy()))
    }

    /// The same after a commit, when there is no error any more: what can't be counted is told as none.
    pub(in crate::vault) async fn view_stored(&self, connection: Connection) -> TokenView {
        let shared = match self.store.read().await {
            Ok(mut session) => session.shared_with(&connection).await.unwrap_or(0),
            Err(_) => 0,
        };
        TokenView::new(connection, shared, self.clock.now(), &self.policy())
    }
}
