//! Classifies Meta's refusals: a pure function of the reply. It goes by code and sub-code, then by `is_transient`, then
//! by HTTP status, and by words only where Meta gives nothing else.

use std::time::Duration;

use super::headers::{self, UsageNews};
use super::redact::Redactor;
use super::wire::{Json, Object};
use crate::model::{Misconfiguration, Refusal, RefusalKind, RefusalReason, Secret};
use crate::provider::usage::ad_account_scope;

/// How long to wait when the reply does not say. Calls during a block prolong it.
const THROTTLED: Duration = Duration::from_secs(300);
/// The same wait for changes, which Meta counts per second.
const MUTATIONS: Duration = Duration::from_secs(10);
/// The same wait for changes of a spending limit, which Meta counts per day, and for similar ones, which it counts per
/// hour.
const RARE_CHANGES: Duration = Duration::from_secs(60 * 60);
/// In the words of a refusal that the same request will always meet.
const REDUCE: &str = "reduce the amount of data";
/// Codes that mean a mistake in our configuration, even if the HTTP status means an error of the server.
const OUR_REQUEST: [i64; 11] = [5, 100, 104, 506, 2_500, 3_018, 3_962, 3_979, 3_980, 1_487_809, 191];

/// What Meta says when it has blocked a whole app.
const BLOCKED_APP: [&str; 3] = ["api access blocked", "api access disrupted", "api access deactivated"];
/// `{"error":{…}}`, and the `error` within `debug_token`'s data.
#[derive(Debug, Default)]
pub(super) struct ErrorObject {
    pub(super) message: String,
    pub(super) code: Option<i64>,
    pub(super) subcode: Option<i64>,
    is_transient: Option<bool>,
    user_message: String,
    trace_id: String,
}

impl ErrorObject {
    pub(super) fn of(code: i64, subcode: Option<i64>) -> Self {
        Self { code: Some(code), subcode, ..Self::default() }
    }

    pub(super) fn read(error: &Object<'_>) -> Self {
        let text = |field| error.text(field).known().unwrap_or_default();
        Self {
            message: text("message"),
            code: error.integer("code").known(),
            // Its name within `debug_token` is the second one.
            subcode: error.integer("error_subcode").known().or_else(|| error.integer("subcode").known()),
            is_transient: error.truth("is_transient").known(),
            user_message: text("error_user_msg"),
            trace_id: text("fbtrace_id"),
        }
    }
}

/// Which token a call carries, and so which one is meant when a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// `/debug_token`: the app's own token. Errors about the inspected token are in the reply's data.
    Inspection,
    /// `/oauth/…`: the app's id and secret, and the token in a parameter.
    TokenEndpoint,
    /// `/oauth/access_token` with a code: the app's id and secret, and the code.
    Code,
    /// Any other call: the token itself.
    Data,
}

/// A reply, or what is known about one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) asked: Asked,
    /// The ad account that the call was about, `act_…`.
    pub(super) ad_account: Option<&'a str>,
    /// 0 when it is not known.
    pub(super) status: u16,
    pub(super) headers: &'a [(String, String)],
    pub(super) body: &'a [u8],
    /// The token of the call, to be removed from the detail.
    pub(super) token: Option<&'a Secret>,
}

/// Classifies a reply that is not the expected one.
pub(super) fn classify(seen: &Seen<'_>, redactor: &Redactor) -> Refusal {
    match error_in(seen.body) {
        Some(error) => classify_error(seen, &error, redactor),
        None => no_graph_error(seen, redactor),
    }
}

/// Classifies an error object.
pub(super) fn classify_error(seen: &Seen<'_>, error: &ErrorObject, redactor: &Redactor) -> Refusal {
    let subcode = error.subcode;
    let kind = match error.code {
        Some(code) => kind_of(seen, code, subcode, error),
        None => RefusalKind::Transient { retry_after: headers::retry_after(seen.headers) },
    };
    let words = if error.message.is_empty() { &error.user_message } else { &error.message };
    let detail = match (words.is_empty(), error.code) {
        (false, _) => redactor.clean(words, seen.token),
        (true, Some(code)) => format!("Meta refused with code {code}"),
        (true, None) => format!("HTTP {} with an error that has no code", seen.status),
    };
    Refusal { kind, code: error.code, subcode, detail, trace_id: trace_id(seen, error, redactor) }
}

/// The `error` object of a body. An `error` of another type does not count.
pub(super) fn error_in(body: &[u8]) -> Option<ErrorObject> {
    let body = Json::parse(body)?;
    Some(ErrorObject::read(&Object::of(&body, "error", None)?.object("error").known()?))
}

