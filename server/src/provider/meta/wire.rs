//! Meta's replies, read leniently: ids come as text or numbers, fields may be missing, unknown ones are fine.

use std::time::Duration;

use serde_json::Value;

use super::refusal::integer;
use crate::model::{
    AdAccount, AdAccountState, Expiry, ExpirySource, Grant, GrantState, GranularScope, Subject, SubjectType,
    Timestamp, TokenFacts, TokenKind,
};
use crate::provider::Inspected;

/// A user token that lives less than this was made short-lived.
const SHORT_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// Text, also where a number came.
pub(super) fn text(value: &Value, key: &str) -> String {
    match value.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

fn texts(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|entry| entry.as_str().map(str::to_owned)).collect()
}

/// An end as Meta tells it: 0 is never, absence is silence.
fn expiry(value: Option<&Value>) -> Expiry {
    match value.and_then(integer) {
        Some(0) => Expiry::Never,
        Some(seconds) if seconds > 0 => {
            Expiry::At(Timestamp::from_unix_seconds(seconds), ExpirySource::Provider)
        }
        _ => Expiry::Unknown,
    }
}

/// `data` of a valid token. `None`: an app token, which is nobody's.
pub(super) fn inspected(data: &Value, now: Timestamp) -> Option<Inspected> {
    let (user, page) = (text(data, "user_id"), text(data, "profile_id"));
    let end = expiry(data.get("expires_at"));
    let issued_at =
        data.get("issued_at").and_then(integer).filter(|at| *at > 0).map(Timestamp::from_unix_seconds);
    let (kind, subject_kind, id) = match text(data, "type").to_ascii_uppercase().as_str() {
        "APP" => return None,
        "PAGE" => (TokenKind::Page, SubjectType::Page, if page.is_empty() { user } else { page }),
        "SYSTEM_USER" => (TokenKind::SystemUser, SubjectType::SystemUser, user),
        "USER" => (user_kind(end, issued_at, now), SubjectType::User, user),
        _ => (user_kind(end, issued_at, now), SubjectType::Unknown, user),
    };
    let data_access = match expiry(data.get("data_access_expires_at")) {
        Expiry::Unknown => Expiry::Never,
        told => told,
    };
    let granular = data.get("granular_scopes").and_then(Value::as_array);
    Some(Inspected {
        app_id: text(data, "app_id"),
        subject: Subject { id, name: String::new(), kind: subject_kind },
        facts: TokenFacts {
            kind,
            expiry: end,
            data_access,
            issued_at,
            scopes: texts(data.get("scopes")),
            granular_scopes: granular
                .into_iter()
                .flatten()
                .map(|entry| GranularScope {
                    scope: text(entry, "scope"),
                    target_ids: texts(entry.get("target_ids")),
                })
                .filter(|granular| !granular.scope.is_empty())
                .collect(),
        },
    })
}

/// Short-lived tokens carry no `issued_at` and live an hour or two.
fn user_kind(end: Expiry, issued_at: Option<Timestamp>, now: Timestamp) -> TokenKind {
    match end.at() {
        Some(end) if end.since(issued_at.unwrap_or(now)) < SHORT_LIFE => TokenKind::ShortLivedUser,
        _ => TokenKind::LongLivedUser,
    }
}

/// The life that an exchange told: `expires_in`, or `expires` as it once was. Zero and nonsense are silence.
pub(super) fn expires_in(reply: &Value) -> Option<Duration> {
    let told = reply.get("expires_in").or_else(|| reply.get("expires"));
    told.and_then(integer)
        .filter(|life| *life > 0)
        .and_then(|life| u64::try_from(life).ok())
        .map(Duration::from_secs)
}

/// Entries of `data`.
pub(super) fn data(reply: &Value) -> impl Iterator<Item = &Value> {
    reply.get("data").and_then(Value::as_array).into_iter().flatten()
}

/// One permission. A state that this version does not know is not granted.
pub(super) fn grant(entry: &Value) -> Grant {
    let state = match text(entry, "status").as_str() {
        "granted" => GrantState::Granted,
        "expired" => GrantState::Expired,
        _ => GrantState::Declined,
    };
    Grant { scope: text(entry, "permission"), state }
}

