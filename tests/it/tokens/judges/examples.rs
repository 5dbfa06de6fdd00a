//! What was seen in the field: refusals that the inspector does not know of.

use token_vault_proto::v1::expiry_event::Detail;
use token_vault_proto::v1::token::Status;
use token_vault_proto::v1::{RefusalReason, Severity};

use super::*;

/// Three reports, eleven seconds apart, of a token that the inspector calls valid and every data call refuses: it falls
/// with the second call, and comes back when the calls work again.
async fn falls_and_comes_back(world: &World, error: GraphError, reason: RefusalReason) {
    stand_still(world).await;
    let (connector, ingestion) = (world.connector().await, world.ingestion().await);
    let secret = world.person("ana").long_lived_token();
    let id = connector.connect(ACME, &secret).await;
    refuse_data(world, &secret, error);

    let first = report(&ingestion, &id, error).await;
    assert_eq!(said(&first), (Verdict::Unconfirmed, Advice::RetryAfter, true));
    let token = first.token.unwrap();
    assert_eq!((token.status(), token.usable), (Status::Active, true), "one refusal changes nothing");
    assert_eq!(kinds(world, &id).await, [Kind::Connected]);
    assert!(ingestion.fetch(&id).await.is_ok());

    world.advance(APART).await;
    let second = report(&ingestion, &id, error).await;
    // The vault makes the second call by itself, so it may know already.
    assert!(matches!(second.verdict(), Verdict::Invalidated | Verdict::AlreadyDead), "{second:?}");
    assert_eq!(second.advice(), Advice::Pause);
    let token = second.token.unwrap();
    assert_eq!((token.status(), token.invalid_reason()), (Status::Invalid, reason));
    assert_eq!(token.badge.unwrap().color(), pb::token::badge::Color::Red);
    ingestion.fetch(&id).await.unwrap_err().is(Code::FailedPrecondition, Reason::TokenInvalid);

    world.advance(APART).await;
    assert_eq!(said(&report(&ingestion, &id, error).await), (Verdict::AlreadyDead, Advice::Pause, false));
    assert_eq!(kinds(world, &id).await, [Kind::Connected, Kind::Invalidated]);

    world.sandbox.clear_faults();
    world.advance(Duration::from_secs(3_700)).await;
    waits_for(world, &id, Kind::Restored).await;
    assert_eq!(kinds(world, &id).await, [Kind::Connected, Kind::Invalidated, Kind::Restored]);
    assert!(ingestion.fetch(&id).await.is_ok());
}

