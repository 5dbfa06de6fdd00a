//! A person repairs a connection.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_connection_is_red_says_why_and_is_green_again() {
    let world = world().await;
    let (ana, connector) = (world.person("ana"), world.connector().await);
    let id = connector.connect(ACME, &ana.long_lived_token()).await;
    ana.changes_password();
    connector.validate(&id).await.expect("it is looked at");
    let made = link_for(&world, &id).await;
    let browser = world.browser().await;
    browser.open(&made.url).await;
    browser.wait_for(".badge.red").await;
    let shown = browser.words().await;
    for words in ["password", "Who can help: you", "Press “Reconnect Meta” and agree again."] {
        assert!(shown.contains(words), "{words} is not shown:\n{shown}");
    }
    assert!(!shown.contains("Connect another"), "the link is for one connection:\n{shown}");
    ana.heals();
    connect(&browser, "Reconnect Meta", "ana").await;
    browser.sees("Meta is connected").await;
    assert_eq!(browser.text(".badge.green").await, "Active");
    let events = world.viewer().await.watch_all().await.caught_up().await;
    let restored = events.iter().find(|event| event.kind() == Kind::Restored).expect("it is announced");
    assert_eq!((&restored.connection_id, restored.connect_link_id.clone()), (&id, id_of(&made)));
    assert_eq!(only_token(&world).await.token_version, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_person_is_refused_and_the_old_token_stays() {
    let world = world().await;
    world.sandbox.user("bob");
    let id = world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
    let secret = world.ingestion().await.secret(&id).await;
    let browser = world.browser().await;
    browser.open(&link_for(&world, &id).await.url).await;
    connect(&browser, "Reconnect Meta", "bob").await;
    let shown = browser.sees("Another person came back").await;
    assert!(shown.contains("Log in at Meta as the person who connected it before"), "{shown}");
    is_plain(&shown);
    assert_eq!(browser.text(".badge.green").await, "Active");
    assert_eq!(only_token(&world).await.token_version, 1);
    assert_eq!(world.ingestion().await.secret(&id).await, secret);
    // The same link still works for the right person.
    connect(&browser, "Reconnect Meta", "ana").await;
    browser.sees("Meta is connected").await;
    assert_eq!(only_token(&world).await.token_version, 2);
}
