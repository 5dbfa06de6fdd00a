//! RevokeToken: ends a connection, at the provider first if the caller asks for that.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{
    AccountChange, Cause, Connection, ConnectionId, Principal, RefusalKind, RequestId, Standing, TokenVersion,
};
use crate::provider::Revocation;
use crate::store::{Abort, HeldToken, Needs};
use crate::vault::error::VaultError;
use crate::vault::once::idempotency::RequestClaim;
use crate::vault::state::Vault;
use crate::vault::state::work::Turn;
use crate::vault::token::change;
use crate::vault::token::target::Target;
use crate::vault::token::view::TokenView;

#[derive(Debug)]
pub struct RevokeToken {
    pub request_id: Option<RequestId>,
    /// Revoke only if the connection holds this version.
    pub if_version: Option<TokenVersion>,
    pub target: Target,
    /// Revoke at the provider too.
    pub revoke_at_provider: bool,
    /// Revoke at the provider although other connections lose their tokens.
    pub allow_shared: bool,
    /// Delete the person's id and name too.
    pub erase_subject: bool,
}

/// What happened at the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProviderOutcome {
    /// The caller did not want the provider to be asked.
    #[serde(rename = "NotAsked")]
    NotAsked,
    /// The provider revoked it now.
    #[serde(rename = "Revoked")]
    Revoked,
    /// The provider had revoked it before.
    #[serde(rename = "AlreadyGone")]
    AlreadyGone,
    /// The provider cannot revoke this kind of token.
    #[serde(rename = "NotSupported")]
    NotSupported,
}

#[derive(Debug)]
pub struct Revoked {
    /// What remains of the token: its metadata.
    pub token: TokenView,
    pub provider_outcome: ProviderOutcome,
    pub cursor: String,
}

/// The stored outcome of a revocation. Its names never change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RevokedBefore {
    provider: ProviderOutcome,
}

impl Vault {
    /// Ends a connection: at the provider first if the caller asks for it, then here. Its metadata stays. Ending it
    /// twice is no error.
    ///
    /// # Errors
    /// `TokenShared` if other connections would lose their tokens; `ProviderUnavailable` if the provider can't be asked.
    /// Nothing has changed then.
    pub async fn revoke_token(
        self: &Arc<Self>,
        caller: &Principal,
        command: RevokeToken,
    ) -> Result<Revoked, VaultError> {
        let id = self.held(caller, &command.target).await?.connection.id;
        let (vault, caller) = (Arc::clone(self), caller.clone());
        let line = self.work.line(Turn::Revocation, id);
        self.work.in_turn(line, async move {
            let held = vault.held_now(&caller, &command.target).await?;
            let flags = [
                u8::from(command.revoke_at_provider),
                u8::from(command.allow_shared),
                u8::from(command.erase_subject),
            ];
            let version = command.if_version.map_or(0, TokenVersion::get).to_be_bytes();
            let text = id.to_string();
            let parts: [&[u8]; 3] = [text.as_bytes(), &flags, &version];
            let request = vault.request("RevokeToken", command.request_id.as_ref(), &parts);
            let work = async |claim| {
                let provider_outcome = vault.end(&caller, &command, &held, claim).await?;
                tracing::info!(connection = %id, by = caller.name, ?provider_outcome, "connection revoked");
                Ok(provider_outcome)
            };
            let repeat = async |before: RevokedBefore| Ok(before.provider);
            let provider_outcome = vault.once(&caller, request, work, repeat).await?;
            vault.revoked(&caller, id, provider_outcome).await
        })
        .await
    }

    async fn revoked(
        &self,
        caller: &Principal,
        id: ConnectionId,
        provider_outcome: ProviderOutcome,
    ) -> Result<Revoked, VaultError> {
        let cursor = self.cursor();
        let connection = self.seen_again(caller, id).await?;
        Ok(Revoked { token: self.view(connection).await?, provider_outcome, cursor })
    }

