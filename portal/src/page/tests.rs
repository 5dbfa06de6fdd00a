use std::collections::HashMap;

use token_vault_client::Timestamp;
use token_vault_client::v1::token::{Badge, badge};
use token_vault_client::v1::{
    AdAccount, Check, ConnectLink, ConnectionCard, Deadline, ErrorReason, Expiry, Fixer,
    OpenConnectLinkResponse, Problem, Remedy, Severity, Subject, Token, ad_account, check, connect_link,
    deadline, expiry,
};

use super::card::{Back, Card};
use crate::config::Site;
use crate::config::tests::config;
use crate::notice::Notice;
use crate::outcome::Outcome;
use crate::texts;
use crate::web::link::LinkId;

const CONNECTION: &str = "01890000-0000-7000-8000-000000000001";

fn at(seconds: i64) -> Expiry {
    let at = Some(Timestamp { seconds, nanos: 0 });
    Expiry { kind: expiry::Kind::At.into(), at, ..Default::default() }
}

fn link(state: connect_link::State) -> ConnectLink {
    ConnectLink {
        link_id: "abcdefghijklmn27".into(),
        workspace_id: "acme".into(),
        provider: "meta".into(),
        state: state.into(),
        ..Default::default()
    }
}

fn token(color: badge::Color, text: &str) -> Token {
    Token {
        connection_id: CONNECTION.into(),
        workspace_id: "acme".into(),
        provider: "meta".into(),
        subject: Some(Subject { id: "10158".into(), name: "Jane Example".into(), ..Default::default() }),
        badge: Some(Badge { color: color.into(), text: text.into(), days_left: None }),
        deadlines: vec![
            Deadline {
                kind: deadline::Kind::Token.into(),
                expiry: Some(at(1_763_859_600)),
                blocks: true,
                ..Default::default()
            },
            Deadline {
                kind: deadline::Kind::DataAccess.into(),
                expiry: Some(at(1_763_946_000)),
                ..Default::default()
            },
        ],
        scopes: vec!["ads_read".into(), "some_new_scope".into()],
        usable: true,
        ..Default::default()
    }
}

fn open(state: connect_link::State, tokens: Vec<Token>) -> OpenConnectLinkResponse {
    let card = |token| ConnectionCard { token: Some(token), ..Default::default() };
    OpenConnectLinkResponse {
        link: Some(link(state)),
        workspace_display_name: "Acme Ltd".into(),
        connections: tokens.into_iter().map(card).collect(),
        required_scopes: vec!["ads_read".into()],
        optional_scopes: vec!["business_management".into()],
        ..Default::default()
    }
}

fn remedy(fixer: Fixer, message: &str, action: &str, url: &str) -> Option<Remedy> {
    Some(Remedy { fixer: fixer.into(), message: message.into(), action: action.into(), url: url.into() })
}

fn problem(reason: ErrorReason, remedy: Option<Remedy>) -> Problem {
    let severity = Severity::Critical.into();
    Problem { reason: reason.into(), severity, remedy, ..Default::default() }
}

fn site() -> Site {
    Site::new(&config("https://connect.example")).unwrap()
}

fn render<'a>(open: &'a OpenConnectLinkResponse, change: impl FnOnce(&mut Card<'a>)) -> String {
    // The card borrows them for as long as the response, which the caller has.
    let site: &'static Site = Box::leak(Box::new(site()));
    let id: &'static LinkId = Box::leak(Box::new(LinkId::parse("abcdefghijklmn27").unwrap()));
    let mut card = Card::new(site, id, open);
    card.csrf = Some("c5f".into());
    change(&mut card);
    card.page().into_string()
}

fn show(open: &OpenConnectLinkResponse) -> String {
    render(open, |_| {})
}

#[track_caller]
fn has(page: &str, parts: &[&str]) {
    for part in parts {
        assert!(page.contains(part), "{part} is missing in {page}");
    }
}

#[track_caller]
fn lacks(page: &str, parts: &[&str]) {
    for part in parts {
        assert!(!page.contains(part), "{part} is in {page}");
    }
}

