//! Faults between the vault and the provider: stored tokens keep working, and the vault does not guess.

use std::time::{Duration, Instant};

use token_vault_proto::v1::check::Result as Checked;
use token_vault_proto::v1::expiry::{Kind as End, Source};
use token_vault_proto::v1::token::Status;
use token_vault_sandbox::ExchangeMood;
use token_vault_tests::Contents;
use token_vault_tests::prelude::*;

/// One connection, its secret, and everything that is stored.
pub(crate) async fn furnished(world: &World) -> (String, String, Contents) {
    let id = world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
    let secret = world.ingestion().await.secret(&id).await;
    (id, secret, world.database.contents().await)
}

/// Stores a short-lived token while the provider has a fault. Nothing may change.
pub(crate) async fn refused(
    world: &World,
    held: &(String, String, Contents),
    fault: Fault,
    case: &str,
) -> Denial {
    world.sandbox.fault(fault);
    let short = world.person("ana").short_lived_token();
    let outcome = world.connector().await.store(ACME, &short).await;
    world.sandbox.clear_faults();
    let refusal = outcome.expect_err(case);
    assert_eq!(world.database.contents().await, held.2, "{case} changed something");
    assert_eq!(world.ingestion().await.secret(&held.0).await, held.1, "{case}: the old token stays");
    refusal
}

