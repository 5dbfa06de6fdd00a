//! Lengthening a token's life: attempt, then proof.

use crate::vault::token::view::TokenView;
use std::sync::Arc;

use crate::crypto;
use crate::model::{
    AccountChange, Cause, Connection, ConnectionId, Expiry, ExpirySource, Principal, ProviderId, Refusal,
    RefusalKind, RequestId, Secret, SecretId, Standing, Timestamp, TokenKind, TokenVersion, WorkspaceId,
};
use crate::store::{Abort, HeldToken, Needs, NewSecret, RequestOutcome, Tx};
use crate::vault::error::VaultError;
use crate::vault::keys::keyring::{TRIES, WorkspaceKeys};
use crate::vault::once::claims::Fence;
use crate::vault::once::idempotency::{Begun, Owned};
use crate::vault::state::Vault;
use crate::vault::token::custody::{binding, is_later};
use crate::vault::token::intake::{Accepted, Destination, IntakeOptions, check_replaces};
use crate::vault::token::target::Target;
use crate::vault::token::verdict::Learned;
use crate::vault::token::{candidate, change};

/// Exchange for a longer life.
#[derive(Debug)]
pub struct ExchangeToken {
    /// Idempotency key.
    pub request_id: Option<RequestId>,
    /// Only if the connection holds this version.
    pub if_version: Option<TokenVersion>,
    /// What.
    pub subject: ExchangeSubject,
}

/// What to exchange.
#[derive(Debug)]
pub enum ExchangeSubject {
    /// What a connection holds.
    Stored(Target),
    /// A token in hand, stored afterwards.
    New {
        /// Whose.
        workspace: WorkspaceId,
        /// At which platform.
        provider: ProviderId,
        /// As pasted.
        access_token: Secret,
    },
}

/// Whether the end moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeOutcome {
    /// Later now.
    Extended,
    /// Did not move; a person must reconnect in time.
    AtCeiling,
    /// Would have come earlier: discarded.
    Shortened,
    /// Has no end now.
    NowNeverExpires,
}

/// Answer of an exchange.
#[derive(Debug)]
pub struct Exchange {
    /// The token now held.
    pub token: TokenView,
    /// Whether the end moved.
    pub outcome: ExchangeOutcome,
    /// The end before.
    pub previous_expiry: Expiry,
    /// Position in the feed.
    pub cursor: String,
}

impl Vault {
    /// A token in hand is exchanged and stored, or what a connection holds is exchanged again. Says whether
    /// the end really moved.
    ///
    /// # Errors
    /// `ExchangeNotPossible` for kinds that can't be exchanged; those of intake; `TokenExpired`,
    /// `TokenInvalid`, `TokenRevoked` for a connection whose token is dead.
    pub async fn exchange_token(
        self: &Arc<Self>,
        caller: &Principal,
        command: ExchangeToken,
    ) -> Result<Exchange, VaultError> {
        let version = command.if_version.map_or(0, TokenVersion::get).to_be_bytes();
        match command.subject {
            ExchangeSubject::Stored(target) => {
                self.held(caller, &target).await?;
                let text = target.connection.to_string();
                let parts: [&[u8]; 3] = [b"stored", text.as_bytes(), &version];
                let claim =
                    match self.begin(caller, "ExchangeToken", command.request_id.as_ref(), &parts).await? {
                        Begun::Done(outcome) => return self.exchanged_before(caller, &outcome).await,
                        Begun::Ours(claim) => claim,
                    };
                let (vault, caller) = (Arc::clone(self), caller.clone());
                self.detached(async move {
                    let work = vault.exchange_stored(&caller, &target, command.if_version, claim.as_ref()).await;
                    let exchange = vault.settle(claim, work).await?;
                    tracing::info!(connection = %target.connection, outcome = ?exchange.outcome, by = caller.name, "token exchanged");
                    Ok(exchange)
                })
                .await
            }
            ExchangeSubject::New { workspace, provider, access_token } => {
                if !caller.workspaces.contains(&workspace) {
                    return Err(VaultError::WorkspaceNotFound(workspace));
                }
                let adapter = self.provider(&provider)?;
                let pasted = candidate::parse(&access_token, "new_token.access_token")?;
                let parts: [&[u8]; 5] = [
                    b"new",
                    workspace.as_str().as_bytes(),
                    provider.as_str().as_bytes(),
                    pasted.expose().as_bytes(),
                    &version,
                ];
                let claim =
                    match self.begin(caller, "ExchangeToken", command.request_id.as_ref(), &parts).await? {
                        Begun::Done(outcome) => return self.exchanged_before(caller, &outcome).await,
                        Begun::Ours(claim) => claim,
                    };
                let destination = Destination {
                    workspace,
                    provider,
                    connection: None,
                    parent: None,
                    if_version: command.if_version,
                    options: IntakeOptions::default(),
                    claim: claim.clone(),
                };
                let vault = Arc::clone(self);
                self.detached(async move {
                    let work = vault.exchange_new(&*adapter, pasted, &destination).await;
                    vault.settle(claim, work).await
                })
                .await
            }
        }
    }

