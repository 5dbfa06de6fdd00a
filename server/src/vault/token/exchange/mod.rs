//! Lengthening a token's life: attempt, then proof.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::crypto;
use crate::model::{
    AccountChange, Cause, Connection, ConnectionId, Expiry, Principal, ProviderId, Refusal, RefusalKind,
    RequestId, Secret, SecretId, Standing, Timestamp, TokenKind, TokenVersion, WorkspaceId,
};
use crate::store::{Abort, HeldToken, Needs, NewSecret, Tx};
use crate::vault::error::VaultError;
use crate::vault::once::claims::Fence;
use crate::vault::once::idempotency::RequestClaim;
use crate::vault::state::Vault;
use crate::vault::state::keyring::{TRIES, WorkspaceKeys};
use crate::vault::token::custody::{binding, is_later};
use crate::vault::token::intake::{Accepted, Destination, IntakeOptions, IntakeOutcome, check_replaces};
use crate::vault::token::target::Target;
use crate::vault::token::verdict::Learned;
use crate::vault::token::view::TokenView;
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExchangeOutcome {
    /// The token expires later.
    #[serde(rename = "Extended")]
    Extended,
    /// The expiry did not move; a person must reconnect in time.
    #[serde(rename = "AtCeiling")]
    AtCeiling,
    /// The new token would have expired earlier and was discarded.
    #[serde(rename = "Shortened")]
    Shortened,
    /// The token does not expire any more.
    #[serde(rename = "NowNeverExpires")]
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

/// The stored outcome of an exchange. Its names never change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ExchangedBefore {
    connection: ConnectionId,
    outcome: Done,
    #[serde(default = "unknown", with = "expiry_as_text")]
    previous_expiry: Expiry,
}

/// A token that was brought is exchanged and saved like a stored one, and leaves the outcome of a StoreToken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Done {
    Exchanged(ExchangeOutcome),
    Saved(IntakeOutcome),
}

impl From<Done> for ExchangeOutcome {
    fn from(done: Done) -> Self {
        match done {
            Done::Exchanged(outcome) => outcome,
            Done::Saved(_) => Self::Extended,
        }
    }
}

fn unknown() -> Expiry {
    Expiry::Unknown
}

/// `never`, or microseconds since 1970; 0 is unknown.
mod expiry_as_text {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::model::{Expiry, ExpirySource, Timestamp};

    pub(super) fn serialize<S: Serializer>(expiry: &Expiry, serializer: S) -> Result<S::Ok, S::Error> {
        match expiry {
            Expiry::Never => serializer.serialize_str("never"),
            other => serializer.collect_str(&other.sort_key()),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Expiry, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "never" {
            return Ok(Expiry::Never);
        }
        match text.parse().map_err(de::Error::custom)? {
            0 => Ok(Expiry::Unknown),
            micros => Ok(Expiry::At(Timestamp::from_micros(micros), ExpirySource::Provider)),
        }
    }
}

fn version_bytes(version: Option<TokenVersion>) -> [u8; 4] {
    version.map_or(0, TokenVersion::get).to_be_bytes()
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
        match command.subject {
            ExchangeSubject::Stored(target) => {
                self.exchange_held(caller, command.request_id, command.if_version, target).await
            }
            ExchangeSubject::New { workspace, provider, access_token } => {
                if !caller.workspaces.contains(&workspace) {
                    return Err(VaultError::WorkspaceNotFound(workspace));
                }
                let adapter = self.provider(&provider)?;
                let pasted = candidate::parse(&access_token, "new_token.access_token")?;
                let (vault, caller) = (Arc::clone(self), caller.clone());
                self.work
                    .detached(async move {
                        let version = version_bytes(command.if_version);
                        let parts: [&[u8]; 5] = [
                            b"new",
                            workspace.as_str().as_bytes(),
                            provider.as_str().as_bytes(),
                            pasted.expose().as_bytes(),
                            &version,
                        ];
                        let request = vault.request("ExchangeToken", command.request_id.as_ref(), &parts);
                        let work = async |claim| {
                            let destination = Destination {
                                workspace,
                                provider,
                                connection: None,
                                parent: None,
                                if_version: command.if_version,
                                options: IntakeOptions::default(),
                                claim,
                            };
                            vault.exchange_new(&*adapter, pasted, &destination).await
                        };
                        let repeat = async |before| vault.exchanged_before(&caller, before).await;
                        vault.once(&caller, request, work, repeat).await
                    })
                    .await
            }
        }
    }

