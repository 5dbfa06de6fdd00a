//! Every field of every reply that the vault reads, times everything that may stand in it: at intake and at validation.

use futures::StreamExt;
use token_vault_proto::v1::check::Result as Checked;
use token_vault_proto::v1::intake_result::Outcome;
use token_vault_tests::prelude::*;

use super::{Known, kinds_of, says};

/// The fields that the vault reads.
const FIELDS: [(Endpoint, &str); 42] = [
    (Endpoint::DebugToken, "/data"),
    (Endpoint::DebugToken, "/data/app_id"),
    (Endpoint::DebugToken, "/data/type"),
    (Endpoint::DebugToken, "/data/is_valid"),
    (Endpoint::DebugToken, "/data/expires_at"),
    (Endpoint::DebugToken, "/data/data_access_expires_at"),
    (Endpoint::DebugToken, "/data/issued_at"),
    (Endpoint::DebugToken, "/data/scopes"),
    (Endpoint::DebugToken, "/data/scopes/0"),
    (Endpoint::DebugToken, "/data/granular_scopes"),
    (Endpoint::DebugToken, "/data/granular_scopes/0"),
    (Endpoint::DebugToken, "/data/granular_scopes/0/scope"),
    (Endpoint::DebugToken, "/data/granular_scopes/0/target_ids"),
    (Endpoint::DebugToken, "/data/granular_scopes/0/target_ids/0"),
    (Endpoint::DebugToken, "/data/user_id"),
    (Endpoint::DebugToken, "/data/error"),
    (Endpoint::Me, "/id"),
    (Endpoint::Me, "/name"),
    (Endpoint::Permissions, "/data"),
    (Endpoint::Permissions, "/data/0"),
    (Endpoint::Permissions, "/data/0/permission"),
    (Endpoint::Permissions, "/data/0/status"),
    (Endpoint::Permissions, "/paging"),
    (Endpoint::AdAccounts, "/data"),
    (Endpoint::AdAccounts, "/data/0"),
    (Endpoint::AdAccounts, "/data/0/id"),
    (Endpoint::AdAccounts, "/data/0/account_id"),
    (Endpoint::AdAccounts, "/data/0/name"),
    (Endpoint::AdAccounts, "/data/0/account_status"),
    (Endpoint::AdAccounts, "/data/0/currency"),
    (Endpoint::AdAccounts, "/data/0/timezone_name"),
    (Endpoint::AdAccounts, "/paging"),
    (Endpoint::AdAccounts, "/paging/next"),
    (Endpoint::AdAccounts, "/paging/cursors"),
    (Endpoint::Accounts, "/data"),
    (Endpoint::Accounts, "/data/0"),
    (Endpoint::Accounts, "/data/0/id"),
    (Endpoint::Accounts, "/data/0/name"),
    (Endpoint::Accounts, "/data/0/access_token"),
    (Endpoint::Insights, "/data"),
    (Endpoint::OauthAccessToken, "/access_token"),
    (Endpoint::OauthAccessToken, "/expires_in"),
];

/// What may stand in a field; `None` leaves it out.
fn values(pointer: &str) -> Vec<Option<String>> {
    let mut all = vec![None, Some(format!("\"{}\"", "x".repeat(600_000)))];
    let short = [
        "null",
        r#""""#,
        "17",
        r#""text""#,
        "true",
        "[]",
        "{}",
        "0",
        "-1",
        "1795000000000",
        "1e30",
        "9223372036854775808",
        "18446744073709551617",
        r#""a\u0000b""#,
        r#""a\ud800b""#,
    ];
    all.extend(short.iter().map(|&raw| Some(raw.to_owned())));
    // The key stands twice, with two values. An entry of a list has no key.
    let key = pointer.rsplit('/').next().unwrap_or_default();
    if key.parse::<usize>().is_err() {
        all.push(Some(format!("\"one\",\"{key}\":\"two\"")));
    }
    all
}

/// Whether this value is one that the provider may mean: then the vault believes it, and what follows is said by the
/// provider. The table leaves these out.
fn may_be_meant(pointer: &str, raw: Option<&str>) -> bool {
    let Some(raw) = raw else { return false };
    match pointer {
        // Another name.
        "/name" => raw.starts_with('"') && raw != "\"\"" && !raw.contains("\":"),
        // Another app; another person.
        "/data/app_id" | "/data/user_id" => {
            matches!(raw, "17" | "9223372036854775808" | "18446744073709551617" | "1795000000000")
        }
        // Never.
        "/data/expires_at" | "/data/data_access_expires_at" => raw == "0",
        // None at all, and another one.
        "/data/scopes" | "/data/granular_scopes" | "/data/granular_scopes/0/target_ids" => raw == "[]",
        "/data/scopes/0" | "/data/granular_scopes/0/scope" => raw == r#""text""#,
        "/data/granular_scopes/0/target_ids/0" => {
            matches!(raw, "17" | "9223372036854775808" | "18446744073709551617" | "1795000000000")
        }
        _ => false,
    }
}

/// A case of the table, named for failures.
fn name(endpoint: Endpoint, pointer: &str, raw: Option<&str>, when: &str) -> String {
    let raw = raw.unwrap_or("(absent)");
    format!("{endpoint:?} {pointer} = {} at {when}", raw.get(..40).unwrap_or(raw))
}

fn person(world: &World, name: &str) -> token_vault_sandbox::User {
    let person = world.person(name).with_ad_accounts(1).limits("ads_management", &["1020304050"]);
    person.page("Shop");
    person
}

