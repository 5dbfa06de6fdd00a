//! Tokens that a person has already, and checks on demand.

use super::*;

async fn paste(browser: &Browser, token: &str) {
    browser.press("Paste a token instead").await;
    browser.fill("#token-new", token).await;
    browser.press("Store token").await;
    browser.wait_for("#result").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_can_be_pasted_and_checked() {
    let world = world().await;
    let ana = world.person("ana");
    let (good, foreign) = (ana.long_lived_token(), ana.token_of_app("999000111222333"));
    let dead = world.person("bob").long_lived_token();
    world.sandbox.user("bob").changes_password();
    for token in [&good, &foreign, &dead] {
        world.know("pasted token", token);
    }
    let browser = world.browser().await;
    browser.open(&world.connector().await.link(ACME).await.url).await;
    let bad = "this is not a token at all";
    for (token, title) in [
        (bad, "That text is no token"),
        (foreign.as_str(), "This token belongs to another app"),
        (dead.as_str(), "Meta refuses this token"),
    ] {
        paste(&browser, token).await;
        let shown = browser.sees(title).await;
        is_plain(&shown);
        assert!(shown.contains("Nothing was stored"), "{shown}");
        assert!(!browser.source().await.contains(token), "the page repeats the token");
        assert_eq!(connections(&world).await, 0, "{title}");
    }
    paste(&browser, &good).await;
    let shown = browser.sees("Meta is connected").await;
    assert!(shown.contains("Reading real data: In order, 1 row read"), "{shown}");
    assert!(!browser.source().await.contains(&good), "the page repeats the token");
    browser.press("Check now").await;
    let shown = browser.sees("Checked just now").await;
    assert!(
        shown.contains("What the check found") && shown.contains("The token is accepted: In order"),
        "{shown}"
    );
    assert_eq!(only_token(&world).await.token_version, 1);
    ana.changes_password();
    browser.press("Check now").await;
    browser.wait_for(".badge.red").await;
    let shown = browser.sees("Does not work").await;
    assert!(shown.contains("Who can help: you"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_sent_twice_is_stored_once() {
    let world = world().await;
    let token = world.person("ana").long_lived_token();
    world.know("pasted token", &token);
    let made = world.connector().await.link(ACME).await;
    let browser = world.browser().await;
    browser.open(&made.url).await;
    browser.press("Paste a token instead").await;
    browser.fill("#token-new", &token).await;
    browser.double_click("form[action$='/paste'] button").await;
    browser.sees("Meta is connected").await;
    assert_eq!(only_token(&world).await.token_version, 1);
    // Loading the answer again leads to the card, or sends the same form; neither stores anything.
    browser.open(&format!("{}/card/{}/paste", world.portal_url(), id_of(&made))).await;
    browser.sees("This link has been used").await;
    assert_eq!(only_token(&world).await.token_version, 1);
}
