//! Saving an accepted token: connection, sealed secret, events and the request's outcome, in one transaction.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::accept::{Accepted, IntakeOptions};
use crate::crypto::MacKey;
use crate::model::{
    AccountChange, AuthorizationId, Cause, ConnectLinkId, Connection, ConnectionId, Incarnation,
    Observations, Policy, ProviderId, Schedule, SecretId, Standing, Timestamp, TokenVersion, Unread,
    WorkspaceId,
};
use crate::provider::Inspected;
use crate::store::{Abort, ExchangedToken, Needs, Tx};
use crate::vault::access::connect_links::spend;
use crate::vault::error::{FieldViolation, VaultError};
use crate::vault::once::idempotency::RequestClaim;
use crate::vault::state::Vault;
use crate::vault::state::keyring::{TRIES, WorkspaceKeys};
use crate::vault::token::{change, secret};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IntakeOutcome {
    /// A new connection.
    #[serde(rename = "Created")]
    Created,
    /// The next version in a working connection.
    #[serde(rename = "Replaced")]
    Replaced,
    /// The next version in a dead connection.
    #[serde(rename = "Restored")]
    Restored,
    /// The connection already held this secret.
    #[serde(rename = "Unchanged")]
    Unchanged,
    /// Nothing was stored, as requested.
    #[serde(rename = "ValidatedOnly")]
    ValidatedOnly,
}

/// Where an accepted token goes.
pub(in crate::vault) struct Destination {
    pub(in crate::vault) workspace: WorkspaceId,
    pub(in crate::vault) provider: ProviderId,
    /// `None`: the connection of the token's subject, or a new one.
    pub(in crate::vault) connection: Option<ConnectionId>,
    /// The connection whose token this one was read with.
    pub(in crate::vault) parent: Option<ConnectionId>,
    pub(in crate::vault) if_version: Option<TokenVersion>,
    pub(in crate::vault) options: IntakeOptions,
    pub(in crate::vault) settles: Settles,
    /// The connect link with which the person brought the token.
    pub(in crate::vault) link: Option<ConnectLinkId>,
}

/// What has its outcome written in the transaction that saves a token.
#[derive(Clone)]
pub(in crate::vault) enum Settles {
    Request(RequestClaim),
    /// An authorization that this process has taken.
    Authorization(AuthorizationId, Incarnation),
}

impl Default for Settles {
    fn default() -> Self {
        Self::Request(RequestClaim::default())
    }
}

impl Settles {
    async fn finish(&self, tx: &mut Tx, outcome: &StoredBefore) -> Result<(), Abort<VaultError>> {
        match self {
            Self::Request(claim) => claim.finish(tx, outcome).await,
            Self::Authorization(id, by) => {
                let outcome = serde_json::to_value(outcome).map_err(|_| Abort::Work(VaultError::Internal))?;
                if tx.store_authorization(*id, *by, &outcome).await? {
                    Ok(())
                } else {
                    Err(Abort::Work(VaultError::AuthorizationOver))
                }
            }
        }
    }
}

/// The stored outcome of a request that stored a token. Its names never change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::vault) struct StoredBefore {
    pub(in crate::vault) connection: ConnectionId,
    pub(in crate::vault) outcome: IntakeOutcome,
}

impl Vault {
    pub(in crate::vault) async fn save(
        &self,
        destination: &Destination,
        accepted: Arc<Accepted>,
    ) -> Result<(Connection, IntakeOutcome), VaultError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.save_once(destination, Arc::clone(&accepted)).await {
                // The workspace got a new data key meanwhile: seal again, with that key.
                Err(VaultError::KeysChanged(workspace)) if tries < TRIES => {
                    self.store.forget_workspace(&workspace);
                }
                outcome => return outcome,
            }
        }
    }

    async fn save_once(
        &self,
        destination: &Destination,
        accepted: Arc<Accepted>,
    ) -> Result<(Connection, IntakeOutcome), VaultError> {
        let keys = self.workspace_keys_or_new(&destination.workspace).await?;
        let connections = destination.connection.into_iter().collect();
        let saving = Arc::new(Saving {
            workspace: destination.workspace.clone(),
            provider: destination.provider.clone(),
            connection: destination.connection,
            parent: destination.parent,
            if_version: destination.if_version,
            options: destination.options,
            settles: destination.settles.clone(),
            link: destination.link.clone(),
            authorization: self.keys.authorization.clone(),
            accepted,
            keys,
            policy: self.policy(),
            now: self.clock.now(),
        });
        let ((connection, outcome), numbers) = self
            .store
            .write_with(Needs { connections, alone: false }, move |tx| {
                let saving = Arc::clone(&saving);
                Box::pin(async move { saving.run(tx).await })
            })
            .await?;
        Ok((change::numbered(connection, numbers), outcome))
    }
}

