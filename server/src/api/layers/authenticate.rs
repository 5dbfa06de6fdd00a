//! Checks who calls, whether the role may call this RPC, and whether the principal is within its limits, before a byte
//! of the body is decoded.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderValue, Request};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;
use tonic::{Code, Status};

use super::admit::AdmissionPermit;
use super::bodies::{ArrivingBody, until_read};
use super::deadline::deadline_of;
use super::rate_limits::{FailedAuthentications, PrincipalRates};
use super::{Inner, Outcome, call_of, code_name, is_open, semaphore};
use crate::api::access::Rpc;
use crate::api::call::Call;
use crate::api::denial::Denial;
use crate::api::limits::Limits;
use crate::api::status::deny;
use crate::model::{Principal, Role, Secret};
use crate::vault::{Attendance, FieldViolation, Shares, Vault, VaultError};

/// The metadata with the token of a connect link.
const CONNECT_LINK: &str = "connect-link";
/// The same for clients of the Connect protocol, which keeps names that begin with `connect-` for itself.
const X_CONNECT_LINK: &str = "x-connect-link";

/// The longest `authorization` header that can hold a key or a token.
const LONGEST_KEY: usize = 8 * 1024 + 64;

pub(in crate::api) struct Authenticator {
    vault: Arc<Vault>,
    rates: PrincipalRates,
    failures: FailedAuthentications,
    calls_in_flight: Arc<Semaphore>,
    /// More calls in flight, for admins only: they can act even when others have filled the vault.
    reserved_for_admins: Arc<Semaphore>,
    per_principal: Shares,
}

/// A permit for one of all calls in flight, and for one of the principal's.
type CallPermits = (OwnedSemaphorePermit, OwnedSemaphorePermit);

impl Authenticator {
    pub(in crate::api) fn new(vault: Arc<Vault>, limits: &Limits) -> Self {
        let reserved = limits.max_calls / 16;
        Self {
            vault,
            rates: PrincipalRates::new(limits.per_principal_rps, limits.per_principal_burst),
            failures: FailedAuthentications::new(limits.failed_authentications_per_minute),
            calls_in_flight: semaphore(limits.max_calls.saturating_sub(reserved)),
            reserved_for_admins: semaphore(reserved),
            per_principal: Shares::new(limits.max_calls_per_principal),
        }
    }

    /// The principal, by key, by certificate, or by both.
    async fn identify(&self, call: &Call, key: Option<Secret>) -> Result<Arc<Principal>, Status> {
        let peer = call.peer();
        // A certificate without a key is no guess: its chain was verified.
        let may_be_guess = key.is_some() || peer.certificate().is_none();
        // Many callers may share an address: a key whose id exists, or a signed token, is checked even while the
        // address is blocked. A random guess is neither.
        if may_be_guess
            && let Some(wait) = self.failures.blocked_for(peer.address().ip())
            && !key.as_ref().is_some_and(|key| self.vault.is_cheap_to_judge(key))
        {
            return Err(call.deny(Denial::too_many_failed_authentications(wait)));
        }
        let principal = match (&key, peer.certificate()) {
            (Some(key), None) => self.vault.authenticate(key).await,
            (Some(key), Some(certificate)) => self.vault.authenticate_both(key, certificate).await,
            (None, Some(certificate)) => self.vault.authenticate_certificate(certificate),
            (None, None) => Err(VaultError::ApiKeyInvalid),
        };
        principal.map_err(|error| {
            let status = deny(error, call);
            let failed = may_be_guess && status.code() == Code::Unauthenticated;
            match failed.then(|| self.failures.record(peer.address().ip())).flatten() {
                Some(wait) => call.deny(Denial::too_many_failed_authentications(wait)),
                None => status,
            }
        })
    }

    /// The caller as it may act in this call: within its rate, with a role that may call the RPC, and for the connect link
    /// that it presents.
    async fn admit(
        &self,
        call: &Call,
        row: &Rpc,
        principal: &Arc<Principal>,
        link: Option<&HeaderValue>,
    ) -> Result<Arc<Principal>, Status> {
        let role = principal.role;
        self.rates.take(&principal.name).map_err(|wait| call.deny(Denial::rate_limited(wait)))?;
        if !row.allows(role) {
            return Err(deny(VaultError::RoleInsufficient { role }, call));
        }
        let over = VaultError::ConnectLinkNotFound(None);
        match link {
            None if row.needs_link(role) => Err(deny(over, call)),
            None => Ok(Arc::clone(principal)),
            Some(_) if !row.takes_link() => {
                let rule = "must be unset: this RPC acts for no link";
                Err(deny(VaultError::Fields(vec![FieldViolation::new(CONNECT_LINK, rule)]), call))
            }
            Some(header) => {
                let text = header.to_str().ok().filter(|text| text.len() <= LONGEST_KEY);
                let token = Secret::new(text.unwrap_or_default().to_owned());
                let acting = self.vault.act_for_link(principal, &token).await;
                acting.map(Arc::new).map_err(|error| deny(error, call))
            }
        }
    }