/// One ad account.
pub(super) fn ad_account(entry: &Value, now: Timestamp) -> Option<AdAccount> {
    let status = entry.get("account_status").and_then(integer);
    let state = match status {
        Some(1 | 201) => AdAccountState::Active,
        Some(3 | 7 | 8 | 9) => AdAccountState::Limited,
        Some(2) => AdAccountState::Disabled,
        Some(100 | 101 | 202) => AdAccountState::Closed,
        _ => AdAccountState::Unknown,
    };
    let id = match text(entry, "id") {
        id if id.starts_with("act_") => id,
        _ => format!("act_{}", text(entry, "account_id")),
    };
    let business = entry.get("business").unwrap_or(&Value::Null);
    (id.len() > 4).then(|| AdAccount {
        id,
        name: text(entry, "name"),
        currency: text(entry, "currency"),
        time_zone: text(entry, "timezone_name"),
        state,
        provider_state: status.map(|status| status.to_string()).unwrap_or_default(),
        owner_id: text(business, "id"),
        owner_name: text(business, "name"),
        checked_at: now,
    })
}

/// Where the next page starts. `next` says whether there is one; it holds the token, so it is never used itself.
pub(super) fn next_page(reply: &Value) -> Option<String> {
    let paging = reply.get("paging")?;
    paging.get("next").filter(|next| next.is_string())?;
    let after = paging.get("cursors")?.get("after")?.as_str()?;
    (!after.is_empty()).then(|| after.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_763_859_600);

    fn facts(data: Value) -> TokenFacts {
        inspected(&data, NOW).unwrap().facts
    }

    #[test]
    fn zero_is_never_and_absence_is_silence() {
        assert_eq!(facts(json!({"type": "USER", "expires_at": 0})).expiry, Expiry::Never);
        assert_eq!(facts(json!({"type": "USER"})).expiry, Expiry::Unknown);
        assert_eq!(
            facts(json!({"type": "USER", "expires_at": "1769043600"})).expiry.at(),
            Some(Timestamp::from_unix_seconds(1_769_043_600))
        );
        assert_eq!(
            facts(json!({"type": "SYSTEM_USER", "data_access_expires_at": 0})).data_access,
            Expiry::Never
        );
    }

    #[test]
    fn short_lives_are_told_by_issue_or_by_what_is_left() {
        let kind = |expires_at: i64, issued_at: Option<i64>| {
            facts(json!({"type": "USER", "expires_at": expires_at, "issued_at": issued_at})).kind
        };
        assert_eq!(kind(1_763_859_600 + 5_400, None), TokenKind::ShortLivedUser);
        assert_eq!(kind(1_763_859_600 + 5_184_000, None), TokenKind::LongLivedUser);
        // An old long-lived token in its last hour is still long-lived.
        assert_eq!(kind(1_763_859_600 + 3_600, Some(1_763_859_600 - 5_000_000)), TokenKind::LongLivedUser);
        assert_eq!(facts(json!({"type": "PAGE", "expires_at": 0})).kind, TokenKind::Page);
    }

    #[test]
    fn an_app_token_is_nobodys() {
        assert!(inspected(&json!({"type": "APP", "is_valid": true}), NOW).is_none());
    }

    #[test]
    fn ids_may_be_numbers() {
        let found =
            inspected(&json!({"type": "USER", "app_id": 123, "user_id": 10_158_000_000_000_001_i64}), NOW)
                .unwrap();
        assert_eq!((found.app_id.as_str(), found.subject.id.as_str()), ("123", "10158000000000001"));
    }

    #[test]
    fn a_life_is_told_in_many_ways() {
        let day = Some(Duration::from_secs(86_400));
        for (reply, expected) in [
            (json!({"expires_in": 86_400}), day),
            (json!({"expires_in": "86400"}), day),
            (json!({"expires": 86_400}), day),
            (json!({"expires_in": 0}), None),
            (json!({}), None),
            (json!({"expires_in": null}), None),
        ] {
            assert_eq!(expires_in(&reply), expected, "{reply}");
        }
    }

    #[test]
    fn a_last_page_has_a_cursor_and_no_next() {
        assert_eq!(next_page(&json!({"paging": {"cursors": {"after": "x"}}})), None);
        assert_eq!(
            next_page(&json!({"paging": {"cursors": {"after": "x"}, "next": "https://"}})),
            Some("x".into())
        );
        assert_eq!(next_page(&json!({"data": []})), None);
    }
}
