//! GetToken, and what callers see of a connection: its facts, and what follows from them now.

#[cfg(test)]
mod tests;

use crate::model::{Connection, Health, Policy, Principal, Timestamp};
use crate::vault::error::VaultError;
use crate::vault::state::Vault;
use crate::vault::token::target::Target;

/// A connection as seen at one time. It holds no secret.
#[derive(Debug, Clone)]
pub struct TokenView {
    pub connection: Connection,
    /// Other connections that end with it at the provider.
    pub shared_connections: u32,
    /// How it is at that time.
    pub health: Health,
    pub missing_required_scopes: Vec<String>,
    pub missing_optional_scopes: Vec<String>,
    /// Whether the token was only validated, so that no connection exists.
    pub is_new: bool,
    pub as_of: Timestamp,
}

impl TokenView {
    /// Computes what follows from the facts at `now`.
    pub fn new(connection: Connection, shared_connections: u32, now: Timestamp, policy: &Policy) -> Self {
        Self {
            health: connection.health(now, policy),
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

    /// [`Self::view`] after a commit, when there are no errors: a count that fails is shown as zero.
    pub(in crate::vault) async fn view_stored(&self, connection: Connection) -> TokenView {
        let shared = match self.store.read().await {
            Ok(mut session) => session.shared_with(&connection).await.unwrap_or(0),
            Err(_) => 0,
        };
        TokenView::new(connection, shared, self.clock.now(), &self.policy())
    }

    /// GetToken: the metadata of one token, and the feed's cursor.
    ///
    /// # Errors
    /// `ConnectionNotFound`.
    pub async fn get_token(
        &self,
        caller: &Principal,
        target: Target,
    ) -> Result<(TokenView, String), VaultError> {
        let cursor = self.cursor();
        let held = self.held(caller, &target).await?;
        Ok((self.view(held.connection.clone()).await?, cursor))
    }
}
