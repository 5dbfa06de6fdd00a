//! How tokens end: by a verdict of the provider, by time, and on purpose.

use token_vault_proto::v1::intake_result::Outcome;
use token_vault_proto::v1::report_token_error_response::{Advice, Verdict};
use token_vault_proto::v1::revoke_token_response::ProviderOutcome;
use token_vault_proto::v1::token::Status;
use token_vault_tests::eventually_async;
use token_vault_tests::prelude::*;

on_both_databases! {
    async fn a_dead_token_is_refused_with_its_reason_and_restored_by_a_new_one(world: World) {
        let ana = world.person("ana");
        let (connector, ingestion) = (world.connector().await, world.ingestion().await);
        let id = connector.connect(ACME, &ana.short_lived_token()).await;
        ana.changes_password();
        let body = r#"{"error":{"message":"x","type":"OAuthException","code":190,"error_subcode":460}}"#;
        let report = ingestion.report(&id, 1, 400, body).await.unwrap();
        assert_eq!((report.verdict(), report.advice()), (Verdict::Invalidated, Advice::Pause));
        let token = report.token.unwrap();
        assert_eq!((token.status(), token.usable), (Status::Invalid, false));
        assert_eq!(token.invalid_reason(), pb::RefusalReason::PasswordChanged);
        assert_eq!(token.provider_code, "190/460");
        assert_eq!(token.badge.unwrap().color(), pb::token::badge::Color::Red);
        ingestion
            .fetch(&id)
            .await
            .unwrap_err()
            .is(Code::FailedPrecondition, Reason::TokenInvalid)
            .says("refusal", "PASSWORD_CHANGED")
            .says("provider_code", "190/460")
            .says("connection_id", &id)
            .says("token_version", "1")
            .says("fixer", "WORKSPACE_OWNER");
        let again = ingestion.report(&id, 1, 400, body).await.unwrap();
        assert_eq!(again.verdict(), Verdict::AlreadyDead);

        let intake = connector.store(ACME, &ana.short_lived_token()).await.unwrap();
        let token = intake.token.clone().unwrap();
        assert_eq!(intake.outcome(), Outcome::Restored);
        assert_eq!((token.connection_id.as_str(), token.token_version, token.usable), (id.as_str(), 2, true));
        assert!(ingestion.fetch(&id).await.is_ok());
        let late = ingestion.report(&id, 1, 400, body).await.unwrap();
        assert_eq!((late.verdict(), late.advice()), (Verdict::StaleReport, Advice::FetchAgain));
        assert!(ingestion.fetch(&id).await.is_ok(), "a stale report harms nobody");
    }

    async fn a_refusal_that_the_provider_does_not_confirm_changes_nothing(world: World) {
        let id = world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
        let body =
            r#"{"error":{"message":"Invalid OAuth access token.","type":"OAuthException","code":190}}"#;
        let report = world.ingestion().await.report(&id, 1, 400, body).await.unwrap();
        assert_eq!((report.verdict(), report.advice()), (Verdict::StillValid, Advice::RetryAfter));
        assert!(world.ingestion().await.fetch(&id).await.is_ok());
    }

    async fn a_death_in_one_workspace_is_looked_for_in_the_others(world: World) {
        let ana = world.person("ana");
        let connector = world.connector().await;
        let here = connector.connect(ACME, &ana.long_lived_token()).await;
        let there = connector.connect("globex", &ana.long_lived_token()).await;
        world.nothing_is_due().await;
        ana.removes_app();
        let body = r#"{"error":{"message":"x","type":"OAuthException","code":190,"error_subcode":458}}"#;
        let report = world.ingestion().await.report(&here, 1, 400, body).await.unwrap();
        assert_eq!(report.verdict(), Verdict::Invalidated);
        let limit = std::time::Duration::from_secs(60);
        let other = eventually_async("the other connection is found dead", limit, || async {
            Some(connector.get(&there).await.unwrap()).filter(|token| token.status() == Status::Invalid)
        })
        .await;
        assert_eq!(other.invalid_reason(), pb::RefusalReason::AppRemoved);
    }

    async fn an_expired_token_is_refused_and_says_since_when(world: World) {
        let long = world.person("ana").long_lived_token();
        let id = world.connector().await.connect(ACME, &long).await;
        world.sandbox.expires_at(&long, world.sandbox.clock().now() + 5);
        let token = world.ingestion().await.validate(&id).await.unwrap().token.unwrap();
        assert_eq!((token.status(), token.usable), (Status::Expiring, true));
        let limit = std::time::Duration::from_secs(60);
        let refusal = eventually_async("the token expires", limit, || async {
            world.ingestion().await.fetch(&id).await.err()
        })
        .await;
        refusal
            .is(Code::FailedPrecondition, Reason::TokenExpired)
            .says("connection_id", &id)
            .says("token_version", "1");
        assert!(refusal.fact("expired_at").is_some_and(|at| at.ends_with('Z')), "{refusal:?}");
        let token = world.viewer().await.get(&id).await.unwrap();
        assert_eq!((token.status(), token.badge.unwrap().text.as_str()), (Status::Expired, "Token expired"));
    }

    async fn revoking_destroys_the_secret_and_keeps_the_tombstone(world: World) {
        let ana = world.person("ana");
        let connector = world.connector().await;
        let id = connector.connect(ACME, &ana.long_lived_token()).await;
        let answer = connector.revoke(&id).await.unwrap();
        assert_eq!(answer.provider_outcome(), ProviderOutcome::NotAsked);
        let token = answer.token.unwrap();
        assert_eq!((token.status(), token.usable, token.fingerprint.as_str()), (Status::Revoked, false, ""));
        assert!(token.revoked_at.is_some());
        world
            .ingestion()
            .await
            .fetch(&id)
            .await
            .unwrap_err()
            .is(Code::FailedPrecondition, Reason::TokenRevoked)
            .says("connection_id", &id);
        assert_eq!(world.database.count("SELECT count(*) FROM connection_secrets").await, 0);
        assert_eq!(world.database.count("SELECT count(*) FROM ad_platform_connections").await, 1);
        assert_eq!(connector.get(&id).await.unwrap().status(), Status::Revoked);
        assert_eq!(connector.revoke(&id).await.unwrap().token.unwrap().status(), Status::Revoked);
        let back = connector.store(ACME, &ana.long_lived_token()).await.unwrap();
        assert_eq!((back.outcome(), back.token.unwrap().connection_id), (Outcome::Restored, id));
    }

    async fn revoking_at_the_provider_spares_shared_tokens_unless_allowed(world: World) {
        let ana = world.person("ana");
        let connector = world.connector().await;
        let here = connector.connect(ACME, &ana.long_lived_token()).await;
        connector.connect("globex", &ana.long_lived_token()).await;
        let ask = |allow_shared| pb::RevokeTokenRequest {
            connection_id: here.clone(),
            revoke_at_provider: true,
            allow_shared,
            ..Default::default()
        };
        world.nothing_is_due().await;
        let before = world.database.contents().await;
        connector
            .revoke_token(ask(false))
            .await
            .unwrap_err()
            .is(Code::FailedPrecondition, Reason::TokenShared)
            .says("shared_connections", "1")
            .says("connection_id", &here);
        assert_eq!(world.database.contents().await, before);
        let answer = connector.revoke_token(ask(true)).await.unwrap();
        assert_eq!(answer.provider_outcome(), ProviderOutcome::Revoked);
        connector.store("initech", &ana.long_lived_token()).await.expect("a new consent works");
    }

    async fn revoking_at_the_provider_ends_all_that_share_the_grant_within_seconds(world: World) {
        let (ana, ben) = (world.person("ana"), world.person("ben"));
        ana.page("Shop");
        ana.page("Blog");
        let (connector, viewer) = (world.connector().await, world.viewer().await);
        let feed = viewer.watch_all().await;
        let with_pages = async |workspace: &str| {
            let options = pb::IntakeOptions { connect_pages: true, ..Default::default() };
            let pasted = world.pasted(workspace, &ana.long_lived_token());
            let request = pb::StoreTokenRequest { options: Some(options), ..pasted };
            let stored = connector.store_with(request).await.expect("the token is good");
            (stored.token.expect("a token").connection_id, stored.page_connection_ids)
        };
        let (here, own_pages) = with_pages(ACME).await;
        let (there, their_pages) = with_pages("globex").await;
        let third = connector.connect("initech", &ana.long_lived_token()).await;
        let unrelated = connector.connect(ACME, &ben.long_lived_token()).await;
        let shared = async |id: &str| viewer.get(id).await.unwrap().shared_connections;
        assert_eq!((own_pages.len(), their_pages.len()), (2, 2));
        assert_eq!(shared(&here).await, 6, "two of the same person, and four pages");
        assert_eq!(shared(&own_pages[0]).await, 1, "the same page elsewhere");
        assert_eq!(shared(&unrelated).await, 0);
        let listed = viewer.list().await.unwrap().tokens;
        let snapshot = viewer.watch_snapshot().await.snapshot().await;
        for token in listed.iter().chain(&snapshot) {
            let counted = shared(&token.connection_id).await;
            assert_eq!(token.shared_connections, counted, "a list counts like GetToken");
        }

        let ask = |allow_shared| pb::RevokeTokenRequest {
            connection_id: here.clone(),
            revoke_at_provider: true,
            allow_shared,
            // Its own pages are found all the same.
            erase_subject: true,
            ..Default::default()
        };
        let limited = world.caller(Role::Connector, &[ACME]).await;
        let denial = limited.revoke_token(ask(false)).await.unwrap_err();
        denial.is(Code::FailedPrecondition, Reason::TokenShared).says("shared_connections", "6");
        let told = String::from_utf8_lossy(&denial.everything()).into_owned();
        assert!(!told.contains("globex") && !told.contains("initech") && !told.contains(&there), "{told}");
        let revoked = limited.revoke_token(ask(true)).await.unwrap();
        assert_eq!(revoked.provider_outcome(), ProviderOutcome::Revoked);
        for id in [&there, &third].into_iter().chain(&own_pages).chain(&their_pages) {
            feed.first(id, Kind::Invalidated).await;
            let refused = world.ingestion().await.fetch(id).await.unwrap_err();
            refused.is(Code::FailedPrecondition, Reason::TokenInvalid);
        }
        assert!(world.ingestion().await.fetch(&unrelated).await.is_ok());
        assert_eq!(feed.kinds_of(&unrelated), [Kind::Connected]);
    }

    async fn connections_without_a_subject_share_nothing(world: World) {
        let ana = world.person("ana");
        let connector = world.connector().await;
        let here = connector.connect(ACME, &ana.long_lived_token()).await;
        connector.connect("globex", &ana.long_lived_token()).await;
        assert_eq!(connector.get(&here).await.unwrap().shared_connections, 1);
        world.database.execute("UPDATE ad_platform_connections SET subject_id = ''").await;
        world.restart();
        let connector = world.connector().await;
        let listed = connector.list().await.unwrap().tokens;
        assert!(listed.len() == 2 && listed.iter().all(|token| token.shared_connections == 0), "{listed:#?}");
        let request =
            pb::RevokeTokenRequest { connection_id: here, revoke_at_provider: true, ..Default::default() };
        assert_eq!(connector.revoke_token(request).await.unwrap().provider_outcome(), ProviderOutcome::Revoked);
    }

    async fn erasing_a_subject_forgets_id_and_name(world: World) {
        let ana = world.person("Zephyrine Quill");
        let id = world.connector().await.connect(ACME, &ana.long_lived_token()).await;
        let request = pb::RevokeTokenRequest { connection_id: id, erase_subject: true, ..Default::default() };
        let token = world.connector().await.revoke_token(request).await.unwrap().token.unwrap();
        let subject = token.subject.unwrap();
        assert_eq!((subject.id.as_str(), subject.name.as_str()), ("", ""));
        let rows = world.database.rows("ad_platform_connections").await.join("\n");
        assert!(!rows.contains(&ana.id()) && !rows.contains(&ana.name()), "{rows}");
    }
}
