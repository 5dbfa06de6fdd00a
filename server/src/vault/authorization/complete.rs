//! CompleteAuthorization: takes the authorization, exchanges the code, and stores the token as StoreToken does.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::callback::{pairs, value};
use super::state::{State, binding_of, verifier_of};
use crate::model::{
    AuthorizationId, ConnectionId, Misconfiguration, Principal, ProviderId, Refusal, RefusalKind, Secret,
    WorkspaceId,
};
use crate::provider::{Callback, Provider};
use crate::store::{Abort, AuthorizationScope, AuthorizationState, Origin, Session};
use crate::vault::access::connect_links::must_be_open;
use crate::vault::error::VaultError;
use crate::vault::state::Vault;
use crate::vault::state::work::Turn;
use crate::vault::token::store::Intake;
use crate::vault::token::store::accept::IntakeOptions;
use crate::vault::token::store::save::{Destination, Settles};

/// How often to look whether another task or replica has completed the authorization.
const PAUSE: Duration = Duration::from_millis(100);
/// How long to wait for it. No caller has more time.
const LONGEST: Duration = Duration::from_secs(5 * 60);

pub struct CompleteAuthorization {
    /// The workspace of the session that received the callback.
    pub workspace: WorkspaceId,
    /// As received: a query, or a whole URL. Holds the code.
    pub callback: Secret,
    pub session_binding: Secret,
}

/// How an authorization ended that gave no token, for those who deliver its callback again. Its names never change, and
/// it names nobody: the row may outlive a person's erasure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum EndedBefore {
    #[serde(rename = "Declined")]
    Declined { provider_code: String },
    #[serde(rename = "ScopesMissing")]
    ScopesMissing { missing: Vec<String>, declined: Vec<String>, expired: Vec<String> },
    #[serde(rename = "ScopesShrunk")]
    ScopesShrunk { connection: ConnectionId, lost: Vec<String> },
    #[serde(rename = "SubjectMismatch")]
    SubjectMismatch { connection: Option<ConnectionId> },
    #[serde(rename = "Over")]
    Over,
}

impl EndedBefore {
    fn of(error: &VaultError) -> Self {
        match error {
            VaultError::AuthorizationDeclined { provider_code, .. } => {
                Self::Declined { provider_code: provider_code.clone() }
            }
            VaultError::ScopesMissing { missing, declined, expired } => Self::ScopesMissing {
                missing: missing.clone(),
                declined: declined.clone(),
                expired: expired.clone(),
            },
            VaultError::ScopesShrunk { connection, lost } => {
                Self::ScopesShrunk { connection: *connection, lost: lost.clone() }
            }
            VaultError::SubjectMismatch { connection, .. } => {
                Self::SubjectMismatch { connection: *connection }
            }
            _ => Self::Over,
        }
    }

    fn again(self, provider: &ProviderId) -> VaultError {
        match self {
            Self::Declined { provider_code } => {
                VaultError::AuthorizationDeclined { provider: provider.clone(), provider_code }
            }
            Self::ScopesMissing { missing, declined, expired } => {
                VaultError::ScopesMissing { missing, declined, expired }
            }
            Self::ScopesShrunk { connection, lost } => VaultError::ScopesShrunk { connection, lost },
            Self::SubjectMismatch { connection } => {
                VaultError::SubjectMismatch { connection, expected: String::new(), actual: String::new() }
            }
            Self::Over => VaultError::AuthorizationOver,
        }
    }
}

impl Vault {
    /// Completes an authorization. The same callback again gets the first answer, also at another replica.
    ///
    /// # Errors
    /// `AuthorizationOver`: begin again. `AuthorizationDeclined`; and those of [`Vault::store_token`].
    pub async fn complete_authorization(
        self: &Arc<Self>,
        caller: &Principal,
        command: CompleteAuthorization,
    ) -> Result<Intake, VaultError> {
        if !caller.workspaces.contains(&command.workspace) {
            return Err(VaultError::WorkspaceNotFound(command.workspace));
        }
        let pairs = pairs(&command.callback)?;
        let scope = self.authorization(caller, &command, &pairs).await?;
        self.may_change()?;
        let provider = self.provider(&scope.provider)?;
        let callback = provider.read_callback(&pairs);
        let line = scope.connection.map(|id| self.work.line(Turn::Intake, id));
        let equal = self.equal("CompleteAuthorization", &[scope.id.as_uuid().as_bytes()]);
        let (vault, caller, by) = (Arc::clone(self), caller.clone(), caller.name.clone());
        let work = async move { vault.complete(&caller, scope, callback).await };
        let intake = self.work.answer(equal, line, work).await?;
        let token = &intake.token.connection;
        Origin::note_subject(token);
        tracing::info!(
            connection = %token.id, workspace = %token.workspace, version = %token.version, outcome = ?intake.outcome, by,
            "authorization completed"
        );
        Ok(intake)
    }