#[tokio::test]
async fn without_a_connection_it_says_so_and_offers_one() {
    let page = show(&open(connect_link::State::Open, vec![]));
    has(
        &page,
        &[
            "<html lang=\"en\">",
            "<h1>Meta for Acme Ltd</h1>",
            "Nothing is connected yet",
            "action=\"/card/abcdefghijklmn27/connect\"",
            "name=\"csrf\" value=\"c5f\"",
            "Connect Meta",
            "Read your ads and their results",
            "See your businesses",
            "type=\"password\" autocomplete=\"off\"",
        ],
    );
    assert_eq!(page.matches("<h1>").count(), 1);
    lacks(&page, &["Reconnect", "Check now"]);
}

#[tokio::test]
async fn a_healthy_connection_is_green_with_both_clocks() {
    let page = show(&open(connect_link::State::Open, vec![token(badge::Color::Green, "Active")]));
    has(
        &page,
        &[
            "<span class=\"badge green\">Active</span>",
            "Jane Example",
            "<time datetime=\"2025-11-23T01:00:00Z\">23 November 2025, 01:00 UTC</time>",
            "<time datetime=\"2025-11-24T01:00:00Z\">",
            "Reconnect Meta",
            "Check now",
            "Connect another Meta account",
            "<code>some_new_scope</code>",
        ],
    );
    lacks(&page, &["What needs attention", "Permissions missing"]);
}

#[tokio::test]
async fn a_connection_that_ends_tells_what_to_press() {
    let mut expiring = token(badge::Color::Amber, "Expiring in 3 days");
    let told = remedy(Fixer::WorkspaceOwner, "It ends soon.", "Ask the workspace owner to reconnect.", "");
    expiring.problems = vec![problem(ErrorReason::ExpiringSoon, told)];
    let open = open(connect_link::State::Open, vec![expiring.clone()]);
    let page = show(&open);
    has(&page, &["badge amber", "Expiring in 3 days", "Press “Reconnect Meta” and agree again."]);
    lacks(&page, &["Ask the workspace owner"]);
    let read_only = render(&open, |card| card.csrf = None);
    has(&read_only, &["Ask the workspace owner to reconnect."]);
}

#[tokio::test]
async fn a_dead_connection_says_who_helps_and_where() {
    let mut dead = token(badge::Color::Red, "Security check");
    let told = remedy(Fixer::WorkspaceOwner, "A check waits.", "Log in there.", "https://www.facebook.com/");
    let operator = remedy(Fixer::Operator, "Wrong app.", "Check the configuration.", "javascript:alert(1)");
    dead.problems =
        vec![problem(ErrorReason::TokenInvalid, told), problem(ErrorReason::ProviderMisconfigured, operator)];
    let page = show(&open(connect_link::State::Open, vec![dead]));
    has(
        &page,
        &[
            "badge red",
            "A check waits.",
            "Log in there.",
            "href=\"https://www.facebook.com/\" target=\"_blank\" rel=\"noopener noreferrer\"",
            "the people who run Token Vault",
        ],
    );
    lacks(&page, &["javascript:"]);
    assert!(page.find("A check waits.") < page.find("Wrong app."), "the worst stays first");
}

#[tokio::test]
async fn missing_scopes_are_named_in_words() {
    let mut lacking = token(badge::Color::Red, "Missing ads_management");
    lacking.missing_required_scopes = vec!["ads_management".into()];
    lacking.missing_optional_scopes = vec!["business_management".into()];
    let page = show(&open(connect_link::State::Open, vec![lacking]));
    has(
        &page,
        &[
            "Permissions missing",
            "Manage your ads and see your ad accounts <code>ads_management</code> (needed)",
            "<code>business_management</code> (optional)",
        ],
    );
}

#[tokio::test]
async fn unreachable_accounts_come_first_with_their_reason() {
    let account = |id: &str, reachable| AdAccount {
        id: id.into(),
        name: format!("Shop {id}"),
        state: ad_account::State::Active.into(),
        reachable,
        problem: (!reachable).then(|| {
            let told = remedy(Fixer::AdAccountAdmin, "The role was removed.", "Restore it.", "");
            problem(ErrorReason::AdAccountsUnreachable, told)
        }),
        ..Default::default()
    };
    let mut open = open(connect_link::State::Open, vec![token(badge::Color::Amber, "1 account")]);
    open.connections[0].ad_accounts = vec![account("act_1", true), account("act_2", false)];
    open.connections[0].left_out_ad_accounts = 3;
    let page = show(&open);
    has(
        &page,
        &[
            "Ad accounts (5)",
            "… and 3 more",
            "not reachable",
            "The role was removed.",
            "of its business, at Meta",
        ],
    );
    assert!(page.find("act_2") < page.find("act_1"));
    // The provider is not asked with a token that is dead, so nobody knows whether the first one is.
    lacks(&page, &["was reachable"]);
    open.connections[0].token.as_mut().unwrap().usable = false;
    has(&show(&open), &["was reachable", "not reachable"]);
}

