//! Taking tokens in: parse → inspect → exchange if short-lived → inspect again → scopes → seal → save →
//! smoke test. Each step consumes what the one before made. No transaction is open while the provider is
//! asked, and a failure at any step leaves the old token in place and working.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::crypto;
use crate::model::{
    AccountChange, Cause, Check, CheckResult, Connection, ConnectionId, Expiry, ExpirySource, GrantState,
    Observations, Policy, Principal, ProviderId, RefusalReason, RequestId, Schedule, Secret, SecretId,
    Standing, SubjectType, Timestamp, TokenKind, TokenVersion, WorkspaceId,
};
use crate::provider::{Inspected, Provider};
use crate::store::{Abort, Needs, NewSecret, Tx};
use crate::vault::error::{FieldViolation, VaultError};
use crate::vault::once::idempotency::RequestClaim;
use crate::vault::state::Vault;
use crate::vault::state::keyring::{TRIES, WorkspaceKeys};
use crate::vault::token::custody::{binding, is_later};
use crate::vault::token::target::Target;
use crate::vault::token::validate::Patient;
use crate::vault::token::verdict::{Learned, Recorded};
use crate::vault::token::view::TokenView;
use crate::vault::token::{candidate, change};

/// Paste-token flow.
#[derive(Debug)]
pub struct StoreToken {
    /// Idempotency key.
    pub request_id: Option<RequestId>,
    /// Only if the connection holds this version.
    pub if_version: Option<TokenVersion>,
    /// Whose.
    pub workspace: WorkspaceId,
    /// At which platform.
    pub provider: ProviderId,
    /// Reconnect this one.
    pub connection: Option<ConnectionId>,
    /// As pasted; `Candidate` bounds and cleans it.
    pub access_token: Secret,
    /// What is allowed.
    pub options: IntakeOptions,
    /// Inspect and check, keep nothing.
    pub validate_only: bool,
}

/// What a caller allows at intake that is refused by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IntakeOptions {
    /// Store although required scopes are missing.
    pub allow_missing_scopes: bool,
    /// Replace although scopes get fewer.
    pub allow_fewer_scopes: bool,
    /// Replace although it speaks for somebody else.
    pub allow_subject_change: bool,
    /// Connect the person's pages too.
    pub connect_pages: bool,
}

/// What intake did.
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

/// Answer of the paste-token flow.
#[derive(Debug)]
pub struct Intake {
    /// The token now held; for `ValidatedOnly` a token that would be held.
    pub token: TokenView,
    /// What was done.
    pub outcome: IntakeOutcome,
    /// What the doctor found.
    pub checks: Vec<Check>,
    /// The connections of the person's pages, if they were to be connected.
    pub pages: Vec<ConnectionId>,
    /// Position in the feed.
    pub cursor: String,
}

impl Intake {
    /// The worst finding.
    pub fn overall(&self) -> CheckResult {
        worst(&self.checks)
    }
}

/// The worst finding of many; `Skipped` of none.
pub fn worst(checks: &[Check]) -> CheckResult {
    checks.iter().map(|check| check.result).max().unwrap_or(CheckResult::Skipped)
}

/// What a long-lived user token usually lives, where the provider tells no end.
const USUAL_LIFE: Duration = Duration::from_secs(60 * 24 * 60 * 60);

/// A token that passed every check, and what the provider says of it.
pub(in crate::vault) struct Accepted {
    pub(in crate::vault) secret: Secret,
    pub(in crate::vault) word: Inspected,
    /// The end of what was pasted, before any exchange.
    pub(in crate::vault) pasted_expiry: Expiry,
}

/// Where an accepted token goes.
pub(in crate::vault) struct Destination {
    pub(in crate::vault) workspace: WorkspaceId,
    pub(in crate::vault) provider: ProviderId,
    pub(in crate::vault) connection: Option<ConnectionId>,
    /// The connection that the token was read with.
    pub(in crate::vault) parent: Option<ConnectionId>,
    pub(in crate::vault) if_version: Option<TokenVersion>,
    pub(in crate::vault) options: IntakeOptions,
    pub(in crate::vault) claim: RequestClaim,
}

/// The stored outcome of a request that stored a token. Its names never change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredBefore {
    connection: ConnectionId,
    outcome: IntakeOutcome,
}

