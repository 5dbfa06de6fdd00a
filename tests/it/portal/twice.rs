//! What people do twice, and what they undo.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_double_click_connects_once() {
    let world = world().await;
    world.sandbox.user("ana");
    let browser = world.browser().await;
    browser.open(&world.connector().await.link(ACME).await.url).await;
    browser.double_click("form[action$='/connect'] button").await;
    browser.fill("#person-name", "ana").await;
    browser.click("#person-go").await;
    browser.double_click("#continue").await;
    browser.sees("Meta is connected").await;
    assert_eq!((only_token(&world).await.token_version, codes(&world)), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_back_button_and_loading_again_do_no_harm() {
    let world = world().await;
    world.sandbox.user("ana");
    let made = world.connector().await.link(ACME).await;
    let browser = world.browser().await;
    browser.open(&made.url).await;
    let card = browser.url().await;
    go_to_consent(&browser, "Connect Meta", "ana").await;
    // From the dialog back to the card, over the dialog's first page.
    browser.back().await;
    browser.wait_for("#person-name").await;
    browser.back().await;
    browser.sees("Nothing is connected yet").await;
    assert_eq!(browser.url().await, card);
    connect(&browser, "Connect Meta", "ana").await;
    browser.sees("Meta is connected").await;
    browser.reload().await;
    browser.sees("Meta is connected").await;
    // Back to the dialog, to agree once more: the answer is the first one's, or that it is over.
    browser.back().await;
    browser.click("#continue").await;
    browser.is_at(&card).await;
    let shown = browser.sees("This link has been used").await;
    assert!(shown.contains("Active"), "{shown}");
    assert_eq!(only_token(&world).await.token_version, 1);
    // The address of a form, loaded again, is the card.
    browser.open(&format!("{card}/connect")).await;
    browser.is_at(&card).await;
    browser.sees("This link has been used").await;
}

on_both_databases! {
    with |builder| builder.portal();

    async fn two_callbacks_at_once_make_one_connection(world: World) {
        world.sandbox.user("ana");
        let made = world.connector().await.link(ACME).await;
        let mut visitor = Visitor::default();
        let callback = callback(&mut visitor, &world, &made, "ana").await;
        let all = futures::future::join_all((0..4).map(|_| {
            let (mut visitor, callback) = (visitor.clone(), callback.clone());
            async move { visitor.get(&callback).await }
        }))
        .await;
        let connected = format!("/card/{}?result=connected#result", id_of(&made));
        for answer in &all {
            // One that comes while another one is in flight may be asked to come again.
            assert!(answer.location == connected || answer.status.as_u16() == 409, "{answer:?}");
        }
        assert!(all.iter().any(|answer| answer.location == connected), "{all:?}");
        // Later, it has the first one's answer.
        assert_eq!(visitor.get(&callback).await.location, connected);
        assert_eq!((only_token(&world).await.token_version, codes(&world)), (1, 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_belongs_to_the_browser_that_began() {
    let world = world().await;
    world.sandbox.user("mallory");
    let connector = world.connector().await;
    let (hers, his) = (connector.link(ACME).await, connector.link("globex").await);
    // Mallory agrees with his own account, and sends the victim the address to which he was sent.
    let mut mallory = Visitor::default();
    let callback = callback(&mut mallory, &world, &his, "mallory").await;
    let browser = world.browser().await;
    browser.open(&callback).await;
    is_plain(&browser.sees(START_AGAIN).await);
    assert_eq!(
        browser.url().await,
        format!("{}/start-again#", world.portal_url()),
        "the code stays in the address"
    );
    browser.open(&hers.url).await;
    browser.sees("Nothing is connected yet").await;
    browser.open(&callback).await;
    browser.sees(START_AGAIN).await;
    // Also with his link open in her browser.
    browser.open(&his.url).await;
    browser.sees("Nothing is connected yet").await;
    browser.open(&callback).await;
    browser.sees(START_AGAIN).await;
    // Nor with the cookie that leads from the callback to the link, if the session is another one.
    let flow = mallory.cookies().filter(|(name, _)| name.starts_with("flow-"));
    let flow: Vec<_> = flow.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert_eq!(flow.len(), 1);
    let mut victim = Visitor::with(browser.cookies().await.into_iter().chain(flow));
    let answer = victim.get(&callback).await;
    assert!(answer.location.contains("reason=authorization_state_invalid"), "{answer:?}");
    assert_eq!((connections(&world).await, codes(&world)), (0, 0));
    // What was changed on the way is nobody's.
    let forged = callback.replace("state=", "state=x");
    assert_eq!(mallory.get(&forged).await.location, "/start-again#");
    mallory.get(&callback).await;
    assert_eq!(only_token(&world).await.workspace_id, "globex");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authorization_ends_after_its_time() {
    let world = moving().start().await;
    world.sandbox.user("ana");
    let browser = world.browser().await;
    browser.open(&world.connector().await.link(ACME).await.url).await;
    go_to_consent(&browser, "Connect Meta", "ana").await;
    world.advance(Duration::from_secs(601)).await;
    browser.click("#continue").await;
    is_plain(&browser.sees("Please begin again").await);
    assert_eq!((connections(&world).await, codes(&world)), (0, 0));
    connect(&browser, "Connect Meta", "ana").await;
    browser.sees("Meta is connected").await;
}