on_both_databases! {
    async fn replies_that_are_no_answer_are_an_outage_and_change_nothing(world: World) {
        let held = furnished(&world).await;
        let stolen = format!("{}/stolen", world.sandbox.url());
        let kinds = || {
            [
                FaultKind::Html { status: 200 },
                FaultKind::Html { status: 400 },
                FaultKind::Html { status: 500 },
                FaultKind::Html { status: 503 },
                FaultKind::Text { status: 429, text: "slow down".into() },
                FaultKind::EmptyBody,
                FaultKind::BodyFalse,
                FaultKind::BodyTrue,
                FaultKind::ErrorAsString,
                FaultKind::Truncated,
                FaultKind::Reset,
                FaultKind::ResetAfter,
                FaultKind::ResetMidBody,
                FaultKind::OversizedBody(16 << 20),
                FaultKind::Redirect(stolen.clone()),
            ]
        };
        for endpoint in [Endpoint::DebugToken, Endpoint::OauthAccessToken] {
            for kind in kinds() {
                let case = format!("{kind:?} at {endpoint:?}");
                let start = Instant::now();
                let no = refused(
                    &world,
                    &held,
                    Fault::on(endpoint).always().with(kind),
                    &case[..case.len().min(80)],
                )
                .await;
                no.is(Code::Unavailable, Reason::ProviderUnavailable).has_retry();
                assert!(start.elapsed() < Duration::from_secs(25), "{case}");
            }
        }
        assert!(
            world.sandbox.requests().iter().all(|request| !request.path.contains("stolen")),
            "a redirect was followed"
        );
    }

    async fn a_stumble_is_retried(world: World) {
        let connector = world.connector().await;
        let kinds = [
            FaultKind::Reset,
            FaultKind::Html { status: 502 },
            FaultKind::error(503, 2),
            FaultKind::Truncated,
        ];
        for kind in kinds {
            world.sandbox.fault(Fault::on(Endpoint::DebugToken).with(kind.clone()));
            let stored = connector.store(ACME, &world.person("ana").short_lived_token()).await;
            assert!(stored.is_ok(), "{kind:?}: {stored:?}");
        }
    }

    async fn harmless_oddities_are_understood(world: World) {
        let connector = world.connector().await;
        let kinds = [
            FaultKind::WrongContentType,
            FaultKind::NoContentType,
            FaultKind::Gzip,
            FaultKind::UnknownKeys,
            FaultKind::SlowBody(Duration::from_millis(300)),
        ];
        for kind in kinds {
            world.sandbox.fault(Fault::on(Endpoint::Any).times(9).with(kind.clone()));
            let stored = connector.store(ACME, &world.person("ana").short_lived_token()).await;
            world.sandbox.clear_faults();
            assert!(stored.is_ok(), "{kind:?}: {stored:?}");
        }
    }

    async fn twenty_seconds_of_silence_are_an_outage_in_bounded_time(world: World) {
        let held = furnished(&world).await;
        let start = Instant::now();
        let silence =
            Fault::on(Endpoint::DebugToken).always().with(FaultKind::StallFirstByte(Duration::from_secs(20)));
        let no = refused(&world, &held, silence, "silence").await;
        no.is(Code::Unavailable, Reason::ProviderUnavailable).has_retry();
        assert!(start.elapsed() <= Duration::from_secs(25), "it took {:?}", start.elapsed());
    }

    async fn a_missing_expires_in_is_asked_for_and_never_guessed_at_first(world: World) {
        let connector = world.connector().await;
        world.sandbox.set_mood(ExchangeMood::NoExpiresIn);
        let ana = world.person("ana").short_lived_token();
        let expiry = connector.store(ACME, &ana).await.unwrap().token.unwrap().expiry.unwrap();
        assert_eq!((expiry.kind(), expiry.source()), (End::At, Source::Provider));

        let silent = FaultKind::Set("/data/expires_at".into(), serde_json::Value::Null);
        world.sandbox.fault(Fault::on(Endpoint::DebugToken).after(1).always().with(silent.clone()));
        let expiry = connector
            .store(ACME, &world.person("bob").short_lived_token())
            .await
            .unwrap()
            .token
            .unwrap()
            .expiry
            .unwrap();
        assert_eq!((expiry.kind(), expiry.source()), (End::At, Source::Assumed));
        world.sandbox.clear_faults();

        world.sandbox.set_mood(ExchangeMood::SameDay);
        world.sandbox.fault(Fault::on(Endpoint::DebugToken).after(1).always().with(silent));
        let expiry = connector
            .store(ACME, &world.person("eve").short_lived_token())
            .await
            .unwrap()
            .token
            .unwrap()
            .expiry
            .unwrap();
        assert_eq!((expiry.kind(), expiry.source()), (End::At, Source::Reply));
    }

    async fn an_end_of_zero_is_never(world: World) {
        world.sandbox.set_mood(ExchangeMood::BecomesNever);
        let token = world
            .connector()
            .await
            .store(ACME, &world.person("ana").short_lived_token())
            .await
            .unwrap()
            .token
            .unwrap();
        assert_eq!((token.expiry.unwrap().kind(), token.usable), (End::Never, true));
    }

    async fn an_exchange_that_gives_the_same_token_back_stores_nothing(world: World) {
        let held = furnished(&world).await;
        world.sandbox.set_mood(ExchangeMood::SameString);
        let no =
            world.connector().await.store(ACME, &world.person("ana").short_lived_token()).await.unwrap_err();
        no.is(Code::FailedPrecondition, Reason::ExchangeNotPossible);
        assert_eq!(world.database.contents().await, held.2);
        assert_eq!(world.ingestion().await.secret(&held.0).await, held.1);
    }

    async fn an_exchange_that_gives_somebody_elses_token_stores_nothing(world: World) {
        let held = furnished(&world).await;
        let other = FaultKind::Subject(Some("4242424242".into()));
        let no = refused(
            &world,
            &held,
            Fault::on(Endpoint::DebugToken).after(1).always().with(other),
            "another subject",
        )
        .await;
        no.is(Code::FailedPrecondition, Reason::SubjectMismatch).says("subject_id", "4242424242");
    }

    async fn after_the_commit_trouble_shows_in_the_checks_only(world: World) {
        let connector = world.connector().await;
        world.sandbox.fault(Fault::on(Endpoint::Insights).always().with(FaultKind::error(503, 2)));
        let intake = connector.store(ACME, &world.person("ana").short_lived_token()).await.unwrap();
        let smoke = intake.checks.iter().find(|check| check.name == "smoke_test").unwrap();
        assert_eq!((smoke.result(), intake.token.unwrap().usable), (Checked::Unknown, true));
        world.sandbox.clear_faults();

        // It dies between the inspection and the smoke test: it is stored as invalid.
        world.sandbox.fault(Fault::on(Endpoint::AdAccounts).with(FaultKind::ThenKill(Some(460))));
        let intake = connector.store(ACME, &world.person("bob").short_lived_token()).await.unwrap();
        let token = intake.token.clone().unwrap();
        assert_eq!(
            (intake.overall(), token.status()),
            (Checked::Fail, Status::Invalid),
            "{:#?}",
            intake.checks
        );
        assert_eq!(token.invalid_reason(), pb::RefusalReason::PasswordChanged);

        // A single refusal does not invalidate a token if the provider does not repeat it.
        world.sandbox.fault(Fault::on(Endpoint::Insights).with(FaultKind::error_with_subcode(400, 190, 460)));
        let intake = connector.store(ACME, &world.person("eve").short_lived_token()).await.unwrap();
        assert_eq!(intake.token.unwrap().status(), Status::Active);
    }

    async fn every_page_of_ad_accounts_is_read(world: World) {
        let ana = world.person("ana").with_ad_accounts(230).empty_page(2);
        let intake = world.connector().await.store(ACME, &ana.short_lived_token()).await.unwrap();
        assert_eq!(intake.token.unwrap().ad_account_count, 230);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_app_secret_can_be_rolled_without_a_pause() {
    let world = World::builder(Backend::Sqlite).prepare().await;
    let (old, new) = (world.folder().join("app.secret"), world.folder().join("app.secret.new"));
    let secret = "ab".repeat(16);
    token_vault_tests::certificates::replace(&new, &secret);
    world.know("new app secret", &secret);
    let files = format!("[{new:?}, {old:?}]");
    let launch = world.launch().env("TOKEN_VAULT__PROVIDERS__META__APP_SECRET_FILES", files);
    world.try_start_as(&launch).expect("two secrets are fine");
    let connector = world.connector().await;
    connector.connect(ACME, &world.person("ana").short_lived_token()).await;
    world.sandbox.roll_app_secret(&world.sandbox.app().id, &secret);
    connector.connect(ACME, &world.person("bob").short_lived_token()).await;
}