    /// Permits for one call. No principal can take all of them.
    fn permits_for(&self, call: &Call) -> Result<CallPermits, Status> {
        let principal = call.caller().map_err(|error| deny(error, call))?;
        let own = self.per_principal.try_take(&principal.share());
        let own = own.ok_or_else(|| call.deny(Denial::too_many_calls()))?;
        let permit =
            Arc::clone(&self.calls_in_flight).try_acquire_owned().or_else(|full| match principal.role {
                Role::Admin => Arc::clone(&self.reserved_for_admins).try_acquire_owned(),
                _ => Err(full),
            });
        Ok((permit.map_err(|_| call.deny(Denial::overloaded()))?, own))
    }
}

/// Lets a call through if its caller is known, has the role, and is within its limits.
pub(in crate::api) async fn authenticate<S: Inner>(
    authenticator: Arc<Authenticator>,
    mut request: Request<Body>,
    mut inner: S,
) -> Outcome {
    let call = call_of(&request);
    // The key and the link's token go no further than this.
    let header = request.headers_mut().remove(AUTHORIZATION);
    let links = [CONNECT_LINK, X_CONNECT_LINK].map(|name| request.headers_mut().remove(name));
    let link = links.into_iter().flatten().next();
    let Some(row) = call.row() else {
        return if is_open(request.uri().path()) {
            inner.call(request).await
        } else {
            Ok(call.deny(Denial::unimplemented()).into_http())
        };
    };
    let permitted = async {
        // A header without a readable key counts as an invalid key: a certificate does not replace it.
        let key = match &header {
            None => None,
            Some(header) => Some(bearer(header).ok_or_else(|| deny(VaultError::ApiKeyInvalid, &call))?),
        };
        let principal = authenticator.identify(&call, key).await?;
        let admitted = authenticator.admit(&call, row, &principal, link.as_ref()).await;
        call.set_caller(admitted.as_ref().map_or(principal, Arc::clone));
        admitted?;
        authenticator.permits_for(&call)
    };
    match permitted.await {
        Ok(permits) => {
            drop(request.extensions_mut().remove::<AdmissionPermit>());
            let attendance = Attendance::new(deadline_of(&request), permits);
            let request = request.map(|body| Body::new(ArrivingBody::new(body, Arc::clone(&call))));
            let response = Arc::clone(&attendance).scope(inner.call(request)).await?;
            // A watch has limits of its own.
            Ok(if row.watches { response } else { until_read(response, attendance) })
        }
        Err(status) => {
            // Only a denial of the caller is recorded: an unavailable database denies nobody. A caller that is
            // over its rate is known; one with too many failures is not.
            let turned_away = match status.code() {
                // NOT_FOUND: a connect link that is not valid.
                Code::Unauthenticated | Code::PermissionDenied | Code::NotFound => true,
                Code::ResourceExhausted => !call.is_authenticated(),
                _ => false,
            };
            if turned_away {
                let origin = call.origin();
                authenticator.vault.record_denial(&origin, code_name(status.code()), call.reason()).await;
            }
            Ok(status.into_http())
        }
    }
}

/// The key in `authorization: Bearer <key>`.
fn bearer(header: &HeaderValue) -> Option<Secret> {
    let text = Some(header).filter(|value| value.len() <= LONGEST_KEY)?.to_str().ok()?;
    let (scheme, key) = text.split_once(' ')?;
    let key = key.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !key.is_empty()).then(|| Secret::new(key.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_after_bearer() {
        let key = |text: &'static str| bearer(&HeaderValue::from_static(text)).map(|s| s.expose().to_owned());
        assert_eq!(key("Bearer tvk_1"), Some("tvk_1".into()));
        assert_eq!(key("bearer  tvk_1"), Some("tvk_1".into()));
        for bad in ["", "Bearer", "Bearer ", "Basic dXNlcg==", "tvk_1"] {
            assert_eq!(key(bad), None, "{bad:?}");
        }
        let long = format!("Bearer {}", "x".repeat(LONGEST_KEY));
        assert!(bearer(&HeaderValue::from_str(&long).unwrap()).is_none());
    }
}
