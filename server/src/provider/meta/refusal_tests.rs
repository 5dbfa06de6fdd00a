use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::redact::Redactor;
use super::refusal::{Asked, Seen, classify};
use crate::model::{Misconfiguration as Ours, Refusal, RefusalKind as Kind, RefusalReason as Reason, Secret};

fn redactor() -> Redactor {
    Redactor::new(Arc::from([Secret::new("0123456789abcdef0123456789abcdef".into())]))
}

fn see(asked: Asked, ad_account: Option<&str>, status: u16, headers: &[(&str, &str)], body: &str) -> Refusal {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let body = body.as_bytes();
    classify(&Seen { asked, ad_account, status, headers: &headers, body, token: None }, &redactor())
}

fn data(status: u16, body: &str) -> Refusal {
    see(Asked::Data, None, status, &[], body)
}

fn error(code: i64, subcode: Option<i64>, message: &str) -> String {
    json!({"error": {"message": message, "type": "OAuthException", "code": code, "error_subcode": subcode}})
        .to_string()
}

const AGAIN: Kind = Kind::Transient { retry_after: None };

fn dead(reason: Reason) -> Kind {
    Kind::Dead { reason }
}

fn throttled(scope: &str, seconds: u64) -> Kind {
    Kind::Throttled { scope: scope.into(), retry_after: Duration::from_secs(seconds) }
}

#[test]
fn every_code_has_its_meaning() {
    let scope = Kind::Permission { object_only: false };
    let object = Kind::Permission { object_only: true };
    let table: Vec<(i64, Option<i64>, &str, Kind)> = vec![
        (0, None, "", dead(Reason::Unknown)),
        (1, None, "An unknown error occurred", AGAIN),
        (1, None, "Please reduce the amount of data you're asking for", Kind::Ours(Ours::Request)),
        (1, Some(99), "Please reduce the amount of data you're asking for", Kind::Ours(Ours::Request)),
        (10, None, "(#10) Requires x permission to access the field", Kind::Ours(Ours::Request)),
        (100, None, "(#100) Requires x permission to access the field", Kind::Ours(Ours::Request)),
        (200, None, "(#200) Requires x permission to access the field", Kind::Ours(Ours::Request)),
        (200, None, "(#200) Requires x permission to manage the object", scope.clone()),
        (1, None, "Error validating client secret.", Kind::Ours(Ours::AppSecret)),
        (2, None, "", AGAIN),
        (3, None, "", Kind::Ours(Ours::AppCapability)),
        (4, Some(1_504_022), "", throttled("app", 300)),
        (4, Some(1_504_039), "", throttled("app", 300)),
        (5, None, "", Kind::Ours(Ours::Request)),
        (10, None, "", scope.clone()),
        (17, Some(2_446_079), "", throttled("token", 300)),
        (17, Some(1_885_172), "", throttled("token", 3_600)),
        (32, None, "", throttled("token", 300)),
        (100, None, "Invalid parameter", Kind::Ours(Ours::Request)),
        (100, Some(33), "Unsupported get request.", object.clone()),
        (100, Some(1_487_534), "too much data", Kind::Ours(Ours::Request)),
        (
            100,
            None,
            "API calls from the server require an appsecret_proof argument",
            Kind::Ours(Ours::AppSecretProof),
        ),
        (100, None, "Invalid appsecret_proof provided in the API argument", Kind::Ours(Ours::AppSecretProof)),
        (100, None, "(#100) The App_id in the input_token did not match the Viewing App", Kind::OtherApp),
        (101, None, "Invalid Client ID", Kind::Ours(Ours::AppId)),
        (102, None, "", dead(Reason::Unknown)),
        (102, Some(463), "", dead(Reason::Expired)),
        (104, None, "", Kind::Ours(Ours::Request)),
        (190, None, "", dead(Reason::Unknown)),
        (191, None, "", Kind::Ours(Ours::RedirectUri)),
        (200, None, "(#200) Provide valid app ID", scope.clone()),
        (200, Some(1_870_047), "Permissions error", scope.clone()),
        (200, None, "(#200) Ad account owner has NOT grant ads_management or ads_read permission", object),
        (270, None, "", Kind::Ours(Ours::AppCapability)),
        (294, None, "", scope.clone()),
        (299, None, "", scope),
        (300, None, "", Kind::Ours(Ours::Request)),
        (341, None, "", throttled("app", 300)),
        (368, Some(1_390_008), "", Kind::Blocked),
        (415, None, "", dead(Reason::Checkpoint)),
        (452, None, "", dead(Reason::Unknown)),
        (457, None, "", dead(Reason::Malformed)),
        (459, None, "", dead(Reason::Checkpoint)),
        (506, None, "", Kind::Ours(Ours::Request)),
        (613, Some(1_487_742), "", throttled("token", 300)),
        (613, Some(1_996), "", throttled("token", 300)),
        (613, Some(1_487_632), "", throttled("token", 3_600)),
        (613, Some(1_487_225), "", throttled("token", 3_600)),
        (613, Some(5_044_001), "", throttled("token", 10)),
        (613, None, "", throttled("token", 300)),
        (960, None, "", AGAIN),
        (2_500, None, "", Kind::Ours(Ours::Request)),
        (2_635, None, "", Kind::Ours(Ours::ApiVersion)),
        (3_018, None, "", Kind::Ours(Ours::Request)),
        (3_962, None, "", Kind::Ours(Ours::AppCapability)),
        (3_979, None, "", Kind::Ours(Ours::Request)),
        (3_980, None, "", Kind::Ours(Ours::Request)),
        (1_487_809, None, "", Kind::Ours(Ours::Request)),
        (987_654, None, "", Kind::Ours(Ours::Request)),
        (987_654, Some(99), "", AGAIN),
    ];
    for (code, subcode, message, kind) in table {
        for status in [400, 401, 403, 200] {
            let refusal = data(status, &error(code, subcode, message));
            assert_eq!(refusal.kind, kind, "{code}/{subcode:?} {message} with HTTP {status}");
            assert_eq!((refusal.code, refusal.subcode), (Some(code), subcode));
            assert!(!refusal.detail.is_empty());
        }
    }
    for code in (80_000..=80_009).chain([80_014]) {
        assert_eq!(data(400, &error(code, Some(2_446_079), "")).kind, throttled("token", 300), "{code}");
    }
}

