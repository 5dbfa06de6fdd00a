//! How an attempt to connect ended, in codes that are safe in an address: a closed list, never a text from elsewhere.

use token_vault_client::Error;
use token_vault_client::v1::ErrorReason;
use url::form_urlencoded;

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Connected,
    Declined,
    Failed(ErrorReason),
}

/// Why an attempt can fail, besides a refusal of the person. Everything else is `Unspecified`.
const REASONS: [ErrorReason; 18] = [
    ErrorReason::Unspecified,
    ErrorReason::AuthorizationStateInvalid,
    ErrorReason::ScopesMissing,
    ErrorReason::ScopesShrunk,
    ErrorReason::SubjectMismatch,
    ErrorReason::SubjectAlreadyConnected,
    ErrorReason::TokenMalformed,
    ErrorReason::TokenOfOtherApp,
    ErrorReason::ProviderRefusedToken,
    ErrorReason::ProviderMisconfigured,
    ErrorReason::ProviderUnavailable,
    ErrorReason::ProviderThrottled,
    ErrorReason::ConnectionNotFound,
    ErrorReason::ConnectLinkNotFound,
    ErrorReason::TokenRevoked,
    ErrorReason::TokenVersionMismatch,
    ErrorReason::WorkspaceShredded,
    ErrorReason::WorkspaceNotFound,
];

impl Outcome {
    pub(crate) fn of(error: &Error) -> Self {
        match error.reason() {
            Some(ErrorReason::AuthorizationDeclined) => Self::Declined,
            Some(reason) if REASONS.contains(&reason) => Self::Failed(reason),
            _ => Self::Failed(ErrorReason::Unspecified),
        }
    }

    /// The value of `result` in our own addresses, and of `connect_result` in the platform's.
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Declined => "declined",
            Self::Failed(_) => "failed",
        }
    }

    /// Why it failed, in lower case: `scopes_missing`.
    pub(crate) fn reason_code(self) -> Option<String> {
        match self {
            Self::Failed(reason) => Some(name(reason)),
            Self::Connected | Self::Declined => None,
        }
    }

    pub(crate) fn query(self) -> String {
        match self.reason_code() {
            Some(reason) => format!("result={}&reason={reason}", self.code()),
            None => format!("result={}", self.code()),
        }
    }

    /// Reads the query of the card. What is not of the list says nothing.
    pub(crate) fn read(query: Option<&str>) -> Option<Self> {
        let query = query.unwrap_or_default().as_bytes();
        let value = |wanted: &str| {
            form_urlencoded::parse(query).find(|(name, _)| name == wanted).map(|(_, value)| value)
        };
        match &*value("result")? {
            "connected" => Some(Self::Connected),
            "declined" => Some(Self::Declined),
            "failed" => {
                let reason = value("reason").unwrap_or_default();
                let known = REASONS.into_iter().find(|known| name(*known) == reason);
                Some(Self::Failed(known.unwrap_or(ErrorReason::Unspecified)))
            }
            _ => None,
        }
    }
}

fn name(reason: ErrorReason) -> String {
    match reason {
        ErrorReason::Unspecified => "other".to_owned(),
        reason => reason.as_str_name().trim_start_matches("ERROR_REASON_").to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let failed = REASONS.into_iter().map(Outcome::Failed);
        for outcome in [Outcome::Connected, Outcome::Declined].into_iter().chain(failed) {
            assert_eq!(Outcome::read(Some(&outcome.query())), Some(outcome));
        }
        assert_eq!(
            Outcome::Failed(ErrorReason::ScopesMissing).query(),
            "result=failed&reason=scopes_missing"
        );
    }

    #[test]
    fn nothing_else_is_read() {
        let other = Some(Outcome::Failed(ErrorReason::Unspecified));
        for (query, expected) in [
            (None, None),
            (Some(""), None),
            (Some("result=great"), None),
            (Some("result=%3Cscript%3E"), None),
            (Some("result=failed&reason=<script>"), other),
            (Some("result=failed"), other),
        ] {
            assert_eq!(Outcome::read(query), expected, "{query:?}");
        }
    }
}