    async fn exchanged_before(
        &self,
        caller: &Principal,
        outcome: &RequestOutcome,
    ) -> Result<Exchange, VaultError> {
        let id = outcome
            .get("connection")
            .and_then(|id| ConnectionId::parse(id).ok())
            .ok_or(VaultError::Internal)?;
        let cursor = self.cursor();
        let connection = self.seen_again(caller, id).await?;
        let previous_expiry = match outcome.get("previous_expiry").map(String::as_str) {
            Some("never") => Expiry::Never,
            Some(micros) => micros.parse().map_or(Expiry::Unknown, |end| {
                Expiry::At(Timestamp::from_micros(end), ExpirySource::Provider)
            }),
            None => Expiry::Unknown,
        };
        // Outcomes are written under the names that `Debug` gives; a token taken in anew was extended.
        let done = [
            ExchangeOutcome::Extended,
            ExchangeOutcome::AtCeiling,
            ExchangeOutcome::Shortened,
            ExchangeOutcome::NowNeverExpires,
        ]
        .into_iter()
        .find(|done| outcome.get("outcome").is_some_and(|name| *name == format!("{done:?}")))
        .unwrap_or(ExchangeOutcome::Extended);
        Ok(Exchange { token: self.view(connection).await?, outcome: done, previous_expiry, cursor })
    }

    async fn exchange_new(
        self: &Arc<Self>,
        provider: &dyn crate::provider::Provider,
        pasted: crate::model::Secret,
        destination: &Destination,
    ) -> Result<Exchange, VaultError> {
        let accepted = self.accept(provider, pasted, destination.options).await?;
        let previous_expiry = accepted.pasted_expiry;
        let outcome = movement(accepted.word.facts.expiry, previous_expiry);
        let (connection, _) = self.save(destination, Arc::new(accepted)).await?;
        tracing::info!(connection = %connection.id, ?outcome, "token exchanged and taken in");
        Ok(Exchange {
            token: self.view_stored(connection).await,
            outcome,
            previous_expiry,
            cursor: self.cursor(),
        })
    }

    /// The exchange of one connection's token is one task's at a time, across replicas.
    async fn exchange_stored(
        self: &Arc<Self>,
        caller: &Principal,
        target: &Target,
        if_version: Option<TokenVersion>,
        claim: Option<&Owned>,
    ) -> Result<Exchange, VaultError> {
        let Some(claimed) = self.claim_exchange(target.connection).await? else {
            return Err(VaultError::ConcurrentChange(target.connection));
        };
        let fence = claimed.fence.clone();
        let outcome = self.exchange_claimed(caller, target, if_version, claim, fence).await;
        self.release(claimed).await;
        outcome
    }