    /// The authorization that a callback belongs to, if it is of this workspace and session. Who forges one learns
    /// nothing of what is wrong with it.
    async fn authorization(
        &self,
        caller: &Principal,
        command: &CompleteAuthorization,
        pairs: &[(String, String)],
    ) -> Result<AuthorizationScope, VaultError> {
        let state = value(pairs, "state").and_then(State::read).ok_or(VaultError::AuthorizationOver)?;
        let known = self.store.read().await?.authorization(state.id).await?;
        let (scope, now) = (known.ok_or(VaultError::AuthorizationOver)?, self.clock.now());
        let (scope, is_open) = (scope.0, scope.1 == AuthorizationState::Open);
        let key = &self.keys.index;
        let session = AuthorizationScope {
            workspace: command.workspace.clone(),
            session_binding: binding_of(key, command.session_binding.expose()),
            ..scope.clone()
        };
        let in_time = now < scope.expires_at || !is_open;
        let link = caller.link.as_ref().map(|link| &link.id);
        let same_link = scope.link.as_ref() == link;
        if !(state.is_of(key, &scope) && state.is_of(key, &session) && in_time && same_link) {
            return Err(VaultError::AuthorizationOver);
        }
        // If another account was connected with the link meanwhile, this one's code is not spent in vain.
        if is_open {
            must_be_open(caller, now)?;
        }
        Ok(scope)
    }

    async fn complete(
        self: &Arc<Self>,
        caller: &Principal,
        scope: AuthorizationScope,
        callback: Callback,
    ) -> Result<Intake, VaultError> {
        let (own, began) = (self.store.incarnation(), tokio::time::Instant::now());
        while began.elapsed() < LONGEST {
            let in_flight = self.exchanges_in_flight.enter(format!("authorization:{}", scope.id));
            // Without it, another task of this process works on the authorization, whose caller may have hung up.
            if in_flight.is_some() {
                let mut session = self.store.read().await?;
                let known = async |session: &mut Session| {
                    let known = session.authorization(scope.id).await?;
                    known.map(|(_, state)| state).ok_or(VaultError::AuthorizationOver)
                };
                match known(&mut session).await? {
                    AuthorizationState::Open => {
                        drop(session);
                        if let Some(answer) = self.first_answer(&scope, &callback).await? {
                            return Ok(answer);
                        }
                    }
                    AuthorizationState::Taken(by) => {
                        let works = by != own && session.replica_lives(by).await?;
                        // Its process may have ended with the work done.
                        if !works && matches!(known(&mut session).await?, AuthorizationState::Taken(_)) {
                            return Err(VaultError::AuthorizationOver);
                        }
                    }
                    AuthorizationState::Stored(outcome) => {
                        drop(session);
                        let before = read_outcome(&scope, outcome)?;
                        return self.stored_before(caller, before).await;
                    }
                    AuthorizationState::Failed(outcome) => {
                        let ended = outcome.map_or(Ok(EndedBefore::Over), |one| read_outcome(&scope, one))?;
                        return Err(ended.again(&scope.provider));
                    }
                }
            }
            drop(in_flight);
            tokio::time::sleep(PAUSE).await;
        }
        Err(VaultError::OutOfTime)
    }