/// Classifies a reply that does not come from Graph but from a proxy, a crash or a login page. It says nothing about
/// the token.
fn no_graph_error(seen: &Seen<'_>, redactor: &Redactor) -> Refusal {
    let kind = RefusalKind::Transient { retry_after: headers::retry_after(seen.headers) };
    let content_type = headers::find(seen.headers, "content-type").unwrap_or("no content type");
    let what = match (seen.status, seen.body.is_empty()) {
        (300..=399, _) => "a redirect, which is not followed".to_owned(),
        (_, true) => "an empty body".to_owned(),
        _ => format!("a body that is no Graph reply ({content_type}, {} bytes)", seen.body.len()),
    };
    let detail = redactor.clean(&format!("HTTP {} with {what}", seen.status), seen.token);
    let trace_id = trace_id(seen, &ErrorObject::default(), redactor);
    Refusal { trace_id, ..Refusal::new(kind, detail) }
}

fn trace_id(seen: &Seen<'_>, error: &ErrorObject, redactor: &Redactor) -> Option<String> {
    let header = || {
        headers::find(seen.headers, "x-fb-request-id")
            .or_else(|| headers::find(seen.headers, "x-fb-trace-id"))
    };
    Some(error.trace_id.as_str())
        .filter(|id| !id.is_empty())
        .or_else(header)
        .map(|id| redactor.clean(id, seen.token))
        .filter(|id| !id.is_empty())
}

/// The order matters: throttling and dead tokens share a `type`, and our own mistakes must never count against a
/// token.
fn kind_of(seen: &Seen<'_>, code: i64, subcode: Option<i64>, error: &ErrorObject) -> RefusalKind {
    let message = error.message.to_lowercase();
    let says = |fragment: &str| message.contains(fragment);
    if matches!(code, 4 | 17 | 32 | 341 | 613 | 80_000..=80_014) {
        return throttled(seen, code, subcode);
    }
    if let Some(problem) = ours(seen.asked, code, &message) {
        return RefusalKind::Ours(problem);
    }
    if seen.asked == Asked::Code
        && let Some(kind) = of_a_code(code, subcode, &message)
    {
        return kind;
    }
    match code {
        100 if says("app_id") && says("did not match") => RefusalKind::OtherApp,
        100 | 190 if says("does not belong to this application") => RefusalKind::OtherApp,
        0 | 102 | 190 | 415 | 452 | 457 | 459 => {
            RefusalKind::Dead { reason: reason_of(code, subcode, &message) }
        }
        100 if subcode == Some(33) && seen.asked != Asked::Inspection => {
            RefusalKind::Permission { object_only: true }
        }
        10 | 200..=299 => RefusalKind::Permission { object_only: says("ad account owner has not grant") },
        368 => RefusalKind::Blocked,
        1 | 2 | 960 => transient(seen),
        _ if error.is_transient == Some(true) || subcode == Some(99) => transient(seen),
        _ if OUR_REQUEST.contains(&code) => RefusalKind::Ours(Misconfiguration::Request),
        _ if seen.status >= 500 || seen.status == 429 => transient(seen),
        _ => RefusalKind::Ours(Misconfiguration::Request),
    }
}

/// Whether a code is used, too old or none, or was issued for another redirect URI.
fn of_a_code(code: i64, subcode: Option<i64>, message: &str) -> Option<RefusalKind> {
    match (code, subcode) {
        (100, Some(36_008)) => Some(RefusalKind::Ours(Misconfiguration::RedirectUri)),
        (100, Some(36_007 | 36_009)) => Some(RefusalKind::Dead { reason: RefusalReason::Malformed }),
        (100, _) if message.contains("redirect_uri") => {
            Some(RefusalKind::Ours(Misconfiguration::RedirectUri))
        }
        (100, _)
            if ["authorization code", "verification code", "code verifier"]
                .iter()
                .any(|words| message.contains(words)) =>
        {
            Some(RefusalKind::Dead { reason: RefusalReason::Malformed })
        }
        _ => None,
    }
}

fn transient(seen: &Seen<'_>) -> RefusalKind {
    RefusalKind::Transient { retry_after: headers::retry_after(seen.headers) }
}

/// Whether the same request for fewer rows would be answered. Meta has no code for that.
pub(super) fn asks_for_less(refusal: &Refusal) -> bool {
    const TOO_MUCH_DATA: i64 = 1_487_534;
    refusal.kind == RefusalKind::Ours(Misconfiguration::Request)
        && (refusal.subcode == Some(TOO_MUCH_DATA) || refusal.detail.to_lowercase().contains(REDUCE))
}

/// Whether the same request without a field might be answered. The code does not name the field.
pub(super) fn may_be_about_a_field(refusal: &Refusal) -> bool {
    matches!(
        refusal.kind,
        RefusalKind::Ours(Misconfiguration::Request) | RefusalKind::Permission { object_only: false }
    ) && matches!(refusal.code, Some(10 | 100 | 200..=299))
}

/// Whether the person may not see what was asked for, which other calls may show.
pub(super) fn is_not_shown(refusal: &Refusal) -> bool {
    matches!(refusal.kind, RefusalKind::Permission { .. } | RefusalKind::Ours(Misconfiguration::Request))
}

