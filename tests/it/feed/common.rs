//! Helpers for the tests of the feed.

use std::collections::BTreeSet;

use token_vault_proto::v1::expiry_event::Kind;
use token_vault_proto::v1::token::Status;
use token_vault_proto::v1::watch_expiry_events_request::{From as StartFrom, Start};
use token_vault_proto::v1::{ExpiryEvent, ListExpiryEventsRequest as History, Severity};
use token_vault_tests::prelude::*;

pub(super) const DAY: u64 = 86_400;
pub(super) const GLOBEX: &str = "globex";
/// The error body of a token that ended with a password change.
pub(super) const DEAD: &str =
    r#"{"error":{"message":"x","type":"OAuthException","code":190,"error_subcode":460}}"#;

pub(super) fn from(place: StartFrom) -> Option<Start> {
    Some(Start::From(place.into()))
}

pub(super) fn after(cursor: &str) -> Option<Start> {
    Some(Start::Cursor(cursor.into()))
}

pub(super) fn sequences(events: &[ExpiryEvent]) -> Vec<i64> {
    events.iter().map(|event| event.sequence).collect()
}

pub(super) fn kinds(events: &[ExpiryEvent]) -> Vec<Kind> {
    events.iter().map(ExpiryEvent::kind).collect()
}

pub(super) fn micros(at: Option<&prost_types::Timestamp>) -> i64 {
    let at = at.expect("a moment");
    at.seconds * 1_000_000 + i64::from(at.nanos) / 1_000
}

/// Asserts what holds for every event of a connection.
pub(super) fn assert_sound(event: &ExpiryEvent) {
    let shown = format!("{event:#?}");
    let cursor = &event.cursor;
    assert!((1..=256).contains(&cursor.len()) && cursor.bytes().all(|b| b.is_ascii_graphic()), "{shown}");
    assert!(micros(event.occurred_at.as_ref()) <= micros(event.recorded_at.as_ref()), "{shown}");
    assert!(event.expiry.is_some() && event.subject.is_some() && event.token_version >= 1, "{shown}");
    let remedy = event.remedy.as_ref().expect("a remedy");
    assert!(!remedy.message.is_empty() && remedy.fixer() != pb::Fixer::Unspecified, "{shown}");
    assert!(event.incident >= 1 && event.incident <= event.sequence, "{shown}");
    assert!(event.closes.iter().all(|closed| (1..event.sequence).contains(closed)), "{shown}");
}

/// Severity, status and usability after the event.
pub(super) fn after_it(event: &ExpiryEvent) -> (Severity, Status, bool) {
    assert_sound(event);
    (event.severity(), event.status(), event.usable)
}

/// A live connection, and one that a password change has invalidated.
pub(super) async fn one_lives_and_one_is_dead(world: &World, workspace: &str) -> (String, String) {
    let connector = world.connector().await;
    let lives = connector.connect(workspace, &world.person("liv").long_lived_token()).await;
    let (mort, dead) = dies(world, workspace, "mort").await;
    drop(mort);
    (lives, dead)
}

pub(super) async fn dies(world: &World, workspace: &str, name: &str) -> (token_vault_sandbox::User, String) {
    let person = world.person(name);
    let id = world.connector().await.connect(workspace, &person.long_lived_token()).await;
    person.changes_password();
    let report = world.ingestion().await.report(&id, 1, 400, DEAD).await.expect("a report is taken");
    assert!(!report.token.expect("a token").usable);
    (person, id)
}

pub(super) async fn acknowledge(
    caller: &Caller,
    name: &str,
    cursor: &str,
    allow_rewind: bool,
) -> Result<pb::Subscription, Denial> {
    let request =
        pb::AcknowledgeEventsRequest { subscription: name.into(), cursor: cursor.into(), allow_rewind };
    Ok(caller.acknowledge_events(request).await?.subscription.expect("an answer has a subscription"))
}

/// All pages of a listing, and the cursor that all of them carry.
pub(super) async fn pages(caller: &Caller, request: History) -> (Vec<ExpiryEvent>, String) {
    let (mut events, mut cursors, mut page_token) = (Vec::new(), BTreeSet::new(), String::new());
    loop {
        let page =
            caller.list_expiry_events(History { page_token, ..request.clone() }).await.expect("a page");
        assert!(page.events.len() <= 1_000);
        events.extend(page.events);
        cursors.insert(page.cursor);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            assert_eq!(cursors.len(), 1, "the position is the same on every page");
            return (events, cursors.pop_first().unwrap_or_default());
        }
    }
}