    /// Takes an open authorization, and does what the callback says. `None`: another replica was first.
    async fn first_answer(
        self: &Arc<Self>,
        scope: &AuthorizationScope,
        callback: &Callback,
    ) -> Result<Option<Intake>, VaultError> {
        let provider = self.provider(&scope.provider)?;
        let unreachable = |detail: &str| VaultError::ProviderUnavailable {
            provider: scope.provider.clone(),
            provider_code: String::new(),
            retry_after: VaultError::WAIT,
            detail: detail.to_owned(),
        };
        let code = match callback {
            Callback::Code(code) => code,
            Callback::Declined { provider_code } => {
                let (provider, provider_code) = (scope.provider.clone(), provider_code.clone());
                let declined = VaultError::AuthorizationDeclined { provider, provider_code };
                return if self.take(scope, Some(EndedBefore::of(&declined))).await? {
                    Err(declined)
                } else {
                    Ok(None)
                };
            }
            Callback::Misconfigured { provider_code } => {
                let (provider, provider_code) = (scope.provider.clone(), provider_code.clone());
                tracing::error!(%provider, provider_code, "the consent dialog refuses our request");
                let problem = Misconfiguration::RedirectUri;
                return Err(VaultError::ProviderMisconfigured { provider, problem, provider_code });
            }
        };
        // Whatever stands in the way must do so before the authorization is taken: the code stays good for a later try.
        if self.providers.gate(&scope.provider).is_some_and(|gate| gate.is_open()) {
            return Err(unreachable("calls to the provider are held back until it works again"));
        }
        self.work.begin(&scope.workspace, None).await?;
        match self.take(scope, None).await {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) => {
                // The reply to the COMMIT may be lost.
                self.settle_authorization(scope.id, None).await;
                return Err(error);
            }
        }
        let verifier = verifier_of(&self.keys.index, scope.id);
        let exchanged = provider.exchange_code(code, &scope.redirect_uri, &verifier).await;
        let outcome = match exchanged {
            Ok(exchanged) => self.keep(&*provider, scope, exchanged.secret).await.map_err(no_retry),
            Err(refusal) if is_unused(&refusal) => {
                self.settle_authorization(scope.id, None).await;
                return Err(VaultError::from_provider_trouble(&refusal, &scope.provider));
            }
            Err(refusal) => Err(of_the_code(&refusal, &scope.provider)),
        };
        if let Err(error) = &outcome {
            self.settle_authorization(scope.id, Some(EndedBefore::of(error))).await;
        }
        outcome.map(Some)
    }

    /// Stores the token that the code gave, as StoreToken does.
    async fn keep(
        self: &Arc<Self>,
        provider: &dyn Provider,
        scope: &AuthorizationScope,
        secret: Secret,
    ) -> Result<Intake, VaultError> {
        let options = IntakeOptions::from_bits(scope.options);
        let destination = Destination {
            workspace: scope.workspace.clone(),
            provider: scope.provider.clone(),
            connection: scope.connection,
            parent: None,
            if_version: None,
            options,
            settles: Settles::Authorization(scope.id, self.store.incarnation()),
            link: scope.link.clone(),
        };
        let taken = self.take_in(provider, secret, &destination).await?;
        self.try_out(taken, options).await
    }

    /// Takes an open authorization, and ends it at once if it has an end. `false`: it is not open any more.
    async fn take(&self, scope: &AuthorizationScope, end: Option<EndedBefore>) -> Result<bool, VaultError> {
        let (id, own, now) = (scope.id, self.store.incarnation(), self.clock.now());
        let end = end.as_ref().map(written).transpose()?;
        let taken = self
            .store
            .write(move |tx| {
                let end = end.clone();
                Box::pin(async move {
                    let taken = tx.take_authorization(id, own).await?;
                    if let (true, Some(end)) = (taken, end) {
                        tx.fail_authorization(id, own, &end).await?;
                        tx.audit_object(format!("authorization:{id}"), now);
                    }
                    Ok::<_, Abort<VaultError>>(taken)
                })
            })
            .await;
        Ok(taken?)
    }

    /// Notes that an authorization which this process took gave no token; without an end it is open again.
    async fn settle_authorization(&self, id: AuthorizationId, end: Option<EndedBefore>) {
        let own = self.store.incarnation();
        let Ok(end) = end.as_ref().map(written).transpose() else { return };
        let settled = self
            .store
            .write(move |tx| {
                let end = end.clone();
                Box::pin(async move {
                    match end {
                        // One that is not taken by this process any more has its end.
                        Some(end) => drop(tx.fail_authorization(id, own, &end).await?),
                        None => tx.reopen_authorization(id, own).await?,
                    }
                    Ok::<_, Abort<VaultError>>(())
                })
            })
            .await;
        if let Err(error) = settled {
            tracing::warn!(authorization = %id, error = %VaultError::from(error), "the end of an authorization could not be written; the person has to begin again");
        }
    }
}