impl Vault {
    /// Paste-token flow.
    ///
    /// # Errors
    /// See [`VaultError`]: `TokenMalformed`, `ProviderRefusedToken`, `TokenOfOtherApp`, `ScopesMissing`,
    /// `ScopesShrunk`, `SubjectMismatch`, `ExchangeNotPossible`, `ProviderUnavailable` and more. None of them
    /// changes anything.
    pub async fn store_token(
        self: &Arc<Self>,
        caller: &Principal,
        command: StoreToken,
    ) -> Result<Intake, VaultError> {
        self.may_store(caller, &command).await?;
        let pasted = candidate::parse(&command.access_token, "access_token")?;
        let (vault, caller) = (Arc::clone(self), caller.clone());
        self.work.detached(async move {
            let options = command.options;
            let flags = [
                u8::from(options.allow_missing_scopes),
                u8::from(options.allow_fewer_scopes),
                u8::from(options.allow_subject_change),
                u8::from(options.connect_pages),
                u8::from(command.validate_only),
            ];
            let connection = command.connection.map(|id| id.to_string()).unwrap_or_default();
            let version = command.if_version.map_or(0, TokenVersion::get).to_be_bytes();
            let parts: [&[u8]; 6] = [
                command.workspace.as_str().as_bytes(),
                command.provider.as_str().as_bytes(),
                connection.as_bytes(),
                pasted.expose().as_bytes(),
                &flags,
                &version,
            ];
            // A validation stores nothing, so it may be repeated.
            let id = command.request_id.as_ref().filter(|_| !command.validate_only);
            let request = vault.request("StoreToken", id, &parts);
            let work = async |claim| {
                let intake = vault.take_in(&command, pasted, claim).await?;
                let token = &intake.token.connection;
                tracing::info!(
                    connection = %token.id, workspace = %token.workspace, version = %token.version, outcome = ?intake.outcome,
                    by = caller.name, "token taken in"
                );
                Ok(intake)
            };
            let repeat = async |before: StoredBefore| vault.stored_before(&caller, before).await;
            vault.once(&caller, request, work, repeat).await
        })
        .await
    }

    /// Whether the caller may bring a token there, before anybody is asked.
    async fn may_store(&self, caller: &Principal, command: &StoreToken) -> Result<(), VaultError> {
        if !caller.workspaces.contains(&command.workspace) {
            return Err(VaultError::WorkspaceNotFound(command.workspace.clone()));
        }
        self.provider(&command.provider)?;
        if let Some(connection) = command.connection {
            let target = Target { connection, workspace: Some(command.workspace.clone()) };
            let held = self.held(caller, &target).await?;
            if held.connection.provider != command.provider {
                return Err(VaultError::ConnectionNotFound(connection));
            }
        }
        Ok(())
    }

    async fn stored_before(&self, caller: &Principal, before: StoredBefore) -> Result<Intake, VaultError> {
        let cursor = self.cursor();
        let connection = self.seen_again(caller, before.connection).await?;
        Ok(Intake {
            token: self.view(connection).await?,
            outcome: before.outcome,
            checks: Vec::new(),
            pages: Vec::new(),
            cursor,
        })
    }

    async fn take_in(
        self: &Arc<Self>,
        command: &StoreToken,
        pasted: Secret,
        claim: RequestClaim,
    ) -> Result<Intake, VaultError> {
        let provider = self.provider(&command.provider)?;
        let accepted = if command.validate_only {
            self.look_at(&*provider, pasted, command.options).await?
        } else {
            self.accept(&*provider, pasted, command.options).await?
        };
        if command.validate_only {
            return self.only_validated(command, &*provider, accepted).await;
        }
        let destination = Destination {
            workspace: command.workspace.clone(),
            provider: command.provider.clone(),
            connection: command.connection,
            parent: None,
            if_version: command.if_version,
            options: command.options,
            claim,
        };
        let accepted = Arc::new(accepted);
        let (connection, outcome) = self.save(&destination, Arc::clone(&accepted)).await?;
        // After the commit there is no error: what the doctor can't find out, the checks say.
        let policy = self.policy();
        let patient = Patient {
            provider: &*provider,
            secret: &accepted.secret,
            policy: &policy,
            now: self.clock.now(),
            wanted: &Default::default(),
            ad_account: None,
        };
        let found = patient.examine(Some(accepted.word.clone())).await;
        let recorded = self.record(&connection, found.word, Learned::accounts(found.accounts)).await;
        let connection = match recorded {
            Ok(Recorded::Kept(connection)) => *connection,
            Ok(Recorded::Changed | Recorded::Held) => connection,
            Err(error) => {
                tracing::warn!(%error, "what the doctor found after a token was stored could not be recorded");
                connection
            }
        };
        let (mut checks, mut pages) = (found.checks, Vec::new());
        if command.options.connect_pages {
            let (connected, check) = self.connect_pages(&connection, &accepted.secret, &*provider).await;
            pages = connected;
            checks.push(check);
        }
        let token = self.view_stored(connection).await;
        Ok(Intake { token, outcome, checks, pages, cursor: self.cursor() })
    }

