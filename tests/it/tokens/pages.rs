//! Pages of a person: each page is its own connection, whose token follows the person's.

use token_vault_proto::v1::check;
use token_vault_proto::v1::expiry_event::Kind;
use token_vault_proto::v1::subject::Type;
use token_vault_tests::prelude::*;

/// Stores a person's token and connects the pages too.
async fn with_pages(world: &World, token: &str) -> pb::IntakeResult {
    let options = pb::IntakeOptions { connect_pages: true, ..Default::default() };
    let request = pb::StoreTokenRequest { options: Some(options), ..world.pasted(ACME, token) };
    world.connector().await.store_with(request).await.expect("the token is good")
}

on_both_databases! {
    async fn each_page_is_a_connection_that_works(world: World) {
        let ana = world.person("ana");
        let shop = ana.page("Shop");
        let stored = with_pages(&world, &ana.short_lived_token()).await;
        let pages = stored.checks.iter().find(|check| check.name == "pages").expect("it is asked for");
        assert_eq!(pages.result(), check::Result::Pass);
        let [page] = stored.page_connection_ids.as_slice() else { panic!("one page: {stored:?}") };
        let token = world.viewer().await.get(page).await.unwrap();
        let subject = token.subject.clone().unwrap();
        assert_eq!((subject.id.as_str(), subject.name.as_str(), subject.r#type()), (&*shop, "Shop", Type::Page));
        assert_eq!(token.workspace_id, ACME);
        assert!(token.usable && world.ingestion().await.fetch(page).await.is_ok());
        // Storing a token without `connect_pages` connects no pages.
        let ben = world.person("ben");
        ben.page("Other");
        assert!(world.connector().await.store(ACME, &ben.long_lived_token()).await.unwrap().page_connection_ids.is_empty());
        assert_eq!(world.connector().await.list().await.unwrap().tokens.len(), 3);
    }

    async fn a_page_follows_the_persons_next_token_and_its_death(world: World) {
        let ana = world.person("ana");
        ana.page("Shop");
        let feed = world.viewer().await.watch_all().await;
        let stored = with_pages(&world, &ana.short_lived_token()).await;
        let person = stored.token.unwrap().connection_id;
        let page = stored.page_connection_ids[0].clone();
        let ingestion = world.ingestion().await;
        let first = ingestion.secret(&page).await;

        // A new token of the person reads the same page token, so nothing is announced.
        world.connector().await.connect(ACME, &ana.long_lived_token()).await;
        world.admin().run("rotation").await;
        assert_eq!(ingestion.secret(&page).await, first);

        // When the person's token dies, the page's token is checked at once.
        ana.changes_password();
        let body = r#"{"error":{"message":"x","type":"OAuthException","code":190,"error_subcode":460}}"#;
        ingestion.report(&person, 2, 400, body).await.unwrap();
        world.admin().run("rotation").await;
        feed.first(&page, Kind::Invalidated).await;
        ingestion.fetch(&page).await.unwrap_err().is(Code::FailedPrecondition, Reason::TokenInvalid);

        // The person reconnects, without `connect_pages`.
        ana.heals();
        world.connector().await.connect(ACME, &ana.short_lived_token()).await;
        world.admin().run("rotation").await;
        feed.first(&page, Kind::Restored).await;
        assert_ne!(ingestion.secret(&page).await, first, "it was read anew");
        assert_eq!(feed.kinds_of(&page), [Kind::Connected, Kind::Invalidated, Kind::Restored]);
    }
}
