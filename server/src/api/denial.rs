//! A denial: the vault's own no to a caller. Canonical code, reason with metadata, and words for people.
//!
//! [`super::status`] turns the vault's errors into denials. The denials that the layers make themselves are here.

use std::collections::HashMap;
use std::time::Duration;

use token_vault_proto::v1::ErrorReason as Reason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::convert::bounds::texts;
use crate::backoff::jitter;
use crate::model::Remedy;
use crate::vault::FieldViolation;

/// Domain of every reason.
const DOMAIN: &str = "tokenvault.v1";
/// A status travels in the trailers of a response, for which clients commonly allow 8 KiB. So these are the most bytes of
/// its message, of its remedy and of each value in its metadata, and the most violations.
const MESSAGE: usize = 1024;
const VALUE: usize = 512;
const VIOLATIONS: usize = 16;
/// The retry delay when no better one is known.
pub(super) const SOON: Duration = Duration::from_secs(1);
/// Callers who are sent away together come back spread over this time.
pub(super) const SPREAD: Duration = Duration::from_secs(1);
/// The retry delay for a caller who must end something first.
pub(super) const LATER: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Denial {
    code: Code,
    /// `None` for bugs and deadlines, where the code says everything.
    reason: Option<Reason>,
    /// What is wrong, in one sentence.
    problem: String,
    /// What to do about it, in one sentence.
    remedy: String,
    metadata: HashMap<String, String>,
    violations: Vec<FieldViolation>,
    retry_after: Option<Duration>,
    /// Leads from a bug to its log line.
    call_id: Option<String>,
}

