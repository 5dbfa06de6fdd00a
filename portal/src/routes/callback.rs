//! Where the provider sends the browser back to.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::header::LOCATION;
use http::{HeaderMap, StatusCode};
use token_vault_client::v1::{CompleteAuthorizationRequest, ErrorReason};
use url::form_urlencoded;
use zeroize::Zeroizing;

use super::changes::flow_of;
use super::visit::{CHANGE, Target, Visit, reason_of};
use super::{Address, Portal};
use crate::failure::{self, Failure};
use crate::notice::Notice;
use crate::outcome::Outcome;
use crate::page;
use crate::recent::Findings;
use crate::texts;
use crate::web::cookies;
use crate::web::link::LinkId;

/// What the vault takes. A longer query is nobody's callback.
const LONGEST_QUERY: usize = 8192;

/// The page for a callback that belongs to no visit of this browser.
pub(super) const START_AGAIN: &str = "/start-again";

pub(super) async fn start_again(State(portal): State<Arc<Portal>>) -> Response {
    Failure::start_again().page(&portal.site)
}

/// Completes the authorization, and leads on to the card, so that the code and the state leave the address bar. The
/// query goes to the vault as it came, because what it means is the provider's matter.
pub(super) async fn complete(
    State(portal): State<Arc<Portal>>,
    RawQuery(query): RawQuery,
    Extension(from): Extension<Address>,
    headers: HeaderMap,
) -> Response {
    let query = Zeroizing::new(query.unwrap_or_default());
    portal.complete(&query, from, &headers).await.unwrap_or_else(|failure| failure.page(&portal.site))
}

impl Portal {
    async fn complete(&self, query: &str, from: Address, headers: &HeaderMap) -> Result<Response, Failure> {
        // Code and state leave the address bar here too.
        let Some(id) = self.link_of(query, headers) else { return Ok(to(format!("{START_AGAIN}#"))) };
        let visit = match self.visit(id.as_str(), from, headers, CHANGE) {
            Err(failure) if failure.status == StatusCode::FORBIDDEN => {
                return Ok(to(format!("{START_AGAIN}#")));
            }
            visit => visit?,
        };
        match self.complete_for(&visit, query).await {
            // The card says it as well, at an address without code and state.
            Err(failure) if failure.status == StatusCode::NOT_FOUND => Ok(to(format!("/card/{id}#"))),
            Err(failure) if failure.status == StatusCode::FORBIDDEN => Ok(to(format!("{START_AGAIN}#"))),
            completed => completed,
        }
    }

    async fn complete_for(&self, visit: &Visit, query: &str) -> Result<Response, Failure> {
        let session = visit.session.as_ref().ok_or_else(Failure::start_again)?;
        let open = self.open(visit).await?;
        let target = Target::of(&open);
        let request = CompleteAuthorizationRequest {
            workspace_id: target.workspace_id,
            callback_query: query.to_owned(),
            session_binding: session.binding(),
        };
        // A browser that leaves or loads the page again drops its request. The code is sent only once, so the call goes on.
        let vault = visit.vault.clone();
        let completed = tokio::spawn(async move { vault.complete_authorization(request).await }).await;
        let completed = completed.map_err(|_| Failure::new(StatusCode::BAD_GATEWAY, texts::faulty()))?;
        let outcome = match completed {
            Ok(response) => {
                let result = response.result.unwrap_or_default();
                let connection_id = result.token.map(|token| token.connection_id).unwrap_or_default();
                tracing::info!(link = %visit.id, connection = connection_id, "an account was connected");
                // The answer to a repeated callback has no checks, which must not hide those of the first.
                if !result.checks.is_empty() {
                    let findings = Findings::new(connection_id, result.checks);
                    self.recent.remember(session, &visit.id, findings);
                }
                Outcome::Connected
            }
            // The vault takes the same callback again, so the address stays as it is, and the person loads it again.
            Err(error) if failure::is_passing(&error) => {
                let mut failure = self.failure(visit, &error, &target.provider);
                failure.notice.action = Some(texts::CALL_BACK_AGAIN.to_owned());
                return Err(failure);
            }
            // The card opened a moment ago: another account was connected with the link meanwhile.
            Err(error) if error.reason() == Some(ErrorReason::ConnectLinkNotFound) => {
                tracing::info!(link = %visit.id, "a link was used up while a person consented");
                Outcome::Failed(ErrorReason::ConnectLinkNotFound)
            }
            Err(error) => {
                tracing::info!(link = %visit.id, reason = reason_of(&error), "an authorization failed");
                let notice = Notice::of(&error, &texts::provider(&target.provider));
                let outcome = Outcome::of(&error);
                let findings =
                    Findings { notice: Some(notice), outcome: Some(outcome), ..Findings::default() };
                self.recent.remember(session, &visit.id, findings);
                outcome
            }
        };
        // Browsers keep the fragment of the callback, such as `#_=_`, unless the new address has one of its own.
        Ok(to(format!("/card/{}?{}#{}", visit.id, outcome.query(), page::RESULT)))
    }

    /// The link whose authorization this is. The cookie is kept, because a callback may come twice, and the vault gives
    /// the second one the answer of the first.
    fn link_of(&self, query: &str, headers: &HeaderMap) -> Option<LinkId> {
        if query.len() > LONGEST_QUERY {
            return None;
        }
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        let (_, state) = pairs.find(|(name, value)| name == "state" && !value.is_empty())?;
        LinkId::parse(cookies::get(headers, &self.jar.flow_name(&flow_of(&state)))?)
    }
}

fn to(address: String) -> Response {
    (StatusCode::SEE_OTHER, [(LOCATION, address)]).into_response()
}
