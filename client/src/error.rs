//! Errors, classified by what the caller should do about them.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::v1::{ErrorReason, Fixer};

/// The wait when the vault does not name one.
const WAIT: Duration = Duration::from_secs(1);

/// What the caller should do about an error.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Stop using this connection until an event, or a person, says that it works again.
    Pause,
    /// Try again after this time.
    RetryAfter(Duration),
    /// Something changed meanwhile: read again, then decide.
    Conflict,
    /// The request is wrong; repeating it cannot help.
    YourBug(Vec<FieldViolation>),
    /// The vault no longer has the events after this position: take a snapshot.
    HistoryLost,
    /// The vault itself does not work: call its operator.
    CallOperator,
    /// The caller's own API key is invalid or may not do this. Never about a provider's token.
    Access,
}

/// A field of the request that breaks its rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// The field's path in the request, such as `named.workspace_ids[0]`.
    pub field: String,
    /// The rule, as a sentence that follows the field.
    pub rule: String,
}

/// A call that failed. Its [`kind`](Self::kind) says what to do.
#[derive(Debug, Clone)]
pub struct Error(Box<Failure>);

#[derive(Debug, Clone)]
struct Failure {
    kind: ErrorKind,
    code: Code,
    message: String,
    reason_name: String,
    metadata: HashMap<String, String>,
    remedy: Option<String>,
    retry_after: Option<Duration>,
    call_id: Option<String>,
}

impl Error {
    /// What the caller should do.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// The reason, if this version of the client knows it.
    pub fn reason(&self) -> Option<ErrorReason> {
        ErrorReason::from_reason(&self.0.reason_name)
    }

    /// The reason by its name, also that of a newer vault; empty when the vault was not reached.
    pub fn reason_name(&self) -> &str {
        &self.0.reason_name
    }

