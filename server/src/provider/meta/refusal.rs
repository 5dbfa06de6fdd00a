//! Meta's errors, classified once: by code and sub-code, then `is_transient`, then HTTP status, and by
//! message only to pick a reason where no code tells it. `type` is never asked: throttles and dead tokens
//! are both `OAuthException`.

use std::time::Duration;

use serde_json::Value;

use super::redact::redact;
use crate::model::{Misconfiguration as M, Refusal, RefusalKind as K, RefusalReason as R};
use crate::provider::usage::{ad_account_scope, wait_hint};

/// What was being asked: the same code means other things in other places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// `/oauth/access_token`: a 190 is the token in hand; code 1 may be our secret.
    Exchange,
    /// `/debug_token` itself: a 190 is our own app token.
    Inspection,
    /// `data.error` of `/debug_token`: the token that was inspected.
    InspectedToken,
    /// One ad account (or another object).
    Object,
    /// Anything else with the token.
    Anything,
}

/// A reply that was refused, as far as it could be read.
pub(super) struct Refused<'a> {
    pub(super) asked: Asked,
    pub(super) http_status: u16,
    pub(super) headers: &'a [(String, String)],
    pub(super) ad_account_id: Option<&'a str>,
}

/// Meta's error object, read leniently.
#[derive(Debug, Default)]
pub(super) struct GraphError {
    pub(super) code: Option<i64>,
    pub(super) subcode: Option<i64>,
    pub(super) message: String,
    pub(super) is_transient: bool,
    pub(super) trace_id: Option<String>,
}

impl GraphError {
    /// Reads an `error` object; `subcode` is how `debug_token` spells it.
    pub(super) fn read(error: &Value) -> Option<Self> {
        let error = error.as_object()?;
        let text = |key: &str| error.get(key).and_then(Value::as_str).map(str::to_owned);
        Some(Self {
            code: error.get("code").and_then(integer),
            subcode: error.get("error_subcode").or_else(|| error.get("subcode")).and_then(integer),
            message: text("message").unwrap_or_default(),
            is_transient: error.get("is_transient").and_then(Value::as_bool).unwrap_or(false),
            trace_id: text("fbtrace_id").map(|id| redact(&id)),
        })
    }
}

/// A whole number, also one that came as text.
pub(super) fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

impl Refused<'_> {
    /// Classifies an error that Meta told.
    pub(super) fn classify(&self, error: GraphError) -> Refusal {
        Refusal {
            kind: self.kind(&error),
            code: error.code,
            subcode: error.subcode,
            detail: redact(&error.message),
            trace_id: error.trace_id,
        }
    }

    /// A reply that holds no readable error: whatever the status, it says nothing of the token.
    pub(super) fn unreadable(&self, what: &str) -> Refusal {
        let kind = K::Transient { retry_after: wait_hint(self.headers, self.ad_account_id) };
        Refusal::new(kind, format!("{what} (HTTP {})", self.http_status))
    }

    fn kind(&self, error: &GraphError) -> K {
        let message = error.message.to_ascii_lowercase();
        let Some(code) = error.code else {
            return K::Transient { retry_after: wait_hint(self.headers, self.ad_account_id) };
        };
        match (code, error.subcode) {
            (4 | 17 | 32 | 341 | 613 | 80_000..=80_014, _) => self.throttled(code, error.subcode),
            (1, _) if self.asked == Asked::Exchange && message.contains("client secret") => {
                K::Ours(M::AppSecret)
            }
            (101, _) => K::Ours(M::AppId),
            (2635, _) => K::Ours(M::ApiVersion),
            (3 | 270 | 3962, _) => K::Ours(M::AppCapability),
            (191, _) => K::Ours(M::RedirectUri),
            (100, _) if message.contains("appsecret_proof") => K::Ours(M::AppSecretProof),
            (100, _) if message.contains("did not match the viewing app") => K::OtherApp,
            (100, _) if message.contains("must provide an app access token") => K::Ours(M::AppSecret),
            (190, _) if self.asked == Asked::Inspection => K::Ours(M::AppSecret),
            (0 | 102 | 190, subcode) => K::Dead { reason: reason(subcode, &message) },
            (452 | 456..=468 | 490 | 492 | 493, _) => K::Dead { reason: reason(Some(code), &message) },
            (415, _) => K::Dead { reason: R::Checkpoint },
            (100, Some(33)) => K::Permission { object_only: true },
            (10 | 200..=299, _) => K::Permission { object_only: self.asked == Asked::Object },
            (368, _) => K::Blocked,
            (1 | 2 | 960, _) | (_, Some(99)) => self.transient(),
            _ if error.is_transient || self.http_status >= 500 => self.transient(),
            _ => K::Ours(M::Request),
        }
    }

    fn transient(&self) -> K {
        K::Transient { retry_after: wait_hint(self.headers, self.ad_account_id) }
    }

    fn throttled(&self, code: i64, subcode: Option<i64>) -> K {
        let account = || self.ad_account_id.map_or_else(|| "ad_account".to_owned(), ad_account_scope);
        let (scope, usual) = match (code, subcode) {
            (4 | 341, _) => ("app".to_owned(), 300),
            (17, Some(2_446_079)) | (613, Some(1_487_742 | 5_044_001)) => (account(), 300),
            (80_000 | 80_003 | 80_004, _) => (account(), 300),
            (80_001..=80_014, _) => ("business".to_owned(), 300),
            _ => ("token".to_owned(), 60),
        };
        let retry_after = wait_hint(self.headers, self.ad_account_id).unwrap_or(Duration::from_secs(usual));
        K::Throttled { scope, retry_after }
    }
}

