//! Saves what was decided about the token held and the one offered, and the outcome, in one transaction.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::settle::Exchanging;
use super::weigh::Living;
use crate::model::{
    AccountChange, Cause, Connection, ConnectionId, DataWord, Expiry, Refusal, SecretId, Standing, Timestamp,
};
use crate::provider::Inspected;
use crate::store::{Abort, Needs, Tx};
use crate::vault::error::VaultError;
use crate::vault::state::Vault;
use crate::vault::state::keyring::{TRIES, WorkspaceKeys};
use crate::vault::token::inspection::learn;
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

/// What is written after the provider's offer was weighed against the token held.
pub(super) enum Decided {
    /// The offered token takes the place of the one held.
    Replace { new: Living, outcome: ExchangeOutcome },
    /// The token held works, as this inspection of it shows. `outcome` is what the caller is told.
    Keep { inspection: Result<Inspected, Refusal>, offer: Waiting, outcome: Option<ExchangeOutcome> },
}

/// What becomes of an offered token that does not take the place of the one held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    /// It was not stored.
    Nowhere,
    Drop,
    Until(Timestamp),
}

impl Waiting {
    pub(super) async fn write(self, tx: &mut Tx, id: ConnectionId) -> Result<(), Abort<VaultError>> {
        match self {
            Self::Nowhere => {}
            Self::Drop => tx.drop_pending_secret(id).await?,
            Self::Until(until) => tx.postpone_pending_secret(id, until).await?,
        }
        Ok(())
    }
}

impl Vault {
    /// Writes what was decided, if the connection is still the one that was read, and the request's outcome.
    pub(super) async fn save_exchanged(
        &self,
        exchanging: &Exchanging<'_>,
        decided: Decided,
    ) -> Result<Connection, VaultError> {
        let decided = Arc::new(decided);
        let mut tries = 0;
        loop {
            tries += 1;
            match self.save_exchanged_once(exchanging, Arc::clone(&decided)).await {
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
        exchanging: &Exchanging<'_>,
        decided: Arc<Decided>,
    ) -> Result<Connection, VaultError> {
        let seen = exchanging.held.connection.clone();
        let keys = self.workspace_keys_or_new(&seen.workspace).await?;
        let (now, policy) = (self.clock.now(), self.policy());
        let (fence, claim) = (exchanging.fence.clone(), exchanging.claim.clone());
        let needs = Needs { connections: vec![seen.id], alone: false };
        let (connection, numbers) = self
            .store
            .write_with(needs, move |tx| {
                let (fence, claim, seen, keys, decided, policy) = (
                    fence.clone(),
                    claim.clone(),
                    seen.clone(),
                    Arc::clone(&keys),
                    Arc::clone(&decided),
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
                    fence.check(tx, seen.id).await?;
                    let mut after = before.clone();
                    let (cause, outcome) = match &*decided {
                        Decided::Replace { new, outcome } => {
                            replace(tx, &mut after, new, &keys, now).await?;
                            (Cause::Exchange, Some(*outcome))
                        }
                        Decided::Keep { inspection, offer, outcome } => {
                            learn(&mut after, inspection, (&DataWord::NotAsked, false), now);
                            offer.write(tx, seen.id).await?;
                            (Cause::Observation, *outcome)
                        }
                    };
                    let nothing = AccountChange::default();
                    change::apply(tx, &before, &mut after, cause, nothing, now, &policy).await?;
                    if let Some(outcome) = outcome {
                        let done = ExchangedBefore {
                            connection: after.id,
                            outcome: Done::Exchanged(outcome),
                            previous_expiry: before.facts.expiry,
                        };
                        claim.finish(tx, &done).await?;
                    }
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
    new: &Living,
    keys: &WorkspaceKeys,
    now: Timestamp,
) -> Result<(), Abort<VaultError>> {
    let told = &new.inspected.facts;
    connection.note_inspected(now);
    connection.seen.last_rotated_at = Some(now);
    let fingerprint = keys.index.fingerprint(&connection.provider, &new.secret);
    let same = connection.fingerprint == Some(fingerprint);
    // A secret that data calls refuse is no better for being offered again.
    if !same || connection.seen.data_refusal.is_none() {
        connection.standing = Standing::Live;
        connection.seen.last_known_good = Some(now);
    }
    if same {
        connection.facts = told.onto(&connection.facts);
        return Ok(());
    }
    connection.facts = told.of_new_token(Some(&connection.facts));
    connection.fingerprint = Some(fingerprint);
    connection.version = connection.version.next();
    connection.secret_id = SecretId::generate();
    secret::put(tx, keys, connection, &new.secret, now).await
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