/// What the transaction needs. It may run more than once.
struct Saving {
    workspace: WorkspaceId,
    provider: ProviderId,
    connection: Option<ConnectionId>,
    parent: Option<ConnectionId>,
    if_version: Option<TokenVersion>,
    options: IntakeOptions,
    settles: Settles,
    link: Option<ConnectLinkId>,
    authorization: MacKey,
    accepted: Arc<Accepted>,
    keys: Arc<WorkspaceKeys>,
    policy: Arc<Policy>,
    now: Timestamp,
}

impl Saving {
    async fn run(&self, tx: &mut Tx) -> Result<(Connection, IntakeOutcome), Abort<VaultError>> {
        let inspected = &self.accepted.inspected;
        let held = self.find(tx).await?;
        self.check_version(held.as_ref()).map_err(Abort::Work)?;
        let fingerprint = self.keys.index.fingerprint(&self.provider, &self.accepted.secret);

        let (mut connection, outcome, new_secret) = match &held {
            None => {
                let mut connection = new_connection(&self.workspace, &self.provider, inspected, self.now);
                connection.fingerprint = Some(fingerprint);
                connection.parent = self.parent;
                (connection, IntakeOutcome::Created, true)
            }
            Some(held) => {
                check_replaces(held, inspected, self.options, self.now, &self.policy).map_err(Abort::Work)?;
                self.check_subject_is_free(tx, held).await?;
                let usable = held.status(self.now, &self.policy).is_usable();
                let same = held.fingerprint == Some(fingerprint);
                let told = &inspected.facts;
                let mut next = Connection {
                    app_id: inspected.app_id.clone(),
                    subject: inspected.subject.clone(),
                    facts: if same { told.onto(&held.facts) } else { told.of_new_token(Some(&held.facts)) },
                    standing: Standing::Live,
                    fingerprint: Some(fingerprint),
                    parent: self.parent.or(held.parent),
                    seen: Observations { last_known_good: Some(self.now), ..held.seen },
                    ..held.clone()
                };
                next.note_inspected(self.now);
                if next.subject.id == held.subject.id {
                    next.subject.learn(&held.subject);
                }
                // A secret that data calls refuse is no better for being pasted again.
                let refused = same && held.seen.data_refusal.is_some();
                if refused {
                    next.standing = held.standing.clone();
                    next.seen.last_known_good = held.seen.last_known_good;
                }
                if !same {
                    // What was hidden from the person's last token may be shown to this one.
                    next.seen.listing.unread = Unread::default();
                    (next.version, next.secret_id) = (held.version.next(), SecretId::generate());
                }
                let outcome = match (usable, same) {
                    (true, true) => IntakeOutcome::Unchanged,
                    (false, true) if refused => IntakeOutcome::Unchanged,
                    (true, false) => IntakeOutcome::Replaced,
                    (false, _) => IntakeOutcome::Restored,
                };
                (next, outcome, !same)
            }
        };
        match &held {
            None => {
                change::connect(tx, &mut connection, self.link.as_ref(), self.now, &self.policy).await?;
            }
            Some(held) => {
                let nothing = AccountChange::default();
                let cause = Cause::Person(self.link.as_ref());
                change::apply(tx, held, &mut connection, cause, nothing, self.now, &self.policy).await?;
            }
        }
        if new_secret {
            secret::put(tx, &self.keys, &connection, &self.accepted.secret, self.now).await?;
        }
        if let Some(exchanged) = &self.accepted.exchanged_from {
            let exchanged = ExchangedToken {
                fingerprint: self.keys.index.fingerprint(&self.provider, &exchanged.secret),
                connection: connection.id,
                secret_id: connection.secret_id,
                ends_at: exchanged.ends_at,
            };
            tx.remember_exchanged(&self.workspace, exchanged).await?;
        }
        if let Some(link) = &self.link {
            spend(tx, &self.authorization, link, connection.id, self.now).await?;
        }
        self.settles.finish(tx, &StoredBefore { connection: connection.id, outcome }).await?;
        Ok((connection, outcome))
    }

    /// The connection to save the token in, locked: the named one, otherwise the one of the same subject.
    async fn find(&self, tx: &mut Tx) -> Result<Option<Connection>, Abort<VaultError>> {
        if let Some(id) = self.connection {
            let held = tx.lock_connection(id).await?.filter(|held| held.workspace == self.workspace);
            return held.map(Some).ok_or(Abort::Work(VaultError::ConnectionNotFound(id)));
        }
        let inspected = &self.accepted.inspected;
        // Without a subject id, only a named connection can be found.
        if inspected.subject.id.is_empty() {
            return Ok(None);
        }
        let held = tx
            .connection_of_subject(&self.workspace, &self.provider, &inspected.app_id, &inspected.subject.id)
            .await?;
        match held {
            Some(held) => Ok(tx.lock_connection(held.id).await?),
            None => Ok(None),
        }
    }

