//! A person who does not agree, or not to all, and everything else that a dialog can end in.

use super::*;

/// The ways of the sandbox's dialog to fail, and what the card then says.
const WAYS: [(&str, &str); 9] = [
    ("deny", "The connection was declined"),
    ("deny_older", "The connection was declined"),
    ("role_missing", "The connection was declined"),
    ("misconfigured", "The connection to Meta is not set up correctly"),
    ("nothing", "The connection was declined"),
    ("expired_code", "Please begin again"),
    ("used_code", "Please begin again"),
    ("malformed_code", "Please begin again"),
    ("foreign_code", "The connection to Meta is not set up correctly"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_declines_can_begin_again() {
    let world = world().await;
    world.sandbox.user("ana");
    let browser = world.browser().await;
    browser.open(&world.connector().await.link(ACME).await.url).await;
    go_to_consent(&browser, "Connect Meta", "ana").await;
    browser.click("#cancel").await;
    let shown = browser.sees("The connection was declined").await;
    is_plain(&shown);
    assert!(!browser.url().await.contains("state="));
    assert_eq!((connections(&world).await, codes(&world)), (0, 0));
    connect(&browser, "Connect Meta", "ana").await;
    browser.sees("Meta is connected").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permission_that_is_missing_is_named_and_asked_for_again() {
    let world = world().await;
    world.sandbox.user("ana");
    let browser = world.browser().await;
    browser.open(&world.connector().await.link(ACME).await.url).await;
    go_to_consent(&browser, "Connect Meta", "ana").await;
    browser.click("#scope-ads_management").await;
    browser.click("#continue").await;
    browser.sees("A permission is missing").await;
    let notice = browser.text("#result").await;
    assert!(notice.contains("Manage your ads and see your ad accounts"), "{notice}");
    assert!(!notice.contains("Read your ads"), "only what is missing is named:\n{notice}");
    is_plain(&notice);
    assert_eq!(connections(&world).await, 0);
    go_to_consent(&browser, "Connect Meta", "ana").await;
    assert_eq!(
        browser.count("#scope-ads_management:checked:not(:disabled)").await,
        1,
        "it is asked for again"
    );
    browser.click("#continue").await;
    browser.sees("Meta is connected").await;
    assert_eq!(only_token(&world).await.token_version, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_optional_permission_that_is_missing_is_no_reason_to_refuse() {
    let world = world().await;
    world.sandbox.user("ana");
    let browser = world.browser().await;
    browser.open(&world.connector().await.link(ACME).await.url).await;
    go_to_consent(&browser, "Connect Meta", "ana").await;
    browser.click("#scope-business_management").await;
    browser.click("#continue").await;
    let shown = browser.sees("Meta is connected").await;
    assert!(shown.contains("Permissions missing"), "{shown}");
    assert!(shown.contains("See your businesses and the ad accounts that they own"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_the_dialog_ends_the_card_has_plain_words_and_a_way_on() {
    let world = world().await;
    world.sandbox.user("ana");
    let connector = world.connector().await;
    let browser = world.browser().await;
    for (way, title) in WAYS {
        browser.open(&connector.link(ACME).await.url).await;
        go_to_consent(&browser, "Connect Meta", "ana").await;
        browser.click("#fail-ways").await;
        browser.click(&format!("#fail-{way}")).await;
        browser.wait_for("#result, h1").await;
        browser.is_at(&world.portal_url()).await;
        let shown = browser.sees(title).await;
        is_plain(&shown);
        let url = browser.url().await;
        assert!(!url.contains("state=") && !url.contains("code="), "{way}: {url}");
        assert_eq!(connections(&world).await, 0, "{way}");
    }
    connect(&browser, "Connect Meta", "ana").await;
    browser.sees("Meta is connected").await;
}
