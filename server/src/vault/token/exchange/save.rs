//! Saves the token that an exchange returned, and the outcome, in one transaction.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{AccountChange, Cause, Connection, ConnectionId, Expiry, SecretId, Standing, Timestamp};
use crate::store::{Abort, HeldToken, Needs, Tx};
use crate::vault::error::VaultError;
use crate::vault::once::claims::Fence;
use crate::vault::once::idempotency::RequestClaim;
use crate::vault::state::Vault;
use crate::vault::state::keyring::{TRIES, WorkspaceKeys};
use crate::vault::token::store::accept::Accepted;
use crate::vault::token::store::save::IntakeOutcome;
use crate::vault::token::{change, secret};

/// Whether the expiry moved.
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
    /// The token no longer expires.
    #[serde(rename = "NowNeverExpires")]
    NowNeverExpires,
}

/// The stored outcome of an exchange. Its names never change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ExchangedBefore {
    pub(super) connection: ConnectionId,
    pub(super) outcome: Done,
    #[serde(default = "unknown", with = "expiry_as_text")]
    pub(super) previous_expiry: Expiry,
}

/// A new token is exchanged and saved by StoreToken's code, which writes StoreToken's outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Done {
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

impl Vault {
    /// Saves an accepted token in place of the one that was exchanged. `None` keeps the old token, and notes that it
    /// works.
    pub(in crate::vault) async fn save_exchanged(
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
            match self.save_exchanged_once(held, Arc::clone(&accepted), outcome, claim, fence).await {
                // The workspace got a new data key meanwhile: seal again, with that key.
                Err(VaultError::KeysChanged(workspace)) if tries < TRIES => {
                    self.store.forget_workspace(&workspace);
                }
                outcome => return outcome,
            }
        }
    }

    async fn save_exchanged_once(
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
                    let refuse = |error| Err(Abort::Work(error));
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
                        replace(tx, &mut after, accepted, &keys, now).await?;
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

/// Replaces the token. The same string with a later expiry stays the same version.
async fn replace(
    tx: &mut Tx,
    connection: &mut Connection,
    accepted: &Accepted,
    keys: &WorkspaceKeys,
    now: Timestamp,
) -> Result<(), Abort<VaultError>> {
    connection.facts = accepted.inspected.facts.clone();
    connection.standing = Standing::Live;
    connection.seen.last_rotated_at = Some(now);
    let fingerprint = keys.index.fingerprint(&connection.provider, &accepted.secret);
    if connection.fingerprint == Some(fingerprint) {
        return Ok(());
    }
    connection.fingerprint = Some(fingerprint);
    connection.version = connection.version.next();
    connection.secret_id = SecretId::generate();
    secret::put(tx, keys, connection, &accepted.secret, now).await
}

/// Whether the expiry moved, and which way.
pub(in crate::vault) fn movement(new: Expiry, old: Expiry) -> ExchangeOutcome {
    match (new, old) {
        (Expiry::Never, Expiry::Never) => ExchangeOutcome::AtCeiling,
        (Expiry::Never, _) => ExchangeOutcome::NowNeverExpires,
        _ if new.is_later(old) => ExchangeOutcome::Extended,
        _ if old.is_later(new) && new != Expiry::Unknown => ExchangeOutcome::Shortened,
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
