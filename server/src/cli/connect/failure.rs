//! Describes why a call failed, in the words of the command line.

use std::error::Error as StdError;
use std::fmt;

use anyhow::anyhow;
use token_vault_client::{Error, ErrorKind, FieldViolation};
use tonic::Status;

use crate::cli::terminal::program::program;

/// Fields of requests, and the arguments that fill them. A list's index is cut off before it is looked up.
const ARGUMENTS: [(&str, &str); 17] = [
    ("principal", "--principal"),
    ("role", "--role"),
    ("named.workspace_ids", "--workspace"),
    ("all_workspaces", "--all-workspaces"),
    ("workspaces", "--workspace or --all-workspaces"),
    ("filter.workspace_ids", "--workspace"),
    ("filter.kinds", "--kind"),
    ("filter.min_severity", "--min-severity"),
    ("workspace_id", "--workspace"),
    ("expires_at", "--expires-in"),
    ("overlap", "--overlap"),
    ("key_id", "KEY_ID"),
    ("job", "NAME"),
    ("page_size", "--limit"),
    ("cursor", "--cursor"),
    ("subscription", "--subscription"),
    ("from", "--from"),
];

/// The vault can't be reached.
#[derive(Debug)]
pub(super) struct Unreachable {
    url: String,
    cause: String,
}

impl Unreachable {
    pub(super) fn new(url: &str, cause: impl fmt::Display) -> Self {
        Self { url: url.to_owned(), cause: cause.to_string() }
    }

    fn remedy(&self) -> String {
        let says = |words: &str| self.cause.contains(words);
        if says("UnknownIssuer") {
            "name the CA that issued the vault's certificate by --ca-file".to_owned()
        } else if says("NotValidForName") || says("not valid for name") {
            "name the name in the vault's certificate by --domain-name".to_owned()
        } else if says("CertificateRequired") {
            "name this caller's certificate by --client-cert and --client-key".to_owned()
        } else {
            format!("start it with `{} serve`, or name its address by --endpoint", program())
        }
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot reach the vault at {}: {}; {}", self.url, self.cause, self.remedy())
    }
}

impl StdError for Unreachable {}

/// The innermost cause of an error, which is the most specific one.
pub(super) fn causes(error: &(dyn StdError + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| StdError::source(*error));
    chain.last().map(ToString::to_string).unwrap_or_default()
}

/// Describes a denial: what is wrong and what to do. If the vault did not answer, the connection broke, and the error's
/// causes say why, for instance because the vault rejected a certificate.
pub(in crate::cli) fn denied(status: Status) -> anyhow::Error {
    let first = StdError::source(&status);
    if first.is_none() {
        return in_words(status.into());
    }
    let causes = std::iter::successors(first, |cause| StdError::source(*cause)).map(ToString::to_string);
    anyhow!("the connection to the vault broke: {}", causes.collect::<Vec<_>>().join(": "))
}

/// Describes an error of the client crate in the same way.
pub(in crate::cli) fn in_words(error: Error) -> anyhow::Error {
    let violations = match error.kind() {
        ErrorKind::YourBug(violations) if !violations.is_empty() => violations,
        _ => return error.into(),
    };
    let known: Option<Vec<_>> = violations.iter().map(in_arguments).collect();
    match known {
        Some(rules) => anyhow!("{}: {}", error.reason_name(), rules.join("; ")),
        None => error.into(),
    }
}

/// Describes a violation by its argument: "--workspace must be …". `None`: no argument fills this field.
fn in_arguments(violation: &FieldViolation) -> Option<String> {
    let field = violation.field.split('[').next().unwrap_or_default();
    let (_, argument) = ARGUMENTS.iter().find(|(name, _)| *name == field)?;
    Some(format!("{argument} {}", violation.rule))
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;

    fn violated(field: &str, rule: &str) -> String {
        let details = ErrorDetails::with_bad_request_violation(field, rule);
        in_words(Status::with_error_details(Code::InvalidArgument, format!("{field} {rule}"), details).into())
            .to_string()
    }

    #[test]
    fn fields_are_named_as_the_arguments_that_fill_them() {
        let shown = violated("named.workspace_ids[0]", "must be a name");
        assert!(shown.ends_with("--workspace must be a name") && !shown.contains("workspace_ids"), "{shown}");
        assert!(violated("request_id", "must be fresh").contains("request_id must be fresh"));
    }

    #[test]
    fn what_cannot_be_reached_is_named_with_cause_and_remedy() {
        let nobody = Unreachable::new("http://127.0.0.1:1", "Connection refused").to_string();
        for part in ["http://127.0.0.1:1", "Connection refused", "serve`", "--endpoint"] {
            assert!(nobody.contains(part), "{nobody}");
        }
        let unknown = Unreachable::new("https://v", "invalid peer certificate: UnknownIssuer").to_string();
        assert!(unknown.contains("--ca-file"), "{unknown}");
    }
}