    async fn end(
        &self,
        caller: &Principal,
        command: &RevokeToken,
        held: &HeldToken,
        claim: RequestClaim,
    ) -> Result<ProviderOutcome, VaultError> {
        if let Some(expected) = command.if_version
            && expected != held.connection.version
        {
            return Err(VaultError::TokenVersionMismatch {
                connection: held.connection.id,
                expected,
                actual: held.connection.version,
            });
        }
        let provider_outcome = self.end_at_provider(command, held).await?;
        let (id, now, by) = (held.connection.id, self.clock.now(), caller.name.clone());
        let (expected, erase) = (command.if_version, command.erase_subject);
        let policy = self.policy();
        // What one call ends at a provider, it ends for all that share the grant.
        let shared_end = held.sealed.is_some()
            && matches!(provider_outcome, ProviderOutcome::Revoked | ProviderOutcome::AlreadyGone);
        let written = self
            .store
            .write_with(Needs { connections: vec![id], alone: shared_end }, move |tx| {
                let (by, claim, policy) = (by.clone(), claim.clone(), Arc::clone(&policy));
                Box::pin(async move {
                    let Some(before) = tx.lock_connection(id).await? else {
                        return Err(Abort::Work(VaultError::ConnectionNotFound(id)));
                    };
                    if let Some(expected) = expected
                        && expected != before.version
                    {
                        let actual = before.version;
                        return Err(Abort::Work(VaultError::TokenVersionMismatch {
                            connection: id,
                            expected,
                            actual,
                        }));
                    }
                    // Before the subject is erased, by which they are found.
                    if shared_end {
                        let (provider, subject) = (&before.provider, &before.subject.id);
                        tx.make_subject_due(provider, &before.app_id, subject, now).await?;
                    }
                    let mut after = before.clone();
                    if !matches!(before.standing, Standing::Revoked { .. }) {
                        after.standing = Standing::Revoked { at: now, by };
                    }
                    after.fingerprint = None;
                    if erase {
                        tx.erase_subject(&mut after).await?;
                    }
                    tx.destroy_secrets(id).await?;
                    let nothing = AccountChange::default();
                    change::apply(tx, &before, &mut after, Cause::Revocation, nothing, now, &policy).await?;
                    claim.finish(tx, &RevokedBefore { provider: provider_outcome }).await
                })
            })
            .await;
        // The provider has ended them all the same, the token that came meanwhile included.
        if written.is_err()
            && shared_end
            && let Err(error) = self.examine_grant(&held.connection).await
        {
            tracing::error!(connection = %id, %error, "the tokens that a revocation at the provider ended are examined only with the next daily pass");
        }
        written?;
        // Nothing fails after the commit: the log is truncated again later.
        if let Err(error) = self.store.scrub().await {
            tracing::warn!(%error, "the database's log still holds a destroyed secret");
        }
        Ok(provider_outcome)
    }

    async fn end_at_provider(
        &self,
        command: &RevokeToken,
        held: &HeldToken,
    ) -> Result<ProviderOutcome, VaultError> {
        if !command.revoke_at_provider {
            return Ok(ProviderOutcome::NotAsked);
        }
        if held.sealed.is_none() {
            return Ok(ProviderOutcome::AlreadyGone);
        }
        let connections = self.store.read().await?.shared_with(&held.connection).await?;
        if connections > 0 && !command.allow_shared {
            return Err(VaultError::TokenShared { connection: held.connection.id, connections });
        }
        let provider = self.provider_of(&held.connection)?;
        let secret = self.open_secret(held).await?;
        self.work.begin(&held.connection.workspace, None).await?;
        match provider.revoke(&secret, &held.connection.subject, held.connection.facts.kind).await {
            Ok(Revocation::Revoked) => Ok(ProviderOutcome::Revoked),
            Ok(Revocation::AlreadyGone) => Ok(ProviderOutcome::AlreadyGone),
            Ok(Revocation::NotSupported) => Ok(ProviderOutcome::NotSupported),
            Err(refusal) => {
                if matches!(refusal.kind, RefusalKind::Dead { .. }) {
                    return Ok(ProviderOutcome::AlreadyGone);
                }
                // If only the reply was lost, the provider has revoked the token all the same.
                if matches!(refusal.kind, RefusalKind::Transient { .. }) {
                    self.examine_grant(&held.connection).await?;
                }
                Err(VaultError::from_provider_trouble(&refusal, provider.id()))
            }
        }
    }

    /// Has everything examined at once that ends with a connection's token at the provider.
    pub(in crate::vault) async fn examine_grant(&self, connection: &Connection) -> Result<(), VaultError> {
        let (provider, app_id) = (connection.provider.clone(), connection.app_id.clone());
        let (subject_id, now) = (connection.subject.id.clone(), self.clock.now());
        self.store
            .write_with(Needs { alone: true, ..Needs::default() }, move |tx| {
                let (provider, app_id, subject_id) = (provider.clone(), app_id.clone(), subject_id.clone());
                Box::pin(async move {
                    tx.make_subject_due(&provider, &app_id, &subject_id, now).await?;
                    Ok::<_, Abort<VaultError>>(())
                })
            })
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_outcome_keeps_its_bytes() {
        for (provider, stored) in [
            (ProviderOutcome::NotAsked, r#"{"provider":"NotAsked"}"#),
            (ProviderOutcome::Revoked, r#"{"provider":"Revoked"}"#),
            (ProviderOutcome::AlreadyGone, r#"{"provider":"AlreadyGone"}"#),
            (ProviderOutcome::NotSupported, r#"{"provider":"NotSupported"}"#),
        ] {
            let outcome = RevokedBefore { provider };
            assert_eq!(serde_json::to_string(&outcome).unwrap(), stored);
            assert_eq!(serde_json::from_str::<RevokedBefore>(stored).unwrap(), outcome);
        }
    }
}