/// Why a session does not work: by sub-code, and where there is none, by what the message says.
fn reason(subcode: Option<i64>, message: &str) -> R {
    match subcode {
        Some(458) => return R::AppRemoved,
        Some(459 | 490) => return R::Checkpoint,
        Some(460) => return R::PasswordChanged,
        Some(463) => return R::Expired,
        Some(464) => return R::UnconfirmedAccount,
        Some(466) => return R::RevokedAtProvider,
        Some(467) => return R::LoggedOut,
        Some(468) => return R::UnusedTooLong,
        Some(492) => return R::RoleLost,
        Some(493) => return R::DataAccessLapsed,
        Some(456 | 457) => return R::Malformed,
        _ => {}
    }
    const FRAGMENTS: [(&str, R); 13] = [
        ("has expired on", R::Expired),
        ("changed their password", R::PasswordChanged),
        ("changed the session for security", R::PasswordChanged),
        ("has not authorized application", R::AppRemoved),
        ("logged out", R::LoggedOut),
        ("invalidated explicitly", R::RevokedAtProvider),
        ("checkpoint", R::Checkpoint),
        ("log in to www.facebook.com", R::Checkpoint),
        ("not a confirmed user", R::UnconfirmedAccount),
        ("hasn't engaged the app", R::DataAccessLapsed),
        ("error validating application", R::WrongApp),
        ("invalid oauth access token", R::Malformed),
        ("access token could not be decrypted", R::Malformed),
    ];
    if message.starts_with("malformed access token") {
        return R::Malformed;
    }
    FRAGMENTS
        .iter()
        .find(|(fragment, _)| message.contains(fragment))
        .map_or(R::Unknown, |(_, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(asked: Asked, status: u16, code: i64, subcode: Option<i64>, message: &str) -> K {
        let refused = Refused { asked, http_status: status, headers: &[], ad_account_id: Some("act_10") };
        let error =
            GraphError { code: Some(code), subcode, message: message.into(), ..GraphError::default() };
        refused.classify(error).kind
    }

    /// Every row of the reference's sub-code table, and what captured bodies without a sub-code say.
    #[test]
    fn a_dead_token_has_its_reason() {
        for (subcode, message, expected) in [
            (Some(452), "", R::Unknown),
            (Some(456), "", R::Malformed),
            (Some(457), "", R::Malformed),
            (Some(458), "", R::AppRemoved),
            (Some(459), "", R::Checkpoint),
            (Some(460), "", R::PasswordChanged),
            (Some(461), "", R::Unknown),
            (Some(463), "", R::Expired),
            (Some(464), "", R::UnconfirmedAccount),
            (Some(465), "", R::Unknown),
            (Some(466), "", R::RevokedAtProvider),
            (Some(467), "", R::LoggedOut),
            (Some(468), "", R::UnusedTooLong),
            (Some(490), "", R::Checkpoint),
            (Some(492), "", R::RoleLost),
            (Some(493), "", R::DataAccessLapsed),
            (None, "Error validating access token: Session has expired on Tuesday", R::Expired),
            (
                None,
                "The session has been invalidated because the user changed their password",
                R::PasswordChanged,
            ),
            (None, "The user has not authorized application 1.", R::AppRemoved),
            (None, "The session is invalid because the user logged out.", R::LoggedOut),
            (None, "The session was invalidated explicitly using an API call.", R::RevokedAtProvider),
            (None, "Invalid OAuth access token - Cannot parse access token", R::Malformed),
            (None, "Malformed access token EAAB", R::Malformed),
            (None, "The access token could not be decrypted", R::Malformed),
            (None, "Ungültiges Token", R::Unknown),
        ] {
            let kind = kind(Asked::Anything, 400, 190, subcode, message);
            assert_eq!(kind, K::Dead { reason: expected }, "190/{subcode:?} {message}");
        }
    }

    /// Every row of the reference's code table that is not a dead token.
    #[test]
    fn what_is_not_the_tokens_fault_never_condemns_it() {
        for code in [4, 17, 32, 341, 613, 80_000, 80_003, 80_004, 80_005, 80_014] {
            for status in [400, 403] {
                let kind = kind(Asked::Object, status, code, None, "limit");
                assert!(matches!(kind, K::Throttled { .. }), "{code}: {kind:?}");
            }
        }
        for (asked, status, code, subcode, message, expected) in [
            (Asked::Exchange, 400, 1, None, "Error validating client secret.", K::Ours(M::AppSecret)),
            (
                Asked::Inspection,
                400,
                190,
                None,
                "Invalid OAuth access token signature.",
                K::Ours(M::AppSecret),
            ),
            (
                Asked::Inspection,
                400,
                100,
                None,
                "(#100) The App_id in the input_token did not match the Viewing App",
                K::OtherApp,
            ),
            (
                Asked::Inspection,
                400,
                100,
                None,
                "(#100) You must provide an app access token, or",
                K::Ours(M::AppSecret),
            ),
            (Asked::Anything, 400, 101, None, "", K::Ours(M::AppId)),
            (
                Asked::Anything,
                400,
                100,
                None,
                "Invalid appsecret_proof provided in the API argument",
                K::Ours(M::AppSecretProof),
            ),
            (Asked::Anything, 400, 2635, None, "", K::Ours(M::ApiVersion)),
            (Asked::Anything, 400, 3, None, "", K::Ours(M::AppCapability)),
            (Asked::Anything, 400, 270, None, "", K::Ours(M::AppCapability)),
            (Asked::Anything, 400, 191, None, "", K::Ours(M::RedirectUri)),
            (Asked::Anything, 400, 104, None, "", K::Ours(M::Request)),
            (Asked::Anything, 400, 2500, None, "", K::Ours(M::Request)),
            (Asked::Anything, 400, 3018, None, "", K::Ours(M::Request)),
            (Asked::Anything, 400, 99_999, None, "", K::Ours(M::Request)),
            (Asked::Object, 400, 100, Some(33), "", K::Permission { object_only: true }),
            (Asked::Object, 403, 200, None, "", K::Permission { object_only: true }),
            (Asked::Anything, 403, 200, None, "", K::Permission { object_only: false }),
            (Asked::Anything, 400, 10, None, "", K::Permission { object_only: false }),
            (Asked::Anything, 400, 294, None, "", K::Permission { object_only: false }),
            (Asked::Anything, 400, 368, Some(1_390_008), "", K::Blocked),
            (Asked::Anything, 500, 1, None, "", K::Transient { retry_after: None }),
            (Asked::Anything, 503, 2, None, "", K::Transient { retry_after: None }),
            (Asked::Anything, 400, 960, None, "", K::Transient { retry_after: None }),
            (Asked::Anything, 500, 99_999, None, "", K::Transient { retry_after: None }),
            (Asked::Anything, 400, 415, None, "", K::Dead { reason: R::Checkpoint }),
            (Asked::Anything, 400, 102, Some(460), "", K::Dead { reason: R::PasswordChanged }),
            (Asked::Anything, 400, 459, None, "", K::Dead { reason: R::Checkpoint }),
        ] {
            assert_eq!(kind(asked, status, code, subcode, message), expected, "{code}/{subcode:?} {message}");
        }
    }

    #[test]
    fn an_unknown_code_that_says_it_is_transient_is() {
        let refused = Refused { asked: Asked::Anything, http_status: 400, headers: &[], ad_account_id: None };
        let error = GraphError { code: Some(99_999), is_transient: true, ..GraphError::default() };
        assert_eq!(refused.classify(error).kind, K::Transient { retry_after: None });
    }

    #[test]
    fn a_throttle_waits_as_long_as_its_headers_say() {
        let headers = [(
            "X-Business-Use-Case-Usage".to_owned(),
            r#"{"10":[{"call_count":100,"estimated_time_to_regain_access":12}]}"#.to_owned(),
        )];
        let refused = Refused {
            asked: Asked::Object,
            http_status: 400,
            headers: &headers,
            ad_account_id: Some("act_10"),
        };
        let error = GraphError { code: Some(80_000), subcode: Some(2_446_079), ..GraphError::default() };
        let expected =
            K::Throttled { scope: "ad_account:act_10".into(), retry_after: Duration::from_secs(720) };
        assert_eq!(refused.classify(error).kind, expected);
    }
}