fn written(ended: &EndedBefore) -> Result<serde_json::Value, VaultError> {
    serde_json::to_value(ended).map_err(|_| VaultError::Internal)
}

fn read_outcome<T: DeserializeOwned>(
    scope: &AuthorizationScope,
    outcome: serde_json::Value,
) -> Result<T, VaultError> {
    serde_json::from_value(outcome).map_err(|error| {
        tracing::error!(authorization = %scope.id, %error, "the outcome of an authorization can't be read");
        VaultError::Internal
    })
}

/// Whether the code is as good as before: it was not sent, or the provider did not look at it.
fn is_unused(refusal: &Refusal) -> bool {
    matches!(refusal.kind, RefusalKind::OutOfTime | RefusalKind::Throttled { .. })
}

/// The error for a code that the provider did not exchange. Whether a lost reply has used it up is not guessed.
fn of_the_code(refusal: &Refusal, provider: &ProviderId) -> VaultError {
    match refusal.kind {
        RefusalKind::Dead { .. } | RefusalKind::Transient { .. } => {
            tracing::warn!(%provider, provider_code = refusal.provider_code(), detail = %refusal.detail, "a code was not exchanged; the person has to begin again");
            VaultError::AuthorizationOver
        }
        _ => VaultError::from_provider_trouble(refusal, provider),
    }
}

/// The error after a code was exchanged. The code is used up, so no caller must be told to try the same again.
fn no_retry(error: VaultError) -> VaultError {
    match error {
        VaultError::ProviderUnavailable { .. }
        | VaultError::ProviderThrottled { .. }
        | VaultError::StorageUnavailable
        | VaultError::AuditUnavailable
        | VaultError::KeyServiceUnavailable
        | VaultError::Overloaded
        | VaultError::OutOfTime
        | VaultError::ShuttingDown
        | VaultError::ConcurrentChange(_)
        | VaultError::KeysChanged(_) => {
            tracing::warn!(%error, "a code was exchanged and its token could not be stored; the person has to begin again");
            VaultError::AuthorizationOver
        }
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_keeps_its_bytes_and_names_nobody() {
        let provider = ProviderId::parse("meta").unwrap();
        let connection = ConnectionId::parse("0193e4a0-0000-7000-8000-000000000001").unwrap();
        let (expected, actual) = ("1020".to_owned(), "3040".to_owned());
        for (error, stored) in [
            (
                VaultError::AuthorizationDeclined {
                    provider: provider.clone(),
                    provider_code: "access_denied".into(),
                },
                r#"{"Declined":{"provider_code":"access_denied"}}"#,
            ),
            (
                VaultError::ScopesMissing {
                    missing: vec!["a".into()],
                    declined: vec!["a".into()],
                    expired: Vec::new(),
                },
                r#"{"ScopesMissing":{"missing":["a"],"declined":["a"],"expired":[]}}"#,
            ),
            (
                VaultError::ScopesShrunk { connection, lost: vec!["a".into()] },
                r#"{"ScopesShrunk":{"connection":"0193e4a0-0000-7000-8000-000000000001","lost":["a"]}}"#,
            ),
            (
                VaultError::SubjectMismatch { connection: Some(connection), expected, actual },
                r#"{"SubjectMismatch":{"connection":"0193e4a0-0000-7000-8000-000000000001"}}"#,
            ),
            (VaultError::StorageUnavailable, r#""Over""#),
        ] {
            let ended = EndedBefore::of(&error);
            assert_eq!(serde_json::to_string(&ended).unwrap(), stored);
            let read: EndedBefore = serde_json::from_str(stored).unwrap();
            assert_eq!(read, ended);
            let again = read.again(&provider);
            assert!(
                again == error
                    || matches!(again, VaultError::SubjectMismatch { .. } | VaultError::AuthorizationOver)
            );
        }
    }
}
