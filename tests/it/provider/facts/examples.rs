//! One test for each case that was met in the field.

use token_vault_proto::v1::check::Result as Checked;
use token_vault_proto::v1::expiry::Kind as End;
use token_vault_proto::v1::intake_result::Outcome;
use token_vault_proto::v1::token::Status;
use token_vault_proto::v1::{Check, job_run};
use token_vault_tests::prelude::*;

use super::{Known, kinds_of, says};

const DAILY: &str = "meta-token-expiry";
const MILLISECONDS: &str = "1795000000000";

fn check<'a>(checks: &'a [Check], name: &str) -> &'a Check {
    checks.iter().find(|check| check.name == name).expect("all checks are reported")
}

async fn implausible(world: &World) -> i64 {
    let status =
        world.admin().get_vault_status(pb::GetVaultStatusRequest {}).await.expect("the admin may ask");
    status.providers.first().map_or(0, |provider| provider.implausible_values)
}

on_both_databases! {
    async fn a_data_access_end_that_is_left_out_announces_nothing(world: World) {
        let feed = world.viewer().await.watch_all().await;
        let (connector, column) = (world.connector().await, "SELECT data_access_source FROM ad_platform_connections");
        let id = connector.connect(ACME, &world.person("ana").long_lived_token()).await;
        let before = Known::now(&world, &id).await;
        assert!(before.data_access.is_some());
        world.sandbox.fault(says(Endpoint::DebugToken, "/data/data_access_expires_at", None));
        for _ in 0..2 {
            connector.validate(&id).await.unwrap();
            assert_eq!(world.admin().run(DAILY).await.state(), job_run::State::Succeeded);
        }
        assert_eq!(Known::now(&world, &id).await, before);
        assert_eq!(kinds_of(&feed, &id).await, [Kind::Connected]);

        // A token that is stored without it: unknown stays unknown, and only the news that it is known is announced.
        connector.revoke(&id).await.unwrap();
        let id = connector.connect("other", &world.person("bob").long_lived_token()).await;
        for _ in 0..2 {
            connector.validate(&id).await.unwrap();
        }
        let stored = world.database.texts(format!("{column} WHERE workspace_id = 'other'")).await;
        assert_eq!(stored, ["UNKNOWN"]);
        world.sandbox.clear_faults();
        for _ in 0..2 {
            connector.validate(&id).await.unwrap();
        }
        assert_eq!(kinds_of(&feed, &id).await, [Kind::Connected, Kind::DeadlinesChanged]);

        // Zero is told: never.
        world.sandbox.fault(says(Endpoint::DebugToken, "/data/data_access_expires_at", Some("0")));
        for _ in 0..2 {
            connector.validate(&id).await.unwrap();
        }
        let kinds = kinds_of(&feed, &id).await;
        assert_eq!(kinds, [Kind::Connected, Kind::DeadlinesChanged, Kind::DeadlinesChanged]);
        assert_eq!(world.database.texts(format!("{column} WHERE workspace_id = 'other'")).await, ["NEVER"]);
    }

    async fn scopes_that_are_left_out_stay_and_an_empty_list_is_believed(world: World) {
        let feed = world.viewer().await.watch_all().await;
        let connector = world.connector().await;
        let id = connector.connect(ACME, &world.person("ana").long_lived_token()).await;
        let before = Known::now(&world, &id).await;
        world.sandbox.fault(says(Endpoint::DebugToken, "/data/scopes", None));
        connector.validate(&id).await.unwrap();
        assert_eq!(Known::now(&world, &id).await, before);
        assert_eq!(kinds_of(&feed, &id).await, [Kind::Connected]);
        world.sandbox.clear_faults();
        world.sandbox.fault(says(Endpoint::DebugToken, "/data/scopes", Some("[]")));
        let checks = connector.validate(&id).await.unwrap().checks;
        assert_eq!(check(&checks, "required_scopes").result(), Checked::Fail);
        assert!(Known::now(&world, &id).await.scopes.is_empty());
        assert_eq!(kinds_of(&feed, &id).await, [Kind::Connected, Kind::ScopesChanged]);

        // Without scopes nobody can say whether a new token is good, and nobody is blamed for it.
        world.sandbox.clear_faults();
        world.sandbox.fault(says(Endpoint::DebugToken, "/data/scopes", None));
        let no = connector.store("other", &world.person("bob").long_lived_token()).await.unwrap_err();
        no.is(Code::Unavailable, Reason::ProviderUnavailable).has_retry();
    }

    async fn a_declined_scope_that_the_inspector_lists_counts_nowhere(world: World) {
        let feed = world.viewer().await.watch_all().await;
        let ana = world.sandbox.user("ana").grants(["ads_read", "ads_management"]).declines(["business_management"]);
        let (connector, token) = (world.connector().await, ana.long_lived_token());
        let listed = r#"["ads_read","ads_management","business_management","public_profile"]"#;
        world.sandbox.fault(says(Endpoint::DebugToken, "/data/scopes", Some(listed)));
        let id = connector.connect(ACME, &token).await;
        let before = Known::now(&world, &id).await;
        assert_eq!(before.scopes, ["ads_read", "ads_management", "public_profile"]);
        connector.validate(&id).await.unwrap();
        world.admin().run(DAILY).await;
        let body = r#"{"error":{"message":"x","type":"OAuthException","code":190,"error_subcode":460}}"#;
        world.ingestion().await.report(&id, 1, 400, body).await.unwrap();
        assert_eq!(Known::now(&world, &id).await, before, "validation, pass and report compute the same scopes");
        let again = connector.store(ACME, &token).await.unwrap();
        assert_eq!(again.outcome(), Outcome::Unchanged, "the same secret is not refused");
        connector.exchange(&id).await.unwrap();
        assert_eq!(Known::now(&world, &id).await.scopes, before.scopes, "renewal computes the same scopes");
        assert!(!kinds_of(&feed, &id).await.contains(&Kind::ScopesChanged));

        // While the person's decisions can't be read, nothing is added and nothing is lost.
        world.sandbox.fault(Fault::on(Endpoint::Permissions).always().with(FaultKind::error(500, 2)));
        connector.validate(&id).await.unwrap();
        assert_eq!(Known::now(&world, &id).await.scopes, before.scopes);
        assert!(!kinds_of(&feed, &id).await.contains(&Kind::ScopesChanged));
    }

    async fn a_permission_that_expired_was_not_declined(world: World) {
        let ana = world.person("ana").lets_expire(["ads_read"]);
        let (connector, token) = (world.connector().await, ana.long_lived_token());
        let no = connector.store(ACME, &token).await.unwrap_err();
        no.is(Code::FailedPrecondition, Reason::ScopesMissing).words("because it was not used for long");
        assert!(!no.message().contains("declined"), "{no:?}");

        let options = pb::IntakeOptions { allow_missing_scopes: true, ..Default::default() };
        let request = pb::StoreTokenRequest { options: Some(options), ..world.pasted(ACME, &token) };
        let id = connector.store_with(request).await.unwrap().token.unwrap().connection_id;
        let checks = connector.validate(&id).await.unwrap().checks;
        let found = check(&checks, "required_scopes");
        assert_eq!(found.result(), Checked::Fail);
        assert_eq!(found.metadata.get("expired").map(String::as_str), Some("ads_read"), "{found:?}");
        assert!(!found.metadata.contains_key("declined"), "{found:?}");

        ana.declines(["ads_read"]);
        let checks = connector.validate(&id).await.unwrap().checks;
        let found = check(&checks, "required_scopes");
        assert_eq!(found.metadata.get("declined").map(String::as_str), Some("ads_read"), "{found:?}");
        assert!(!found.metadata.contains_key("expired"), "{found:?}");
    }

    async fn times_in_milliseconds_are_not_believed(world: World) {
        let feed = world.viewer().await.watch_all().await;
        let connector = world.connector().await;
        let id = connector.connect(ACME, &world.person("ana").long_lived_token()).await;
        let before = Known::now(&world, &id).await;
        for field in ["expires_at", "data_access_expires_at", "issued_at"] {
            world.sandbox.fault(says(Endpoint::DebugToken, &format!("/data/{field}"), Some(MILLISECONDS)));
            connector.validate(&id).await.unwrap();
            world.sandbox.clear_faults();
            assert_eq!(Known::now(&world, &id).await, before, "{field}");
        }
        assert_eq!(kinds_of(&feed, &id).await, [Kind::Connected]);

        let all = Fault::on(Endpoint::DebugToken)
            .always()
            .with(FaultKind::SetRaw("/data/expires_at".into(), MILLISECONDS.into()))
            .with(FaultKind::SetRaw("/data/data_access_expires_at".into(), MILLISECONDS.into()))
            .with(FaultKind::SetRaw("/data/issued_at".into(), MILLISECONDS.into()));
        world.sandbox.fault(all);
        let bob = connector.connect("other", &world.person("bob").long_lived_token()).await;
        let token = Known::now(&world, &bob).await;
        assert_eq!((token.expiry, token.data_access, token.issued_at), ((End::Unknown, None), None, None));
        assert_eq!(token.status, Status::Active);
        world.sandbox.clear_faults();
        connector.validate(&bob).await.unwrap();
        let token = Known::now(&world, &bob).await;
        assert!(token.expiry.0 == End::At && token.data_access.is_some() && token.issued_at.is_some());
    }

    async fn ids_past_64_bits_keep_two_people_apart(world: World) {
        let connector = world.connector().await;
        let (ana, bob) = (world.person("ana").long_lived_token(), world.person("bob").long_lived_token());
        for (token, id) in [(&ana, "18446744073709551617"), (&bob, "18446744073709551616")] {
            world.sandbox.fault(says(Endpoint::DebugToken, "/data/user_id", Some(id)).token(token));
        }
        let (one, other) = (connector.connect(ACME, &ana).await, connector.connect(ACME, &bob).await);
        assert_ne!(one, other, "two people are two connections");
        assert_eq!(Known::now(&world, &one).await.subject.0, "18446744073709551617");
        assert_eq!(Known::now(&world, &other).await.subject.0, "18446744073709551616");

        // A rounded id is nobody's: two people with the same one are not one person.
        let (cid, dan) = (world.person("cid"), world.person("dan"));
        world.sandbox.clear_faults();
        world.sandbox.fault(says(Endpoint::DebugToken, "/data/user_id", Some("1e21")));
        let one = connector.connect(ACME, &cid.long_lived_token()).await;
        let other = connector.connect(ACME, &dan.long_lived_token()).await;
        assert_ne!(one, other);
        world.sandbox.clear_faults();
        for (connection, person) in [(one, cid), (other, dan)] {
            assert_eq!(Known::now(&world, &connection).await.subject.0, "");
            connector.validate(&connection).await.unwrap();
            assert_eq!(Known::now(&world, &connection).await.subject.0, person.id(), "it is read later");
        }
    }

    async fn texts_that_break_databases_are_cleaned_on_the_way_in(world: World) {
        let connector = world.connector().await;
        for (name, raw, clean) in [
            ("ana", r#""A\u0000na""#.to_owned(), "A na".to_owned()),
            ("bob", r#""B\ud800ob""#.to_owned(), "B\u{fffd}ob".to_owned()),
            ("cid", "\"C\nid\u{202e}\"".to_owned(), "C id".to_owned()),
            ("dan", format!("\"{}\"", "n".repeat(600_000)), "n".repeat(200)),
            ("eve", format!("\"{}\"", "é".repeat(201)), "é".repeat(200)),
        ] {
            let person = world.person(name).with_ad_accounts(1);
            let page = person.page("Shop");
            world.sandbox.fault(says(Endpoint::Me, "/name", Some(&raw)));
            world.sandbox.fault(says(Endpoint::AdAccounts, "/data/0/name", Some(&raw)));
            world.sandbox.fault(says(Endpoint::Accounts, "/data/0/name", Some(&raw)));
            let options = pb::IntakeOptions { connect_pages: true, ..Default::default() };
            let token = person.long_lived_token();
            let request = pb::StoreTokenRequest { options: Some(options), ..world.pasted(ACME, &token) };
            let stored = connector.store_with(request).await.unwrap();
            let id = stored.token.unwrap().connection_id;
            let token = Known::now(&world, &id).await;
            assert_eq!((&token.subject.1, token.ad_accounts), (&clean, (1, 0)), "{name}");
            let [page_id] = stored.page_connection_ids.as_slice() else { panic!("a page is connected: {name}") };
            let subject = Known::now(&world, page_id).await.subject;
            assert_eq!((subject.0, &subject.1), (page, &clean), "{name}");
            let account = person.ad_account_ids()[0].clone();
            let of_account = format!("SELECT name FROM connection_ad_accounts WHERE ad_account_id = 'act_{account}'");
            assert_eq!(world.database.texts(of_account).await, [clean], "{name}");
            let pass = world.admin().run(DAILY).await;
            assert_eq!((pass.state(), pass.failed), (job_run::State::Succeeded, 0), "{name}");
            world.sandbox.clear_faults();
        }
    }

    async fn a_lone_surrogate_hides_neither_a_reply_nor_an_error(world: World) {
        let connector = world.connector().await;
        world.sandbox.fault(says(Endpoint::DebugToken, "/data/application", Some(r#""\ud800""#)));
        let id = connector.connect(ACME, &world.person("ana").long_lived_token()).await;
        world.person("ana").changes_password();
        world.sandbox.clear_faults();
        world.sandbox.fault(says(Endpoint::DebugToken, "/data/error/message", Some(r#""gone \ud800""#)));
        let checks = connector.validate(&id).await.unwrap().checks;
        assert_eq!(check(&checks, "token_accepted").result(), Checked::Fail);
        assert_eq!(Known::now(&world, &id).await.status, Status::Invalid);
    }

    async fn an_exchange_reply_without_a_token_is_the_providers_fault(world: World) {
        let connector = world.connector().await;
        let id = connector.connect(ACME, &world.person("ana").long_lived_token()).await;
        for raw in [
            Some("17"),
            Some(r#""EAAx""#),
            Some(r#""""#),
            Some("null"),
            Some("[]"),
            Some(r#""EAAB sbCS1iHgBAKZCtokentoken""#),
            Some(r#""EAABsbCS1iHg\u0000BAKZCtoken""#),
            None,
        ] {
            world.sandbox.fault(says(Endpoint::OauthAccessToken, "/access_token", raw));
            let no = connector.store("other", &world.person("bob").short_lived_token()).await.unwrap_err();
            no.is(Code::Unavailable, Reason::ProviderUnavailable).has_retry();
            let no = connector.exchange(&id).await.unwrap_err();
            no.is(Code::Unavailable, Reason::ProviderUnavailable).has_retry();
            world.sandbox.clear_faults();
        }
        assert!(world.ingestion().await.fetch(&id).await.is_ok(), "the old token stays");
    }

    async fn what_could_not_be_read_at_intake_is_read_at_the_next_validation(world: World) {
        let feed = world.viewer().await.watch_all().await;
        let connector = world.connector().await;
        for (name, validated) in [("ana", true), ("bob", false)] {
            let person = world.person(name).declines(["business_management"]).with_ad_accounts(2);
            let listed = r#"["ads_read","ads_management","business_management"]"#;
            world.sandbox.fault(says(Endpoint::DebugToken, "/data/scopes", Some(listed)));
            for endpoint in [Endpoint::Me, Endpoint::Permissions, Endpoint::AdAccounts] {
                world.sandbox.fault(Fault::on(endpoint).always().with(FaultKind::error(400, 100)));
            }
            let id = connector.connect(ACME, &person.long_lived_token()).await;
            let token = Known::now(&world, &id).await;
            assert_eq!((token.subject.1.as_str(), token.ad_accounts, token.scopes.len()), ("", (0, 0), 3));
            world.sandbox.clear_faults();
            world.sandbox.fault(says(Endpoint::DebugToken, "/data/scopes", Some(listed)));
            if validated {
                connector.validate(&id).await.unwrap();
            } else {
                world.admin().run(DAILY).await;
            }
            let token = Known::now(&world, &id).await;
            assert_eq!((token.subject.1, token.ad_accounts), (person.name(), (2, 0)), "{name}");
            assert_eq!(token.scopes, ["ads_read", "ads_management"], "{name}");
            assert_eq!(kinds_of(&feed, &id).await, [Kind::Connected, Kind::ScopesChanged], "{name}");
            world.sandbox.clear_faults();
        }
    }

    async fn what_is_not_told_of_an_ad_account_stays_as_it_is_known(world: World) {
        let feed = world.viewer().await.watch_all().await;
        let connector = world.connector().await;
        let ana = world.person("ana").with_ad_accounts(1);
        let id = connector.connect(ACME, &ana.long_lived_token()).await;
        let columns = "name || '/' || currency || '/' || time_zone || '/' || state || '/' || provider_state \
                       || '/' || owner_id || '/' || owner_name";
        let rows = format!("SELECT {columns} FROM connection_ad_accounts");
        let before = world.database.texts(&rows).await;
        for field in ["name", "currency", "timezone_name", "account_status", "business", "account_id", "id"] {
            for raw in [None, Some("null"), Some("[]"), Some("1e30")] {
                world.sandbox.fault(says(Endpoint::AdAccounts, &format!("/data/0/{field}"), raw));
                connector.validate(&id).await.unwrap();
                assert_eq!(world.database.texts(&rows).await, before, "{field} {raw:?}");
                world.sandbox.clear_faults();
            }
        }
        // Without any readable id, the list is not taken for a whole one.
        world.sandbox.fault(
            Fault::on(Endpoint::AdAccounts)
                .always()
                .with(FaultKind::SetRaw("/data/0/id".into(), "1e21".into()))
                .with(FaultKind::SetRaw("/data/0/account_id".into(), "1e21".into())),
        );
        let checks = connector.validate(&id).await.unwrap().checks;
        assert_ne!(check(&checks, "ad_accounts").result(), Checked::Pass);
        assert_eq!(Known::now(&world, &id).await.ad_accounts, (1, 0));
        assert_eq!(kinds_of(&feed, &id).await, [Kind::Connected]);
    }

    async fn what_can_not_be_true_is_counted_and_logged_without_its_value(world: World) {
        let connector = world.connector().await;
        let id = connector.connect(ACME, &world.person("ana").long_lived_token()).await;
        assert_eq!(implausible(&world).await, 0);
        world.sandbox.fault(says(Endpoint::DebugToken, "/data/expires_at", Some(MILLISECONDS)));
        for _ in 0..3 {
            connector.validate(&id).await.unwrap();
        }
        assert!(implausible(&world).await >= 3);
        let logs = world.logs();
        let told: Vec<&str> = logs.lines().filter(|line| line.contains("can't be true")).collect();
        let [line] = told.as_slice() else { panic!("each field is logged once a minute: {told:?}") };
        assert!(line.contains("expires_at") && line.contains("WARN"), "{line}");
        assert!(!logs.contains(MILLISECONDS), "a value may be a secret");
    }

    async fn instants_that_an_earlier_version_stored_break_no_page_and_no_stream(world: World) {
        let id = world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
        let far = "1795000000000000000";
        world
            .database
            .execute(format!(
                "UPDATE ad_platform_connections SET expires_at = {far}, expires_sort = {far}, \
                 data_access_ends_at = {far}, issued_at = {far}"
            ))
            .await;
        world.stop();
        // In an event, the end is the second of a pair.
        let body = match world.database.backend() {
            Backend::Sqlite => format!("json_set(body, '$.expiry[1]', {far})"),
            Backend::Postgres => format!("jsonb_set(body, '{{expiry,1}}', '{far}')"),
        };
        world.database.execute(format!("UPDATE events SET body = {body}")).await;
        world.start_again();
        let last = prost_types::Timestamp { seconds: 253_402_300_799, nanos: 999_999_000 };
        let viewer = world.viewer().await;
        let token = viewer.get(&id).await.unwrap();
        assert_eq!((token.expiry.unwrap().at, token.issued_at), (Some(last), Some(last)));
        assert_eq!(viewer.list().await.unwrap().tokens.len(), 1);
        let feed = viewer.watch_all().await;
        assert_eq!(feed.first(&id, Kind::Connected).await.expiry.unwrap().at, Some(last));
        assert_eq!(viewer.watch_snapshot().await.snapshot().await.len(), 1);
        world.connector().await.validate(&id).await.unwrap();
        assert_eq!(viewer.get(&id).await.unwrap().expiry.unwrap().at.unwrap().seconds.cmp(&last.seconds), std::cmp::Ordering::Less);
    }
}
