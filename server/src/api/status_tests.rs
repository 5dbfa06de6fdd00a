//! Each error's code, reason and details, as a caller reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use token_vault_proto::v1::ErrorReason as Reason;
use tonic::Code;
use tonic_types::StatusExt;

use super::call::Call;
use super::status::deny;
use crate::model::{
    ApiKeyId, ConnectLinkId, ConnectionId, Expiry, Misconfiguration, ProviderId, RefusalReason, Renewal,
    RequestId, Role, SubscriptionName, Timestamp, TokenVersion, WorkspaceId,
};
use crate::vault::{FieldViolation, VaultError as E};

const PROTO: &str = include_str!("../../../proto/tokenvault/v1/errors.proto");
const AT: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

/// One of each variant, and the reason that it must have.
fn all() -> Vec<(E, Option<Reason>)> {
    let id = ConnectionId::generate(AT);
    let workspace = WorkspaceId::parse("acme").unwrap();
    let second = Duration::from_secs(1);
    let text = || vec!["ads_read".to_owned()];
    let code = || "190/460".to_owned();
    let reason = RefusalReason::PasswordChanged;
    let version = TokenVersion::FIRST;
    let meta = || ProviderId::parse("meta").unwrap();
    let request = || RequestId::parse("r-1").unwrap();
    vec![
        (E::Fields(vec![FieldViolation::new("provider", "must be set")]), Some(Reason::FieldInvalid)),
        (
            E::TokenMalformed { field: "access_token", advice: "Paste it.".into() },
            Some(Reason::TokenMalformed),
        ),
        (
            E::ProviderUnknown { provider: "x".into(), configured: vec!["meta".into()] },
            Some(Reason::ProviderUnknown),
        ),
        (E::PageTokenInvalid, Some(Reason::PageTokenInvalid)),
        (E::PageTokenMismatch, Some(Reason::PageTokenMismatch)),
        (E::CursorInvalid { field: "cursor" }, Some(Reason::CursorInvalid)),
        (
            E::FeedReplaced { ours: uuid::Uuid::from_u128(1), theirs: uuid::Uuid::from_u128(2) },
            Some(Reason::FeedReplaced),
        ),
        (E::EventsCompacted { oldest: 7, position: 3 }, Some(Reason::EventsCompacted)),
        (E::HistoryCompacted { oldest: 7 }, Some(Reason::EventsCompacted)),
        (
            E::SubscriptionNotFound(SubscriptionName::parse("alerts").unwrap()),
            Some(Reason::SubscriptionNotFound),
        ),
        (
            E::JobNotFound { job: "nightly".into(), known: "meta-token-expiry".into() },
            Some(Reason::JobNotFound),
        ),
        (E::RequestIdReused(request()), Some(Reason::RequestIdReused)),
        (E::RequestInProgress(request()), Some(Reason::RequestInProgress)),
        (
            E::ProviderRefusedToken { provider: meta(), reason, provider_code: code() },
            Some(Reason::ProviderRefusedToken),
        ),
        (E::TokenOfOtherApp { provider: meta(), app_id: "1".into() }, Some(Reason::TokenOfOtherApp)),
        (E::ConnectionNotFound(id), Some(Reason::ConnectionNotFound)),
        (E::WorkspaceNotFound(workspace.clone()), Some(Reason::WorkspaceNotFound)),
        (E::ApiKeyNotFound(ApiKeyId::parse("a".repeat(16)).unwrap()), Some(Reason::ApiKeyNotFound)),
        (
            E::ConnectLinkNotFound(Some(ConnectLinkId::parse("a".repeat(16)).unwrap())),
            Some(Reason::ConnectLinkNotFound),
        ),
        (E::PortalNotConfigured, Some(Reason::PortalNotConfigured)),
        (E::DeletionPageNotConfigured { keys: "portal.url" }, Some(Reason::PortalNotConfigured)),
        (E::CallbackNotSigned { provider: meta() }, Some(Reason::CallbackSignatureInvalid)),
        (
            E::ApiKeyNotRotatable {
                key: ApiKeyId::parse("a".repeat(16)).unwrap(),
                state: "REPLACED",
                replaced_by: Some(ApiKeyId::parse("b".repeat(16)).unwrap()),
            },
            Some(Reason::ApiKeyNotRotatable),
        ),
        (
            E::SubjectAlreadyConnected { provider: meta(), connection: id },
            Some(Reason::SubjectAlreadyConnected),
        ),
        (E::TokenExpired { connection: id, provider: meta(), version, at: AT }, Some(Reason::TokenExpired)),
        (
            E::TokenInvalid {
                connection: id,
                provider: meta(),
                version,
                since: AT,
                reason,
                provider_code: code(),
            },
            Some(Reason::TokenInvalid),
        ),
        (E::TokenRevoked { connection: id, at: AT }, Some(Reason::TokenRevoked)),
        (
            E::TokenLifeTooShort {
                connection: id,
                version,
                ends_at: AT,
                left: second,
                wanted: second,
                renewal: Renewal::MaybeByVault,
            },
            Some(Reason::TokenLifeTooShort),
        ),
        (
            E::ScopesMissing { missing: text(), declined: vec![], expired: vec![] },
            Some(Reason::ScopesMissing),
        ),
        (E::ScopesShrunk { connection: id, lost: text() }, Some(Reason::ScopesShrunk)),
        (
            E::SubjectMismatch { connection: Some(id), expected: "1".into(), actual: "2".into() },
            Some(Reason::SubjectMismatch),
        ),
        (E::TokenShared { connection: id, connections: 2 }, Some(Reason::TokenShared)),
        (
            E::ExchangeNotPossible {
                connection: Some(id),
                provider: meta(),
                why: "it is a page token".into(),
                end: Expiry::Never,
            },
            Some(Reason::ExchangeNotPossible),
        ),
        (E::WorkspaceShredded(workspace), Some(Reason::WorkspaceShredded)),
        (
            E::ProviderMisconfigured {
                provider: meta(),
                problem: Misconfiguration::AppSecret,
                provider_code: code(),
            },
            Some(Reason::ProviderMisconfigured),
        ),
        (
            E::TokenVersionMismatch { connection: id, expected: version, actual: TokenVersion::FIRST.next() },
            Some(Reason::TokenVersionMismatch),
        ),
        (E::ConcurrentChange(id), Some(Reason::TokenVersionMismatch)),
        (
            E::ProviderThrottled {
                provider: meta(),
                provider_code: code(),
                scope: "app".into(),
                retry_after: second,
            },
            Some(Reason::ProviderThrottled),
        ),
        (
            E::ProviderUnavailable {
                provider: meta(),
                provider_code: code(),
                retry_after: second,
                detail: "x".into(),
            },
            Some(Reason::ProviderUnavailable),
        ),
        (E::StorageUnavailable, Some(Reason::StorageUnavailable)),
        (E::AuditUnavailable, Some(Reason::AuditUnavailable)),
        (E::Overloaded, Some(Reason::RateLimited)),
        (E::TooManyWatches { limit: "watches" }, Some(Reason::RateLimited)),
        (E::CertificateUnknown, Some(Reason::ApiKeyInvalid)),
        (E::CertificateExpired { at: AT }, Some(Reason::ApiKeyExpired)),
        (E::CertificateOfAnother, Some(Reason::ApiKeyInvalid)),
        (E::TokenRejected, Some(Reason::ApiKeyInvalid)),
        (E::CallerTokenExpired { at: AT }, Some(Reason::ApiKeyExpired)),
        (E::TokenUnmapped, Some(Reason::ApiKeyInvalid)),
        (E::IssuerUnavailable, Some(Reason::IdentityProviderUnavailable)),
        (E::ShuttingDown, Some(Reason::ShuttingDown)),
        (E::CiphertextCorrupt { connection: id, version }, Some(Reason::CiphertextCorrupt)),
        (E::ApiKeyInvalid, Some(Reason::ApiKeyInvalid)),
        (E::ApiKeyExpired { at: AT }, Some(Reason::ApiKeyExpired)),
        (E::RoleInsufficient { role: Role::Viewer }, Some(Reason::RoleInsufficient)),
        (E::Internal, None),
    ]
}

