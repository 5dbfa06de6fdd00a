//! BeginAuthorization: writes what the authorization is bound to, and gives the address of the consent dialog.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use super::state::{binding_of, state_of, verifier_of};
use crate::model::{
    AuthorizationId, Connection, ConnectionId, Policy, Principal, ProviderId, RefusalReason, RequestId,
    Secret, Standing, Timestamp, WorkspaceId,
};
use crate::provider::{AskAgain, ConsentRequest, Provider};
use crate::store::AuthorizationScope;
use crate::vault::access::connect_links::{connection_for, must_be_open};
use crate::vault::error::VaultError;
use crate::vault::once::idempotency::RequestClaim;
use crate::vault::state::Vault;
use crate::vault::token::store::accept::IntakeOptions;
use crate::vault::token::target::Target;

/// How long a person has for the consent dialog.
const LIFE: Duration = Duration::from_secs(10 * 60);

pub struct BeginAuthorization {
    pub request_id: Option<RequestId>,
    pub workspace: WorkspaceId,
    pub provider: ProviderId,
    /// As the provider knows it.
    pub redirect_uri: String,
    /// The connection to reconnect; `None` finds it by the subject that comes back.
    pub connection: Option<ConnectionId>,
    /// Scopes to ask for beside the configured ones.
    pub extra_scopes: Vec<String>,
    pub options: IntakeOptions,
    /// What ties the authorization to the person's browser session.
    pub session_binding: Secret,
}

pub struct Authorization {
    /// The address of the consent dialog. It holds the state.
    pub url: Url,
    pub state: Secret,
    pub expires_at: Timestamp,
}

/// The stored outcome of a request that began an authorization. Its names never change.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct BegunBefore {
    authorization: AuthorizationId,
}

impl Vault {
    /// Begins an authorization. Until it is completed, nothing else changes.
    ///
    /// # Errors
    /// `WorkspaceNotFound`, `WorkspaceShredded`, `ProviderUnknown`, `ConnectionNotFound`.
    pub async fn begin_authorization(
        self: &Arc<Self>,
        caller: &Principal,
        command: BeginAuthorization,
    ) -> Result<Authorization, VaultError> {
        if !caller.workspaces.contains(&command.workspace) {
            return Err(VaultError::WorkspaceNotFound(command.workspace));
        }
        let provider = self.provider(&command.provider)?;
        let has_options = command.options.bits() != 0;
        let connection = connection_for(caller, &command.provider, command.connection, has_options)?;
        let command = BeginAuthorization { connection, ..command };
        let held = match command.connection {
            Some(connection) => {
                let target = Target { connection, workspace: Some(command.workspace.clone()) };
                let held = self.held(caller, &target).await?;
                if held.connection.provider != command.provider {
                    return Err(VaultError::ConnectionNotFound(connection));
                }
                Some(held.connection.clone())
            }
            None => None,
        };
        // The workspace comes into being now; a shredded one is refused.
        self.workspace_keys_or_new(&command.workspace).await?;
        let policy = self.policy();
        let scopes = scopes(&policy, &command.extra_scopes);
        let again = again(held.as_ref(), &policy, self.clock.now());
        let connection = command.connection.map(|id| id.to_string()).unwrap_or_default();
        let extra = command.extra_scopes.join(" ");
        let options = command.options.bits();
        let link = caller.link.as_ref().map(|link| link.id.clone());
        let accepted = options.to_be_bytes();
        let mut parts: Vec<&[u8]> = vec![
            command.workspace.as_str().as_bytes(),
            command.provider.as_str().as_bytes(),
            command.redirect_uri.as_bytes(),
            connection.as_bytes(),
            extra.as_bytes(),
            &accepted,
            command.session_binding.expose().as_bytes(),
        ];
        parts.extend(link.as_ref().map(|link| link.as_str().as_bytes()));
        let request = self.request("BeginAuthorization", command.request_id.as_ref(), &parts);
        let bind = |id, expires_at| AuthorizationScope {
            id,
            workspace: command.workspace.clone(),
            provider: command.provider.clone(),
            connection: command.connection,
            redirect_uri: command.redirect_uri.clone(),
            session_binding: binding_of(&self.keys.index, command.session_binding.expose()),
            options,
            expires_at,
            link: link.clone(),
        };
        let work = async |claim: RequestClaim| {
            let scope = bind(AuthorizationId::generate(), self.clock.now() + LIFE);
            must_be_open(caller, self.clock.now())?;
            self.may_change()?;
            let (unit, now) = (scope.clone(), self.clock.now());
            self.store
                .write(move |tx| {
                    let (scope, claim) = (unit.clone(), claim.clone());
                    Box::pin(async move {
                        tx.insert_authorization(&scope).await?;
                        tx.audit_object(format!("authorization:{}", scope.id), now);
                        claim.finish(tx, &BegunBefore { authorization: scope.id }).await
                    })
                })
                .await?;
            Ok(self.dialog(&*provider, &scope, &scopes, again))
        };
        let repeat = async |before: BegunBefore| {
            let known = self.store.read().await?.authorization(before.authorization).await?;
            let (scope, _) = known.ok_or(VaultError::AuthorizationOver)?;
            // What comes from the database gets no new MAC, unless it is what this request asks for.
            let asked = bind(before.authorization, scope.expires_at);
            if scope != asked || scope.expires_at > self.clock.now() + LIFE {
                tracing::error!(authorization = %scope.id, "an authorization's row was altered");
                return Err(VaultError::AuthorizationOver);
            }
            Ok(self.dialog(&*provider, &scope, &scopes, again))
        };
        self.once(caller, request, work, repeat).await
    }