#[test]
fn the_subcode_says_why_a_token_is_dead() {
    for (subcode, reason) in [
        (452, Reason::Unknown),
        (456, Reason::Malformed),
        (457, Reason::Malformed),
        (458, Reason::AppRemoved),
        (459, Reason::Checkpoint),
        (460, Reason::PasswordChanged),
        (461, Reason::Unknown),
        (462, Reason::Unknown),
        (463, Reason::Expired),
        (464, Reason::UnconfirmedAccount),
        (465, Reason::Unknown),
        (466, Reason::RevokedAtProvider),
        (467, Reason::LoggedOut),
        (468, Reason::UnusedTooLong),
        (490, Reason::Checkpoint),
        (492, Reason::RoleLost),
        (493, Reason::DataAccessLapsed),
        (12_345, Reason::Unknown),
    ] {
        assert_eq!(data(400, &error(190, Some(subcode), "whatever")).kind, dead(reason), "{subcode}");
    }
}

#[test]
fn without_a_subcode_the_words_say_why() {
    let password = "Error validating access token: The session has been invalidated because the user changed their \
                    password or Facebook has changed the session for security reasons.";
    for (message, reason) in [
        (
            "Error validating access token: Session has expired on Tuesday, 03-May-16 11:00:00 PDT.",
            Reason::Expired,
        ),
        (password, Reason::PasswordChanged),
        ("Error validating access token: The user has not authorized application 123.", Reason::AppRemoved),
        (
            "Error validating access token: The session is invalid because the user logged out.",
            Reason::LoggedOut,
        ),
        ("The session was invalidated explicitly using an API call.", Reason::RevokedAtProvider),
        ("The user is enrolled in a blocking, logged-in checkpoint", Reason::Checkpoint),
        ("You cannot access the app till you log in to www.facebook.com and follow it.", Reason::Checkpoint),
        (
            "Sessions for the user are not allowed because the user is not a confirmed user.",
            Reason::UnconfirmedAccount,
        ),
        (
            "The access token is invalid since the user hasn't engaged the app in longer than 90 days.",
            Reason::DataAccessLapsed,
        ),
        ("Invalid OAuth access token.", Reason::Malformed),
        ("Invalid OAuth access token - Cannot parse access token", Reason::Malformed),
        ("The access token could not be decrypted", Reason::Malformed),
        ("Invalid OAuth access token signature.", Reason::Malformed),
        ("Une erreur inconnue", Reason::Unknown),
    ] {
        assert_eq!(data(400, &error(190, None, message)).kind, dead(reason), "{message}");
    }
}