/// The canonical code that the proto promises for a reason, by its number's block.
fn promised(reason: Reason) -> Code {
    match i32::from(reason) {
        1..=19 => Code::InvalidArgument,
        20..=29 => Code::NotFound,
        30..=39 => Code::AlreadyExists,
        40..=59 => Code::FailedPrecondition,
        60..=69 => Code::Aborted,
        70..=79 => Code::OutOfRange,
        80..=89 => Code::ResourceExhausted,
        90..=99 => Code::Unavailable,
        100..=109 => Code::DataLoss,
        110..=111 => Code::Unauthenticated,
        112 => Code::PermissionDenied,
        other => panic!("{other} is never a status"),
    }
}

#[test]
fn every_error_has_the_promised_code_reason_and_words() {
    for (error, reason) in all() {
        let shown = format!("{error:?}");
        let status = deny(error, &Call::new("/tokenvault.v1.TokenVault/GetToken"));
        assert_eq!(status.code(), reason.map_or(Code::Internal, promised), "{shown}");
        let details = status.get_error_details();
        let info = details.error_info();
        assert_eq!(info.map(|info| info.reason.as_str()), reason.as_ref().map(Reason::reason), "{shown}");
        assert!(info.is_none_or(|info| info.domain == "tokenvault.v1"), "{shown}");
        assert!(details.localized_message().is_some_and(|words| !words.message.is_empty()), "{shown}");
        assert!(status.message().ends_with('.'), "{shown}: {}", status.message());
        let invalid = status.code() == Code::InvalidArgument && details.bad_request().is_some();
        assert_eq!(details.bad_request().is_some(), invalid, "{shown}");
    }
}

