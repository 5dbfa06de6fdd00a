//! The portal in a real browser: a person connects, repairs and checks an account with nothing but a link.

mod connecting;
mod forms;
mod hostile;
mod leaks;
mod links;
mod looks;
mod pasting;
mod pictures;
mod repairing;
mod tabs;
mod twice;
mod undecided;

use std::time::Duration;

use token_vault_sandbox::Decision;
use token_vault_tests::browser::Browser;
use token_vault_tests::browser::http::{Answer, Visitor};
use token_vault_tests::prelude::*;
use token_vault_tests::{seconds, secret_part};

/// What a link says that can't be used, whatever the cause.
const OVER: &str = "This link is not valid any more";
/// What the portal says to a browser that it does not know.
const START_AGAIN: &str = "Start again from your link";

/// A world with a portal, on SQLite: what a page shows does not depend on the database.
async fn world() -> World {
    World::builder(Backend::Sqlite).portal().start().await
}

/// A world with a portal whose time the test moves. Tokens are not renewed before they end.
fn moving() -> token_vault_tests::Builder {
    World::builder(Backend::Sqlite).portal().moving_time().config("rotation.enabled", "false")
}

/// Goes from the card to the page of the dialog that asks what to grant, as this person.
async fn go_to_consent(browser: &Browser, button: &str, person: &str) {
    browser.press(button).await;
    browser.fill("#person-name", person).await;
    browser.click("#person-go").await;
    browser.wait_for("#continue").await;
}

/// Connects an account, up to the card that says how it went.
async fn connect(browser: &Browser, button: &str, person: &str) {
    go_to_consent(browser, button, person).await;
    browser.click("#continue").await;
    browser.wait_for("#result").await;
}

/// The only connection, as the vault knows it.
async fn only_token(world: &World) -> pb::Token {
    let tokens = world.viewer().await.list().await.expect("they are listed").tokens;
    assert_eq!(tokens.len(), 1, "{tokens:#?}");
    tokens.into_iter().next().expect("there is one")
}

/// How many connections there are.
async fn connections(world: &World) -> usize {
    world.viewer().await.list().await.expect("they are listed").tokens.len()
}

fn id_of(made: &pb::CreateConnectLinkResponse) -> String {
    made.link.as_ref().expect("a link has facts").link_id.clone()
}

/// A link for one connection only.
async fn link_for(world: &World, connection: &str) -> pb::CreateConnectLinkResponse {
    let connection_id = Some(connection.to_owned());
    let request =
        pb::CreateConnectLinkRequest { workspace_id: ACME.into(), connection_id, ..Default::default() };
    world.connector().await.link_with(request).await.expect("a link is made")
}

/// Everything on the page is for people: no code of ours, and a way on.
fn is_plain(shown: &str) {
    let code = |word: &&str| word.contains('_') && word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    let codes: Vec<_> = shown.split(|c: char| !c.is_alphanumeric() && c != '_').filter(code).collect();
    assert!(codes.is_empty(), "codes in a text for people: {codes:?}\n{shown}");
    let ways = ["What to do: ", "Who can help: ", "Ask whoever sent it", "Open the link that you were sent"];
    assert!(ways.iter().any(|way| shown.contains(way)), "no way on:\n{shown}");
}

/// Opens a link without a browser, and returns the card.
async fn card(visitor: &mut Visitor, world: &World, link: &str) -> Answer {
    let entered = visitor.get(link).await;
    assert_eq!(entered.status.as_u16(), 303, "{entered:?}");
    visitor.get(&format!("{}{}", world.portal_url(), entered.location)).await
}

/// Begins an authorization without a browser, and returns where the person's decision sends the browser.
async fn callback(
    visitor: &mut Visitor,
    world: &World,
    made: &pb::CreateConnectLinkResponse,
    person: &str,
) -> String {
    let csrf = card(visitor, world, &made.url).await.field("csrf").expect("the card has forms").to_owned();
    let begun = visitor.post(&step(world, made, "connect"), &[("csrf", &csrf)], &[]).await;
    let (_, rest) =
        begun.body.split_once("<a class=\"button primary\" href=\"").expect("a link to the dialog");
    let dialog = rest.split('"').next().unwrap_or_default().replace("&amp;", "&");
    let url = url::Url::parse(&dialog).expect("an address");
    let state = url.query_pairs().find(|(name, _)| name == "state").expect("a state").1.into_owned();
    world.know("state", &state);
    world.sandbox.consent(&dialog, person, Decision::Allow).expect("the dialog is shown")
}

/// The address of a form of the card.
fn step(world: &World, made: &pb::CreateConnectLinkResponse, step: &str) -> String {
    format!("{}/card/{}/{step}", world.portal_url(), id_of(made))
}

/// How many codes were exchanged, or were to be.
fn codes(world: &World) -> usize {
    world.sandbox.requests().iter().filter(|request| request.param("code").is_some()).count()
}