    /// Asks the provider who a token is, and checks what does not depend on what is held.
    async fn look_at(
        &self,
        provider: &dyn Provider,
        secret: Secret,
        options: IntakeOptions,
    ) -> Result<Accepted, VaultError> {
        let word = inspect(provider, &secret, self.clock.now()).await?;
        let pasted_expiry = word.facts.expiry;
        self.check_scopes(provider, Accepted { secret, word, pasted_expiry }, options).await
    }

    /// The same, and a short-lived token is exchanged for one that lasts.
    pub(in crate::vault) async fn accept(
        &self,
        provider: &dyn Provider,
        pasted: Secret,
        options: IntakeOptions,
    ) -> Result<Accepted, VaultError> {
        let word = inspect(provider, &pasted, self.clock.now()).await?;
        let lasting = match word.facts.kind {
            TokenKind::ShortLivedUser => make_lasting(provider, &pasted, &word, self.clock.now()).await?,
            _ => {
                let pasted_expiry = word.facts.expiry;
                Accepted { secret: pasted, word, pasted_expiry }
            }
        };
        self.check_scopes(provider, lasting, options).await
    }

    /// Scopes as the person granted them: what was declined does not count, whatever the token says.
    async fn check_scopes(
        &self,
        provider: &dyn Provider,
        mut accepted: Accepted,
        options: IntakeOptions,
    ) -> Result<Accepted, VaultError> {
        let subject = &accepted.word.subject;
        let mut declined = Vec::new();
        if subject.kind == SubjectType::User {
            match provider.grants(&accepted.secret).await {
                Ok(grants) => {
                    declined = grants
                        .into_iter()
                        .filter(|grant| grant.state != GrantState::Granted)
                        .map(|grant| grant.scope)
                        .collect();
                    accepted.word.facts.scopes.retain(|scope| !declined.contains(scope));
                }
                // The token's own scopes are the truth that is at hand; a refusal here says nothing of them.
                Err(refusal) => tracing::debug!(detail = %refusal.detail, "permissions could not be read"),
            }
        }
        let missing = self.policy().missing_required(&accepted.word.facts.scopes);
        if !missing.is_empty() && !options.allow_missing_scopes {
            declined.retain(|scope| missing.contains(scope));
            return Err(VaultError::ScopesMissing { missing, declined });
        }
        if accepted.word.subject.name.is_empty()
            && let Ok(name) = provider.subject_name(&accepted.secret, &accepted.word.subject).await
        {
            accepted.word.subject.name = name;
        }
        Ok(accepted)
    }

    async fn only_validated(
        &self,
        command: &StoreToken,
        provider: &dyn Provider,
        accepted: Accepted,
    ) -> Result<Intake, VaultError> {
        let now = self.clock.now();
        let held = match command.connection {
            Some(id) => self.store.read().await?.connection(id).await?,
            None => {
                let (app, subject) = (&accepted.word.app_id, &accepted.word.subject.id);
                let mut session = self.store.read().await?;
                session.connection_of_subject(&command.workspace, &command.provider, app, subject).await?
            }
        };
        let policy = self.policy();
        if let Some(held) = &held {
            check_replaces(held, &accepted.word, command.options, now, &policy)?;
        }
        let patient = Patient {
            provider,
            secret: &accepted.secret,
            policy: &policy,
            now,
            wanted: &Default::default(),
            ad_account: None,
        };
        let found = patient.examine(Some(accepted.word.clone())).await;
        let mut connection = fresh(&command.workspace, &command.provider, &accepted.word, now);
        let is_new = held.is_none();
        if let Some(held) = held {
            (connection.id, connection.version, connection.created_at) =
                (held.id, held.version, held.created_at);
        }
        connection.seen.ad_accounts = found.accounts.and_then(|accounts| u32::try_from(accounts.len()).ok());
        let token = TokenView { is_new, ..TokenView::new(connection, 0, now, &policy) };
        Ok(Intake {
            token,
            outcome: IntakeOutcome::ValidatedOnly,
            checks: found.checks,
            pages: Vec::new(),
            cursor: self.cursor(),
        })
    }