#[test]
fn which_token_was_refused_depends_on_the_endpoint() {
    let signature = error(190, None, "Invalid OAuth access token signature.");
    let app =
        error(190, None, "Error validating application. Cannot get application info due to a system error.");
    let asked_with = error(
        100,
        None,
        "(#100) You must provide an app access token, or a user access token that is an owner or developer of the app",
    );
    let kind = |asked, body: &str| see(asked, None, 400, &[], body).kind;
    assert_eq!(kind(Asked::Inspection, &signature), Kind::Ours(Ours::AppSecret));
    assert_eq!(kind(Asked::Inspection, &asked_with), Kind::Ours(Ours::AppSecret));
    assert_eq!(kind(Asked::Inspection, &app), Kind::Ours(Ours::AppId));
    assert_eq!(kind(Asked::TokenEndpoint, &app), Kind::Ours(Ours::AppId));
    assert_eq!(kind(Asked::TokenEndpoint, &signature), dead(Reason::Malformed));
    assert_eq!(kind(Asked::Data, &app), dead(Reason::WrongApp));
    let foreign = error(190, None, "The access token does not belong to this application.");
    assert_eq!(kind(Asked::TokenEndpoint, &foreign), Kind::OtherApp);
}

#[test]
fn transience_and_status_decide_only_where_the_code_does_not() {
    let transient = |code: i64| json!({"error": {"code": code, "is_transient": true}}).to_string();
    assert_eq!(data(400, &transient(987_654)).kind, AGAIN);
    assert_eq!(data(400, &transient(17)).kind, throttled("token", 300));
    assert_eq!(data(400, &transient(190)).kind, dead(Reason::Unknown));
    assert_eq!(data(500, &error(987_654, None, "")).kind, AGAIN);
    assert_eq!(data(429, &error(987_654, None, "")).kind, AGAIN);
    assert_eq!(data(500, &error(100, None, "")).kind, Kind::Ours(Ours::Request));
    assert_eq!(data(500, &error(190, Some(460), "")).kind, dead(Reason::PasswordChanged));
    assert_eq!(
        data(400, r#"{"error":{"code":"190","error_subcode":"460"}}"#).kind,
        dead(Reason::PasswordChanged)
    );
}

#[test]
fn a_reply_that_is_no_graph_error_says_nothing_about_the_token() {
    for body in [
        "",
        "<html><body>Sorry, something went wrong.</body></html>",
        "Service Unavailable",
        "false",
        "true",
        "null",
        "[]",
        "{}",
        r#"{"error":"Invalid OAuth access token"}"#,
        r#"{"error":{"message":"no code"}}"#,
        r#"{"error":{"code":190"#,
        "\u{feff}{",
    ] {
        for status in [0, 200, 302, 400, 401, 403, 429, 500, 502, 503] {
            let refusal = data(status, body);
            assert_eq!(refusal.kind, AGAIN, "HTTP {status}: {body}");
            assert!(!refusal.detail.is_empty());
        }
    }
    let html = see(Asked::Data, None, 503, &[("content-type", "text/html"), ("retry-after", "7")], "<html>");
    assert_eq!(html.kind, Kind::Transient { retry_after: Some(Duration::from_secs(7)) });
    assert_eq!(html.detail, "HTTP 503 with a body that is no Graph reply (text/html, 6 bytes)");
    assert_eq!(data(302, "").detail, "HTTP 302 with a redirect, which is not followed");
}

#[test]
fn a_throttle_names_its_scope_and_its_wait() {
    let account = Some("act_1020304050");
    let regain = |id: &str, minutes: u32| {
        format!(
            r#"{{"{id}":[{{"type":"a","call_count":1}},{{"type":"b","call_count":100,"estimated_time_to_regain_access":{minutes}}}]}}"#
        )
    };
    let (own, other) = (regain("1020304050", 7), regain("777", 9));
    let buc = "X-Business-Use-Case-Usage";
    /// Code, sub-code, ad account, headers, verdict.
    type Row<'a> = (i64, Option<i64>, Option<&'a str>, Vec<(&'a str, &'a str)>, Kind);
    let table: Vec<Row<'_>> = vec![
        (80_000, None, account, vec![(buc, &own)], throttled("ad_account:act_1020304050", 420)),
        (80_004, Some(2_446_079), account, vec![(buc, &other)], throttled("ad_account:act_1020304050", 300)),
        (80_003, None, None, vec![(buc, &other)], throttled("business:777", 540)),
        (80_000, None, None, vec![(buc, "{")], throttled("token", 300)),
        (
            17,
            Some(2_446_079),
            account,
            vec![("x-ad-account-usage", r#"{"acc_id_util_pct":98.5,"reset_time_duration":100}"#)],
            throttled("ad_account:act_1020304050", 100),
        ),
        (
            613,
            Some(1_487_742),
            account,
            vec![("Retry-After", "40")],
            throttled("ad_account:act_1020304050", 40),
        ),
        (4, None, account, vec![("Retry-After", "0")], throttled("app", 1)),
        (4, None, account, vec![("x-app-usage", r#"{"call_count":100}"#)], throttled("app", 300)),
        (32, None, account, vec![], throttled("token", 300)),
    ];
    for (code, subcode, account, headers, kind) in table {
        for status in [400, 403, 429] {
            let refusal = see(Asked::Data, account, status, &headers, &error(code, subcode, ""));
            assert_eq!(refusal.kind, kind, "{code}/{subcode:?} {headers:?}");
        }
    }
}

#[test]
fn details_hold_no_secret_and_the_trace_is_kept() {
    let body = json!({"error": {
        "message": "Malformed access token EAABsbCS1iHgBAKZCsecret at /me?access_token=EAABx&appsecret_proof=1 0123456789abcdef0123456789abcdef",
        "code": 190, "fbtrace_id": "AbCdEfGhIjKlMnOpQrStUv"}});
    let refusal = data(400, &body.to_string());
    assert_eq!(refusal.detail, "Malformed access token *** at /me?access_token=***&appsecret_proof=*** ***");
    assert_eq!(refusal.trace_id.as_deref(), Some("AbCdEfGhIjKlMnOpQrStUv"));
    let by_header = see(Asked::Data, None, 502, &[("X-FB-Request-Id", "Abc")], "");
    assert_eq!(by_header.trace_id.as_deref(), Some("Abc"));
}

#[test]
fn no_refusal_of_an_inspection_is_about_the_inspected_token_but_one_that_says_so() {
    let inspection =
        |code, subcode, message| see(Asked::Inspection, None, 400, &[], &error(code, subcode, message)).kind;
    for (code, kind) in [
        (0, Kind::Ours(Ours::AppSecret)),
        (1, AGAIN),
        (2, AGAIN),
        (3, Kind::Ours(Ours::AppCapability)),
        (4, throttled("app", 300)),
        (10, Kind::Ours(Ours::AppCapability)),
        (17, throttled("token", 300)),
        (100, Kind::Ours(Ours::Request)),
        (101, Kind::Ours(Ours::AppId)),
        (102, Kind::Ours(Ours::AppSecret)),
        (190, Kind::Ours(Ours::AppSecret)),
        (200, Kind::Ours(Ours::AppBlocked)),
        (299, Kind::Ours(Ours::AppBlocked)),
        (368, Kind::Ours(Ours::AppBlocked)),
        (459, Kind::Ours(Ours::AppSecret)),
        (803, Kind::Ours(Ours::Request)),
        (2_500, Kind::Ours(Ours::Request)),
        (2_635, Kind::Ours(Ours::ApiVersion)),
        (987_654, Kind::Ours(Ours::Request)),
    ] {
        assert_eq!(inspection(code, None, ""), kind, "{code}");
        let refusal = see(Asked::Inspection, None, 400, &[], &error(code, None, ""));
        assert!(refusal.is_not_about_the_token(), "{code}");
    }
    assert_eq!(inspection(100, Some(33), ""), Kind::Ours(Ours::Request));
    let other = "(#100) The App_id in the input_token did not match the Viewing App";
    assert_eq!(inspection(100, None, other), Kind::OtherApp);
}

#[test]
fn a_code_is_dead_or_the_redirect_uri_is_not_ours() {
    let used = "This authorization code has been used.";
    let expired = "This authorization code has expired.";
    let redirect = "Error validating verification code. Please make sure your redirect_uri is identical to the one you \
                    used in the OAuth dialog request";
    for (code, subcode, words, kind) in [
        (100, Some(36_009), used, dead(Reason::Malformed)),
        (100, None, used, dead(Reason::Malformed)),
        (100, None, expired, dead(Reason::Malformed)),
        (100, Some(36_007), "Invalid verification code format.", dead(Reason::Malformed)),
        (100, None, "Invalid verification code format.", dead(Reason::Malformed)),
        (100, Some(36_008), redirect, Kind::Ours(Ours::RedirectUri)),
        (100, None, redirect, Kind::Ours(Ours::RedirectUri)),
        (191, None, "", Kind::Ours(Ours::RedirectUri)),
        (1, None, "Error validating client secret.", Kind::Ours(Ours::AppSecret)),
        (101, None, "Invalid Client ID", Kind::Ours(Ours::AppId)),
        (190, None, "Error validating application.", Kind::Ours(Ours::AppId)),
        (100, None, "Missing client_id parameter.", Kind::Ours(Ours::Request)),
        (2, None, "", Kind::Transient { retry_after: None }),
    ] {
        assert_eq!(
            see(Asked::Code, None, 400, &[], &error(code, subcode, words)).kind,
            kind,
            "{code} {words}"
        );
    }
    // Where no code is exchanged, these words are about something else.
    let elsewhere = see(Asked::Data, None, 400, &[], &error(100, None, used)).kind;
    assert_eq!(elsewhere, Kind::Ours(Ours::Request));
}

#[test]
fn a_blocked_app_is_the_matter_of_its_administrator_wherever_it_shows() {
    for words in ["API access blocked.", "(#200) API access disrupted. Go to the App Dashboard."] {
        for asked in [Asked::Inspection, Asked::TokenEndpoint, Asked::Code, Asked::Data] {
            for code in [10, 190, 200] {
                let refusal = see(asked, None, 400, &[], &error(code, None, words));
                assert_eq!(refusal.kind, Kind::Ours(Ours::AppBlocked), "{code} {words}");
            }
        }
    }
}
