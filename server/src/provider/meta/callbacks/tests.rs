//! Callbacks as Meta and as others may send them, signed by the sandbox, which shares no code with the vault.

use std::time::Duration;

use serde_json::json;
use token_vault_sandbox::{hub_signature, permissions_webhook, sign_payload, signed_request};

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const OLD: &str = "fedcba9876543210fedcba9876543210";
const ANA: &str = "10158000000000001";
const AT: i64 = 1_763_859_600;
const DAY: Duration = Duration::from_secs(86_400);

fn now() -> Timestamp {
    Timestamp::from_unix_seconds(AT)
}

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

fn callbacks() -> Callbacks {
    Callbacks {
        secrets: Arc::from([secret(SECRET), secret(OLD)]),
        verify_token: Some(secret("chosen by us")),
        deletion_page: Url::parse("https://connect.example/callbacks/meta/data-deletion").ok(),
    }
}

fn callback(kind: CallbackKind, method: &str, body: impl Into<Vec<u8>>) -> ProviderCallback {
    let (query, headers) = (secret(""), Vec::new());
    ProviderCallback { kind, method: method.to_owned(), query, headers, body: body.into() }
}

fn deauthorized(signed: &str, at: Timestamp) -> Result<CallbackMeaning, CallbackFault> {
    let body = format!("signed_request={signed}");
    callbacks().read(&callback(CallbackKind::Deauthorize, "POST", body), at)
}

fn about_ana(at: i64) -> CallbackMeaning {
    let about = HintedAt::Subject(ANA.to_owned());
    CallbackMeaning::Hints(vec![CallbackHint {
        about,
        of_grants: true,
        at: Some(Timestamp::from_unix_seconds(at)),
    }])
}

