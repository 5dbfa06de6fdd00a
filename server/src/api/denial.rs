//! A refusal and its wire form: canonical code, reason with facts, and words for people.
//!
//! `status` makes refusals out of the vault's errors. Those that the layers make themselves stand here.

use std::collections::HashMap;
use std::time::Duration;

use token_vault_proto::v1::ErrorReason as Reason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::call::Call;
use crate::model::{Fixer, Remedy};
use crate::vault::FieldViolation;

/// Domain of every reason.
const DOMAIN: &str = "tokenvault.v1";
/// What a caller waits when nobody knows better.
pub(super) const SOON: Duration = Duration::from_secs(1);
/// What a caller waits who must end something first.
pub(super) const LATER: Duration = Duration::from_secs(5);

/// A refusal before it is put into wire form.
#[derive(Debug)]
pub(super) struct Refused {
    /// What the caller should do, in one word.
    pub(super) code: Code,
    /// What went wrong, for programs. `None` for bugs and deadlines, where the code says all.
    pub(super) reason: Option<Reason>,
    wrong: String,
    remedy: String,
    metadata: HashMap<String, String>,
    violations: Vec<FieldViolation>,
    retry_after: Option<Duration>,
}

impl Refused {
    /// What is wrong and what to do, a sentence each.
    pub(super) fn new(
        code: Code,
        reason: impl Into<Option<Reason>>,
        wrong: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            code,
            reason: reason.into(),
            wrong: wrong.into(),
            remedy: remedy.into(),
            metadata: HashMap::new(),
            violations: Vec::new(),
            retry_after: None,
        }
    }

    /// Words and fixer of a remedy that the model knows.
    pub(super) fn by_remedy(code: Code, reason: Reason, remedy: Remedy) -> Self {
        Self::new(code, reason, remedy.message, remedy.action).with("fixer", fixer(remedy.fixer))
    }

    /// Adds a fact; an empty one is left out, since a key may be missing when its value is unknown.
    pub(super) fn with(mut self, key: &str, value: impl ToString) -> Self {
        let value = value.to_string();
        if !value.is_empty() {
            self.metadata.insert(key.to_owned(), value);
        }
        self
    }

    /// A field that breaks its rule.
    pub(super) fn violation(mut self, field: &str, rule: &str) -> Self {
        self.violations.push(FieldViolation::new(field, rule));
        self
    }

    /// Fields that break their rules.
    pub(super) fn violations(mut self, violations: Vec<FieldViolation>) -> Self {
        self.violations = violations;
        self
    }

    /// Waiting helps.
    pub(super) fn retry(mut self, after: Duration) -> Self {
        self.retry_after = Some(after.max(Duration::from_millis(1)));
        self
    }

    /// The vault is full.
    pub(super) fn overloaded() -> Self {
        Self::new(
            Code::ResourceExhausted,
            Reason::RateLimited,
            "The vault is working on as many calls as it can.",
            "Retry after the delay, with jitter.",
        )
        .with("limit", "in_flight")
        .retry(SOON)
    }

    /// The principal has as many calls in flight as it may.
    pub(super) fn too_many_calls() -> Self {
        Self::new(
            Code::ResourceExhausted,
            Reason::RateLimited,
            "The principal has as many calls in flight as it may.",
            "Await their answers, then retry after the delay, with jitter.",
        )
        .with("limit", "max_calls_per_principal")
        .retry(SOON)
    }

    /// Health and reflection have as many streams as they may.
    pub(super) fn too_many_open_streams() -> Self {
        Self::new(
            Code::ResourceExhausted,
            Reason::RateLimited,
            "Health and reflection have as many streams as they may.",
            "End a stream, or ask Health/Check; then retry after the delay.",
        )
        .with("limit", "open_streams")
        .retry(LATER)
    }

    /// The principal calls more often than it may.
    pub(super) fn too_often(wait: Duration) -> Self {
        Self::new(
            Code::ResourceExhausted,
            Reason::RateLimited,
            "The principal calls more often than it may.",
            "Retry after the delay, with jitter.",
        )
        .with("limit", "per_principal_rps")
        .retry(wait)
    }

    /// Too many credentials from this address were no good.
    pub(super) fn too_many_failures(wait: Duration) -> Self {
        Self::new(
            Code::ResourceExhausted,
            Reason::RateLimited,
            "Too many authentications from this address failed; credentials from it are not looked at for a while.",
            "Correct the credential, then retry after the delay.",
        )
        .with("limit", "failed_authentications")
        .retry(wait)
    }

    /// The connection ends, and the stream on it with it.
    pub(super) fn connection_ends() -> Self {
        Self::new(
            Code::Unavailable,
            Reason::ShuttingDown,
            "This connection has reached its age, or makes room for others.",
            "Resume over a new connection.",
        )
        .retry(Duration::from_millis(10))
    }

    /// The call's time is over.
    pub(super) fn too_late() -> Self {
        Self::new(
            Code::DeadlineExceeded,
            None,
            "The call's deadline passed before the answer was there.",
            "Repeat it with the same request_id and more time.",
        )
    }

    /// The request message does not come.
    pub(super) fn too_slow(limit: Duration) -> Self {
        Self::new(
            Code::DeadlineExceeded,
            None,
            format!("The request's message did not arrive within {} seconds.", limit.as_secs()),
            "Send it right after the headers.",
        )
    }

    /// The request message passes the size limit.
    pub(super) fn too_large(limit: usize) -> Self {
        Self::new(
            Code::InvalidArgument,
            Reason::FieldInvalid,
            format!("The request is larger than {limit} bytes."),
            "Send less at once.",
        )
    }

    /// The request is no message of the RPC.
    pub(super) fn unreadable() -> Self {
        Self::new(
            Code::InvalidArgument,
            Reason::FieldInvalid,
            "The request's bytes are not the message of this RPC.",
            "Build the client from this version's proto files.",
        )
    }

    /// A bug of ours; the call id leads to its cause in the log.
    pub(super) fn bug(call: &Call) -> Self {
        Self::new(
            Code::Internal,
            None,
            "The vault made a mistake.",
            format!("Report it to the operator with the call id {}.", call.id()),
        )
    }

    /// There is no such RPC.
    pub(super) fn unimplemented() -> Self {
        Self::new(
            Code::Unimplemented,
            None,
            "This vault has no such RPC.",
            "See the services by server reflection.",
        )
    }

    /// The wire form.
    pub(super) fn into_status(self, call: &Call) -> Status {
        call.note_reason(self.reason.map_or("", |reason| reason.reason()));
        let mut details = ErrorDetails::new();
        if let Some(reason) = self.reason {
            details.set_error_info(reason.reason(), DOMAIN, self.metadata);
        }
        for violation in self.violations {
            details.add_bad_request_violation(violation.field, violation.rule);
        }
        if let Some(after) = self.retry_after {
            details.set_retry_info(Some(after));
        }
        if self.code == Code::Internal {
            details.set_request_info(call.id(), "");
        }
        details.set_localized_message("en-US", self.remedy.clone());
        Status::with_error_details(self.code, format!("{} {}", self.wrong, self.remedy), details)
    }
}

/// The name of the API's enum value, without its prefix.
pub(super) fn fixer(fixer: Fixer) -> &'static str {
    match fixer {
        Fixer::WorkspaceOwner => "WORKSPACE_OWNER",
        Fixer::Operator => "OPERATOR",
        Fixer::AppAdmin => "APP_ADMIN",
        Fixer::AdAccountAdmin => "AD_ACCOUNT_ADMIN",
        Fixer::Nobody => "NOBODY",
    }
}
