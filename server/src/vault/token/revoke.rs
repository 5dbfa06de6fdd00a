//! Handing tokens out, showing them, and ending them.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::crypto::{self, Binding};
use crate::model::{
    AccountChange, Cause, Connection, ConnectionId, Expiry, Principal, RefusalKind, RequestId, Secret,
    SecretId, Standing, Status, TokenVersion, WorkspaceId,
};
use crate::provider::{RequestPart, Revocation, Usage};
use crate::store::{Abort, HeldToken, Needs, Origin, SealedRow};
use crate::vault::error::VaultError;
use crate::vault::once::idempotency::RequestClaim;
use crate::vault::state::Vault;
use crate::vault::state::keyring::TRIES;
use crate::vault::token::change;
use crate::vault::token::target::Target;
use crate::vault::token::view::TokenView;

/// The secret for use now.
#[derive(Debug)]
pub struct FetchAccessToken {
    /// Which.
    pub target: Target,
    /// Life that it must still have.
    pub min_ttl: Duration,
}

/// The secret, and what its user must know.
#[derive(Debug)]
pub struct Fetched {
    /// The secret.
    pub secret: Secret,
    /// What else goes on each call.
    pub send_with: Vec<RequestPart>,
    /// Which version.
    pub version: TokenVersion,
    /// Names this secret in reports.
    pub secret_id: SecretId,
    /// Its end.
    pub expiry: Expiry,
    /// What it is worth.
    pub status: Status,
    /// The tightest known limit.
    pub usage: Option<Usage>,
    /// How long it may be kept.
    pub cache_for: Duration,
}

/// Ends a connection.
#[derive(Debug)]
pub struct RevokeToken {
    /// Idempotency key.
    pub request_id: Option<RequestId>,
    /// Only if the connection holds this version.
    pub if_version: Option<TokenVersion>,
    /// Which.
    pub target: Target,
    /// At the provider too.
    pub revoke_at_provider: bool,
    /// Although other workspaces lose theirs.
    pub allow_shared: bool,
    /// Forget the person's id and name as well.
    pub erase_subject: bool,
}

/// What became of it at the provider.
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
    /// The provider could not be asked; the secret is destroyed here all the same.
    #[serde(rename = "Pending")]
    Pending,
}

/// Answer of a revocation.
#[derive(Debug)]
pub struct Revoked {
    /// The tombstone.
    pub token: TokenView,
    /// What became of it at the provider.
    pub provider_outcome: ProviderOutcome,
    /// Position in the feed.
    pub cursor: String,
}

/// The stored outcome of a revocation. Its names never change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RevokedBefore {
    provider: ProviderOutcome,
}

impl Vault {
    /// A connection with its sealed secret, if the caller may see it.
    pub(in crate::vault) async fn held(
        &self,
        caller: &Principal,
        target: &Target,
    ) -> Result<Arc<HeldToken>, VaultError> {
        let held = self
            .store
            .held_token(target.connection)
            .await?
            .ok_or(VaultError::ConnectionNotFound(target.connection))?;
        Self::admit(caller, target, &held.connection)?;
        Origin::note_subject(&held.connection);
        Ok(held)
    }

    /// The secret of a connection in the clear.
    pub(in crate::vault) async fn open_secret(&self, held: &HeldToken) -> Result<Secret, VaultError> {
        if let Some(secret) = self.open_with_key_of(held).await? {
            return Ok(secret);
        }
        // Row and keys were read at two moments, and a rotation went by between them: both are read again.
        let connection = &held.connection;
        for _ in 0..TRIES {
            self.store.forget(connection.id, &connection.workspace);
            let Some(now) = self.store.held_token(connection.id).await? else { break };
            if now.connection.secret_id != connection.secret_id {
                return Err(VaultError::ConcurrentChange(connection.id));
            }
            if let Some(secret) = self.open_with_key_of(&now).await? {
                return Ok(secret);
            }
        }
        Err(corrupt(connection))
    }

    /// The secret, if the key that sealed it is among the workspace's.
    async fn open_with_key_of(&self, held: &HeldToken) -> Result<Option<Secret>, VaultError> {
        let connection = &held.connection;
        let sealed = held.sealed.as_ref().ok_or_else(|| corrupt(connection))?;
        let keys = match self.workspace_keys(&connection.workspace).await {
            Ok(keys) => keys.ok_or_else(|| corrupt(connection))?,
            Err(VaultError::WorkspaceKeysCorrupt(_)) => return Err(corrupt(connection)),
            Err(error) => return Err(error),
        };
        let Some(key) = keys.of_version(sealed.data_key_version) else { return Ok(None) };
        crypto::open(key, &binding(connection), sealed).map(Some).map_err(|_| corrupt(connection))
    }

    /// Why a token that is held can't be used now; nothing if it can.
    pub(in crate::vault) fn check_usable(&self, connection: &Connection) -> Result<Status, VaultError> {
        let status = connection.status(self.clock.now(), &self.policy());
        let (id, version) = (connection.id, connection.version);
        match (&connection.standing, status) {
            (Standing::Revoked { at, .. }, _) => Err(VaultError::TokenRevoked { connection: id, at: *at }),
            (Standing::Invalid { since, reason, provider_code }, _) => Err(VaultError::TokenInvalid {
                connection: id,
                version,
                since: *since,
                reason: *reason,
                provider_code: provider_code.clone(),
            }),
            (Standing::Live, Status::Expired) => Err(VaultError::TokenExpired {
                connection: id,
                version,
                at: connection.facts.expiry.at().unwrap_or(connection.updated_at),
            }),
            (Standing::Live, status) => Ok(status),
        }
    }