impl Denial {
    pub(super) fn new(
        code: Code,
        reason: impl Into<Option<Reason>>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            code,
            reason: reason.into(),
            problem: problem.into(),
            remedy: remedy.into(),
            metadata: HashMap::new(),
            violations: Vec::new(),
            retry_after: None,
            call_id: None,
        }
    }

    /// Takes the words, who can fix it and where, from a remedy of the model.
    pub(super) fn by_remedy(code: Code, reason: Reason, remedy: Remedy) -> Self {
        Self::new(code, reason, remedy.message, remedy.action)
            .with("fixer", remedy.fixer.as_str())
            .with("url", remedy.url)
    }

    /// Adds metadata. An empty value is left out: the contract lets a key be missing when its value is unknown.
    pub(super) fn with(mut self, key: &str, value: impl ToString) -> Self {
        let value = value.to_string();
        if !value.is_empty() {
            self.metadata.insert(key.to_owned(), value);
        }
        self
    }

    /// Adds a field that breaks its rule.
    pub(super) fn violation(mut self, field: &str, rule: &str) -> Self {
        self.violations.push(FieldViolation::new(field, rule));
        self
    }

    pub(super) fn violations(mut self, violations: Vec<FieldViolation>) -> Self {
        self.violations = violations;
        self
    }

    /// Says that waiting helps, and for how long.
    pub(super) fn retry(mut self, after: Duration) -> Self {
        self.retry_after = Some(after.max(Duration::from_millis(1)));
        self
    }

    pub(super) fn overloaded() -> Self {
        Self::new(
            Code::ResourceExhausted,
            Reason::RateLimited,
            "The vault has reached its limit of calls in flight.",
            "Retry after the delay, with jitter.",
        )
        .with("limit", "in_flight")
        .retry(SOON)
    }

    pub(super) fn too_many_calls() -> Self {
        Self::new(
            Code::ResourceExhausted,
            Reason::RateLimited,
            "The principal has reached its limit of calls in flight.",
            "Await their responses, then retry after the delay, with jitter.",
        )
        .with("limit", "max_calls_per_principal")
        .retry(SOON)
    }

    pub(super) fn too_many_open_streams() -> Self {
        Self::new(
            Code::ResourceExhausted,
            Reason::RateLimited,
            "The limit of open health and reflection streams is reached.",
            "End a stream, or call Health/Check; then retry after the delay.",
        )
        .with("limit", "open_streams")
        .retry(LATER)
    }

    pub(super) fn rate_limited(wait: Duration) -> Self {
        Self::new(
            Code::ResourceExhausted,
            Reason::RateLimited,
            "The principal exceeds its rate limit.",
            "Retry after the delay, with jitter.",
        )
        .with("limit", "per_principal_rps")
        .retry(wait)
    }

    pub(super) fn too_many_failed_authentications(wait: Duration) -> Self {
        Self::new(
            Code::ResourceExhausted,
            Reason::RateLimited,
            "Too many authentications from this address failed; the vault ignores its credentials for a while.",
            "Correct the credential, then retry after the delay.",
        )
        .with("limit", "failed_authentications")
        .retry(wait)
    }

    /// Ends a watch because its connection ends.
    pub(super) fn connection_ends() -> Self {
        Self::new(
            Code::Unavailable,
            Reason::ShuttingDown,
            "This connection has reached its maximum age, or was closed to make room for another.",
            "Resume over a new connection.",
        )
        .retry(jitter(SPREAD))
    }

    pub(super) fn deadline_exceeded() -> Self {
        Self::new(
            Code::DeadlineExceeded,
            None,
            "The call's deadline passed before the response was ready.",
            "Repeat it with the same request_id and more time.",
        )
    }

    pub(super) fn message_too_slow(limit: Duration) -> Self {
        Self::new(
            Code::DeadlineExceeded,
            None,
            format!("The request message did not arrive within {} seconds.", limit.as_secs()),
            "Send it right after the headers.",
        )
    }

    pub(super) fn message_too_large(limit: usize) -> Self {
        Self::new(
            Code::InvalidArgument,
            Reason::FieldInvalid,
            format!("The request is larger than {limit} bytes."),
            "Send less at once.",
        )
    }

    pub(super) fn message_malformed() -> Self {
        Self::new(
            Code::InvalidArgument,
            Reason::FieldInvalid,
            "The request's bytes are not the message of this RPC.",
            "Build the client from this version's proto files.",
        )
    }

    /// A bug of ours; the call id leads to its cause in the log.
    pub(super) fn bug(call_id: &str) -> Self {
        let remedy = format!("Report it to the operator with the call id {call_id}.");
        let mut denial = Self::new(Code::Internal, None, "The vault made a mistake.", remedy);
        denial.call_id = Some(call_id.to_owned());
        denial
    }

    pub(super) fn unimplemented() -> Self {
        Self::new(
            Code::Unimplemented,
            None,
            "This vault has no such RPC.",
            "List the services by server reflection.",
        )
    }

    /// The reason's name; empty if there is none.
    pub(super) fn reason(&self) -> &'static str {
        self.reason.map_or("", |reason| reason.reason())
    }

    pub(super) fn into_status(self) -> Status {
        let mut details = ErrorDetails::new();
        if let Some(reason) = self.reason {
            details.set_error_info(reason.reason(), DOMAIN, texts::bounded(self.metadata, VALUE));
        }
        for violation in self.violations.into_iter().take(VIOLATIONS) {
            let rule = texts::shortened(violation.rule, VALUE);
            details.add_bad_request_violation(texts::shortened(violation.field, VALUE), rule);
        }
        if let Some(after) = self.retry_after {
            details.set_retry_info(Some(after));
        }
        if let Some(call_id) = self.call_id {
            details.set_request_info(call_id, "");
        }
        let message = texts::shortened(format!("{} {}", self.problem, self.remedy), MESSAGE);
        details.set_localized_message("en-US", texts::shortened(self.remedy, VALUE));
        Status::with_error_details(self.code, message, details)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn watchers_whose_connections_end_together_come_back_spread_over_a_second() {
        let delays: BTreeSet<_> = (0..50)
            .map(|_| {
                let details = Denial::connection_ends().into_status().get_error_details();
                details.retry_info().and_then(|info| info.retry_delay).expect("a delay")
            })
            .collect();
        assert!(delays.len() > 25, "{delays:?}");
        assert!(delays.iter().all(|delay| *delay <= SPREAD), "{delays:?}");
    }
}
