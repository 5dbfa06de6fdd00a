//! Links that are over, and links that never were.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_wrong_with_a_link_the_page_is_the_same() {
    let world = moving().start().await;
    let elsewhere = World::start(Backend::Sqlite).await;
    let connector = world.connector().await;
    let mut links = Vec::new();
    let revoked = connector.link(ACME).await;
    let revoke = pb::RevokeConnectLinkRequest { link_id: id_of(&revoked), ..Default::default() };
    connector.revoke_connect_link(revoke).await.expect("it is revoked");
    links.push(revoked.url);
    let brief = pb::CreateConnectLinkRequest {
        workspace_id: ACME.into(),
        expires_in: seconds(60),
        ..Default::default()
    };
    let brief = connector.link_with(brief).await.expect("a link is made");
    let browser = world.browser().await;
    // A card that is open when its link ends.
    browser.open(&brief.url).await;
    browser.sees("Nothing is connected yet").await;
    world.advance(Duration::from_secs(61)).await;
    browser.press("Connect Meta").await;
    let page = browser.sees(OVER).await;
    is_plain(&page);
    links.push(brief.url);
    // Links of another vault, and guesses: an id that is there with another secret, and what is no token at all.
    let foreign = elsewhere.connector().await.link(ACME).await.url;
    let token = foreign.rsplit('/').next().unwrap().to_owned();
    links.push(format!("{}/l/{token}", world.portal_url()));
    let good = connector.link(ACME).await;
    let guess = good.url.replace(secret_part(good.url.rsplit('/').next().unwrap()), secret_part(&token));
    links.push(guess);
    for garbage in ["x", "tvl_", "tvl_a_b", "%00%ff", "tvl_aaaaaaaaaaaaaaaa_%3Cscript%3E"] {
        links.push(format!("{}/l/{garbage}", world.portal_url()));
    }
    for link in &links {
        browser.open(link).await;
        assert_eq!(browser.sees(OVER).await, page, "{link}");
        assert_eq!(browser.count("form").await, 0);
    }
    assert_eq!(connections(&world).await, 0);
    browser.open(&good.url).await;
    browser.sees("Nothing is connected yet").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_used_link_shows_what_came_of_it_and_connects_nothing_more() {
    let world = world().await;
    world.sandbox.user("ana");
    let made = world.connector().await.link(ACME).await;
    let first = world.browser().await;
    first.open(&made.url).await;
    connect(&first, "Connect Meta", "ana").await;
    first.sees("This link has been used").await;
    // Somebody else finds the mail.
    let second = world.browser().await;
    second.open(&made.url).await;
    let shown = second.sees("This link has been used").await;
    assert!(shown.contains("Check now") && !shown.contains("Connect another"), "{shown}");
    for step in ["connect", "paste"] {
        assert_eq!(second.count(&format!("form[action$='/{step}']")).await, 0, "{step}");
    }
    assert_eq!(only_token(&world).await.token_version, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_shows_its_own_workspace_and_connection_only() {
    let world = world().await;
    let connector = world.connector().await;
    let (ana, bob, eve) = (world.person("Ana"), world.person("Bob"), world.person("Eve"));
    let id = connector.connect(ACME, &ana.long_lived_token()).await;
    connector.connect(ACME, &bob.long_lived_token()).await;
    let other = connector.connect("globex", &eve.long_lived_token()).await;
    let browser = world.browser().await;
    browser.open(&link_for(&world, &id).await.url).await;
    let shown = browser.sees("Ana").await;
    assert!(!shown.contains("Bob") && !shown.contains("Eve"), "{shown}");
    let made = connector.link(ACME).await;
    browser.open(&made.url).await;
    let shown = browser.sees("Bob").await;
    assert!(shown.contains("Ana") && !shown.contains("Eve"), "{shown}");
    // A form with another connection's id.
    let mut visitor = Visitor::default();
    let card = card(&mut visitor, &world, &made.url).await;
    let csrf = card.field("csrf").expect("the card has forms").to_owned();
    let before = world.database.rows("ad_platform_connections").await;
    for name in ["connect", "validate"] {
        let form = [("csrf", csrf.as_str()), ("connection_id", other.as_str())];
        let answer = visitor.post(&step(&world, &made, name), &form, &[]).await;
        assert!(answer.status.is_client_error(), "{name}: {}", answer.status);
        assert!(answer.body.contains("This connection is not there any more"), "{}", answer.body);
    }
    assert_eq!(world.database.rows("ad_platform_connections").await, before);
}