    async fn exchange_held(
        self: &Arc<Self>,
        caller: &Principal,
        request_id: Option<RequestId>,
        if_version: Option<TokenVersion>,
        target: Target,
    ) -> Result<Exchange, VaultError> {
        self.held(caller, &target).await?;
        let (vault, caller) = (Arc::clone(self), caller.clone());
        self.work.detached(async move {
            let (text, version) = (target.connection.to_string(), version_bytes(if_version));
            let parts: [&[u8]; 3] = [b"stored", text.as_bytes(), &version];
            let request = vault.request("ExchangeToken", request_id.as_ref(), &parts);
            let work = async |claim| {
                let exchange = vault.exchange_stored(&caller, &target, if_version, claim).await?;
                tracing::info!(connection = %target.connection, outcome = ?exchange.outcome, by = caller.name, "token exchanged");
                Ok(exchange)
            };
            let repeat = async |before| vault.exchanged_before(&caller, before).await;
            vault.once(&caller, request, work, repeat).await
        })
        .await
    }

    async fn exchanged_before(
        &self,
        caller: &Principal,
        before: ExchangedBefore,
    ) -> Result<Exchange, VaultError> {
        let cursor = self.cursor();
        let connection = self.seen_again(caller, before.connection).await?;
        Ok(Exchange {
            token: self.view(connection).await?,
            outcome: before.outcome.into(),
            previous_expiry: before.previous_expiry,
            cursor,
        })
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
        claim: RequestClaim,
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
        claim: RequestClaim,
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
        let connection = self.keep_exchanged(&held, accepted, outcome, &claim, Some(&fence)).await?;
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
        claim: &RequestClaim,
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
        claim: &RequestClaim,
        fence: Option<&Fence>,
    ) -> Result<Connection, VaultError> {
        let seen = held.connection.clone();
        let keys = self.workspace_keys_or_new(&seen.workspace).await?;
        let (now, claim, policy) = (self.clock.now(), claim.clone(), self.policy());
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
                    let done = ExchangedBefore {
                        connection: after.id,
                        outcome: Done::Exchanged(outcome),
                        previous_expiry: before.facts.expiry,
                    };
                    claim.finish(tx, &done).await?;
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
    use crate::model::ExpirySource;

    const ID: &str = "0193e4a0-0000-7000-8000-000000000001";

    #[test]
    fn a_stored_outcome_keeps_its_bytes() {
        let connection = ConnectionId::parse(ID).unwrap();
        let end = Expiry::At(Timestamp::from_micros(1_763_859_600_123_456), ExpirySource::Provider);
        for (outcome, previous_expiry, name, text) in [
            (ExchangeOutcome::Extended, end, "Extended", "1763859600123456"),
            (ExchangeOutcome::AtCeiling, end, "AtCeiling", "1763859600123456"),
            (ExchangeOutcome::Shortened, Expiry::Never, "Shortened", "never"),
            (ExchangeOutcome::NowNeverExpires, Expiry::Unknown, "NowNeverExpires", "0"),
        ] {
            let outcome = ExchangedBefore { connection, outcome: Done::Exchanged(outcome), previous_expiry };
            let stored = format!(r#"{{"connection":"{ID}","outcome":"{name}","previous_expiry":"{text}"}}"#);
            assert_eq!(serde_json::to_string(&outcome).unwrap(), stored);
            assert_eq!(serde_json::from_str::<ExchangedBefore>(&stored).unwrap(), outcome);
        }
    }

    #[test]
    fn a_token_that_was_saved_anew_counts_as_extended() {
        for name in ["Created", "Replaced", "Restored", "Unchanged"] {
            let stored = format!(r#"{{"connection":"{ID}","outcome":"{name}"}}"#);
            let before: ExchangedBefore = serde_json::from_str(&stored).unwrap();
            assert_eq!(ExchangeOutcome::from(before.outcome), ExchangeOutcome::Extended);
            assert_eq!(before.previous_expiry, Expiry::Unknown);
        }
    }

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
