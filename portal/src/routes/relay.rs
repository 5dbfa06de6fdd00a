//! What a provider sends to the app by itself, passed on to the vault as it came: the vault knows what is signed how. And
//! the page on which a person sees what became of their request to delete their data.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use token_vault_client::v1::report_provider_callback_request::Kind;
use token_vault_client::v1::report_provider_callback_response::DeletionState;
use token_vault_client::v1::{
    ErrorReason, Header, ReportProviderCallbackRequest, ReportProviderCallbackResponse,
};
use token_vault_client::{Error, ErrorKind};

use super::Portal;
use super::visit::{Segment, reason_of, text_of};
use crate::failure::Failure;
use crate::page;
use crate::texts;

/// What the vault takes. A webhook with a thousand changes has some 150 KiB.
const LARGEST_BODY: usize = 256 * 1024;
const LONGEST_QUERY: usize = 8 * 1024;
const MOST_HEADERS: usize = 64;
/// The longest value of a header that the vault takes.
const LONGEST_HEADER: usize = 8 * 1024;

/// Whether a path is one to which only providers send.
pub(super) fn is_of_provider(path: &str) -> bool {
    let rest = path.strip_prefix("/callbacks/").and_then(|rest| rest.split_once('/'));
    matches!(rest, Some((_, "deauthorize" | "data-deletion" | "webhook")))
}

/// Takes callbacks of one kind. `GET` is how a provider checks an address.
pub(super) fn receives(kind: Kind) -> MethodRouter<Arc<Portal>> {
    let pass_on = move |State(portal): State<Arc<Portal>>,
                        provider: Segment,
                        method: Method,
                        RawQuery(query): RawQuery,
                        headers: HeaderMap,
                        body: Body| async move {
        portal.pass_on(kind, provider, &method, query, &headers, body).await
    };
    get(pass_on).post(pass_on)
}

/// Shows the state of a request, and nothing else: whoever has the code knows no more than that.
pub(super) async fn deletion_state(
    State(portal): State<Arc<Portal>>,
    path: Result<Path<(String, String)>, axum::extract::rejection::PathRejection>,
) -> Response {
    let (provider, code) = path.map(|Path(parts)| parts).unwrap_or_default();
    portal.deletion_state(provider, &code).await.unwrap_or_else(|failure| failure.page(&portal.site))
}

impl Portal {
    async fn pass_on(
        &self,
        kind: Kind,
        provider: Segment,
        method: &Method,
        query: Option<String>,
        headers: &HeaderMap,
        body: Body,
    ) -> Response {
        let query = query.unwrap_or_default();
        if query.len() > LONGEST_QUERY {
            return plain(StatusCode::URI_TOO_LONG);
        }
        let body = axum::body::to_bytes(body, LARGEST_BODY);
        let body = match tokio::time::timeout(self.limits.read_timeout, body).await {
            Ok(Ok(body)) => body,
            Ok(Err(_)) => return plain(StatusCode::PAYLOAD_TOO_LARGE),
            Err(_) => return plain(StatusCode::REQUEST_TIMEOUT),
        };
        let request = ReportProviderCallbackRequest {
            provider: text_of(provider),
            kind: kind.into(),
            method: method.to_string(),
            query,
            headers: passed_on(headers),
            body: body.into(),
        };
        match self.vault.report_provider_callback(request).await {
            Ok(answer) => answered(answer),
            Err(error) => refused(&error, kind),
        }
    }

    async fn deletion_state(&self, provider: String, code: &str) -> Result<Response, Failure> {
        let unknown = || Failure::new(StatusCode::NOT_FOUND, texts::deletion_unknown());
        if code.is_empty() || code.len() > 64 || !code.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(unknown());
        }
        let request = ReportProviderCallbackRequest {
            provider,
            kind: Kind::DataDeletion.into(),
            method: Method::GET.to_string(),
            query: format!("code={code}"),
            ..Default::default()
        };
        let answer = self.vault.report_provider_callback(request).await.map_err(|error| {
            let asked_wrongly = matches!(error.kind(), ErrorKind::YourBug(_));
            if asked_wrongly && error.reason().is_some() { unknown() } else { Failure::of(&error, "") }
        })?;
        match answer.deletion_state() {
            DeletionState::Received => {
                Ok(page::message(&self.site, &texts::deletion_received()).into_response())
            }
            DeletionState::Done => Ok(page::message(&self.site, &texts::deletion_done()).into_response()),
            DeletionState::Unspecified => Err(unknown()),
        }
    }
}

