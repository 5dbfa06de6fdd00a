//! `request_id`: a repeated request is carried out once.

use std::time::Duration;

use token_vault_proto::v1::create_api_key_request::Workspaces;
use token_vault_proto::v1::intake_result::Outcome;
use token_vault_tests::prelude::*;
use token_vault_tests::{eventually, eventually_async, request_id};

const PATIENCE: Duration = Duration::from_secs(60);

on_both_databases! {
    async fn a_repeat_gets_the_first_answer_and_does_nothing(world: World) {
        let connector = world.connector().await;
        let token = world.person("ana").short_lived_token();
        let request = pb::StoreTokenRequest { request_id: request_id(), ..world.pasted(ACME, &token) };
        let first = connector.store_with(request.clone()).await.unwrap();
        let before = world.database.contents().await;
        world.sandbox.clear_requests();
        let again = connector.store_with(request.clone()).await.unwrap();
        assert_eq!((again.outcome(), first.outcome()), (Outcome::Created, Outcome::Created));
        assert_eq!(again.token.unwrap().connection_id, first.token.unwrap().connection_id);
        assert_eq!(world.database.contents().await, before);
        assert_eq!(world.sandbox.count(Endpoint::Any), 0, "the provider was asked again");
        world.restart();
        assert_eq!(world.connector().await.store_with(request).await.unwrap().outcome(), Outcome::Created);
    }

    async fn the_same_id_with_other_content_is_refused(world: World) {
        let connector = world.connector().await;
        let id = request_id();
        let request = pb::StoreTokenRequest {
            request_id: id.clone(),
            ..world.pasted(ACME, &world.person("ana").short_lived_token())
        };
        connector.store_with(request.clone()).await.unwrap();
        let before = world.database.contents().await;
        let others = [
            world.pasted(ACME, &world.person("bob").short_lived_token()),
            pb::StoreTokenRequest { workspace_id: "globex".into(), ..request.clone() },
            pb::StoreTokenRequest {
                options: Some(pb::IntakeOptions { allow_fewer_scopes: true, ..Default::default() }),
                ..request.clone()
            },
        ];
        for other in others {
            let other = pb::StoreTokenRequest { request_id: id.clone(), ..other };
            let no = connector.store_with(other).await.unwrap_err();
            no.is(Code::InvalidArgument, Reason::RequestIdReused).field("request_id").says("request_id", &id);
            assert_eq!(world.database.contents().await, before);
        }
        let elsewhere = world.caller(Role::Connector, &[ACME]).await;
        assert!(elsewhere.store_with(request).await.is_ok(), "another principal's ids are its own");
    }

    async fn a_twin_in_flight_is_told_to_wait(world: World) {
        let connector = world.connector().await;
        let slow = Fault::on(Endpoint::DebugToken).with(FaultKind::StallFirstByte(Duration::from_secs(3)));
        world.sandbox.fault(slow);
        let id = request_id();
        let request = pb::StoreTokenRequest {
            request_id: id.clone(),
            ..world.pasted(ACME, &world.person("ana").short_lived_token())
        };
        let (twin, first) = (connector.clone(), request.clone());
        let running = tokio::spawn(async move { twin.store_with(first).await });
        eventually("the provider is being asked", PATIENCE, || world.sandbox.count(Endpoint::DebugToken) > 0);
        connector
            .store_with(request.clone())
            .await
            .unwrap_err()
            .is(Code::Aborted, Reason::RequestInProgress)
            .has_retry()
            .says("request_id", &id);
        let done = running.await.unwrap().unwrap().token.unwrap().connection_id;
        assert_eq!(connector.store_with(request).await.unwrap().token.unwrap().connection_id, done);
    }

    async fn a_failed_request_may_be_tried_again_under_its_id(world: World) {
        let connector = world.connector().await;
        let request = pb::StoreTokenRequest {
            request_id: request_id(),
            ..world.pasted(ACME, &world.person("ana").short_lived_token())
        };
        world.sandbox.fault(Fault::on(Endpoint::DebugToken).always().with(FaultKind::error(400, 4)));
        connector
            .store_with(request.clone())
            .await
            .unwrap_err()
            .is(Code::ResourceExhausted, Reason::ProviderThrottled);
        world.sandbox.clear_faults();
        assert_eq!(connector.store_with(request).await.unwrap().outcome(), Outcome::Created);
    }

    async fn a_repeat_after_a_crash_in_the_middle_succeeds(world: World) {
        let connector = world.connector().await;
        let silence =
            Fault::on(Endpoint::OauthAccessToken).with(FaultKind::StallFirstByte(Duration::from_secs(60)));
        world.sandbox.fault(silence);
        let request = pb::StoreTokenRequest {
            request_id: request_id(),
            ..world.pasted(ACME, &world.person("ana").short_lived_token())
        };
        let (twin, first) = (connector.clone(), request.clone());
        let running = tokio::spawn(async move { twin.store_with(first).await });
        eventually("the exchange is under way", PATIENCE, || {
            world.sandbox.count(Endpoint::OauthAccessToken) > 0
        });
        world.kill();
        running.await.unwrap().unwrap_err();
        world.sandbox.clear_faults();
        world.start_again();
        let connector = world.connector().await;
        let intake = eventually_async("the dead process's claim is taken over", PATIENCE, || async {
            match connector.store_with(request.clone()).await {
                Ok(intake) => Some(intake),
                Err(refusal) => {
                    refusal.is(Code::Aborted, Reason::RequestInProgress);
                    None
                }
            }
        })
        .await;
        assert_eq!(intake.outcome(), Outcome::Created);
        assert_eq!(world.database.count("SELECT count(*) FROM ad_platform_connections").await, 1);
    }

    async fn a_caller_that_hangs_up_loses_nothing(world: World) {
        let connector = world.connector().await;
        world.sandbox.fault(
            Fault::on(Endpoint::OauthAccessToken).with(FaultKind::StallFirstByte(Duration::from_secs(2))),
        );
        let request = pb::StoreTokenRequest {
            request_id: request_id(),
            ..world.pasted(ACME, &world.person("ana").short_lived_token())
        };
        let (twin, first) = (connector.clone(), request.clone());
        let running = tokio::spawn(async move { twin.store_with(first).await });
        eventually("the exchange is under way", PATIENCE, || {
            world.sandbox.count(Endpoint::OauthAccessToken) > 0
        });
        running.abort();
        eventually_async("the work is done all the same", PATIENCE, || async {
            (world.database.count("SELECT count(*) FROM connection_secrets").await == 1).then_some(())
        })
        .await;
        assert_eq!(connector.store_with(request).await.unwrap().outcome(), Outcome::Created);
    }

    async fn exchanges_revocations_and_keys_are_done_once_too(world: World) {
        let connector = world.connector().await;
        let id = connector.connect(ACME, &world.person("ana").long_lived_token()).await;
        world.sandbox.set_mood(token_vault_sandbox::ExchangeMood::Extends);
        world.sandbox.clock().advance(Duration::from_secs(600));
        let subject = pb::exchange_token_request::SubjectOfExchange::ConnectionId(id.clone());
        let exchange = pb::ExchangeTokenRequest {
            subject_of_exchange: Some(subject),
            request_id: request_id(),
            ..Default::default()
        };
        let first = connector.exchange_token(exchange.clone()).await.unwrap();
        let again = connector.exchange_token(exchange).await.unwrap();
        assert_eq!(
            (again.outcome(), again.token.unwrap().token_version),
            (first.outcome(), first.token.unwrap().token_version)
        );
        assert_eq!(again.previous_expiry.unwrap().at, first.previous_expiry.unwrap().at);

        let revoke = pb::RevokeTokenRequest {
            connection_id: id,
            revoke_at_provider: true,
            request_id: request_id(),
            ..Default::default()
        };
        let first = connector.revoke_token(revoke.clone()).await.unwrap();
        let again = connector.revoke_token(revoke).await.unwrap();
        assert_eq!(
            (again.provider_outcome(), again.token.unwrap().revoked_at),
            (first.provider_outcome(), first.token.unwrap().revoked_at)
        );

        let create = pb::CreateApiKeyRequest {
            principal: "once".into(),
            role: Role::Viewer.into(),
            workspaces: Some(Workspaces::AllWorkspaces(true)),
            request_id: request_id(),
            ..Default::default()
        };
        let first = world.admin().create_api_key(create.clone()).await.unwrap();
        world.know("API key", &first.key);
        let again = world.admin().create_api_key(create).await.unwrap();
        assert_eq!((again.key.as_str(), again.api_key.unwrap().key_id), ("", first.api_key.unwrap().key_id));
    }
}