    /// Saves an accepted token: facts, sealed secret and the request's outcome in one transaction.
    pub(in crate::vault) async fn save(
        &self,
        destination: &Destination,
        accepted: Arc<Accepted>,
    ) -> Result<(Connection, IntakeOutcome), VaultError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.save_once(destination, Arc::clone(&accepted)).await {
                // The workspace got a new data key meanwhile: sealed again, by that.
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
            claim: destination.claim.clone(),
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

/// Everything that the storing unit needs. It may run more than once.
struct Saving {
    workspace: WorkspaceId,
    provider: ProviderId,
    connection: Option<ConnectionId>,
    parent: Option<ConnectionId>,
    if_version: Option<TokenVersion>,
    options: IntakeOptions,
    claim: RequestClaim,
    accepted: Arc<Accepted>,
    keys: Arc<WorkspaceKeys>,
    policy: Arc<Policy>,
    now: Timestamp,
}

impl Saving {
    async fn run(&self, tx: &mut Tx) -> Result<(Connection, IntakeOutcome), Abort<VaultError>> {
        let word = &self.accepted.word;
        let held = self.find(tx).await?;
        self.check_version(held.as_ref()).map_err(Abort::Refused)?;
        let fingerprint = self.keys.index.fingerprint(&self.provider, &self.accepted.secret);

        let (mut connection, outcome, new_secret) = match &held {
            None => {
                let mut connection = fresh(&self.workspace, &self.provider, word, self.now);
                connection.fingerprint = Some(fingerprint);
                connection.parent = self.parent;
                (connection, IntakeOutcome::Created, true)
            }
            Some(held) => {
                check_replaces(held, word, self.options, self.now, &self.policy).map_err(Abort::Refused)?;
                self.check_subject_is_free(tx, held).await?;
                let usable = held.status(self.now, &self.policy).is_usable();
                let same = held.fingerprint == Some(fingerprint);
                let mut next = Connection {
                    app_id: word.app_id.clone(),
                    subject: word.subject.clone(),
                    facts: word.facts.clone(),
                    standing: Standing::Live,
                    fingerprint: Some(fingerprint),
                    parent: self.parent.or(held.parent),
                    seen: Observations {
                        last_validated_at: Some(self.now),
                        last_known_good: Some(self.now),
                        ..held.seen
                    },
                    ..held.clone()
                };
                if next.subject.name.is_empty() {
                    next.subject.name.clone_from(&held.subject.name);
                }
                if !same {
                    (next.version, next.secret_id) = (held.version.next(), SecretId::generate());
                }
                let outcome = match (usable, same) {
                    (true, true) => IntakeOutcome::Unchanged,
                    (true, false) => IntakeOutcome::Replaced,
                    (false, _) => IntakeOutcome::Restored,
                };
                (next, outcome, !same)
            }
        };
        match &held {
            None => change::connect(tx, &mut connection, self.now, &self.policy).await?,
            Some(held) => {
                let nothing = AccountChange::default();
                change::apply(tx, held, &mut connection, Cause::Person, nothing, self.now, &self.policy)
                    .await?;
            }
        }
        if new_secret {
            let key = self.keys.newest().ok_or(Abort::Refused(VaultError::Internal))?;
            let sealed = crypto::seal(key, &binding(&connection), &self.accepted.secret)
                .map_err(|_| Abort::Refused(VaultError::Internal))?;
            let secret = NewSecret {
                connection: connection.id,
                version: connection.version,
                secret_id: connection.secret_id,
                sealed,
            };
            if !tx.put_secret(&connection.workspace, secret, self.now).await? {
                return Err(Abort::Refused(VaultError::KeysChanged(connection.workspace)));
            }
        }
        self.claim.finish(tx, &StoredBefore { connection: connection.id, outcome }).await?;
        Ok((connection, outcome))
    }

    /// The connection that the token lands in, locked; the named one, else that of the same subject.
    async fn find(&self, tx: &mut Tx) -> Result<Option<Connection>, Abort<VaultError>> {
        if let Some(id) = self.connection {
            let held = tx.lock_connection(id).await?.filter(|held| held.workspace == self.workspace);
            return held.map(Some).ok_or(Abort::Refused(VaultError::ConnectionNotFound(id)));
        }
        let word = &self.accepted.word;
        // A subject that the provider does not name can't be found again: only a named connection is.
        if word.subject.id.is_empty() {
            return Ok(None);
        }
        let held =
            tx.connection_of_subject(&self.workspace, &self.provider, &word.app_id, &word.subject.id).await?;
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

    /// A subject that the connection is to get must not be another connection's.
    async fn check_subject_is_free(&self, tx: &mut Tx, held: &Connection) -> Result<(), Abort<VaultError>> {
        let word = &self.accepted.word;
        if word.subject.id == held.subject.id && word.app_id == held.app_id || word.subject.id.is_empty() {
            return Ok(());
        }
        let other =
            tx.connection_of_subject(&self.workspace, &self.provider, &word.app_id, &word.subject.id).await?;
        match other {
            Some(other) if other.id != held.id => Err(Abort::Refused(VaultError::SubjectAlreadyConnected {
                provider: other.provider,
                connection: other.id,
            })),
            _ => Ok(()),
        }
    }
}

/// Make before break: a token replaces a working one only if it speaks for the same subject and may do no less.
pub(in crate::vault) fn check_replaces(
    held: &Connection,
    word: &Inspected,
    options: IntakeOptions,
    now: Timestamp,
    policy: &Policy,
) -> Result<(), VaultError> {
    // Ids of subjects are the app's own: the same id of another app is somebody else.
    let other_subject =
        !held.subject.id.is_empty() && (held.subject.id != word.subject.id || held.app_id != word.app_id);
    if other_subject && !options.allow_subject_change {
        return Err(VaultError::SubjectMismatch {
            connection: Some(held.id),
            expected: held.subject.id.clone(),
            actual: word.subject.id.clone(),
        });
    }
    let lost: Vec<_> =
        held.facts.scopes.iter().filter(|scope| !word.facts.scopes.contains(scope)).cloned().collect();
    // A dead token's scopes are lost already.
    let working = held.status(now, policy).is_usable();
    if working && !other_subject && !lost.is_empty() && !options.allow_fewer_scopes {
        return Err(VaultError::ScopesShrunk { connection: held.id, lost });
    }
    Ok(())
}

/// A connection that does not exist yet.
fn fresh(workspace: &WorkspaceId, provider: &ProviderId, word: &Inspected, now: Timestamp) -> Connection {
    Connection {
        id: ConnectionId::generate(now),
        workspace: workspace.clone(),
        provider: provider.clone(),
        app_id: word.app_id.clone(),
        subject: word.subject.clone(),
        version: TokenVersion::FIRST,
        secret_id: SecretId::generate(),
        fingerprint: None,
        revision: 1,
        facts: word.facts.clone(),
        standing: Standing::Live,
        seen: Observations {
            last_validated_at: Some(now),
            last_known_good: Some(now),
            ..Observations::default()
        },
        schedule: Schedule::default(),
        parent: None,
        last_event: 0,
        created_at: now,
        updated_at: now,
    }
}

async fn inspect(provider: &dyn Provider, secret: &Secret, now: Timestamp) -> Result<Inspected, VaultError> {
    let word = provider
        .inspect(secret)
        .await
        .map_err(|refusal| VaultError::from_intake_refusal(&refusal, provider))?;
    if word.app_id != provider.app_id() {
        return Err(VaultError::TokenOfOtherApp {
            provider: provider.id().clone(),
            app_id: provider.app_id().to_owned(),
        });
    }
    if word.facts.expiry.at().is_some_and(|end| end <= now) {
        return Err(VaultError::ProviderRefusedToken {
            provider: provider.id().clone(),
            reason: RefusalReason::Expired,
            provider_code: String::new(),
        });
    }
    Ok(word)
}

/// Exchanges a short-lived token and proves that the new one lasts longer.
async fn make_lasting(
    provider: &dyn Provider,
    short: &Secret,
    before: &Inspected,
    now: Timestamp,
) -> Result<Accepted, VaultError> {
    let exchanged = provider
        .exchange(short, before.facts.kind)
        .await
        .map_err(|refusal| VaultError::from_intake_refusal(&refusal, provider))?;
    let mut word = inspect(provider, &exchanged.secret, now).await?;
    if word.subject.id != before.subject.id {
        return Err(VaultError::SubjectMismatch {
            connection: None,
            expected: before.subject.id.clone(),
            actual: word.subject.id.clone(),
        });
    }
    // What inspection does not tell, the reply may; what neither tells is assumed, and marked so.
    if word.facts.expiry == Expiry::Unknown {
        word.facts.expiry = match exchanged.expires_in {
            Some(life) => Expiry::At(now + life, ExpirySource::Reply),
            None => Expiry::At(now + USUAL_LIFE, ExpirySource::Assumed),
        };
    }
    if word.facts.kind == TokenKind::ShortLivedUser || !is_later(word.facts.expiry, before.facts.expiry) {
        return Err(VaultError::ExchangeNotPossible {
            connection: None,
            provider: provider.id().clone(),
            why: "the provider's exchange did not lengthen the short-lived token's life".into(),
        });
    }
    Ok(Accepted { secret: exchanged.secret, word, pasted_expiry: before.facts.expiry })
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
