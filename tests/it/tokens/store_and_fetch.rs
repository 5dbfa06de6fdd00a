//! The main job: storing, fetching and validating tokens.

use token_vault_proto::v1::check::Result as Checked;
use token_vault_proto::v1::exchange_token_response::Outcome as Exchanged;
use token_vault_proto::v1::expiry::Kind as End;
use token_vault_proto::v1::intake_result::Outcome;
use token_vault_proto::v1::token::Status;
use token_vault_sandbox::{ExchangeMood, appsecret_proof};
use token_vault_tests::prelude::*;
use token_vault_tests::{days, seconds};

const DAY: i64 = 86_400;

fn end_of(token: &pb::Token) -> i64 {
    let end = token.expiry.as_ref().and_then(|expiry| expiry.at).expect("a known end");
    end.seconds
}

fn check<'a>(checks: &'a [pb::Check], name: &str) -> &'a pb::Check {
    checks.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("no check {name}: {checks:#?}"))
}

on_both_databases! {
    async fn a_pasted_short_lived_token_is_exchanged_and_the_long_lived_one_is_handed_out(world: World) {
        let ana = world.person("ana");
        let short = ana.short_lived_token();
        let intake = world.connector().await.store(ACME, &short).await.unwrap();
        let token = intake.token.clone().unwrap();
        assert_eq!(intake.outcome(), Outcome::Created, "{intake:#?}");
        assert_eq!(intake.overall(), Checked::Pass, "{:#?}", intake.checks);
        assert_eq!((token.token_version, token.status(), token.usable), (1, Status::Active, true));
        assert_eq!(token.subject.as_ref().unwrap().id, ana.id());
        assert_eq!(token.subject.as_ref().unwrap().name, ana.name());
        let now = world.sandbox.clock().now();
        assert!((59 * DAY..=61 * DAY).contains(&(end_of(&token) - now)), "{:?}", token.expiry);

        let fetched = world.ingestion().await.fetch(&token.connection_id).await.unwrap();
        let secret = world.ingestion().await.secret(&token.connection_id).await;
        assert_ne!(secret, short);
        assert_eq!(world.sandbox.expiry_of(&secret), Some(end_of(&token)));
        let proof = appsecret_proof(&world.sandbox.app().secrets[0], &secret);
        let part = &fetched.send_with[0];
        assert_eq!((part.name.as_str(), part.value.as_str()), ("appsecret_proof", proof.as_str()));
        assert_eq!(part.place(), pb::request_part::Place::Query);
        assert_eq!((fetched.token_version, fetched.status()), (1, Status::Active));
        let cache_for = fetched.cache_for.unwrap();
        assert!(cache_for.seconds > 0 && cache_for.seconds <= 3_600, "{cache_for:?}");
    }

    async fn a_provider_that_demands_proofs_gets_one_on_every_call(world: World) {
        let app = world.sandbox.app().id;
        world.sandbox.change_app(&app, |app| app.require_proof = true);
        let intake =
            world.connector().await.store(ACME, &world.person("ana").short_lived_token()).await.unwrap();
        assert_eq!(intake.overall(), Checked::Pass, "{:#?}", intake.checks);
    }

    async fn the_same_secret_again_changes_nothing(world: World) {
        let long = world.person("ana").long_lived_token();
        let connector = world.connector().await;
        let first = connector.store(ACME, &long).await.unwrap().token.unwrap();
        let again = connector.store(ACME, &format!("  {long}\n")).await.unwrap();
        assert_eq!(again.outcome(), Outcome::Unchanged);
        let token = again.token.unwrap();
        assert_eq!((&token.connection_id, token.token_version), (&first.connection_id, 1));
        assert_eq!(token.fingerprint, first.fingerprint);
        assert_eq!(world.database.count("SELECT count(*) FROM connection_secrets").await, 1);
    }

    async fn reconnecting_keeps_the_connection_and_raises_the_version(world: World) {
        let ana = world.person("ana");
        let connector = world.connector().await;
        let first = connector.store(ACME, &ana.long_lived_token()).await.unwrap().token.unwrap();
        let before = world.ingestion().await.fetch(&first.connection_id).await.unwrap();
        let newer = ana.long_lived_token();
        let intake = connector.store(ACME, &newer).await.unwrap();
        let token = intake.token.clone().unwrap();
        assert_eq!(intake.outcome(), Outcome::Replaced);
        assert_eq!((&token.connection_id, token.token_version), (&first.connection_id, 2));
        assert_ne!(token.fingerprint, first.fingerprint);
        let after = world.ingestion().await.fetch(&first.connection_id).await.unwrap();
        assert_eq!(
            (world.ingestion().await.secret(&first.connection_id).await, after.token_version),
            (newer, 2)
        );
        assert_ne!(after.secret_id, before.secret_id);
    }

    async fn two_workspaces_may_hold_the_same_subject_apart(world: World) {
        let ana = world.person("ana");
        let connector = world.connector().await;
        let here = connector.connect(ACME, &ana.long_lived_token()).await;
        let there = connector.connect("globex", &ana.long_lived_token()).await;
        assert_ne!(here, there);
        let token = connector.get(&here).await.unwrap();
        assert_eq!((token.shared_connections, token.token_version), (1, 1));
        assert_ne!(token.fingerprint, connector.get(&there).await.unwrap().fingerprint);
    }

    async fn a_minimum_life_is_honoured(world: World) {
        let id = world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
        let ask =
            |min_ttl| pb::FetchAccessTokenRequest { connection_id: id.clone(), workspace_id: None, min_ttl };
        let ingestion = world.ingestion().await;
        assert!(ingestion.fetch_access_token(ask(days(59))).await.is_ok());
        let no = ingestion.fetch_access_token(ask(days(61))).await.unwrap_err();
        no.is(Code::FailedPrecondition, Reason::TokenLifeTooShort)
            .says("connection_id", &id)
            .says("token_version", "1");
        assert!(no.fact("life_left").is_some() && no.fact("expires_at").is_some(), "{no:?}");
        ingestion
            .fetch_access_token(ask(seconds(-1)))
            .await
            .unwrap_err()
            .is(Code::InvalidArgument, Reason::FieldInvalid)
            .field("min_ttl");
    }

    async fn expiring_tokens_wear_an_amber_badge(world: World) {
        let soon = std::time::Duration::from_secs(3 * 86_400 - 60);
        let intake = world
            .connector()
            .await
            .store(ACME, &world.person("ana").long_lived_token_with_life(soon))
            .await
            .unwrap();
        let token = intake.token.unwrap();
        let badge = token.badge.clone().unwrap();
        assert_eq!((token.status(), token.usable), (Status::Expiring, true));
        assert_eq!(
            (badge.color(), badge.text.as_str()),
            (pb::token::badge::Color::Amber, "Expiring in 3 days")
        );
        assert_eq!(badge.days_left, Some(3));
        assert!(token.problems.iter().any(|problem| problem.reason() == Reason::ExpiringSoon));
    }

    async fn tokens_without_an_end_are_kept_as_such(world: World) {
        let robot = world.sandbox.system_user("robot").grants(SCOPES);
        let intake = world.connector().await.store(ACME, &robot.token_never()).await.unwrap();
        let token = intake.token.unwrap();
        assert_eq!(token.expiry.as_ref().unwrap().kind(), End::Never);
        assert_eq!(token.renewal(), pb::token::Renewal::NotNeeded);
        assert_eq!(token.subject.as_ref().unwrap().r#type(), pb::subject::Type::SystemUser);
        assert!(world.ingestion().await.fetch(&token.connection_id).await.is_ok());
    }

    async fn validating_runs_every_check_and_updates_the_facts(world: World) {
        let ana = world.person("ana");
        let id = world.connector().await.connect(ACME, &ana.long_lived_token()).await;
        let all = [
            "token_accepted",
            "app_matches",
            "required_scopes",
            "optional_scopes",
            "expiry",
            "data_access",
            "ad_accounts",
            "smoke_test",
            "call_budget",
        ];
        let ingestion = world.ingestion().await;
        let well = ingestion.validate(&id).await.unwrap();
        assert_eq!(well.checks.iter().map(|check| check.name.as_str()).collect::<Vec<_>>(), all);
        assert_eq!(well.overall(), Checked::Pass, "{:#?}", well.checks);
        assert_eq!(check(&well.checks, "ad_accounts").metadata["count"], "1");

        ana.delivery(false);
        ana.declines(["business_management"]);
        let quiet = ingestion.validate(&id).await.unwrap();
        assert_eq!(check(&quiet.checks, "smoke_test").result(), Checked::Warn);
        assert_eq!(check(&quiet.checks, "optional_scopes").result(), Checked::Warn);
        assert_eq!(quiet.overall(), Checked::Warn);
        ana.declines(["ads_management"]);
        let poor = ingestion.validate(&id).await.unwrap();
        assert_eq!(check(&poor.checks, "required_scopes").metadata["missing"], "ads_management");
        assert_eq!(poor.token.unwrap().missing_required_scopes, ["ads_management"]);

        ana.hits_checkpoint();
        let ill = ingestion.validate(&id).await.unwrap();
        assert_eq!((ill.overall(), ill.token.as_ref().unwrap().status()), (Checked::Fail, Status::Invalid));
        assert_eq!(check(&ill.checks, "token_accepted").metadata["refusal"], "CHECKPOINT");
        assert_eq!(check(&ill.checks, "smoke_test").result(), Checked::Skipped);
        ana.heals();
        let healed = ingestion.validate(&id).await.unwrap();
        assert_eq!(healed.token.unwrap().status(), Status::Active, "a checkpoint heals without a new login");
    }

    async fn an_exchange_says_whether_the_end_really_moved(world: World) {
        let ana = world.person("ana");
        let connector = world.connector().await;
        let life = std::time::Duration::from_secs(30 * 86_400);
        let id = connector.connect(ACME, &ana.long_lived_token_with_life(life)).await;
        let cases = [
            (ExchangeMood::SameExpiry, Exchanged::AtCeiling, 1),
            (ExchangeMood::SameString, Exchanged::AtCeiling, 1),
            (ExchangeMood::Shortens, Exchanged::Shortened, 1),
            (ExchangeMood::Extends, Exchanged::Extended, 2),
            (ExchangeMood::BecomesNever, Exchanged::NowNeverExpires, 3),
        ];
        for (mood, outcome, version) in cases {
            world.sandbox.set_mood(mood);
            let secret = world.ingestion().await.secret(&id).await;
            let answer = connector.exchange(&id).await.unwrap();
            let token = answer.token.clone().unwrap();
            assert_eq!((answer.outcome(), token.token_version), (outcome, version), "{mood:?}");
            let kept = world.ingestion().await.secret(&id).await == secret;
            assert_eq!(kept, outcome == Exchanged::AtCeiling || outcome == Exchanged::Shortened, "{mood:?}");
        }
        connector
            .exchange(&id)
            .await
            .unwrap_err()
            .is(Code::FailedPrecondition, Reason::ExchangeNotPossible)
            .says("connection_id", &id);
    }

    async fn a_short_lived_token_in_hand_is_exchanged_and_stored(world: World) {
        use token_vault_proto::v1::exchange_token_request::{NewToken, SubjectOfExchange};
        let new = NewToken {
            workspace_id: ACME.into(),
            provider: "meta".into(),
            access_token: world.person("ana").short_lived_token(),
        };
        let request = pb::ExchangeTokenRequest {
            subject_of_exchange: Some(SubjectOfExchange::NewToken(new)),
            ..Default::default()
        };
        let answer = world.connector().await.exchange_token(request).await.unwrap();
        assert_eq!(answer.outcome(), Exchanged::Extended);
        let id = answer.token.unwrap().connection_id;
        assert!(world.ingestion().await.fetch(&id).await.is_ok());
    }

    async fn validate_only_tells_all_and_keeps_nothing(world: World) {
        let ana = world.person("ana");
        let (connector, before) = (world.connector().await, world.database.contents().await);
        let ask = |token: &str| pb::StoreTokenRequest { validate_only: true, ..world.pasted(ACME, token) };
        let intake = connector.store_with(ask(&ana.long_lived_token())).await.unwrap();
        assert_eq!((intake.outcome(), intake.overall()), (Outcome::ValidatedOnly, Checked::Pass));
        let token = intake.token.unwrap();
        assert_eq!((token.connection_id.as_str(), token.subject.unwrap().id), ("", ana.id()));
        assert_eq!(world.database.contents().await, before);
        let id = connector.connect(ACME, &ana.long_lived_token()).await;
        let before = world.database.contents().await;
        let known = connector.store_with(ask(&ana.long_lived_token())).await.unwrap();
        assert_eq!(known.token.unwrap().connection_id, id);
        assert_eq!(world.database.contents().await, before);
    }

    async fn a_version_that_is_no_longer_held_is_refused(world: World) {
        let ana = world.person("ana");
        let connector = world.connector().await;
        let id = connector.connect(ACME, &ana.long_lived_token()).await;
        let newer = |version| pb::StoreTokenRequest {
            if_token_version: Some(version),
            ..world.pasted(ACME, &ana.long_lived_token())
        };
        connector
            .store_with(newer(7))
            .await
            .unwrap_err()
            .is(Code::Aborted, Reason::TokenVersionMismatch)
            .says("token_version", "1")
            .says("connection_id", &id);
        assert_eq!(connector.store_with(newer(1)).await.unwrap().token.unwrap().token_version, 2);
        let revoke =
            pb::RevokeTokenRequest { connection_id: id, if_token_version: Some(1), ..Default::default() };
        connector
            .revoke_token(revoke)
            .await
            .unwrap_err()
            .is(Code::Aborted, Reason::TokenVersionMismatch)
            .says("token_version", "2");
    }
}