    fn check_version(&self, held: Option<&Connection>) -> Result<(), VaultError> {
        match (self.if_version, held) {
            (Some(expected), Some(held)) if held.version != expected => {
                Err(VaultError::TokenVersionMismatch { connection: held.id, expected, actual: held.version })
            }
            (Some(_), None) => Err(VaultError::Fields(vec![FieldViolation::new(
                "if_token_version",
                "must be unset when there is no connection yet",
            )])),
            _ => Ok(()),
        }
    }

    /// The connection's new subject must not belong to another connection.
    async fn check_subject_is_free(&self, tx: &mut Tx, held: &Connection) -> Result<(), Abort<VaultError>> {
        let inspected = &self.accepted.inspected;
        if inspected.subject.id == held.subject.id && inspected.app_id == held.app_id
            || inspected.subject.id.is_empty()
        {
            return Ok(());
        }
        let other = tx
            .connection_of_subject(&self.workspace, &self.provider, &inspected.app_id, &inspected.subject.id)
            .await?;
        match other {
            Some(other) if other.id != held.id => Err(Abort::Work(VaultError::SubjectAlreadyConnected {
                provider: other.provider,
                connection: other.id,
            })),
            _ => Ok(()),
        }
    }
}

/// Make before break: a token replaces a working one only if it belongs to the same subject and has no fewer scopes.
pub(in crate::vault) fn check_replaces(
    held: &Connection,
    inspected: &Inspected,
    options: IntakeOptions,
    now: Timestamp,
    policy: &Policy,
) -> Result<(), VaultError> {
    if is_untold_subject(held, inspected) {
        return Err(VaultError::untold(&held.provider, "whose it is"));
    }
    let other_subject = is_other_subject(held, inspected);
    if other_subject && !options.allow_subject_change {
        return Err(VaultError::SubjectMismatch {
            connection: Some(held.id),
            expected: held.subject.id.clone(),
            actual: inspected.subject.id.clone(),
        });
    }
    let lost = lost_scopes(held, inspected);
    // A dead token has lost its scopes anyway.
    let working = held.status(now, policy).is_usable();
    if working && !other_subject && !lost.is_empty() && !options.allow_fewer_scopes {
        return Err(VaultError::ScopesShrunk { connection: held.id, lost });
    }
    Ok(())
}

/// Whether a token speaks for another subject than the one that the connection holds.
pub(in crate::vault) fn is_other_subject(held: &Connection, inspected: &Inspected) -> bool {
    // Subject ids are per app: the same id in another app is another person.
    !held.subject.id.is_empty()
        && (held.subject.id != inspected.subject.id || held.app_id != inspected.app_id)
}

/// Whether the provider does not tell whom a token speaks for, although it must be the subject of the connection.
pub(in crate::vault) fn is_untold_subject(held: &Connection, inspected: &Inspected) -> bool {
    inspected.subject.id.is_empty() && !held.subject.id.is_empty()
}

/// The scopes of the token held that another one lacks.
pub(in crate::vault) fn lost_scopes(held: &Connection, inspected: &Inspected) -> Vec<String> {
    let scopes = inspected.facts.of_new_token(Some(&held.facts)).scopes;
    held.facts.scopes.iter().filter(|scope| !scopes.contains(scope)).cloned().collect()
}

/// A connection that does not exist yet.
pub(in crate::vault) fn new_connection(
    workspace: &WorkspaceId,
    provider: &ProviderId,
    inspected: &Inspected,
    now: Timestamp,
) -> Connection {
    let mut connection = Connection {
        id: ConnectionId::generate(now),
        workspace: workspace.clone(),
        provider: provider.clone(),
        app_id: inspected.app_id.clone(),
        subject: inspected.subject.clone(),
        version: TokenVersion::FIRST,
        secret_id: SecretId::generate(),
        fingerprint: None,
        revision: 1,
        facts: inspected.facts.of_new_token(None),
        standing: Standing::Live,
        seen: Observations { last_known_good: Some(now), ..Observations::default() },
        schedule: Schedule::default(),
        parent: None,
        last_event: 0,
        created_at: now,
        updated_at: now,
    };
    connection.note_validated(now);
    connection
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_outcome_keeps_its_bytes() {
        let connection = ConnectionId::parse("0193e4a0-0000-7000-8000-000000000001").unwrap();
        for (outcome, name) in [
            (IntakeOutcome::Created, "Created"),
            (IntakeOutcome::Replaced, "Replaced"),
            (IntakeOutcome::Restored, "Restored"),
            (IntakeOutcome::Unchanged, "Unchanged"),
            (IntakeOutcome::ValidatedOnly, "ValidatedOnly"),
        ] {
            let outcome = StoredBefore { connection, outcome };
            let stored =
                format!(r#"{{"connection":"0193e4a0-0000-7000-8000-000000000001","outcome":"{name}"}}"#);
            assert_eq!(serde_json::to_string(&outcome).unwrap(), stored);
            assert_eq!(serde_json::from_str::<StoredBefore>(&stored).unwrap(), outcome);
        }
    }
}
