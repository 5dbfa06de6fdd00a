//! Two tabs of one browser.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_links_in_two_tabs_do_not_mix() {
    let world = world().await;
    world.sandbox.user("ana");
    world.sandbox.user("bob");
    let connector = world.connector().await;
    let (acme, globex) = (connector.link(ACME).await, connector.link("globex").await);
    let browser = world.browser().await;
    browser.open(&acme.url).await;
    go_to_consent(&browser, "Connect Meta", "ana").await;
    let first = browser.new_tab().await;
    browser.open(&globex.url).await;
    connect(&browser, "Connect Meta", "bob").await;
    assert!(browser.sees("Meta is connected").await.contains("Meta for globex"));
    browser.go_to_tab(&first).await;
    browser.click("#continue").await;
    let shown = browser.sees("Meta is connected").await;
    assert!(shown.contains("Meta for acme") && shown.contains("ana") && !shown.contains("bob"), "{shown}");
    let mut found: Vec<_> = world
        .viewer()
        .await
        .list()
        .await
        .unwrap()
        .tokens
        .into_iter()
        .map(|token| (token.workspace_id, token.subject.unwrap_or_default().name))
        .collect();
    found.sort();
    assert_eq!(found, [("acme".into(), "ana".into()), ("globex".into(), "bob".into())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_link_in_two_tabs_connects_one_account() {
    let world = world().await;
    world.sandbox.user("ana");
    world.sandbox.user("bob");
    let made = world.connector().await.link(ACME).await;
    let browser = world.browser().await;
    browser.open(&made.url).await;
    go_to_consent(&browser, "Connect Meta", "ana").await;
    let first = browser.new_tab().await;
    browser.open(&made.url).await;
    connect(&browser, "Connect Meta", "bob").await;
    browser.sees("Meta is connected").await;
    browser.go_to_tab(&first).await;
    browser.click("#continue").await;
    is_plain(&browser.sees("This link has been used").await);
    assert!(!browser.url().await.contains("code="));
    let token = only_token(&world).await;
    assert_eq!((token.subject.unwrap_or_default().name.as_str(), token.token_version), ("bob", 1));
}