    async fn exchange_claimed(
        self: &Arc<Self>,
        caller: &Principal,
        target: &Target,
        if_version: Option<TokenVersion>,
        claim: Option<&Owned>,
        fence: Fence,
    ) -> Result<Exchange, VaultError> {
        let held = self.held_now(caller, target).await?;
        let connection = &held.connection;
        if let Some(expected) = if_version
            && expected != connection.version
        {
            return Err(VaultError::TokenVersionMismatch {
                connection: connection.id,
                expected,
                actual: connection.version,
            });
        }
        self.check_usable(connection)?;
        let impossible = |why| VaultError::ExchangeNotPossible {
            connection: Some(connection.id),
            provider: connection.provider.clone(),
            why,
        };
        match (connection.facts.kind, connection.facts.expiry) {
            (TokenKind::Page, _) => {
                let why = "a page token is read anew with its user's token, not exchanged".into();
                return Err(impossible(why));
            }
            (_, Expiry::Never) => {
                return Err(impossible("the token does not expire".into()));
            }
            _ => {}
        }
        let provider = self.provider_of(connection)?;
        let secret = self.open_secret(&held).await?;
        self.confirm_claim(&fence, connection.id).await?;
        let exchanged = match provider.exchange(&secret, connection.facts.kind).await {
            Ok(exchanged) => exchanged,
            Err(refusal) => {
                return Err(self.refused_exchange(connection, &*provider, &secret, refusal).await);
            }
        };
        let word = match provider.inspect(&exchanged.secret).await {
            Ok(word) => word,
            Err(refusal) => return Err(VaultError::from_provider_trouble(&refusal, provider.id())),
        };
        check_replaces(connection, &word, IntakeOptions::default(), self.clock.now(), &self.policy())?;
        let previous_expiry = connection.facts.expiry;
        let outcome = movement(word.facts.expiry, previous_expiry);
        let accepted = match outcome {
            ExchangeOutcome::Extended | ExchangeOutcome::NowNeverExpires => {
                Some(Accepted { secret: exchanged.secret, word, pasted_expiry: previous_expiry })
            }
            // The string that came back is discarded: the old one stays, and a person is asked in time.
            ExchangeOutcome::AtCeiling => None,
            ExchangeOutcome::Shortened => {
                tracing::error!(connection = %connection.id, "an exchange gave a token that ends earlier; it was discarded");
                None
            }
        };
        let connection = self.keep_exchanged(&held, accepted, outcome, claim, Some(&fence)).await?;
        Ok(Exchange {
            token: self.view_stored(connection).await,
            outcome,
            previous_expiry,
            cursor: self.cursor(),
        })
    }

    /// A refusal during an exchange may be the first news of a death: it is recorded once inspection confirms it.
    async fn refused_exchange(
        self: &Arc<Self>,
        connection: &Connection,
        provider: &dyn crate::provider::Provider,
        secret: &crate::model::Secret,
        refusal: Refusal,
    ) -> VaultError {
        let RefusalKind::Dead { reason } = refusal.kind else {
            return VaultError::from_provider_trouble(&refusal, &connection.provider);
        };
        let word = provider.inspect(secret).await;
        let confirmed = matches!(&word, Err(refusal) if matches!(refusal.kind, RefusalKind::Dead { .. }));
        if let Err(error) = self.record(connection, word, Learned::default()).await {
            return error;
        }
        if confirmed {
            return VaultError::TokenInvalid {
                connection: connection.id,
                version: connection.version,
                since: self.clock.now(),
                reason,
                provider_code: refusal.provider_code(),
            };
        }
        VaultError::ExchangeNotPossible {
            connection: Some(connection.id),
            provider: connection.provider.clone(),
            why: "the provider refuses to exchange the token, although it still accepts it".into(),
        }
    }

    pub(in crate::vault) async fn keep_exchanged(
        &self,
        held: &HeldToken,
        accepted: Option<Accepted>,
        outcome: ExchangeOutcome,
        claim: Option<&Owned>,
        fence: Option<&Fence>,
    ) -> Result<Connection, VaultError> {
        let accepted = Arc::new(accepted);
        let mut tries = 0;
        loop {
            tries += 1;
            match self.keep_exchanged_once(held, Arc::clone(&accepted), outcome, claim, fence).await {
                // The workspace got a new data key meanwhile: sealed again, by that.
                Err(VaultError::KeysChanged(workspace)) if tries < TRIES => {
                    self.store.forget_workspace(&workspace);
                }
                outcome => return outcome,
            }
        }
    }

