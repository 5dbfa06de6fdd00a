//! The second data call: the vault makes it by itself, and it alone condemns or heals.

use token_vault_proto::v1::token::Status;

use super::*;

const REFUSED: GraphError = error(190, Some(459), "x");

async fn doubted(world: &World) -> (String, String) {
    stand_still(world).await;
    let secret = world.person("ana").long_lived_token();
    let id = world.connector().await.connect(ACME, &secret).await;
    refuse_data(world, &secret, REFUSED);
    let first = report(&world.ingestion().await, &id, REFUSED).await;
    assert_eq!(said(&first), (Verdict::Unconfirmed, Advice::RetryAfter, true));
    (id, secret)
}

on_both_databases! {
    with |builder| builder.moving_time();

    async fn it_is_made_without_another_report(world: World) {
        let (id, _) = doubted(&world).await;
        world.advance(APART).await;
        waits_for(&world, &id, Kind::Invalidated).await;
        let token = world.admin().get(&id).await.unwrap();
        assert_eq!((token.status(), token.provider_code.as_str()), (Status::Invalid, "190/459"));
        assert_eq!(token.invalid_reason(), pb::RefusalReason::Checkpoint);
    }

    async fn it_is_made_by_another_process_if_the_first_one_was_killed(world: World) {
        let (id, _) = doubted(&world).await;
        world.kill();
        world.sandbox.clock().advance(APART);
        world.start_again();
        waits_for(&world, &id, Kind::Invalidated).await;
    }

    async fn one_bad_data_call_heals_without_an_event(world: World) {
        let (id, _) = doubted(&world).await;
        world.sandbox.clear_faults();
        let calls = world.sandbox.count(Endpoint::AdAccounts);
        world.advance(APART).await;
        eventually_async("the second call", LIMIT, async || {
            (world.sandbox.count(Endpoint::AdAccounts) > calls).then_some(())
        })
        .await;
        let doubts = "SELECT count(*) FROM ad_platform_connections WHERE data_refused_at IS NOT NULL";
        eventually_async("the doubt is gone", LIMIT, async || {
            (world.database.count(doubts).await == 0).then_some(())
        })
        .await;
        assert_eq!(kinds(&world, &id).await, [Kind::Connected]);
        // What was refused before counts no more.
        world.sandbox.fault(Fault::on(Endpoint::AdAccounts).with(REFUSED.fault()));
        let again = report(&world.ingestion().await, &id, REFUSED).await;
        assert_eq!(again.verdict(), Verdict::Unconfirmed);
        assert_eq!(again.token.unwrap().status(), Status::Active);
    }

    async fn reports_alone_change_nothing_however_many(world: World) {
        stand_still(&world).await;
        let id = world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
        let ingestion = world.ingestion().await;
        for code in [190, 200, 2, 190, 200, 2, 190, 2, 2, 2, 2, 2] {
            let answer = report(&ingestion, &id, error(code, None, "Permissions error")).await;
            assert_eq!(answer.advice(), Advice::RetryAfter, "{code}");
            assert_eq!(answer.token.unwrap().status(), Status::Active, "{code}");
            world.advance(APART).await;
        }
        assert!(ingestion.fetch(&id).await.is_ok());
        assert_eq!(kinds(&world, &id).await, [Kind::Connected]);
    }

    async fn a_new_secret_begins_without_doubt_and_the_same_one_does_not(world: World) {
        let (id, secret) = doubted(&world).await;
        world.advance(APART).await;
        waits_for(&world, &id, Kind::Invalidated).await;
        // Pasting the refused token again changes nothing: the inspector is not believed.
        let same = world.connector().await.store(ACME, &secret).await.unwrap();
        assert_eq!(same.token.unwrap().status(), Status::Invalid);
        assert_eq!(kinds(&world, &id).await, [Kind::Connected, Kind::Invalidated]);
        let other = world.connector().await.store(ACME, &world.person("ana").long_lived_token()).await.unwrap();
        assert_eq!(other.token.unwrap().status(), Status::Active);
        assert_eq!(kinds(&world, &id).await, [Kind::Connected, Kind::Invalidated, Kind::Restored]);
    }

    async fn a_validation_makes_data_calls_too(world: World) {
        stand_still(&world).await;
        let secret = world.person("ana").long_lived_token();
        let id = world.connector().await.connect(ACME, &secret).await;
        refuse_data(&world, &secret, REFUSED);
        let ingestion = world.ingestion().await;
        assert_eq!(ingestion.validate(&id).await.unwrap().token.unwrap().status(), Status::Active);
        world.advance(APART).await;
        let again = ingestion.validate(&id).await.unwrap();
        assert_eq!(again.overall(), pb::check::Result::Fail);
        assert_eq!(again.token.unwrap().status(), Status::Invalid);
        // Checks that make no data call don't acquit it.
        let request = pb::ValidateTokenRequest {
            connection_id: id.clone(),
            checks: vec!["token_accepted".into()],
            ..Default::default()
        };
        let only = ingestion.validate_token(request.clone()).await.unwrap();
        assert_eq!(only.token.unwrap().status(), Status::Invalid);
        world.sandbox.clear_faults();
        assert_eq!(ingestion.validate_token(request).await.unwrap().token.unwrap().status(), Status::Active);
        assert_eq!(kinds(&world, &id).await, [Kind::Connected, Kind::Invalidated, Kind::Restored]);
    }

    async fn the_daily_pass_finds_what_nobody_reported(world: World) {
        stand_still(&world).await;
        let secret = world.person("ana").long_lived_token();
        let id = world.connector().await.connect(ACME, &secret).await;
        refuse_data(&world, &secret, REFUSED);
        world.advance(Duration::from_secs(86_400)).await;
        eventually_async("the first call", LIMIT, async || {
            let doubts = "SELECT count(*) FROM ad_platform_connections WHERE data_refused_at IS NOT NULL";
            (world.database.count(doubts).await == 1).then_some(())
        })
        .await;
        world.advance(APART).await;
        waits_for(&world, &id, Kind::Invalidated).await;
    }
}
