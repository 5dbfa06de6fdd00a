//! Bad input: each mistake has its own precise error, and changes nothing.

use token_vault_proto::v1::exchange_token_request::{NewToken, SubjectOfExchange};
use token_vault_proto::v1::store_token_request::Credential;
use token_vault_tests::prelude::*;
use token_vault_tests::{Contents, request_id};

/// The contents of a database with one connection, which bad input must not change.
pub(crate) async fn furnished(world: &World) -> (String, Contents) {
    let id = world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
    world.ingestion().await;
    (id, world.database.contents().await)
}

pub(crate) async fn unchanged(world: &World, before: &Contents, case: &str) {
    assert_eq!(&world.database.contents().await, before, "{case} changed something");
}

on_both_databases! {
    async fn what_can_be_no_token_is_refused_with_advice_and_without_asking_the_provider(world: World) {
        let (_, before) = furnished(&world).await;
        let connector = world.connector().await;
        let good = world.person("bob").short_lived_token();
        let (head, tail) = good.split_at(20);
        world.sandbox.clear_requests();
        let cases = [
            ("empty", String::new(), "empty"),
            ("only white space", " \n\t ".to_owned(), "empty"),
            ("oversized", format!("EAA{}", "x".repeat(4_094)), "4096"),
            ("not UTF-8 once", format!("{head}\u{fffd}\u{fffd}{tail}"), "not ASCII"),
            ("not ASCII", format!("{head}ä{tail}"), "not ASCII"),
            ("control characters", format!("{head}\u{0}{tail}"), "control"),
            ("Bearer", format!("Bearer {good}"), "Bearer"),
            ("bearer", format!("bearer {good}"), "Bearer"),
            ("JSON", format!("{{\"access_token\":\"{good}\"}}"), "JSON"),
            ("query", format!("access_token={good}&expires_in=5"), "query"),
            ("quotes", format!("\"{good}\""), "quotation"),
            ("inner space", format!("{head} {tail}"), "white space"),
            ("line break", format!("{head}\n{tail}"), "white space"),
        ];
        for (case, pasted, advice) in cases {
            let no = connector.store(ACME, &pasted).await.unwrap_err();
            no.is(Code::InvalidArgument, Reason::TokenMalformed)
                .field("access_token")
                .says("field", "access_token");
            assert!(no.fact("hint").is_some_and(|hint| hint.contains(advice)), "{case}: {no:#?}");
            assert!(!no.message().contains(tail), "{case} is repeated");
            unchanged(&world, &before, case).await;
        }
        assert_eq!(world.sandbox.count(Endpoint::Any), 0, "the provider was asked");
    }

    async fn a_token_at_the_very_limit_is_still_looked_at(world: World) {
        let order = token_vault_sandbox::TokenOrder::long().length(4_096);
        let id = world.connector().await.connect(ACME, &world.person("ana").order(order)).await;
        assert_eq!(world.ingestion().await.secret(&id).await.len(), 4_096);
    }

    async fn fields_that_break_their_rules_are_all_named(world: World) {
        let (id, before) = furnished(&world).await;
        let connector = world.connector().await;
        let token = world.person("bob").short_lived_token();
        let store = |change: fn(&mut pb::StoreTokenRequest)| {
            let mut request = world.pasted(ACME, &token);
            change(&mut request);
            request
        };
        let cases: [(pb::StoreTokenRequest, &[&str]); 8] = [
            (store(|r| r.workspace_id.clear()), &["workspace_id"]),
            (store(|r| r.workspace_id = "no spaces".into()), &["workspace_id"]),
            (store(|r| r.workspace_id = "x".repeat(129)), &["workspace_id"]),
            (store(|r| r.provider.clear()), &["provider"]),
            (store(|r| r.credential = None), &["access_token"]),
            (
                store(|r| r.credential = Some(Credential::RefreshToken("EAAxxxxxxxxxxxx".into()))),
                &["refresh_token"],
            ),
            (
                store(|r| {
                    r.connection_id = Some("17".into());
                    r.request_id = "\n".into()
                }),
                &["connection_id", "request_id"],
            ),
            (store(|r| r.if_token_version = Some(0)), &["if_token_version"]),
        ];
        for (request, fields) in cases {
            let no = connector.store_with(request).await.unwrap_err();
            no.is(Code::InvalidArgument, Reason::FieldInvalid);
            for field in fields {
                no.field(field);
            }
            unchanged(&world, &before, fields[0]).await;
        }
        connector
            .get("no-uuid")
            .await
            .unwrap_err()
            .is(Code::InvalidArgument, Reason::FieldInvalid)
            .field("connection_id");
        let odd = pb::ValidateTokenRequest {
            connection_id: id,
            checks: vec!["vibes".into()],
            ..Default::default()
        };
        connector
            .validate_token(odd)
            .await
            .unwrap_err()
            .is(Code::InvalidArgument, Reason::FieldInvalid)
            .field("checks[0]");
        let page = pb::ListTokensRequest { page_size: 1_001, ..Default::default() };
        connector
            .list_tokens(page)
            .await
            .unwrap_err()
            .is(Code::InvalidArgument, Reason::FieldInvalid)
            .field("page_size");
        connector
            .exchange_token(pb::ExchangeTokenRequest::default())
            .await
            .unwrap_err()
            .is(Code::InvalidArgument, Reason::FieldInvalid)
            .field("subject_of_exchange");
        unchanged(&world, &before, "a bad field").await;
    }

    async fn an_exchange_of_what_can_be_no_token_is_refused(world: World) {
        let before = world.database.contents().await;
        let new =
            NewToken { workspace_id: ACME.into(), provider: "meta".into(), access_token: "Bearer x".into() };
        let request = pb::ExchangeTokenRequest {
            subject_of_exchange: Some(SubjectOfExchange::NewToken(new)),
            ..Default::default()
        };
        let no = world.admin().exchange_token(request).await.unwrap_err();
        no.is(Code::InvalidArgument, Reason::TokenMalformed).field("new_token.access_token");
        unchanged(&world, &before, "an exchange").await;
    }

    async fn a_token_that_the_provider_refuses_is_refused_with_its_reason(world: World) {
        let (_, before) = furnished(&world).await;
        let connector = world.connector().await;
        let bob = world.person("bob");
        let expired = bob.short_lived_token();
        world.sandbox.expire(&expired);
        let killed = |subcode| {
            let token = bob.long_lived_token();
            world.sandbox.kill(&token, Some(subcode));
            token
        };
        let cases = [
            (expired, "EXPIRED"),
            (killed(460), "PASSWORD_CHANGED"),
            (killed(458), "APP_REMOVED"),
            (killed(467), "LOGGED_OUT"),
            (format!("EAA{}", "Q".repeat(200)), "MALFORMED"),
        ];
        for (token, refusal) in cases {
            let no = connector.store(ACME, &token).await.unwrap_err();
            no.is(Code::InvalidArgument, Reason::ProviderRefusedToken)
                .says("refusal", refusal)
                .says("provider", "meta");
            assert!(no.fact("fixer").is_some(), "{no:?}");
            assert!(no.fact("provider_code").is_some_and(|code| code.starts_with("190")), "{no:?}");
            unchanged(&world, &before, refusal).await;
        }
    }

    async fn a_token_of_another_app_is_told_from_a_dead_one(world: World) {
        let (_, before) = furnished(&world).await;
        let other = token_vault_sandbox::App {
            id: "999000111222333".into(),
            secrets: vec!["f".repeat(32)],
            ..Default::default()
        };
        world.sandbox.add_app(other);
        let foreign = world.person("bob").token_of_app("999000111222333");
        let no = world.connector().await.store(ACME, &foreign).await.unwrap_err();
        no.is(Code::InvalidArgument, Reason::TokenOfOtherApp)
            .says("configured", world.sandbox.app().id)
            .says("provider", "meta");
        unchanged(&world, &before, "a token of another app").await;
    }

    async fn unknown_workspaces_and_providers_are_refused(world: World) {
        let (id, _) = furnished(&world).await;
        let limited = world.caller(Role::Connector, &["globex"]).await;
        let (connector, viewer) = (world.connector().await, world.viewer().await);
        let token = world.person("bob").short_lived_token();
        let before = world.database.contents().await;
        limited
            .store("nowhere", &token)
            .await
            .unwrap_err()
            .is(Code::NotFound, Reason::WorkspaceNotFound)
            .says("workspace_id", "nowhere");
        let list = pb::ListTokensRequest { workspace_ids: vec![ACME.into()], ..Default::default() };
        limited
            .list_tokens(list)
            .await
            .unwrap_err()
            .is(Code::NotFound, Reason::WorkspaceNotFound)
            .says("workspace_id", ACME);
        let odd = pb::StoreTokenRequest { provider: "myspace".into(), ..world.pasted(ACME, &token) };
        connector
            .store_with(odd)
            .await
            .unwrap_err()
            .is(Code::InvalidArgument, Reason::ProviderUnknown)
            .says("provider", "myspace")
            .says("configured", "meta");
        let elsewhere =
            pb::GetTokenRequest { connection_id: id.clone(), workspace_id: Some("globex".into()) };
        viewer
            .get_token(elsewhere)
            .await
            .unwrap_err()
            .is(Code::NotFound, Reason::ConnectionNotFound)
            .says("connection_id", &id);
        unchanged(&world, &before, "an unknown place").await;
    }

    async fn page_tokens_are_good_for_their_own_query_only(world: World) {
        let connector = world.connector().await;
        for name in ["ana", "bob", "eve"] {
            connector.connect(ACME, &world.person(name).long_lived_token()).await;
        }
        let ask = |page_token: &str| pb::ListTokensRequest {
            page_size: 1,
            page_token: page_token.into(),
            ..Default::default()
        };
        let token = connector.list_tokens(ask("")).await.unwrap().next_page_token;
        assert!(!token.is_empty());
        let middle = token.len() / 2;
        let flipped = if token.as_bytes()[middle] == b'A' { "B" } else { "A" };
        let broken = format!("{}{flipped}{}", &token[..middle], &token[middle + 1..]);
        for wrong in ["nonsense", "AAAA", "%%%", &broken, &token[..token.len() - 4]] {
            connector
                .list_tokens(ask(wrong))
                .await
                .unwrap_err()
                .is(Code::InvalidArgument, Reason::PageTokenInvalid)
                .field("page_token");
        }
        let other = [
            pb::ListTokensRequest { workspace_ids: vec![ACME.into()], ..ask(&token) },
            pb::ListTokensRequest {
                order: pb::list_tokens_request::Order::CreatedLast.into(),
                ..ask(&token)
            },
            pb::ListTokensRequest { subject_id: Some("1".into()), ..ask(&token) },
        ];
        for other in other {
            connector
                .list_tokens(other)
                .await
                .unwrap_err()
                .is(Code::InvalidArgument, Reason::PageTokenMismatch)
                .field("page_token");
        }
        world
            .viewer()
            .await
            .list_tokens(ask(&token))
            .await
            .unwrap_err()
            .is(Code::InvalidArgument, Reason::PageTokenMismatch);
        assert_eq!(
            connector.list_tokens(ask(&token)).await.unwrap().tokens.len(),
            1,
            "the good one still works"
        );
    }

    async fn a_report_must_name_a_secret_and_say_what_was_seen(world: World) {
        let (id, before) = furnished(&world).await;
        let ingestion = world.ingestion().await;
        let nothing = pb::ReportTokenErrorRequest { connection_id: id.clone(), ..Default::default() };
        ingestion
            .report_token_error(nothing)
            .await
            .unwrap_err()
            .is(Code::InvalidArgument, Reason::FieldInvalid)
            .field("secret_id")
            .field("body");
        ingestion
            .report(&id, 1, 99, "{}")
            .await
            .unwrap_err()
            .is(Code::InvalidArgument, Reason::FieldInvalid)
            .field("http_status");
        let long = "x".repeat(16 * 1024 + 1);
        ingestion
            .report(&id, 1, 400, &long)
            .await
            .unwrap_err()
            .is(Code::InvalidArgument, Reason::FieldInvalid)
            .field("body");
        unchanged(&world, &before, "a bad report").await;
    }

    async fn connections_that_do_not_exist_are_not_found_by_any_verb(world: World) {
        let (admin, nobody) = (world.admin(), request_id());
        let before = world.database.contents().await;
        let reconnect = pb::StoreTokenRequest {
            connection_id: Some(nobody.clone()),
            ..world.pasted(ACME, &world.person("ana").short_lived_token())
        };
        let refusals = [
            admin.get(&nobody).await.map(drop),
            admin.fetch(&nobody).await.map(drop),
            admin.validate(&nobody).await.map(drop),
            admin.exchange(&nobody).await.map(drop),
            admin.revoke(&nobody).await.map(drop),
            admin.report(&nobody, 1, 400, "{}").await.map(drop),
            admin.store_with(reconnect).await.map(drop),
        ];
        for refusal in refusals {
            refusal
                .unwrap_err()
                .is(Code::NotFound, Reason::ConnectionNotFound)
                .says("connection_id", &nobody);
        }
        unchanged(&world, &before, "a connection that does not exist").await;
    }
}