    fn dialog(
        &self,
        provider: &dyn Provider,
        scope: &AuthorizationScope,
        scopes: &[String],
        again: AskAgain,
    ) -> Authorization {
        let state = state_of(&self.keys.index, scope);
        let verifier = verifier_of(&self.keys.index, scope.id);
        let redirect_uri = &scope.redirect_uri;
        let request = ConsentRequest { redirect_uri, state: &state, scopes, verifier: &verifier, again };
        Authorization { url: provider.consent_url(&request), state, expires_at: scope.expires_at }
    }
}

/// Everything to ask for, each scope once.
fn scopes(policy: &Policy, extra: &[String]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for scope in policy.required_scopes.iter().chain(&policy.optional_scopes).chain(extra) {
        if !all.contains(scope) {
            all.push(scope.clone());
        }
    }
    all
}

/// What the dialog must not pass over. A scope that is missing matters more: with a new consent, the access to the
/// person's data begins anew too.
fn again(held: Option<&Connection>, policy: &Policy, now: Timestamp) -> AskAgain {
    let Some(held) = held else { return AskAgain::Declined };
    let lacks = !policy.missing_required(&held.facts.scopes).is_empty()
        || !policy.missing_optional(&held.facts.scopes).is_empty();
    let lapsed = matches!(held.standing, Standing::Invalid { reason: RefusalReason::DataAccessLapsed, .. });
    let ends_soon = held.facts.data_access.at().is_some_and(|end| end - policy.notice() <= now);
    if !lacks && (lapsed || ends_soon) { AskAgain::DataAccess } else { AskAgain::Declined }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Expiry, ExpirySource, fixture};

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn each_scope_is_asked_for_once() {
        let policy = Policy {
            required_scopes: vec!["a".into(), "b".into()],
            optional_scopes: vec!["c".into()],
            ..Policy::default()
        };
        let extra = ["b".to_owned(), "d".to_owned(), "d".to_owned()];
        assert_eq!(scopes(&policy, &extra), ["a", "b", "c", "d"]);
    }

    #[test]
    fn the_dialog_asks_for_what_is_wrong() {
        let now = Timestamp::from_unix_seconds(1_800_000_000);
        let policy = Policy { required_scopes: vec!["ads_read".into()], ..Policy::default() };
        let mut held = fixture::connection(Expiry::Never, Standing::Live);
        held.facts.scopes = vec!["ads_read".into()];
        held.facts.data_access = Expiry::At(now + 30 * DAY, ExpirySource::Provider);
        assert_eq!(again(None, &policy, now), AskAgain::Declined);
        assert_eq!(again(Some(&held), &policy, now), AskAgain::Declined);
        held.facts.data_access = Expiry::At(now + 3 * DAY, ExpirySource::Provider);
        assert_eq!(again(Some(&held), &policy, now), AskAgain::DataAccess);
        held.facts.data_access = Expiry::Unknown;
        held.standing = Standing::Invalid {
            since: now,
            reason: RefusalReason::DataAccessLapsed,
            provider_code: "190/493".into(),
        };
        assert_eq!(again(Some(&held), &policy, now), AskAgain::DataAccess);
        held.facts.scopes.clear();
        assert_eq!(again(Some(&held), &policy, now), AskAgain::Declined);
    }
}
