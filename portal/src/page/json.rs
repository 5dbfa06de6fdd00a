//! The card as JSON, for a platform that shows it in a design of its own.

use jiff::Timestamp;
use serde_json::{Value, json};
use token_vault_client::v1::{
    AdAccount, ConnectionCard, Deadline, Expiry, OpenConnectLinkResponse, Problem, Token, expiry,
};

use super::card::{is_open, provider, return_url, workspace};
use crate::notice::https;
use crate::web::link::LinkId;

/// What the card shows. `csrf` is what a form must carry.
pub(crate) fn card(id: &LinkId, open: &OpenConnectLinkResponse, csrf: &str) -> Value {
    let link = open.link.as_ref();
    json!({
        "link_id": id.as_str(),
        "state": link.map(|link| name(link.state().as_str_name(), "STATE_")),
        "can_connect": is_open(open),
        "expires_at": link.and_then(|link| time(link.expires_at.as_ref())),
        "connection_id": link.and_then(|link| link.connection_id.as_deref()),
        "return_url": return_url(open).map(String::from),
        "workspace": workspace(open),
        "provider": provider(open),
        "required_scopes": open.required_scopes,
        "optional_scopes": open.optional_scopes,
        "connections": open.connections.iter().map(connection).collect::<Vec<_>>(),
        "left_out_connections": open.left_out_connections,
        "csrf": csrf,
    })
}

fn connection(card: &ConnectionCard) -> Value {
    let fallback = Token::default();
    let token = card.token.as_ref().unwrap_or(&fallback);
    let subject = token.subject.as_ref();
    let badge = token.badge.as_ref();
    json!({
        "connection_id": token.connection_id,
        "subject": {
            "id": subject.map(|subject| subject.id.as_str()),
            "name": subject.map(|subject| subject.name.as_str()),
        },
        "status": name(token.status().as_str_name(), "STATUS_"),
        "usable": token.usable,
        "badge": {
            "color": badge.map(|badge| name(badge.color().as_str_name(), "COLOR_")),
            "text": badge.map(|badge| badge.text.as_str()),
            "days_left": badge.and_then(|badge| badge.days_left),
        },
        "deadlines": token.deadlines.iter().map(deadline).collect::<Vec<_>>(),
        "scopes": token.scopes,
        "missing_required_scopes": token.missing_required_scopes,
        "missing_optional_scopes": token.missing_optional_scopes,
        "problems": token.problems.iter().map(problem).collect::<Vec<_>>(),
        "last_checked_at": time(token.last_validated_at.as_ref()),
        "ad_accounts": card.ad_accounts.iter().map(ad_account).collect::<Vec<_>>(),
        "left_out_ad_accounts": card.left_out_ad_accounts,
    })
}

fn deadline(deadline: &Deadline) -> Value {
    json!({
        "kind": name(deadline.kind().as_str_name(), "KIND_"),
        "ends": deadline.expiry.as_ref().map(ends),
        "ends_at": deadline.expiry.as_ref().and_then(|expiry| time(expiry.at.as_ref())),
        "blocks": deadline.blocks,
    })
}

fn ends(expiry: &Expiry) -> String {
    match expiry.kind() {
        expiry::Kind::Unspecified => "UNKNOWN".to_owned(),
        kind => name(kind.as_str_name(), "KIND_"),
    }
}

fn problem(problem: &Problem) -> Value {
    let remedy = problem.remedy.as_ref();
    json!({
        "reason": name(problem.reason().as_str_name(), "ERROR_REASON_"),
        "severity": name(problem.severity().as_str_name(), "SEVERITY_"),
        "fixer": remedy.map(|remedy| name(remedy.fixer().as_str_name(), "FIXER_")),
        "message": remedy.map(|remedy| remedy.message.as_str()),
        "action": remedy.map(|remedy| remedy.action.as_str()),
        "url": remedy.and_then(|remedy| https(&remedy.url)),
    })
}

fn ad_account(account: &AdAccount) -> Value {
    json!({
        "id": account.id,
        "name": account.name,
        "state": name(account.state().as_str_name(), "STATE_"),
        "reachable": account.reachable,
        "problem": account.problem.as_ref().map(problem),
    })
}

fn name(full: &str, prefix: &str) -> String {
    full.strip_prefix(prefix).unwrap_or(full).to_owned()
}

fn time(at: Option<&token_vault_client::Timestamp>) -> Option<String> {
    at.and_then(|at| Timestamp::new(at.seconds, at.nanos).ok()).map(|at| at.to_string())
}