    /// Facts, under the keys that the documentation of the reason in the proto lists.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.0.metadata
    }

    /// What to do about it, in one sentence for a person. `None` when the vault was not reached.
    pub fn remedy(&self) -> Option<&str> {
        self.0.remedy.as_deref()
    }

    /// Who can fix it, where the vault knows. `None` also for a fixer that only a newer vault knows; its name is in the
    /// metadata.
    pub fn fixer(&self) -> Option<Fixer> {
        let name = self.0.metadata.get("fixer")?;
        Fixer::from_str_name(&format!("FIXER_{name}")).filter(|known| *known != Fixer::Unspecified)
    }

    /// How long the vault asks the caller to wait. [`ErrorKind::RetryAfter`] has a time even where the vault does not
    /// ask.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// What is wrong and what to do, in words.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The gRPC code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The call's id in the vault's log.
    pub fn call_id(&self) -> Option<&str> {
        self.0.call_id.as_deref()
    }

    pub(crate) fn your_bug(field: &str, rule: &str) -> Self {
        let violation = FieldViolation { field: field.to_owned(), rule: rule.to_owned() };
        Self(Box::new(Failure {
            kind: ErrorKind::YourBug(vec![violation]),
            code: Code::InvalidArgument,
            message: format!("{field} {rule}"),
            reason_name: String::new(),
            metadata: HashMap::new(),
            remedy: None,
            retry_after: None,
            call_id: None,
        }))
    }

    pub(crate) fn unexpected(message: &str) -> Self {
        Status::internal(message).into()
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let retry_after = details.retry_info().and_then(|info| info.retry_delay);
        let wait = retry_after.unwrap_or(WAIT);
        let violations = || {
            let all = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
            all.iter()
                .map(|v| FieldViolation { field: v.field.clone(), rule: v.description.clone() })
                .collect()
        };
        let kind = match status.code() {
            // Only a status that this client made itself has a source. Then the connection broke, whatever the code
            // says.
            _ if std::error::Error::source(&status).is_some() => ErrorKind::RetryAfter(wait),
            Code::FailedPrecondition => ErrorKind::Pause,
            Code::ResourceExhausted | Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => {
                ErrorKind::RetryAfter(wait)
            }
            Code::Aborted => ErrorKind::Conflict,
            Code::InvalidArgument | Code::NotFound | Code::AlreadyExists | Code::Unimplemented => {
                ErrorKind::YourBug(violations())
            }
            Code::OutOfRange => ErrorKind::HistoryLost,
            Code::Unauthenticated | Code::PermissionDenied => ErrorKind::Access,
            _ => ErrorKind::CallOperator,
        };
        let info = details.error_info();
        Self(Box::new(Failure {
            kind,
            code: status.code(),
            message: status.message().to_owned(),
            reason_name: info.map(|info| info.reason.clone()).unwrap_or_default(),
            metadata: info.map(|info| info.metadata.clone()).unwrap_or_default(),
            remedy: details.localized_message().map(|message| message.message.clone()),
            retry_after,
            call_id: status.metadata().get("call-id").and_then(|id| id.to_str().ok()).map(str::to_owned),
        }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.reason_name.is_empty() {
            write!(f, "{:?}: {}", self.0.code, self.0.message)
        } else {
            write!(f, "{}: {}", self.0.reason_name, self.0.message)
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    #[test]
    fn the_code_alone_says_what_to_do() {
        for (code, expected) in [
            (Code::FailedPrecondition, ErrorKind::Pause),
            (Code::Unavailable, ErrorKind::RetryAfter(WAIT)),
            (Code::ResourceExhausted, ErrorKind::RetryAfter(WAIT)),
            (Code::Aborted, ErrorKind::Conflict),
            (Code::InvalidArgument, ErrorKind::YourBug(vec![])),
            (Code::NotFound, ErrorKind::YourBug(vec![])),
            (Code::OutOfRange, ErrorKind::HistoryLost),
            (Code::DataLoss, ErrorKind::CallOperator),
            (Code::Internal, ErrorKind::CallOperator),
            (Code::Unauthenticated, ErrorKind::Access),
            (Code::PermissionDenied, ErrorKind::Access),
        ] {
            assert_eq!(*Error::from(Status::new(code, "x")).kind(), expected, "{code:?}");
        }
    }

    #[test]
    fn reason_facts_wait_and_violations_are_read() {
        let mut details = ErrorDetails::new();
        details.set_error_info(
            "PROVIDER_THROTTLED",
            "tokenvault.v1",
            [("scope".to_owned(), "app".to_owned())],
        );
        details.set_retry_info(Some(Duration::from_secs(7)));
        let error = Error::from(Status::with_error_details(Code::ResourceExhausted, "wait", details));
        assert_eq!(*error.kind(), ErrorKind::RetryAfter(Duration::from_secs(7)));
        assert_eq!(error.reason(), Some(ErrorReason::ProviderThrottled));
        assert_eq!(error.metadata().get("scope").map(String::as_str), Some("app"));

        let details = ErrorDetails::with_bad_request_violation("workspace_id", "must be set");
        let error = Error::from(Status::with_error_details(Code::InvalidArgument, "bad", details));
        let ErrorKind::YourBug(violations) = error.kind() else { panic!("{error:?}") };
        assert_eq!(violations[0].field, "workspace_id");
    }

    #[test]
    fn remedy_and_fixer_are_read() {
        let mut details = ErrorDetails::new();
        let facts = [("fixer".to_owned(), "WORKSPACE_OWNER".to_owned())];
        details.set_error_info("TOKEN_INVALID", "tokenvault.v1", facts);
        details.set_localized_message("en-US", "Have the owner reconnect.");
        let error = Error::from(Status::with_error_details(Code::FailedPrecondition, "dead", details));
        assert_eq!(error.remedy(), Some("Have the owner reconnect."));
        assert_eq!(error.fixer(), Some(Fixer::WorkspaceOwner));
        assert_eq!(error.retry_after(), None);
    }

    #[test]
    fn a_broken_connection_is_no_fault_of_the_vault() {
        let error = Error::from(Status::from_error("connection reset".into()));
        assert_eq!((error.code(), error.kind()), (Code::Unknown, &ErrorKind::RetryAfter(WAIT)));
    }

    #[test]
    fn a_reason_of_a_newer_vault_passes_through_by_name() {
        let details = ErrorDetails::with_error_info("NEVER_HEARD_OF", "tokenvault.v1", HashMap::new());
        let error = Error::from(Status::with_error_details(Code::FailedPrecondition, "x", details));
        assert_eq!((error.reason(), error.reason_name()), (None, "NEVER_HEARD_OF"));
        assert_eq!(*error.kind(), ErrorKind::Pause);
    }
}