    async fn keep_exchanged_once(
        &self,
        held: &HeldToken,
        accepted: Arc<Option<Accepted>>,
        outcome: ExchangeOutcome,
        claim: Option<&Owned>,
        fence: Option<&Fence>,
    ) -> Result<Connection, VaultError> {
        let seen = held.connection.clone();
        let keys = self.workspace_keys_or_new(&seen.workspace).await?;
        let (now, claim, policy) = (self.clock.now(), claim.cloned(), self.policy());
        let fence = fence.cloned();
        let needs = Needs { connections: vec![seen.id], alone: false };
        let (connection, numbers) = self
            .store
            .write_with(needs, move |tx| {
                let (fence, seen, keys, accepted, claim, policy) = (
                    fence.clone(),
                    seen.clone(),
                    Arc::clone(&keys),
                    Arc::clone(&accepted),
                    claim.clone(),
                    Arc::clone(&policy),
                );
                Box::pin(async move {
                    let refuse = |error| Err(Abort::Refused(error));
                    let Some(before) = tx.lock_connection(seen.id).await? else {
                        return refuse(VaultError::ConnectionNotFound(seen.id));
                    };
                    if before.secret_id != seen.secret_id || before.revision != seen.revision {
                        return refuse(VaultError::ConcurrentChange(seen.id));
                    }
                    if let Some(fence) = &fence {
                        fence.check(tx, seen.id).await?;
                    }
                    let mut after = before.clone();
                    after.seen.last_validated_at = Some(now);
                    after.seen.last_known_good = Some(now);
                    if let Some(accepted) = &*accepted {
                        hold_exchanged(tx, &mut after, accepted, &keys, now).await?;
                    }
                    let nothing = AccountChange::default();
                    change::apply(tx, &before, &mut after, Cause::Exchange, nothing, now, &policy).await?;
                    let previous = match before.facts.expiry {
                        Expiry::Never => "never".to_owned(),
                        other => other.sort_key().to_string(),
                    };
                    let done = RequestOutcome::from([
                        ("connection".to_owned(), after.id.to_string()),
                        ("outcome".to_owned(), format!("{outcome:?}")),
                        ("previous_expiry".to_owned(), previous),
                    ]);
                    Self::finish(tx, claim.as_ref(), done).await?;
                    Ok(after)
                })
            })
            .await?;
        Ok(change::numbered(connection, numbers))
    }
}

/// Puts an exchanged token in the place of the one before. The same string with a later end is the same version.
pub(in crate::vault) async fn hold_exchanged(
    tx: &mut Tx,
    connection: &mut Connection,
    accepted: &Accepted,
    keys: &WorkspaceKeys,
    now: Timestamp,
) -> Result<(), Abort<VaultError>> {
    connection.facts = accepted.word.facts.clone();
    connection.standing = Standing::Live;
    connection.seen.last_rotated_at = Some(now);
    let fingerprint = keys.index.fingerprint(&connection.provider, &accepted.secret);
    if connection.fingerprint == Some(fingerprint) {
        return Ok(());
    }
    connection.fingerprint = Some(fingerprint);
    connection.version = connection.version.next();
    connection.secret_id = SecretId::generate();
    let key = keys.newest().ok_or(Abort::Refused(VaultError::Internal))?;
    let sealed = crypto::seal(key, &binding(connection), &accepted.secret)
        .map_err(|_| Abort::Refused(VaultError::Internal))?;
    let secret = NewSecret {
        connection: connection.id,
        version: connection.version,
        secret_id: connection.secret_id,
        sealed,
    };
    if !tx.put_secret(&connection.workspace, secret, now).await? {
        return Err(Abort::Refused(VaultError::KeysChanged(connection.workspace.clone())));
    }
    Ok(())
}

/// Whether the end moved, and which way.
pub(in crate::vault) fn movement(new: Expiry, old: Expiry) -> ExchangeOutcome {
    match (new, old) {
        (Expiry::Never, Expiry::Never) => ExchangeOutcome::AtCeiling,
        (Expiry::Never, _) => ExchangeOutcome::NowNeverExpires,
        _ if is_later(new, old) => ExchangeOutcome::Extended,
        _ if is_later(old, new) && new != Expiry::Unknown => ExchangeOutcome::Shortened,
        _ => ExchangeOutcome::AtCeiling,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_moves_by_seconds_has_not_moved() {
        let at = |seconds| Expiry::At(Timestamp::from_unix_seconds(seconds), ExpirySource::Provider);
        for (new, old, expected) in [
            (at(2_000_000), at(1_000_000), ExchangeOutcome::Extended),
            (at(1_000_013), at(1_000_000), ExchangeOutcome::AtCeiling),
            (at(999_990), at(1_000_000), ExchangeOutcome::AtCeiling),
            (at(900_000), at(1_000_000), ExchangeOutcome::Shortened),
            (Expiry::Never, at(1_000_000), ExchangeOutcome::NowNeverExpires),
            (Expiry::Unknown, at(1_000_000), ExchangeOutcome::AtCeiling),
        ] {
            assert_eq!(movement(new, old), expected, "{new:?} {old:?}");
        }
    }
}
