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

/// The wait where the vault does not name one.
const WAIT: Duration = Duration::from_secs(30);

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

    pub(crate) fn too_late() -> Self {
        let failure = Self::new(StatusCode::SERVICE_UNAVAILABLE, texts::too_late());
        Self { retry_after: Some(WAIT), ..failure }
    }

    pub(crate) fn of(error: &Error, provider: &str) -> Self {
        let status = status(error);
        let asked = error.retry_after().unwrap_or(WAIT);
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use token_vault_client::v1::Fixer;
    use tonic::{Code, Status};
    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;

    fn error(code: Code, reason: &str, facts: &[(&str, &str)]) -> Error {
        let facts: HashMap<_, _> = facts.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut details = ErrorDetails::new();
        if !reason.is_empty() {
            details.set_error_info(reason, "tokenvault.v1", facts);
        }
        if code == Code::ResourceExhausted {
            details.set_retry_info(Some(Duration::from_millis(6_500)));
        }
        Status::with_error_details(code, "EAAB in a message of the vault", details).into()
    }

    #[test]
    fn each_kind_of_error_has_its_status() {
        use StatusCode as S;
        for (code, reason, expected, passing) in [
            (Code::NotFound, "CONNECT_LINK_NOT_FOUND", S::NOT_FOUND, false),
            (Code::ResourceExhausted, "RATE_LIMITED", S::TOO_MANY_REQUESTS, true),
            (Code::ResourceExhausted, "PROVIDER_THROTTLED", S::SERVICE_UNAVAILABLE, true),
            (Code::Unavailable, "STORAGE_UNAVAILABLE", S::SERVICE_UNAVAILABLE, true),
            (Code::Unavailable, "", S::SERVICE_UNAVAILABLE, true),
            (Code::DeadlineExceeded, "", S::SERVICE_UNAVAILABLE, true),
            (Code::Aborted, "REQUEST_IN_PROGRESS", S::CONFLICT, true),
            (Code::FailedPrecondition, "PROVIDER_MISCONFIGURED", S::BAD_GATEWAY, false),
            (Code::FailedPrecondition, "SCOPES_MISSING", S::CONFLICT, false),
            (Code::InvalidArgument, "TOKEN_MALFORMED", S::UNPROCESSABLE_ENTITY, false),
            (Code::Unauthenticated, "API_KEY_INVALID", S::INTERNAL_SERVER_ERROR, false),
            (Code::PermissionDenied, "ROLE_INSUFFICIENT", S::INTERNAL_SERVER_ERROR, false),
            (Code::Internal, "", S::INTERNAL_SERVER_ERROR, false),
            (Code::FailedPrecondition, "NEVER_HEARD_OF", S::CONFLICT, false),
        ] {
            let error = error(code, reason, &[]);
            let failure = Failure::of(&error, "Meta");
            assert_eq!(failure.status, expected, "{reason} {code:?}");
            assert_eq!(is_passing(&error), passing, "{reason} {code:?}");
            let waits = [S::SERVICE_UNAVAILABLE, S::TOO_MANY_REQUESTS].contains(&expected);
            assert_eq!(failure.retry_after.is_some(), waits, "{reason} {code:?}");
            assert!(!format!("{failure:?}").contains("EAAB"), "a message may quote what was sent");
        }
        let mut response = Response::default();
        Failure::of(&error(Code::ResourceExhausted, "RATE_LIMITED", &[]), "Meta").mark(&mut response);
        assert_eq!(response.headers().get(RETRY_AFTER).unwrap(), "7", "never sooner than asked");
    }

    #[test]
    fn the_vaults_details_are_in_the_words() {
        let notice = |reason, facts: &[_]| Notice::of(&error(Code::InvalidArgument, reason, facts), "Meta");
        let scopes = notice("SCOPES_MISSING", &[("missing", "ads_read, ads_management")]);
        assert_eq!(scopes.missing, ["ads_read", "ads_management"]);
        let malformed = notice("TOKEN_MALFORMED", &[("hint", "Leave out “Bearer”.")]);
        assert!(malformed.text.ends_with("Leave out “Bearer”."));
        let facts = [("refusal", "CHECKPOINT"), ("fixer", "APP_ADMIN"), ("url", "https://www.facebook.com/")];
        let refused = notice("PROVIDER_REFUSED_TOKEN", &facts);
        assert!(refused.text.contains("security check"));
        assert_eq!(refused.helper, Some(Fixer::AppAdmin));
        assert_eq!(refused.url.as_deref(), Some("https://www.facebook.com/"));
        let hostile = notice("PROVIDER_REFUSED_TOKEN", &[("refusal", "<b>"), ("url", "javascript:x")]);
        assert_eq!(hostile.url, None);
        assert!(hostile.text.contains("gives no reason"));
    }
}
