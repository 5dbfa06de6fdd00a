//! What a person decides, and what becomes of it.

use super::*;

on_both_databases! {
    with |builder| builder.moving_time();

    async fn a_person_consents_and_is_connected(world: World) {
        let (ana, connector) = (world.person("ana").with_ad_accounts(2), world.connector().await);
        let feed = world.viewer().await.watch_all().await;
        let begun = connector.begin_authorization(new()).await.expect("an authorization begins");
        world.know("state", &begun.state);
        let url = &begun.authorization_url;
        assert!(url.starts_with(&format!("{}/v26.0/dialog/oauth?", world.sandbox.url())), "{url}");
        for (name, value) in [
            ("client_id", world.sandbox.app().id.as_str()),
            ("redirect_uri", CALLBACK),
            ("state", &begun.state),
            ("response_type", "code"),
            ("scope", "ads_read,ads_management,business_management"),
            ("code_challenge_method", "S256"),
        ] {
            assert_eq!(param(url, name).as_deref(), Some(value), "{name}");
        }
        let now = world.sandbox.clock().now();
        let left = begun.expires_at.expect("an end").seconds - now;
        assert!((590..=600).contains(&left), "{left} s");

        let callback = world.sandbox.consent(url, &ana.name(), Decision::Allow).expect("the dialog is shown");
        assert!(callback.starts_with(CALLBACK) && callback.ends_with("#_=_"), "{callback}");
        let intake = complete(&connector, &callback).await.expect("it is stored");
        assert_eq!((intake.outcome(), intake.overall()), (Outcome::Created, pb::check::Result::Pass));
        let token = intake.token.expect("a token");
        assert_eq!((token.workspace_id.as_str(), token.token_version), (ACME, 1));
        assert_eq!(token.subject.expect("a subject").id, ana.id());
        let life = token.expiry.expect("an end").at.expect("it has an end").seconds - now;
        assert!(life > 50 * 86_400, "the short-lived token was exchanged: {life} s");
        feed.first(&token.connection_id, Kind::Connected).await;
        world.key_of("reader", Role::Ingestion).await.fetch(&token.connection_id).await.expect("it is handed out");
        let exchange =
            world.sandbox.requests().into_iter().find(|request| request.param("code").is_some()).unwrap();
        assert!(exchange.param("code_verifier").is_some_and(|verifier| verifier.len() >= 43));
        assert_eq!(exchange.param("redirect_uri"), Some(CALLBACK));
    }

    async fn a_code_may_give_a_token_that_lives_long_already(world: World) {
        world.sandbox.switch(|switches| switches.long_lived_codes = true);
        let (ana, connector) = (world.person("ana"), world.connector().await);
        let callback = consented(&world, &connector, new(), &ana, Decision::Allow).await;
        let intake = complete(&connector, &callback).await.expect("it is stored");
        assert_eq!(intake.outcome(), Outcome::Created);
        let exchanged = |request: &token_vault_sandbox::RecordedRequest| request.param("fb_exchange_token").is_some();
        assert!(!world.sandbox.requests().iter().any(exchanged), "nothing to lengthen");
    }

    async fn who_declines_changes_nothing_and_may_begin_again(world: World) {
        let (ana, connector) = (world.person("ana"), world.connector().await);
        let id = connector.connect(ACME, &ana.long_lived_token()).await;
        for (decision, code) in [(Decision::Deny, Some("access_denied/200")), (Decision::Nothing, None)] {
            let callback = consented(&world, &connector, reconnect(&id), &ana, decision).await;
            for _ in 0..2 {
                let no = complete(&connector, &callback).await.expect_err("declined");
                no.is(Code::FailedPrecondition, Reason::AuthorizationDeclined).says("provider", "meta");
                assert_eq!(no.fact("provider_code"), code);
            }
            let with_code = format!("code=AQDforged&state={}", param(&callback, "state").expect("a state"));
            let no = complete(&connector, &with_code).await.expect_err("it has ended");
            no.is(Code::FailedPrecondition, Reason::AuthorizationDeclined);
        }
        let callback = consented(&world, &connector, reconnect(&id), &ana, Decision::Misconfigured).await;
        let no = complete(&connector, &callback).await.expect_err("the dialog can't be shown");
        no.is(Code::FailedPrecondition, Reason::ProviderMisconfigured).says("provider_code", "1349048");
        assert_eq!(codes(&world), 0);
        assert_eq!(world.viewer().await.get(&id).await.unwrap().token_version, 1);
        let callback = consented(&world, &connector, reconnect(&id), &ana, Decision::Allow).await;
        assert_eq!(complete(&connector, &callback).await.expect("it is stored").outcome(), Outcome::Replaced);
    }

    async fn a_scope_that_was_declined_is_named_and_asked_for_again(world: World) {
        let (ana, connector) = (world.sandbox.user("ana"), world.connector().await);
        let most = Decision::AllowExcept(vec!["ads_management".into()]);
        let callback = consented(&world, &connector, new(), &ana, most.clone()).await;
        let no = complete(&connector, &callback).await.expect_err("a required scope is missing");
        no.is(Code::FailedPrecondition, Reason::ScopesMissing).says("missing", "ads_management");
        assert!(connector.list().await.unwrap().tokens.is_empty(), "nothing was stored");

        let options = pb::IntakeOptions { allow_missing_scopes: true, ..Default::default() };
        let request = pb::BeginAuthorizationRequest { options: Some(options), ..new() };
        let callback = consented(&world, &connector, request, &ana, most).await;
        let intake = complete(&connector, &callback).await.expect("it is stored, as allowed");
        assert_eq!(intake.overall(), pb::check::Result::Fail);
        let id = intake.token.expect("a token").connection_id;

        let begun = connector.begin_authorization(reconnect(&id)).await.expect("it begins");
        assert_eq!(param(&begun.authorization_url, "auth_type").as_deref(), Some("rerequest"));
        let callback = world.sandbox.consent(&begun.authorization_url, "ana", Decision::Allow).unwrap();
        let intake = complete(&connector, &callback).await.expect("it is stored");
        assert!(intake.token.expect("a token").missing_required_scopes.is_empty());
    }

    async fn access_to_data_that_ends_is_asked_for_again(world: World) {
        let (ana, connector) = (world.person("ana"), world.connector().await);
        let id = connector.connect(ACME, &ana.token_never()).await;
        world.advance(Duration::from_secs(85 * 86_400)).await;
        let begun = connector.begin_authorization(reconnect(&id)).await.expect("it begins");
        assert_eq!(param(&begun.authorization_url, "auth_type").as_deref(), Some("reauthorize"));
        let callback = world.sandbox.consent(&begun.authorization_url, "ana", Decision::Allow).unwrap();
        let token = complete(&connector, &callback).await.expect("it is stored").token.expect("a token");
        let data_access =
            token.deadlines.iter().find(|one| one.kind() == pb::deadline::Kind::DataAccess).expect("a deadline");
        let end = data_access.expiry.as_ref().and_then(|end| end.at).expect("an end").seconds;
        assert!(end - world.sandbox.clock().now() > 80 * 86_400, "the access to the data began anew");
    }

    async fn another_person_comes_back_only_where_that_is_allowed(world: World) {
        let (ana, bob, connector) = (world.person("ana"), world.person("bob"), world.connector().await);
        let id = connector.connect(ACME, &ana.long_lived_token()).await;
        let callback = consented(&world, &connector, reconnect(&id), &bob, Decision::Allow).await;
        let no = complete(&connector, &callback).await.expect_err("another person");
        no.is(Code::FailedPrecondition, Reason::SubjectMismatch).says("subject_id", bob.id());
        let ingestion = world.key_of("reader", Role::Ingestion).await;
        assert_eq!(ingestion.fetch(&id).await.expect("the old token works").token_version, 1);

        let options = pb::IntakeOptions { allow_subject_change: true, ..Default::default() };
        let request = pb::BeginAuthorizationRequest { options: Some(options), ..reconnect(&id) };
        let callback = consented(&world, &connector, request, &bob, Decision::Allow).await;
        let intake = complete(&connector, &callback).await.expect("it is allowed");
        let token = intake.token.clone().expect("a token");
        assert_eq!((intake.outcome(), token.connection_id), (Outcome::Replaced, id));
        assert_eq!(token.subject.expect("a subject").id, bob.id());
    }

    async fn a_dead_and_a_revoked_connection_come_back(world: World) {
        let (ana, connector) = (world.person("ana"), world.connector().await);
        let feed = world.viewer().await.watch_all().await;
        let id = connector.connect(ACME, &ana.long_lived_token()).await;
        for round in 0..2 {
            if round == 0 {
                ana.removes_app();
                connector.validate(&id).await.expect("it is examined");
            } else {
                connector.revoke(&id).await.expect("it ends");
            }
            let callback = consented(&world, &connector, reconnect(&id), &ana, Decision::Allow).await;
            let intake = complete(&connector, &callback).await.expect("it is stored");
            assert_eq!(intake.outcome(), Outcome::Restored, "round {round}");
            assert_eq!(intake.token.expect("a token").connection_id, id);
        }
        feed.until("two recoveries", |all| {
            (all.iter().filter(|event| event.kind() == Kind::Restored).count() == 2).then_some(())
        })
        .await;
    }
}