fn rule(read: &Result<CallbackMeaning, CallbackFault>) -> &'static str {
    match read {
        Err(CallbackFault::Field { rule, .. }) => rule,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_signed_request_is_good_by_each_of_our_secrets_and_no_other() {
    // The known answer of the reference, which neither the vault nor the sandbox made.
    let known = "4Q2u7zOM4VqOxdSSKywmMVb5hyRVPPH4ICKU1ppXqTk.eyJ1c2VyX2lkIjoiMTAxNTgwMDAwMDAwMDAwMDEiLCJhbGdvcml0aG0iOiJITUFDLVNIQTI1NiIsImlzc3VlZF9hdCI6MTc2Mzg1OTYwMH0";
    assert_eq!(deauthorized(known, now()), Ok(about_ana(AT)));
    for (by, good) in [(SECRET, true), (OLD, true), ("another app's", false), ("", false)] {
        let read = deauthorized(&signed_request(by, ANA, AT), now());
        assert_eq!(read == Ok(about_ana(AT)), good, "{by}");
        assert_eq!(read == Err(CallbackFault::Signature), !good, "{by}");
    }
    // Any changed letter of either part.
    for at in (0..known.len()).filter(|at| known.as_bytes()[*at] != b'.') {
        let mut changed = known.as_bytes().to_vec();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert_eq!(deauthorized(&changed, now()), Err(CallbackFault::Signature), "{at}");
    }
}

#[test]
fn what_a_signed_request_has_to_say_is_checked_after_its_signature() {
    let with = |payload: serde_json::Value| deauthorized(&sign_payload(SECRET, &payload.to_string()), now());
    let good = json!({"user_id": ANA, "algorithm": "hmac-sha256", "issued_at": AT, "expires": 1});
    assert_eq!(with(good), Ok(about_ana(AT)), "`expires` is about a token");
    let of_whom =
        json!({"user_id": ANA, "algorithm": "HMAC-SHA256", "issued_at": AT, "user": {"country": "lt"}});
    assert_eq!(with(of_whom), Ok(about_ana(AT)));
    // A number past 53 bits keeps its digits.
    assert_eq!(
        with(json!({"user_id": 10_158_000_000_000_001_u64, "algorithm": "HMAC-SHA256", "issued_at": AT})),
        Ok(about_ana(AT))
    );
    let other = json!({"user_id": ANA, "algorithm": "none", "issued_at": AT});
    assert_eq!(with(other), Err(CallbackFault::Signature));
    assert_eq!(with(json!({"user_id": ANA, "issued_at": AT})), Err(CallbackFault::Signature));
    for (payload, part) in [
        (json!({"algorithm": "HMAC-SHA256", "issued_at": AT}), "user_id"),
        (json!({"user_id": "", "algorithm": "HMAC-SHA256", "issued_at": AT}), "user_id"),
        (json!({"user_id": "0", "algorithm": "HMAC-SHA256", "issued_at": AT}), "user_id"),
        (json!({"user_id": "ana'--", "algorithm": "HMAC-SHA256", "issued_at": AT}), "user_id"),
        (json!({"user_id": ANA, "algorithm": "HMAC-SHA256"}), "issued_at"),
        (json!({"user_id": ANA, "algorithm": "HMAC-SHA256", "issued_at": "soon"}), "issued_at"),
        (json!({"user_id": ANA, "algorithm": "HMAC-SHA256", "issued_at": i64::MAX}), "issued_at"),
        (json!([ANA]), "JSON object"),
        (json!({"code": "AQ", "user_id": ANA, "algorithm": "HMAC-SHA256", "issued_at": AT}), "of a login"),
        (
            json!({"oauth_token": "EAA", "user_id": ANA, "algorithm": "HMAC-SHA256", "issued_at": AT}),
            "of a login",
        ),
        (
            json!({"page": {"id": "7"}, "user_id": ANA, "algorithm": "HMAC-SHA256", "issued_at": AT}),
            "of a login",
        ),
        (
            json!({"app_data": null, "user_id": ANA, "algorithm": "HMAC-SHA256", "issued_at": AT}),
            "of a login",
        ),
    ] {
        assert!(rule(&with(payload.clone())).contains(part), "{payload}");
    }
    assert!(rule(&deauthorized(&sign_payload(SECRET, "{"), now())).contains("JSON object"));
    for body in [
        "",
        "signed_request=",
        "signed_request=a",
        "signed_request=.",
        "signed_request=a.",
        "signed_request=a.b.c",
        "signed_request=a.b&signed_request=a.b",
        "other=a.b",
        "\0\u{ff}",
    ] {
        let read = callbacks().read(&callback(CallbackKind::Deauthorize, "POST", body), now());
        assert!(rule(&read).contains("signed_request"), "{body}");
    }
    let long = format!("signed_request={}", "a".repeat(20_000));
    assert!(
        rule(&callbacks().read(&callback(CallbackKind::Deauthorize, "POST", long), now())).contains("16 KiB")
    );
}

#[test]
fn it_is_good_for_seven_days_and_not_before_it_was_signed() {
    let signed = signed_request(SECRET, ANA, AT);
    let minute = Duration::from_secs(60);
    for (at, good) in [
        (now() - 5 * minute, true),
        (now() - 5 * minute - Duration::from_secs(1), false),
        (now() + 7 * DAY, true),
        (now() + 7 * DAY + Duration::from_secs(1), false),
    ] {
        let read = deauthorized(&signed, at);
        assert_eq!(read == Ok(about_ana(AT)), good, "{at}: {read:?}");
        assert!(good || rule(&read).contains("issued"));
    }
}

#[test]
fn a_deletion_needs_a_page_where_people_see_what_became_of_it() {
    let signed = format!("signed_request={}", signed_request(SECRET, ANA, AT));
    let asked = callback(CallbackKind::DataDeletion, "POST", signed);
    let (subject_id, issued_at) = (ANA.to_owned(), now());
    assert_eq!(callbacks().read(&asked, now()), Ok(CallbackMeaning::Deletion { subject_id, issued_at }));
    let answer = callbacks().deletion_answer("c0de").unwrap();
    let url = "https://connect.example/callbacks/meta/data-deletion/c0de";
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((answer.status, answer.content_type), (200, "application/json"));
    assert_eq!(body, json!({"url": url, "confirmation_code": "c0de"}));
    let nowhere = Callbacks { deletion_page: None, ..callbacks() };
    assert!(matches!(nowhere.read(&asked, now()), Err(CallbackFault::NoDeletionPage { .. })));
    let forged = callback(CallbackKind::DataDeletion, "POST", "signed_request=a.b");
    assert_eq!(nowhere.read(&forged, now()), Err(CallbackFault::Signature), "a forger learns nothing");

    let ask =
        |query| ProviderCallback { query: secret(query), ..callback(CallbackKind::DataDeletion, "GET", "") };
    let state = callbacks().read(&ask("code=a%20b"), now());
    assert_eq!(state, Ok(CallbackMeaning::DeletionState { code: "a b".into() }));
    for query in ["", "code=a&code=b", "x=code"] {
        assert_eq!(callbacks().read(&ask(query), now()), Ok(alive()), "{query}");
    }
}

#[test]
fn only_who_knows_our_token_may_subscribe() {
    let check = |token: Option<Secret>, query: &str| {
        let callbacks = Callbacks { verify_token: token, ..callbacks() };
        let asked = ProviderCallback { query: secret(query), ..callback(CallbackKind::Webhook, "GET", "") };
        match callbacks.read(&asked, now()) {
            Ok(CallbackMeaning::Answer(answer)) => (answer.status, answer.body),
            Err(CallbackFault::Field { field: "query", .. }) => (400, String::new()),
            other => panic!("{other:?}"),
        }
    };
    let ours = || Some(secret("a&b"));
    let good = "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=a%26b";
    assert_eq!(check(ours(), good), (200, "1158201444".into()));
    for query in [
        "",
        "hub.mode=subscribe&hub.challenge=1158201444",
        "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=",
        "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=a%26",
        "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=a%26bc",
        "hub.mode=unsubscribe&hub.challenge=1158201444&hub.verify_token=a%26b",
        "hub.challenge=1158201444&hub.verify_token=a%26b",
        "hub.mode=subscribe&hub.challenge=1&hub.verify_token=a%26b&hub.verify_token=a%26b",
    ] {
        assert_eq!(check(ours(), query), (403, String::new()), "{query}");
    }
    assert_eq!(check(None, good).0, 403, "without a token, nobody may");
    assert_eq!(check(Some(secret("")), "hub.mode=subscribe&hub.challenge=1").0, 403);
    for challenge in ["", "%00", "%3Cb%3E%0A", &"1".repeat(257)] {
        let query = format!("hub.mode=subscribe&hub.verify_token=a%26b&hub.challenge={challenge}");
        assert_eq!(check(ours(), &query).0, 400, "{challenge}");
    }
}

fn webhook(body: &str, signature: &str) -> Result<CallbackMeaning, CallbackFault> {
    let headers = vec![("X-Hub-Signature-256".to_owned(), signature.to_owned())];
    callbacks().read(&ProviderCallback { headers, ..callback(CallbackKind::Webhook, "POST", body) }, now())
}

fn hints(body: &str) -> Vec<CallbackHint> {
    match webhook(body, &hub_signature(SECRET, body)) {
        Ok(CallbackMeaning::Hints(hints)) => hints,
        other => panic!("{body}: {other:?}"),
    }
}

#[test]
fn a_webhook_is_verified_over_its_bytes() {
    // The known answer of the reference.
    let body = r#"{"object":"permissions","entry":[{"id":"10158000000000001","time":1763859600,"changed_fields":["connected"]}]}"#;
    let known = "sha256=945d09bdde55381d0de882269beb083a375e69e0a77510492a6af3003070a624";
    assert_eq!(webhook(body, known), Ok(about_ana(AT)));
    assert_eq!(webhook(body, &hub_signature(OLD, body)), Ok(about_ana(AT)));
    assert_eq!(permissions_webhook(ANA, AT), serde_json::from_str::<serde_json::Value>(body).unwrap());
    let spaced = body.replace(':', ": ");
    for (body, signature) in [
        (spaced.as_str(), known),
        (body, &known[..known.len() - 2]),
        (body, known.trim_start_matches("sha256=")),
        (body, "sha256="),
        (body, "sha256=zz"),
        (body, ""),
        (body, &hub_signature("another app's", body)),
    ] {
        assert_eq!(webhook(body, signature), Err(CallbackFault::Signature), "{signature}");
    }
    let read = |headers: &[(&str, &str)]| {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        callbacks()
            .read(&ProviderCallback { headers, ..callback(CallbackKind::Webhook, "POST", body) }, now())
    };
    assert_eq!(read(&[("content-type", "application/json")]), Err(CallbackFault::Signature));
    let name = "x-hub-signature-256";
    assert_eq!(read(&[(name, known), (name, known)]), Err(CallbackFault::Signature), "which of the two?");
    assert_eq!(read(&[("X-HUB-SIGNATURE-256", known)]), Ok(about_ana(AT)));
}

#[test]
fn a_webhook_names_each_person_once_and_what_it_does_not_know_is_nothing() {
    let entry = |id: &str, time| json!({"id": id, "time": time, "changes": [{"field": "ads_read"}]});
    let body = |object, entries: Vec<_>| json!({"object": object, "entry": entries}).to_string();
    let hint = |about, of_grants, at: Option<i64>| {
        let at = at.map(Timestamp::from_unix_seconds);
        CallbackHint { about, of_grants, at }
    };
    let twice = body("permissions", vec![entry(ANA, AT), entry("7", AT), entry(ANA, AT - 9)]);
    let subject = |id: &str| HintedAt::Subject(id.to_owned());
    assert_eq!(hints(&twice), [hint(subject(ANA), true, Some(AT)), hint(subject("7"), true, Some(AT))]);
    assert_eq!(
        hints(&body("user", vec![entry("7", -1)])),
        [hint(subject("7"), false, None)],
        "no time is now"
    );
    assert_eq!(hints(&body("page", vec![entry("7", AT)])), [hint(subject("7"), false, Some(AT))]);
    let account = HintedAt::AdAccount("act_7".into());
    assert_eq!(hints(&body("ad_account", vec![entry("7", AT)])), [hint(account, false, Some(AT))]);
    for body in [
        body("instagram", vec![entry("7", AT)]),
        body("permissions", vec![]),
        body("permissions", vec![json!({"time": AT})]),
        r#"{"object":"permissions","entry":7}"#.to_owned(),
        "{}".to_owned(),
    ] {
        assert_eq!(hints(&body), [], "{body}");
    }
    for body in ["", "[]", "\u{feff}{}", &"[".repeat(100_000)] {
        assert_eq!(rule(&webhook(body, &hub_signature(SECRET, body))), "must be a JSON object");
    }
    let many = body("permissions", (1..=1_000).map(|id| entry(&id.to_string(), AT)).collect());
    assert_eq!(hints(&many).len(), 1_000);
}

#[test]
fn a_probe_is_answered_and_another_method_is_not_taken() {
    for (kind, method, status) in [
        (CallbackKind::Deauthorize, "GET", 200),
        (CallbackKind::DataDeletion, "HEAD", 200),
        (CallbackKind::Deauthorize, "DELETE", 405),
        (CallbackKind::Webhook, "PUT", 405),
    ] {
        match callbacks().read(&callback(kind, method, ""), now()) {
            Ok(CallbackMeaning::Answer(answer)) => assert_eq!(answer.status, status, "{method}"),
            other => panic!("{other:?}"),
        }
    }
}