#[tokio::test]
async fn a_used_link_shows_the_card_without_ways_to_connect() {
    let page = show(&open(connect_link::State::Used, vec![token(badge::Color::Green, "Active")]));
    has(&page, &["This link has been used", "Jane Example", "Check now"]);
    lacks(&page, &["/connect\"", "/paste\"", "access_token"]);
    let page = show(&open(connect_link::State::Used, vec![]));
    lacks(&page, &["/connect\"", "/paste\""]);
}

#[tokio::test]
async fn a_link_for_one_connection_offers_no_other() {
    let mut open = open(connect_link::State::Open, vec![token(badge::Color::Green, "Active")]);
    open.link.as_mut().unwrap().connection_id = Some(CONNECTION.into());
    let page = show(&open);
    has(&page, &["Reconnect Meta"]);
    lacks(&page, &["Connect another"]);
}

#[tokio::test]
async fn an_embedded_card_has_no_forms() {
    let page = render(&open(connect_link::State::Open, vec![token(badge::Color::Green, "Active")]), |card| {
        card.csrf = None;
        card.embedded = true;
    });
    lacks(&page, &["<form", "<input", "<button"]);
    has(&page, &["href=\"/card/abcdefghijklmn27\" target=\"_blank\" rel=\"noopener\""]);
}

#[tokio::test]
async fn checks_tell_results_rows_and_remedies() {
    let check = |name: &str, result: check::Result, told, facts: &[(&str, &str)]| Check {
        name: name.into(),
        result: result.into(),
        remedy: told,
        metadata: facts.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<HashMap<_, _>>(),
    };
    let fine = remedy(Fixer::Nobody, "Read 7 rows of the last 7 days.", "Nothing to do.", "");
    let bad = remedy(Fixer::WorkspaceOwner, "Scopes are missing.", "Ask somebody.", "");
    let checks = [
        check("required_scopes", check::Result::Fail, bad, &[]),
        check("smoke_test", check::Result::Pass, fine, &[("rows", "7")]),
        check("a_new_check", check::Result::Skipped, None, &[("rows", "9")]),
    ];
    let open = open(connect_link::State::Open, vec![]);
    let checks = &checks;
    let page = render(&open, |card| {
        card.checks = checks;
        card.notice = Some(texts::checked());
    });
    has(
        &page,
        &[
            "id=\"result\" class=\"notice good\" role=\"status\" tabindex=\"-1\" autofocus",
            "Does not work",
            "leave all permissions switched on",
            "In order</span>, 7 rows read",
            "a new check",
            "Not checked",
        ],
    );
    lacks(&page, &["Nothing to do.", "Read 7 rows", "9 rows", "Ask somebody."]);
}

#[tokio::test]
async fn nothing_from_the_vault_is_taken_for_html() {
    let evil = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>";
    let told = || remedy(Fixer::WorkspaceOwner, evil, evil, "https://a.example/\"><script>");
    let mut hostile = token(badge::Color::Red, evil);
    hostile.connection_id = evil.into();
    hostile.subject = Some(Subject { id: evil.into(), name: evil.into(), ..Default::default() });
    hostile.scopes = vec![evil.into()];
    hostile.missing_required_scopes = vec![evil.into()];
    hostile.problems = vec![problem(ErrorReason::TokenInvalid, told())];
    let mut open = open(connect_link::State::Open, vec![hostile]);
    open.workspace_display_name = evil.into();
    open.link.as_mut().unwrap().provider = evil.into();
    open.link.as_mut().unwrap().return_url = format!("https://app.example/{evil}?a={evil}");
    open.connections[0].ad_accounts = vec![AdAccount {
        id: evil.into(),
        name: evil.into(),
        provider_state: evil.into(),
        state: ad_account::State::Unknown.into(),
        problem: Some(problem(ErrorReason::Unspecified, told())),
        ..Default::default()
    }];
    let checks = [Check { name: evil.into(), remedy: told(), ..Default::default() }];
    let back = Back::of(&open, Outcome::Connected, evil);
    let checks = &checks;
    let page = render(&open, |card| {
        card.checks = checks;
        card.notice = Some(Notice { missing: vec![evil.into()], ..texts::connected(evil) });
        card.back = back;
    });
    lacks(&page, &["<script>", "<img src=x", "alert('x')</script>"]);
    has(&page, &["&lt;script&gt;"]);
    // Each attribute is still one: no quotation mark of a value has ended it early.
    lacks(&page, &["\"><img", "onerror=alert(1)>"]);
}

