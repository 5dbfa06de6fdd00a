//! From a pasted token to a saved one. A short-lived token is exchanged once: who pastes it again while it lives gets the
//! token that its exchange gave, if that is still held and works.

use std::sync::Arc;

use super::accept::{Accepted, inspect, make_lasting};
use super::save::{Destination, IntakeOutcome, is_other_subject};
use crate::model::{Connection, Expiry, ExpirySource, Secret, TokenKind};
use crate::provider::{Inspected, Provider};
use crate::vault::error::VaultError;
use crate::vault::state::Vault;

/// A token that was accepted and saved.
pub(in crate::vault) struct TakenIn {
    pub(in crate::vault) accepted: Arc<Accepted>,
    pub(in crate::vault) connection: Connection,
    pub(in crate::vault) outcome: IntakeOutcome,
}

impl Vault {
    pub(in crate::vault) async fn take_in(
        &self,
        provider: &dyn Provider,
        pasted: Secret,
        destination: &Destination,
    ) -> Result<TakenIn, VaultError> {
        if let Some(accepted) = self.exchanged_earlier(provider, &pasted, destination).await? {
            return self.check_and_save(provider, accepted, destination).await;
        }
        let inspected = inspect(provider, &pasted, self.clock.now()).await?;
        if inspected.facts.kind != Some(TokenKind::ShortLivedUser) {
            return self.check_and_save(provider, Accepted::new(pasted, inspected), destination).await;
        }
        self.work.begin(&destination.workspace, Some(&inspected.subject.id)).await?;
        let claimed = self.claim_paste(&destination.workspace, &pasted).await?;
        let taken = self.exchange_and_save(provider, pasted, &inspected, destination).await;
        if let Some(claimed) = claimed {
            self.release(claimed).await;
        }
        taken
    }

    async fn exchange_and_save(
        &self,
        provider: &dyn Provider,
        pasted: Secret,
        inspected: &Inspected,
        destination: &Destination,
    ) -> Result<TakenIn, VaultError> {
        // Another task may have exchanged it while this one waited for the claim, and have brought the workspace into being.
        self.store.forget_workspace(&destination.workspace);
        let accepted = match self.exchanged_earlier(provider, &pasted, destination).await? {
            Some(accepted) => accepted,
            None => make_lasting(provider, pasted, inspected, self.clock.now()).await?,
        };
        self.check_and_save(provider, accepted, destination).await
    }

    /// The token that an exchange of this short-lived one gave the connection, if the connection still holds it and the
    /// provider still accepts it.
    async fn exchanged_earlier(
        &self,
        provider: &dyn Provider,
        pasted: &Secret,
        destination: &Destination,
    ) -> Result<Option<Accepted>, VaultError> {
        let Some(keys) = self.workspace_keys(&destination.workspace).await? else { return Ok(None) };
        let fingerprint = keys.index.fingerprint(provider.id(), pasted);
        let mut session = self.store.read().await?;
        let earlier = session.exchanged_token(&destination.workspace, fingerprint, self.clock.now()).await?;
        let Some(earlier) = earlier else { return Ok(None) };
        let Some(held) = session.held_token(earlier.connection).await? else { return Ok(None) };
        drop(session);
        let connection = &held.connection;
        // The row is only a hint: whoever can edit it must not reach another workspace.
        let is_wanted = connection.workspace == destination.workspace
            && connection.provider == destination.provider
            && destination.connection.is_none_or(|id| id == connection.id);
        let is_held = connection.secret_id == earlier.secret_id && self.check_usable(connection).is_ok();
        if !is_wanted || !is_held {
            return Ok(None);
        }
        let secret = self.open_secret(&held).await?;
        let inspected = provider.inspect(&secret).await.ok();
        let inspected = inspected.filter(|inspected| !is_other_subject(connection, inspected));
        let pasted_expiry = Expiry::At(earlier.ends_at, ExpirySource::Provider);
        Ok(inspected.map(|inspected| Accepted { pasted_expiry, ..Accepted::new(secret, inspected) }))
    }

    async fn check_and_save(
        &self,
        provider: &dyn Provider,
        accepted: Accepted,
        destination: &Destination,
    ) -> Result<TakenIn, VaultError> {
        let accepted = Arc::new(self.check_scopes(provider, accepted, destination.options).await?);
        let (connection, outcome) = self.save(destination, Arc::clone(&accepted)).await?;
        Ok(TakenIn { accepted, connection, outcome })
    }
}
