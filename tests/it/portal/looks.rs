//! Every state of the card, on a phone and on a desk, light and dark: nothing is cut off, and axe finds no barrier.

use super::*;

/// Looks at the page that is open, in all four ways.
async fn is_usable(browser: &Browser, what: &str) {
    for (width, dark) in [(360, false), (360, true), (1280, false), (1280, true)] {
        browser.width(width).await;
        browser.dark(dark).await;
        let place = format!("{what}, {width} pixels, {}", if dark { "dark" } else { "light" });
        let wide = "return [...document.querySelectorAll('body *')].filter(one => one.getBoundingClientRect().right > \
                    document.documentElement.clientWidth + 1).map(one => one.outerHTML.slice(0, 200))";
        assert_eq!(browser.overflow().await, 0, "{place}: {}", browser.run(wide).await);
        assert_eq!(browser.barriers().await, Vec::<String>::new(), "{place}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_card_is_usable_in_every_state() {
    let world = moving().start().await;
    let connector = world.connector().await;
    let (ana, bob) = (world.person("ana").with_ad_accounts(3), world.sandbox.user("bob"));
    let browser = world.browser().await;
    browser.open(&connector.link(ACME).await.url).await;
    browser.sees("Nothing is connected yet").await;
    is_usable(&browser, "empty").await;
    browser.press("Paste a token instead").await;
    browser.wait_for("#token-new").await;
    is_usable(&browser, "pasting").await;
    go_to_consent(&browser, "Connect Meta", "bob").await;
    browser.click("#scope-ads_read").await;
    browser.click("#continue").await;
    browser.sees("A permission is missing").await;
    is_usable(&browser, "a permission is missing").await;
    connect(&browser, "Connect Meta", "bob").await;
    browser.sees("Meta is connected").await;
    is_usable(&browser, "the result").await;

    let id = connector.connect("globex", &ana.long_lived_token()).await;
    let made = connector.link("globex").await;
    browser.open(&made.url).await;
    browser.wait_for(".badge.green").await;
    is_usable(&browser, "green").await;
    world.advance(Duration::from_secs(56 * 86_400)).await;
    connector.validate(&id).await.expect("it is looked at");
    browser.open(&connector.link("globex").await.url).await;
    browser.wait_for(".badge.amber").await;
    is_usable(&browser, "amber").await;
    ana.declines(["ads_read"]);
    browser.press("Check now").await;
    browser.sees("Permissions missing").await;
    is_usable(&browser, "missing scopes").await;
    ana.changes_password();
    browser.press("Check now").await;
    browser.wait_for(".badge.red").await;
    is_usable(&browser, "red").await;
    drop(bob);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_without_a_card_are_usable_too() {
    let world = world().await;
    let browser = world.browser().await;
    let portal = world.portal_url();
    let made = world.connector().await.link(ACME).await;
    for (address, words) in [
        (format!("{portal}/l/x"), OVER),
        (format!("{portal}/card/{}", id_of(&made)), START_AGAIN),
        (format!("{portal}/callbacks/meta?code=x&state=y"), START_AGAIN),
        (format!("{portal}/card/{}/embed", id_of(&made)), "The connection can't be shown here"),
        (format!("{portal}/nowhere"), "There is no such page"),
    ] {
        browser.open(&address).await;
        is_plain(&browser.sees(words).await);
        is_usable(&browser, words).await;
    }
}