#[tokio::test]
async fn only_the_links_own_address_leads_back() {
    let mut open = open(connect_link::State::Used, vec![]);
    assert!(Back::of(&open, Outcome::Connected, CONNECTION).is_none());
    for bad in ["javascript:alert(1)", "data:text/html,x", "//evil.example", "app.example"] {
        open.link.as_mut().unwrap().return_url = bad.into();
        assert!(Back::of(&open, Outcome::Connected, CONNECTION).is_none(), "{bad}");
    }
    open.link.as_mut().unwrap().return_url = "https://app.example/done?step=2".into();
    let back = Back::of(&open, Outcome::Connected, CONNECTION);
    let page = render(&open, |card| card.back = back);
    let expected = format!(
        "https://app.example/done?step=2&amp;connect_result=connected&amp;connection_id={CONNECTION}"
    );
    has(&page, &[&expected, "Continue to app.example"]);
    lacks(&page, &["http-equiv"]);
    let back = Back::of(&open, Outcome::Declined, CONNECTION);
    let page = render(&open, |card| card.back = back);
    has(&page, &["connect_result=declined", "Back to app.example"]);
    lacks(&page, &["http-equiv", "connection_id="]);
}

#[tokio::test]
async fn the_json_says_the_same() {
    let mut open = open(connect_link::State::Open, vec![token(badge::Color::Green, "Active")]);
    open.connections[0].ad_accounts = vec![AdAccount { id: "act_1".into(), ..Default::default() }];
    let json = super::json::card(&LinkId::parse("abcdefghijklmn27").unwrap(), &open, "c5f");
    assert_eq!(json["state"], "OPEN");
    assert_eq!(json["can_connect"], true);
    assert_eq!(json["csrf"], "c5f");
    let connection = &json["connections"][0];
    assert_eq!(connection["badge"]["color"], "GREEN");
    assert_eq!(connection["deadlines"][1]["kind"], "DATA_ACCESS");
    assert_eq!(connection["deadlines"][1]["ends_at"], "2025-11-24T01:00:00Z");
    assert_eq!(connection["ad_accounts"][0]["id"], "act_1");
}

#[tokio::test]
async fn the_json_names_only_addresses_that_a_page_may_link_to() {
    for (url, back, help) in [
        ("https://a.example/b", true, true),
        ("http://a.example/b", true, false),
        ("javascript:alert(1)", false, false),
        ("data:text/html,x", false, false),
        ("//a.example", false, false),
        ("", false, false),
    ] {
        let mut token = token(badge::Color::Red, "Reconnect");
        let told = remedy(Fixer::WorkspaceOwner, "A check waits.", "Log in there.", url);
        token.problems = vec![problem(ErrorReason::TokenInvalid, told)];
        let mut open = open(connect_link::State::Open, vec![token]);
        open.link.as_mut().unwrap().return_url = url.into();
        let json = super::json::card(&LinkId::parse("abcdefghijklmn27").unwrap(), &open, "c5f");
        assert_eq!(json["return_url"] == url, back, "{url}: {json}");
        assert_eq!(json["connections"][0]["problems"][0]["url"] == url, help, "{url}: {json}");
    }
}

#[tokio::test]
async fn no_page_has_inline_scripts_or_styles() {
    let site = site();
    let open = open(connect_link::State::Open, vec![token(badge::Color::Green, "Active")]);
    for page in [
        show(&open),
        super::message(&site, &texts::link_is_over()).into_string(),
        super::leaving(&site, "Meta", "https://www.facebook.com/dialog").into_string(),
    ] {
        lacks(&page, &["style=", "<style", " onclick", " onload", "http://"]);
        assert_eq!(page.matches("<script").count(), 1);
        has(&page, &["<script src=\"/assets/time.js\" defer></script>", "<main>", "name=\"viewport\""]);
    }
}