    /// The secret for use now. The hot path: no SQL while the row is cached, decryption per call, nothing
    /// kept in the clear.
    ///
    /// # Errors
    /// `TokenExpired`, `TokenInvalid`, `TokenRevoked`, `TokenLifeTooShort`: pause until a person or an event.
    /// `CiphertextCorrupt`: call the operator.
    pub async fn fetch_access_token(
        &self,
        caller: &Principal,
        command: FetchAccessToken,
    ) -> Result<Fetched, VaultError> {
        let held = self.held(caller, &command.target).await?;
        let connection = &held.connection;
        let status = self.check_usable(connection)?;
        let now = self.clock.now();
        if let Some(left) = connection.life_left(now)
            && left < command.min_ttl
        {
            return Err(VaultError::TokenLifeTooShort {
                connection: connection.id,
                version: connection.version,
                ends_at: now + left,
                left,
                wanted: command.min_ttl,
            });
        }
        let provider = self.provider_of(connection)?;
        let secret = self.open_secret(&held).await?;
        // Not a byte of it leaves unrecorded.
        self.record_hand_out(connection).await?;
        Ok(Fetched {
            send_with: provider.send_with(&secret),
            usage: provider.usage(),
            version: connection.version,
            secret_id: connection.secret_id,
            expiry: connection.facts.expiry,
            status,
            cache_for: connection.cache_for(now),
            secret,
        })
    }

    /// Metadata of one token, and the feed's position.
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

    /// Ends a connection: at the provider first when asked, then here. The tombstone stays. Ending it twice is
    /// no error.
    ///
    /// # Errors
    /// `TokenShared` when other workspaces would lose theirs; `ProviderUnavailable` when it is to end at the
    /// provider and that can't be asked: nothing has changed then.
    pub async fn revoke_token(
        self: &Arc<Self>,
        caller: &Principal,
        command: RevokeToken,
    ) -> Result<Revoked, VaultError> {
        let held = self.held(caller, &command.target).await?;
        let id = held.connection.id;
        let (vault, caller) = (Arc::clone(self), caller.clone());
        self.work.detached(async move {
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

    /// A connection that a repeated request is about: its caller must still be one that may see it.
    pub(in crate::vault) async fn seen_again(
        &self,
        caller: &Principal,
        id: ConnectionId,
    ) -> Result<Connection, VaultError> {
        let target = Target { connection: id, workspace: None };
        Ok(self.held_now(caller, &target).await?.connection)
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
        self.store
            .write_with(Needs { connections: vec![id], alone: false }, move |tx| {
                let (by, claim, policy) = (by.clone(), claim.clone(), Arc::clone(&policy));
                Box::pin(async move {
                    let Some(before) = tx.lock_connection(id).await? else {
                        return Err(Abort::Refused(VaultError::ConnectionNotFound(id)));
                    };
                    if let Some(expected) = expected
                        && expected != before.version
                    {
                        let actual = before.version;
                        return Err(Abort::Refused(VaultError::TokenVersionMismatch {
                            connection: id,
                            expected,
                            actual,
                        }));
                    }
                    let mut after = before.clone();
                    if !matches!(before.standing, Standing::Revoked { .. }) {
                        after.standing = Standing::Revoked { at: now, by };
                    }
                    after.fingerprint = None;
                    if erase {
                        after.subject.id.clear();
                        after.subject.name.clear();
                        tx.forget_ad_accounts(id).await?;
                    }
                    tx.destroy_secrets(id).await?;
                    let nothing = AccountChange::default();
                    change::apply(tx, &before, &mut after, Cause::Revocation, nothing, now, &policy).await?;
                    claim.finish(tx, &RevokedBefore { provider: provider_outcome }).await
                })
            })
            .await?;
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
        match provider.revoke(&secret, &held.connection.subject, held.connection.facts.kind).await {
            Ok(Revocation::Revoked) => Ok(ProviderOutcome::Revoked),
            Ok(Revocation::AlreadyGone) => Ok(ProviderOutcome::AlreadyGone),
            Ok(Revocation::NotSupported) => Ok(ProviderOutcome::NotSupported),
            Err(refusal) if matches!(refusal.kind, RefusalKind::Dead { .. }) => {
                Ok(ProviderOutcome::AlreadyGone)
            }
            Err(refusal) => Err(VaultError::from_provider_trouble(&refusal, provider.id())),
        }
    }
}

fn corrupt(connection: &Connection) -> VaultError {
    tracing::error!(connection = %connection.id, version = %connection.version, "a stored secret does not open: the database was altered");
    VaultError::CiphertextCorrupt { connection: connection.id, version: connection.version }
}

/// What a stored secret is bound to.
pub(in crate::vault) fn binding_of<'a>(workspace: &'a WorkspaceId, row: &'a SealedRow) -> Binding<'a> {
    Binding { workspace, connection: row.connection, provider: &row.provider, version: row.version }
}

/// What the secret that a connection holds is bound to.
pub(in crate::vault) fn binding(connection: &Connection) -> Binding<'_> {
    Binding {
        workspace: &connection.workspace,
        connection: connection.id,
        provider: &connection.provider,
        version: connection.version,
    }
}

pub(in crate::vault) fn is_later(new: Expiry, old: Expiry) -> bool {
    new.is_later(old)
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
            (ProviderOutcome::Pending, r#"{"provider":"Pending"}"#),
        ] {
            let outcome = RevokedBefore { provider };
            assert_eq!(serde_json::to_string(&outcome).unwrap(), stored);
            assert_eq!(serde_json::from_str::<RevokedBefore>(stored).unwrap(), outcome);
        }
    }
}
