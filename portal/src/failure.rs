//! A request that has no card as its answer, and the page that says so.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{RETRY_AFTER, SET_COOKIE};
use http::{HeaderValue, StatusCode};
use token_vault_client::v1::ErrorReason;
use token_vault_client::{Error, ErrorKind};

use crate::config::Site;
use crate::notice::Notice;
use crate::page;
use crate::texts;

#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) notice: Box<Notice>,
    pub(crate) retry_after: Option<Duration>,
    /// Deletes the cookie of a link that is over.
    pub(crate) clear: Option<HeaderValue>,
    /// The reason for programs.
    pub(crate) code: String,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, notice: Notice) -> Self {
        let code = status.canonical_reason().unwrap_or_default().replace(' ', "_").to_uppercase();
        Self { status, notice: Box::new(notice), retry_after: None, clear: None, code }
    }

    pub(crate) fn foreign_form() -> Self {
        Self::new(StatusCode::FORBIDDEN, texts::foreign_form())
    }

    pub(crate) fn start_again() -> Self {
        Self::new(StatusCode::FORBIDDEN, texts::start_again())
    }

    pub(crate) fn link_is_over() -> Self {
        Self {
            code: "CONNECT_LINK_NOT_FOUND".into(),
            ..Self::new(StatusCode::NOT_FOUND, texts::link_is_over())
        }
    }

    pub(crate) fn too_many(wait: Duration) -> Self {
        let failure = Self::new(StatusCode::TOO_MANY_REQUESTS, texts::too_many_requests());
        Self { retry_after: Some(wait), ..failure }
    }

    pub(crate) fn of(error: &Error, provider: &str) -> Self {
        let status = status(error);
        let asked = error.retry_after().unwrap_or(Duration::from_secs(30));
        let waits = matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
        let mut failure = Self::new(status, Notice::of(error, provider));
        failure.retry_after = waits.then_some(asked);
        if !error.reason_name().is_empty() {
            failure.code = error.reason_name().to_owned();
        }
        failure
    }

    /// Puts what belongs to the failure beside the page into an answer.
    pub(crate) fn mark(&self, response: &mut Response) {
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(clear) = &self.clear {
            headers.append(SET_COOKIE, clear.clone());
        }
    }

    /// A page with nothing but the notice.
    pub(crate) fn page(&self, site: &Site) -> Response {
        let mut response = page::message(site, &self.notice).into_response();
        self.mark(&mut response);
        response
    }

    pub(crate) fn json(&self) -> Response {
        let body = serde_json::json!({
            "error": self.code,
            "title": self.notice.title,
            "text": self.notice.text,
            "action": self.notice.action,
        });
        let mut response = axum::Json(body).into_response();
        self.mark(&mut response);
        response
    }
}

/// Whether the same request may work later, as opposed to a new attempt of the person.
pub(crate) fn is_passing(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::RetryAfter(_)) || error.reason() == Some(ErrorReason::RequestInProgress)
}

fn status(error: &Error) -> StatusCode {
    match (error.reason(), error.kind()) {
        (Some(ErrorReason::ConnectLinkNotFound), _) => StatusCode::NOT_FOUND,
        (Some(ErrorReason::RateLimited), _) => StatusCode::TOO_MANY_REQUESTS,
        (_, ErrorKind::RetryAfter(_)) => StatusCode::SERVICE_UNAVAILABLE,
        (Some(ErrorReason::ProviderMisconfigured), _) => StatusCode::BAD_GATEWAY,
        (_, ErrorKind::Pause | ErrorKind::Conflict) => StatusCode::CONFLICT,
        (Some(_), ErrorKind::YourBug(_)) => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