#[test]
fn a_retry_delay_is_given_where_waiting_helps() {
    for (error, _) in all() {
        let shown = format!("{error:?}");
        let status = deny(error, &Call::new("/x"));
        let waits = matches!(status.code(), Code::ResourceExhausted | Code::Unavailable);
        let has_delay = status.get_error_details().retry_info().is_some();
        assert!(has_delay || !waits, "{shown} wants RetryInfo");
    }
}

/// The keys that the proto lists at each reason.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let (mut documented, mut comment) = (BTreeMap::new(), String::new());
    for line in PROTO.lines().map(str::trim) {
        if let Some(words) = line.strip_prefix("//") {
            comment.push_str(words);
            continue;
        }
        let comment = std::mem::take(&mut comment);
        let Some((name, _)) = line.strip_prefix("ERROR_REASON_").and_then(|value| value.split_once(" = "))
        else {
            continue;
        };
        let Some((_, keys)) = comment.split_once("Metadata: ") else { continue };
        let (mut bare, mut depth) = (String::new(), 0);
        for character in keys.chars() {
            match character {
                '(' => depth += 1,
                ')' => depth -= 1,
                '.' if depth == 0 => break,
                _ if depth == 0 => bare.push(character),
                _ => {}
            }
        }
        let keys = bare.split(',').map(str::trim).filter(|key| !bare.starts_with("none") && !key.is_empty());
        documented.insert(name.to_owned(), keys.map(str::to_owned).collect());
    }
    documented
}

#[test]
fn the_metadata_is_what_the_proto_says() {
    let mut produced: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (error, reason) in all() {
        let Some(reason) = reason else { continue };
        let status = deny(error, &Call::new("/x"));
        let details = status.get_error_details();
        let keys = details.error_info().unwrap().metadata.keys().cloned().collect::<Vec<_>>();
        produced.entry(reason.reason().to_owned()).or_default().extend(keys);
    }
    let documented = documented();
    for (reason, mut keys) in produced {
        // The call names the connection, and the example's call named none. A page that helps is not known for each.
        let mut told = documented.get(&reason).unwrap_or_else(|| panic!("{reason} has no metadata")).clone();
        for optional in ["connection_id", "url"] {
            assert!(told.contains(optional) || !keys.contains(optional), "{reason} does not tell {optional}");
            told.remove(optional);
            keys.remove(optional);
        }
        assert_eq!(keys, told, "{reason}");
    }
}

#[test]
fn every_violation_is_listed() {
    let violations =
        vec![FieldViolation::new("provider", "must be set"), FieldViolation::new("page_size", "must be 0")];
    let status = deny(E::Fields(violations), &Call::new("/x"));
    assert_eq!(status.get_error_details().bad_request().unwrap().field_violations.len(), 2);
    assert_eq!(
        status.message(),
        "The request is invalid: provider must be set; page_size must be 0. Correct the request."
    );
}

#[test]
fn a_denied_role_is_named_with_its_rpc() {
    let status =
        deny(E::RoleInsufficient { role: Role::Viewer }, &Call::new("/tokenvault.v1.TokenVault/StoreToken"));
    let details = status.get_error_details();
    let facts = &details.error_info().unwrap().metadata;
    assert_eq!(facts.get("role").map(String::as_str), Some("VIEWER"));
    assert_eq!(facts.get("rpc").map(String::as_str), Some("tokenvault.v1.TokenVault/StoreToken"));
}

#[test]
fn a_bug_shows_its_call_id_and_nothing_else() {
    let call = Call::new("/x");
    let status = deny(E::Internal, &call);
    assert!(status.message().contains(call.id()));
    assert_eq!(status.get_error_details().request_info().unwrap().request_id, call.id());
}

#[test]
fn a_denial_names_the_connection_that_the_call_named() {
    let call = Call::new("/tokenvault.v1.TokenVault/FetchAccessToken");
    call.about("0193");
    let status =
        deny(E::ScopesMissing { missing: vec!["ads_read".into()], declined: vec![], expired: vec![] }, &call);
    let details = status.get_error_details();
    let facts = &details.error_info().unwrap().metadata;
    assert_eq!(facts.get("connection_id").map(String::as_str), Some("0193"));
    assert_eq!(facts.get("missing").map(String::as_str), Some("ads_read"));
}

#[test]
fn a_lost_position_names_what_helps() {
    let facts = |error| {
        let status = deny(error, &Call::new("/x"));
        status.get_error_details().error_info().unwrap().metadata.clone()
    };
    assert_eq!(facts(E::CursorInvalid { field: "cursor" })["field"], "cursor");
    assert_eq!(facts(E::EventsCompacted { oldest: 7, position: 3 })["oldest_sequence"], "7");
    let name = SubscriptionName::parse("alerts").unwrap();
    assert_eq!(facts(E::SubscriptionNotFound(name))["subscription"], "alerts");
    let jobs =
        deny(E::JobNotFound { job: "nightly".into(), known: "meta-token-expiry".into() }, &Call::new("/x"));
    assert!(jobs.message().contains("ListJobs: meta-token-expiry."), "{}", jobs.message());
}
