//! What is secret stays out of pages, addresses and logs.

use std::collections::BTreeSet;

use token_vault_tests::Hunter;

use super::*;

/// Where the browser was shown something by the portal, and what.
async fn note(browser: &Browser, pages: &mut Vec<String>) {
    pages.push(format!("{}\n{}", browser.url().await, browser.source().await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_page_no_address_and_no_log_holds_a_secret() {
    let world = world().await;
    let ana = world.sandbox.user("ana");
    let pasted = world.person("bob").long_lived_token();
    world.know("pasted token", &pasted);
    let connector = world.connector().await;
    let link =
        |max_uses| pb::CreateConnectLinkRequest { workspace_id: ACME.into(), max_uses, ..Default::default() };
    let made = connector.link_with(link(2)).await.unwrap();
    let browser = world.browser().await;
    let mut pages = Vec::new();

    browser.open(&made.url).await;
    browser.sees("Nothing is connected yet").await;
    note(&browser, &mut pages).await;
    for (name, value) in browser.cookies().await {
        world.know(&format!("cookie {name}"), secret_part(&value));
    }
    go_to_consent(&browser, "Connect Meta", "ana").await;
    browser.click("#cancel").await;
    browser.sees("The connection was declined").await;
    note(&browser, &mut pages).await;
    go_to_consent(&browser, "Connect Meta", "ana").await;
    browser.click("#fail-ways").await;
    browser.click("#fail-used_code").await;
    browser.wait_for("#result").await;
    note(&browser, &mut pages).await;
    connect(&browser, "Connect Meta", "ana").await;
    browser.sees("Meta is connected").await;
    note(&browser, &mut pages).await;
    browser.press("Check now").await;
    browser.sees("Checked just now").await;
    note(&browser, &mut pages).await;
    ana.changes_password();
    browser.press("Check now").await;
    browser.wait_for(".badge.red").await;
    note(&browser, &mut pages).await;
    browser.click("details.paste:last-of-type summary").await;
    browser.click("section.beginning details.paste summary").await;
    browser.fill("#token-new", &pasted).await;
    browser.click("section.beginning form[action$='/paste'] button").await;
    browser.sees("This link has been used").await;
    note(&browser, &mut pages).await;
    let card = format!("{}/card/{}", world.portal_url(), id_of(&made));
    for address in [format!("{card}.json"), format!("{card}/embed"), format!("{}/l/x", world.portal_url())] {
        browser.open(&address).await;
        note(&browser, &mut pages).await;
    }

    let visited = browser.visited().await;
    let mut states = BTreeSet::new();
    for address in visited.iter().filter_map(|address| url::Url::parse(address).ok()) {
        states.extend(
            address.query_pairs().filter(|(name, _)| name == "state").map(|(_, state)| state.into_owned()),
        );
    }
    assert_eq!(states.len(), 3, "each attempt has a state: {visited:?}");
    for state in &states {
        world.know("state", state);
    }
    // The page that leads to the dialog must name its address. It is the only one.
    let shown: Vec<_> = visited.iter().filter(|address| address.starts_with(&world.portal_url())).collect();
    assert!(shown.len() > 8 && shown.iter().any(|address| address.ends_with("/connect")), "{shown:?}");
    let (secrets, names) =
        (world.secrets(), ["cookie session", "connect link", "pasted token", "state", "code"]);
    let known = secrets.names();
    for name in names {
        assert!(known.contains(name), "{name} is not searched for: {known:?}");
    }
    let log = world.portal_log();
    assert!(log.contains("an account was connected"), "the log tells too little: {log}");
    let mut found = secrets.search(
        "the addresses",
        shown.iter().map(|url| url.as_str()).collect::<Vec<_>>().join("\n").as_bytes(),
    );
    found.extend(secrets.search("the pages", pages.join("\n").as_bytes()));
    found.extend(secrets.search("the logs", world.logs().as_bytes()));
    assert_eq!(found, []);
    for part in ["code=", "state=", "tvl_"] {
        assert!(!shown.iter().any(|address| address.contains(part)), "{part} in {shown:?}");
    }
    // The search would find them.
    let mut hunter = Hunter::default();
    hunter.add("link", id_of(&made));
    assert!(!hunter.search("the addresses", shown[0].as_bytes()).is_empty());
}
