//! A person connects an account.

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_connects_with_a_link() {
    let world = world().await;
    let ana = world.sandbox.user("ana").with_ad_accounts(2);
    let unticked = ana.ad_account_ids().remove(1);
    let made = world.connector().await.link(ACME).await;
    let browser = world.browser().await;

    browser.open(&made.url).await;
    let shown = browser.sees("Nothing is connected yet").await;
    assert!(shown.contains("Read your ads and their results"), "{shown}");
    assert_eq!(browser.url().await, format!("{}/card/{}", world.portal_url(), id_of(&made)));

    go_to_consent(&browser, "Connect Meta", "ana").await;
    browser.click(&format!("#account-{unticked}")).await;
    browser.click("#continue").await;
    browser.wait_for("#result").await;
    let shown = browser.sees("Meta is connected").await;
    assert_eq!(browser.text(".badge.green").await, "Active");
    for words in ["Read your ads and their results", "Reading real data: In order, 1 row read", "Shop 1"] {
        assert!(shown.contains(words), "{words} is not shown:\n{shown}");
    }
    assert!(!shown.contains("Shop 2"), "{shown}");
    assert!(browser.title().await.starts_with("Meta is connected · Meta for acme"));
    let url = browser.url().await;
    assert_eq!(url, format!("{}/card/{}?result=connected#result", world.portal_url(), id_of(&made)));
    let events = world.viewer().await.watch_all().await.caught_up().await;
    let born = events.iter().find(|event| event.kind() == Kind::Connected).expect("it is announced");
    assert_eq!(born.connect_link_id, id_of(&made));
    assert_eq!(only_token(&world).await.token_version, 1);
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_it_needs_javascript() {
    let world = world().await;
    world.sandbox.user("ana");
    let browser = world.browser_without_javascript().await;
    // A script of the page would change its title.
    browser.open("data:text/html,<title>off</title><script>document.title='on'</script>").await;
    assert_eq!(browser.title().await, "off", "scripts run");
    browser.open(&world.connector().await.link(ACME).await.url).await;
    connect(&browser, "Connect Meta", "ana").await;
    let shown = browser.sees("Meta is connected").await;
    assert!(shown.contains(" UTC"), "a time without a zone: {shown}");
    browser.press("Check now").await;
    browser.sees("Checked just now").await;
    assert_eq!(only_token(&world).await.token_version, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_browser_goes_back_to_the_platform_with_the_result_and_no_more() {
    // The platform, at an address of its own.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let platform = format!("http://{}/settings", listener.local_addr().unwrap());
    let app = Router::new().route("/settings", get(|| async { "the platform's settings" }));
    let served = tokio::spawn(async move { axum::serve(listener, app).await });
    let builder = World::builder(Backend::Sqlite).portal();
    let world = builder.config("portal.return_urls", format!("[{platform:?}]")).start().await;
    world.sandbox.user("ana");
    let return_url = format!("{platform}?tab=ads");
    let request =
        pb::CreateConnectLinkRequest { workspace_id: ACME.into(), return_url, ..Default::default() };
    let made = world.connector().await.link_with(request).await.unwrap();
    let browser = world.browser().await;

    browser.open(&made.url).await;
    go_to_consent(&browser, "Connect Meta", "ana").await;
    browser.click("#cancel").await;
    let shown = browser.sees("The connection was declined").await;
    assert!(shown.contains("Back to 127.0.0.1"), "{shown}");
    browser.press("Back to 127.0.0.1").await;
    browser.sees("the platform's settings").await;
    assert_eq!(browser.url().await, format!("{platform}?tab=ads&connect_result=declined"));

    browser.open(&made.url).await;
    go_to_consent(&browser, "Connect Meta", "ana").await;
    browser.click("#continue").await;
    // The browser stays until the person has read the result.
    browser.sees("Meta is connected").await;
    assert_eq!(browser.count("meta[http-equiv=refresh]").await, 0);
    browser.press("Continue to 127.0.0.1").await;
    browser.sees("the platform's settings").await;
    let connection = only_token(&world).await.connection_id;
    let expected = format!("{platform}?tab=ads&connect_result=connected&connection_id={connection}");
    assert_eq!(browser.url().await, expected);
    served.abort();
}