/// The headers without those that are between a browser, or a proxy, and the portal. What is too much for the vault is no
/// provider's.
fn passed_on(headers: &HeaderMap) -> Vec<Header> {
    let ours = |name: &http::HeaderName| {
        *name == COOKIE || *name == AUTHORIZATION || name.as_str().starts_with("x-forwarded-")
    };
    let readable = |(name, value): (&http::HeaderName, &HeaderValue)| {
        let value = value.to_str().ok().filter(|value| value.len() <= LONGEST_HEADER)?;
        Some(Header { name: name.to_string(), value: value.to_owned() })
    };
    headers.iter().filter(|(name, _)| !ours(name)).filter_map(readable).take(MOST_HEADERS).collect()
}

fn plain(status: StatusCode) -> Response {
    (status, format!("{}\n", status.canonical_reason().unwrap_or_default())).into_response()
}

/// The vault's answer. Its content type says that a browser runs none of it, and a header that the browser has to
/// believe it.
fn answered(answer: ReportProviderCallbackResponse) -> Response {
    let status = u16::try_from(answer.http_status).ok().and_then(|code| StatusCode::from_u16(code).ok());
    let content_type = HeaderValue::from_str(&answer.content_type).ok();
    let (Some(status), Some(content_type)) = (status, content_type) else {
        return plain(StatusCode::BAD_GATEWAY);
    };
    (status, [(CONTENT_TYPE, content_type)], answer.body).into_response()
}

/// What an error of the vault means for the provider, which sends again what failed with a status from 500 on.
fn refused(error: &Error, kind: Kind) -> Response {
    let (reason, call_id) = (reason_of(error), error.call_id());
    let status = match (error.reason(), error.kind()) {
        (Some(ErrorReason::CallbackSignatureInvalid), _) => StatusCode::FORBIDDEN,
        (Some(ErrorReason::ProviderUnknown), _) => StatusCode::NOT_FOUND,
        (Some(ErrorReason::FieldInvalid), _) => StatusCode::BAD_REQUEST,
        (_, ErrorKind::RetryAfter(_)) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let kind = kind.as_str_name();
    if status.is_server_error() {
        let cause = error.reason_name().is_empty().then(|| error.message());
        tracing::warn!(kind, reason, code = ?error.code(), cause, call_id, "a provider's callback was not taken");
    } else {
        // Anybody can send such a one.
        tracing::debug!(kind, reason, call_id, "a provider's callback was refused");
    }
    let mut response = plain(status);
    if let (StatusCode::SERVICE_UNAVAILABLE, Some(wait)) = (status, error.retry_after()) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_providers_are_theirs() {
        for (path, theirs) in [
            ("/callbacks/meta/webhook", true),
            ("/callbacks/meta/deauthorize", true),
            ("/callbacks/meta/data-deletion", true),
            ("/callbacks/meta/data-deletion/abc", false),
            ("/callbacks/meta", false),
            ("/callbacks/webhook", false),
            ("/card/a/webhook", false),
        ] {
            assert_eq!(is_of_provider(path), theirs, "{path}");
        }
    }

    #[test]
    fn what_is_between_a_browser_and_the_portal_is_not_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("cookie", "__Host-session=x"),
            ("authorization", "Bearer x"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-hub-signature-256", "sha256=00"),
        ] {
            headers.insert(http::HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers.insert("user-agent", HeaderValue::from_bytes(b"\xff").unwrap());
        headers.insert("x-long", HeaderValue::from_str(&"a".repeat(LONGEST_HEADER + 1)).unwrap());
        let passed = passed_on(&headers);
        assert_eq!(passed.len(), 1, "{passed:?}");
        assert_eq!((passed[0].name.as_str(), passed[0].value.as_str()), ("x-hub-signature-256", "sha256=00"));
        for n in 0..100 {
            headers
                .insert(http::HeaderName::try_from(format!("x-{n}")).unwrap(), HeaderValue::from_static("a"));
        }
        assert_eq!(passed_on(&headers).len(), MOST_HEADERS);
    }
}