on_both_databases! {
    with |builder| builder.moving_time();

    async fn data_calls_refused_with_190_459_while_the_inspector_says_valid(world: World) {
        falls_and_comes_back(&world, error(190, Some(459), "x"), RefusalReason::Checkpoint).await;
    }

    async fn data_calls_refused_with_190_460_while_the_inspector_says_valid(world: World) {
        falls_and_comes_back(&world, error(190, Some(460), "x"), RefusalReason::PasswordChanged).await;
    }

    async fn data_calls_refused_with_190_493_while_the_inspector_says_valid(world: World) {
        falls_and_comes_back(&world, error(190, Some(493), "x"), RefusalReason::DataAccessLapsed).await;
    }

    async fn data_calls_refused_for_a_permission_while_the_inspector_says_valid(world: World) {
        let missing = error(200, None, "(#200) Requires ads_read permission");
        falls_and_comes_back(&world, missing, RefusalReason::PermissionRefused).await;
    }

    async fn twelve_reports_of_code_2_make_the_vault_ask_the_inspector_about_a_dead_token(world: World) {
        stand_still(&world).await;
        let (ana, ingestion) = (world.person("ana"), world.ingestion().await);
        let id = world.connector().await.connect(ACME, &ana.long_lived_token()).await;
        ana.changes_password();
        let away = error(2, None, "Service temporarily unavailable");
        let mut verdicts = Vec::new();
        for _ in 0..12 {
            verdicts.push(said(&report(&ingestion, &id, away).await));
        }
        assert_eq!(verdicts[..4], [(Verdict::Transient, Advice::RetryAfter, true); 4]);
        assert_eq!(verdicts[4], (Verdict::Invalidated, Advice::Pause, false));
        assert_eq!(verdicts[5..], [(Verdict::AlreadyDead, Advice::Pause, false); 7]);
        assert_eq!(kinds(&world, &id).await, [Kind::Connected, Kind::Invalidated]);
    }

    async fn reports_of_code_2_are_counted_over_all_callers_for_ten_minutes(world: World) {
        stand_still(&world).await;
        let ana = world.person("ana");
        let id = world.connector().await.connect(ACME, &ana.long_lived_token()).await;
        let away = error(2, None, "Service temporarily unavailable");
        let (one, other) = (world.ingestion().await, world.admin());
        let looks = || world.sandbox.count(Endpoint::DebugToken);
        let before = looks();
        for n in 0..12 {
            let caller = if n % 2 == 0 { &one } else { &other };
            report(caller, &id, away).await;
            world.advance(Duration::from_secs(151)).await;
        }
        assert_eq!(looks(), before, "four in ten minutes are not enough");
        report(&one, &id, away).await;
        world.restart();
        report(&world.admin(), &id, away).await;
        assert_eq!(looks(), before + 1, "the third, fourth and fifth of ten minutes make the vault look");
    }

    async fn a_permission_that_was_just_declined_is_in_the_feed_with_the_answer_to_the_report(world: World) {
        stand_still(&world).await;
        let (ana, ingestion) = (world.person("ana"), world.ingestion().await);
        let id = world.connector().await.connect(ACME, &ana.long_lived_token()).await;
        ana.declines(["ads_read"]);
        let answer = report(&ingestion, &id, error(200, None, "(#200) Requires ads_read permission")).await;
        assert_eq!(said(&answer), (Verdict::Permission, Advice::Pause, false));
        assert_eq!(answer.token.unwrap().missing_required_scopes, ["ads_read"]);
        let feed = world.admin().watch_all().await;
        let lost = feed.first(&id, Kind::ScopesChanged).await;
        assert_eq!(lost.severity(), Severity::Critical);
        let Some(Detail::Changed(changed)) = lost.detail else { panic!("{lost:?}") };
        assert_eq!((changed.added.len(), changed.removed), (0, vec!["ads_read".to_owned()]));
        assert_eq!(kinds(&world, &id).await, [Kind::Connected, Kind::ScopesChanged]);

        // The pause ends with an event.
        ana.grants(["ads_read"]);
        ingestion.validate(&id).await.unwrap();
        let events = kinds(&world, &id).await;
        assert_eq!(events, [Kind::Connected, Kind::ScopesChanged, Kind::ScopesChanged]);
    }

    async fn one_ad_account_is_skipped_whatever_scope_that_it_does_not_need_is_gone(world: World) {
        stand_still(&world).await;
        let (ana, ingestion) = (world.person("ana"), world.ingestion().await);
        ana.grants(["business_management"]);
        let id = world.connector().await.connect(ACME, &ana.long_lived_token()).await;
        ana.declines(["business_management"]);
        ingestion.validate(&id).await.unwrap();
        assert_eq!(kinds(&world, &id).await, [Kind::Connected, Kind::ScopesChanged]);
        for (message, advice) in [
            ("(#200) Ad account owner has NOT grant ads_management or ads_read permission", Advice::SkipAdAccount),
            ("(#200) The user may not read this ad account", Advice::SkipAdAccount),
            ("(#200) Requires business_management permission to manage the object", Advice::Pause),
        ] {
            let request = pb::ReportTokenErrorRequest {
                connection_id: id.clone(),
                token_version: Some(1),
                http_status: 400,
                body: error(200, None, message).body(),
                ad_account_id: Some("act_1".into()),
                ..Default::default()
            };
            let answer = ingestion.report_token_error(request).await.unwrap();
            assert_eq!((answer.verdict(), answer.advice()), (Verdict::Permission, advice), "{message}");
        }
    }

    async fn a_token_that_lacks_a_permission_by_choice_is_not_condemned_for_it(world: World) {
        stand_still(&world).await;
        let ana = world.person("ana").declines(["ads_read", "ads_management"]);
        let request = pb::StoreTokenRequest {
            workspace_id: ACME.into(),
            provider: "meta".into(),
            credential: Some(pb::store_token_request::Credential::AccessToken(ana.long_lived_token())),
            options: Some(pb::IntakeOptions { allow_missing_scopes: true, ..Default::default() }),
            ..Default::default()
        };
        let token = world.connector().await.store_with(request).await.unwrap().token.unwrap();
        let ingestion = world.ingestion().await;
        for _ in 0..3 {
            let missing = error(200, None, "(#200) Requires ads_read permission");
            let answer = report(&ingestion, &token.connection_id, missing).await;
            assert_eq!(said(&answer), (Verdict::Permission, Advice::Pause, false));
            world.advance(APART).await;
        }
        assert!(ingestion.fetch(&token.connection_id).await.is_ok());
        assert_eq!(kinds(&world, &token.connection_id).await, [Kind::Connected]);
    }
}