/// Asks the provider about a stored token while it says `raw`: nothing may change but by what was said.
async fn at_validation(world: &World, feed: &Feed, number: usize) {
    let (endpoint, pointer) = FIELDS[number];
    let connector = world.connector().await;
    let token = person(world, &format!("held-{number}")).long_lived_token();
    let id = connector.connect(ACME, &token).await;
    let before = Known::now(world, &id).await;
    assert!(!before.granular.is_empty() && before.ad_accounts == (1, 0) && !before.subject.1.is_empty());
    for raw in values(pointer) {
        let (raw, case) = (raw.as_deref(), name(endpoint, pointer, raw.as_deref(), "validation"));
        if may_be_meant(pointer, raw) || lists_nothing(endpoint, pointer, raw) || takes_no_limit(pointer, raw)
        {
            continue;
        }
        world.sandbox.fault(says(endpoint, pointer, raw).token(&token));
        let answer = connector.validate(&id).await.unwrap_or_else(|no| panic!("{case}: {no:?}"));
        world.sandbox.clear_faults_of(&token);
        assert_eq!(Known::of(&answer.token.clone().unwrap_or_default()), before, "{case}");
        assert_eq!(Known::now(world, &id).await, before, "{case}");
        // A reply that is understood in between, so that the odd ones are no outage.
        if answer.checks.iter().any(|check| check.result() == Checked::Unknown) {
            connector.validate(&id).await.unwrap_or_else(|no| panic!("after {case}: {no:?}"));
        }
    }
    assert_eq!(kinds_of(feed, &id).await, [Kind::Connected], "{endpoint:?} {pointer}: nobody said more");
}

/// An empty list of ad accounts or permissions is said.
fn lists_nothing(endpoint: Endpoint, pointer: &str, raw: Option<&str>) -> bool {
    endpoint == Endpoint::AdAccounts && pointer == "/data" && raw == Some("[]")
}

/// A limit that is left out is none.
fn takes_no_limit(pointer: &str, raw: Option<&str>) -> bool {
    pointer == "/data/granular_scopes/0/target_ids" && matches!(raw, None | Some("null"))
}

/// Stores a token while the provider says `raw`. It is stored, or the provider is to blame; and what could not be read is
/// known after the next validation.
async fn at_intake(world: &World, feed: &Feed, number: usize) {
    let (endpoint, pointer) = FIELDS[number];
    let connector = world.connector().await;
    let mut stored_in = Vec::new();
    for (nth, raw) in values(pointer).into_iter().enumerate() {
        let (raw, case) = (raw.as_deref(), name(endpoint, pointer, raw.as_deref(), "intake"));
        if may_be_meant(pointer, raw) {
            continue;
        }
        let person = person(world, &format!("new-{number}-{nth}"));
        let exchanged = endpoint == Endpoint::OauthAccessToken;
        let token = if exchanged { person.short_lived_token() } else { person.long_lived_token() };
        world.sandbox.fault(says(endpoint, pointer, raw).token(&token));
        let options =
            pb::IntakeOptions { connect_pages: endpoint == Endpoint::Accounts, ..Default::default() };
        let request = pb::StoreTokenRequest { options: Some(options), ..world.pasted(ACME, &token) };
        let stored = connector.store_with(request).await;
        world.sandbox.clear_faults_of(&token);
        let id = match stored {
            Ok(stored) => {
                assert_eq!(stored.outcome(), Outcome::Created, "{case}");
                stored.token.unwrap_or_default().connection_id
            }
            Err(no) => {
                assert_eq!(
                    (no.code(), no.reason()),
                    (Code::Unavailable, "PROVIDER_UNAVAILABLE"),
                    "{case}: {no:?}"
                );
                connector.connect(ACME, &token).await
            }
        };
        connector.validate(&id).await.unwrap_or_else(|no| panic!("after {case}: {no:?}"));
        let known = Known::now(world, &id).await;
        assert_eq!(known.subject.0, person.id(), "{case}");
        assert_eq!(known.subject.1, person.name(), "{case}");
        assert!(known.expiry.1.is_some() && known.data_access.is_some(), "{case}: {known:?}");
        assert_eq!(known.scopes.len(), SCOPES.len() + 1, "{case}: {known:?}");
        assert_eq!(known.ad_accounts.0, 1, "{case}: {known:?}");
        stored_in.push((id, case));
    }
    feed.caught_up().await;
    for (id, case) in stored_in {
        let kinds = feed.kinds_of(&id);
        let harmless = [Kind::Connected, Kind::DeadlinesChanged, Kind::AdAccountsChanged];
        assert!(kinds.iter().all(|kind| harmless.contains(kind)), "{case}: {kinds:?}");
    }
}

/// Works through all fields, several at a time.
async fn each_field(work: impl AsyncFn(usize)) {
    futures::stream::iter(0..FIELDS.len()).for_each_concurrent(6, async |number| work(number).await).await;
}

on_both_databases! {
    async fn no_value_of_any_field_costs_a_known_fact_or_announces_what_nobody_said(world: World) {
        let feed = world.viewer().await.watch_all().await;
        each_field(async |number| at_validation(&world, &feed, number).await).await;
    }

    async fn no_value_of_any_field_blames_the_person_who_stores_a_token(world: World) {
        let feed = world.viewer().await.watch_all().await;
        each_field(async |number| at_intake(&world, &feed, number).await).await;
    }
}