/// Mistakes of our configuration, which the operator must fix.
fn ours(asked: Asked, code: i64, message: &str) -> Option<Misconfiguration> {
    let says = |fragment: &str| message.contains(fragment);
    let unknown_app = says("error validating application") || says("invalid client id");
    // Of the whole app, most often with code 200.
    if BLOCKED_APP.iter().any(|words| says(words)) {
        return Some(Misconfiguration::AppBlocked);
    }
    Some(match code {
        1 if says("client secret") => Misconfiguration::AppSecret,
        // Asked again, it would be refused again.
        1 if says(REDUCE) => Misconfiguration::Request,
        10 | 100 | 200..=299 if says("permission to access the field") => Misconfiguration::Request,
        101 => Misconfiguration::AppId,
        190 if asked != Asked::Data && unknown_app => Misconfiguration::AppId,
        // The refused token is the app's own here, and it consists of the app's id and secret.
        100 if asked == Asked::Inspection && says("app access token") => Misconfiguration::AppSecret,
        0 | 102 | 104 | 190 | 415 | 452 | 457 | 459 if asked == Asked::Inspection => {
            Misconfiguration::AppSecret
        }
        // No token but the app's own stands in the way of an inspection.
        10 if asked == Asked::Inspection => Misconfiguration::AppCapability,
        200..=269 | 271..=299 | 368 if asked == Asked::Inspection => Misconfiguration::AppBlocked,
        100 | 104 if says("appsecret_proof") => Misconfiguration::AppSecretProof,
        2_635 => Misconfiguration::ApiVersion,
        3 | 270 | 3_962 => Misconfiguration::AppCapability,
        191 => Misconfiguration::RedirectUri,
        _ => return None,
    })
}

fn throttled(seen: &Seen<'_>, code: i64, subcode: Option<i64>) -> RefusalKind {
    let news: UsageNews = headers::usage(seen.headers, seen.ad_account);
    let business = || headers::blocked_business(&news).map(str::to_owned);
    let scope = match (code, seen.ad_account) {
        (4 | 341, _) => "app".to_owned(),
        (32, _) => "token".to_owned(),
        (_, Some(account)) => ad_account_scope(account),
        (80_000..=80_014, None) => business().unwrap_or_else(|| "token".to_owned()),
        _ => "token".to_owned(),
    };
    let default = match (code, subcode) {
        (613, Some(5_044_001)) => MUTATIONS,
        (17, Some(1_885_172)) | (613, Some(1_487_632 | 1_487_225)) => RARE_CHANGES,
        _ => THROTTLED,
    };
    let retry_after = headers::wait_in_scope(seen.headers, &news, &scope).unwrap_or(default);
    RefusalKind::Throttled { scope, retry_after: retry_after.max(Duration::from_secs(1)) }
}

/// Says why a token is dead. The verdict does not depend on the reason, so the words of the error may decide it.
fn reason_of(code: i64, subcode: Option<i64>, message: &str) -> RefusalReason {
    use RefusalReason as Reason;
    match subcode.unwrap_or(code) {
        458 => return Reason::AppRemoved,
        415 | 459 | 490 => return Reason::Checkpoint,
        460 => return Reason::PasswordChanged,
        463 => return Reason::Expired,
        464 => return Reason::UnconfirmedAccount,
        466 => return Reason::RevokedAtProvider,
        467 => return Reason::LoggedOut,
        468 => return Reason::UnusedTooLong,
        492 => return Reason::RoleLost,
        493 => return Reason::DataAccessLapsed,
        456 | 457 => return Reason::Malformed,
        _ => {}
    }
    const WORDS: [(&str, RefusalReason); 18] = [
        ("has expired", Reason::Expired),
        ("changed their password", Reason::PasswordChanged),
        ("changed the session for security", Reason::PasswordChanged),
        ("has not authorized application", Reason::AppRemoved),
        ("invalidated explicitly", Reason::RevokedAtProvider),
        ("checkpoint", Reason::Checkpoint),
        ("log in to www.facebook.com", Reason::Checkpoint),
        ("not a confirmed user", Reason::UnconfirmedAccount),
        ("logged out", Reason::LoggedOut),
        ("longer than 90 days", Reason::DataAccessLapsed),
        ("no longer has a role", Reason::RoleLost),
        ("error validating application", Reason::WrongApp),
        ("cannot parse access token", Reason::Malformed),
        ("malformed access token", Reason::Malformed),
        ("could not be decrypted", Reason::Malformed),
        ("debug only access token", Reason::Malformed),
        ("invalid oauth access token", Reason::Malformed),
        ("invalid access token", Reason::Malformed),
    ];
    WORDS.iter().find(|(words, _)| message.contains(words)).map_or(Reason::Unknown, |(_, reason)| *reason)
}
