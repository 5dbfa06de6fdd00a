//! Make before break: a new token never replaces a better one silently.

use token_vault_tests::prelude::*;

use super::bad_input::{furnished, unchanged};

on_both_databases! {
    async fn declined_scopes_are_named_and_nothing_is_stored_unless_allowed(world: World) {
        let (_, before) = furnished(&world).await;
        let connector = world.connector().await;
        let bob = world.sandbox.user("bob").grants(["ads_read"]).declines(["ads_management"]);
        let no = connector.store(ACME, &bob.short_lived_token()).await.unwrap_err();
        no.is(Code::FailedPrecondition, Reason::ScopesMissing)
            .says("missing", "ads_management")
            .words("declined");
        unchanged(&world, &before, "a declined scope").await;
        let options = Some(pb::IntakeOptions { allow_missing_scopes: true, ..Default::default() });
        let request = pb::StoreTokenRequest { options, ..world.pasted(ACME, &bob.short_lived_token()) };
        let intake = connector.store_with(request).await.unwrap();
        assert_eq!(intake.overall(), pb::check::Result::Fail);
        assert_eq!(intake.token.unwrap().missing_required_scopes, ["ads_management"]);
    }

    async fn fewer_scopes_never_replace_more_unless_allowed(world: World) {
        let (id, before) = furnished(&world).await;
        let connector = world.connector().await;
        let secret = world.ingestion().await.secret(&id).await;
        let ana = world.person("ana").declines(["business_management"]);
        let no = connector.store(ACME, &ana.long_lived_token()).await.unwrap_err();
        no.is(Code::FailedPrecondition, Reason::ScopesShrunk)
            .says("missing", "business_management")
            .says("connection_id", &id);
        unchanged(&world, &before, "fewer scopes").await;
        assert_eq!(world.ingestion().await.secret(&id).await, secret);
        let options = Some(pb::IntakeOptions { allow_fewer_scopes: true, ..Default::default() });
        let request = pb::StoreTokenRequest { options, ..world.pasted(ACME, &ana.long_lived_token()) };
        assert_eq!(connector.store_with(request).await.unwrap().token.unwrap().token_version, 2);
    }

    async fn another_subject_never_takes_a_connection_silently(world: World) {
        let (id, before) = furnished(&world).await;
        let connector = world.connector().await;
        let (ana, bob) = (world.person("ana"), world.person("bob"));
        let reconnect = |token: &str, allowed| pb::StoreTokenRequest {
            connection_id: Some(id.clone()),
            options: Some(pb::IntakeOptions { allow_subject_change: allowed, ..Default::default() }),
            ..world.pasted(ACME, token)
        };
        let no = connector.store_with(reconnect(&bob.short_lived_token(), false)).await.unwrap_err();
        no.is(Code::FailedPrecondition, Reason::SubjectMismatch)
            .says("connection_id", &id)
            .says("expected_subject_id", ana.id())
            .says("subject_id", bob.id());
        unchanged(&world, &before, "another subject").await;

        let bobs = connector.connect(ACME, &bob.long_lived_token()).await;
        let before = world.database.contents().await;
        let no = connector.store_with(reconnect(&bob.short_lived_token(), true)).await.unwrap_err();
        no.is(Code::AlreadyExists, Reason::SubjectAlreadyConnected)
            .says("connection_id", &bobs)
            .says("provider", "meta");
        unchanged(&world, &before, "a subject that has a connection").await;

        let eve = world.person("eve");
        let token =
            connector.store_with(reconnect(&eve.short_lived_token(), true)).await.unwrap().token.unwrap();
        assert_eq!((token.connection_id, token.subject.unwrap().id), (id, eve.id()));
    }
}
