//! How an event, and a token as a snapshot tells it, are shown: a line for people, JSON for scripts.

use serde_json::{Value, json};
use token_vault_client::Timestamp;
use token_vault_client::v1::expiry_event::{Detail, Kind};
use token_vault_client::v1::{Budget, Expiry, ExpiryEvent, Remedy, Severity, Subject, Token, token};

use crate::cli::terminal::paint::{amber, green, grey, red};
use crate::cli::terminal::table::{seconds, time};

/// The kind, without what all kinds begin with.
pub(in crate::cli) fn kind_name(kind: Kind) -> &'static str {
    bare(kind.as_str_name(), "KIND_")
}

/// The kind in the colour of how the token is after the event: red does not work, amber wants somebody.
pub(in crate::cli) fn kind(event: &ExpiryEvent) -> String {
    let text = format!("● {:19}", kind_name(event.kind()));
    let calm = event.severity() == Severity::Info;
    match event.status() {
        token::Status::Expired | token::Status::Invalid => red(&text),
        token::Status::Revoked => grey(&text),
        token::Status::Active if calm => green(&text),
        token::Status::Unspecified if calm => green(&text),
        token::Status::Unspecified => red(&text),
        _ => amber(&text),
    }
}

/// Who the token speaks for; of an event about a provider, the provider.
pub(in crate::cli) fn who(event: &ExpiryEvent) -> &str {
    if event.connection_id.is_empty() { &event.provider } else { subject_name(event.subject.as_ref()) }
}

fn subject_name(subject: Option<&Subject>) -> &str {
    match subject {
        Some(subject) if subject.name.is_empty() => &subject.id,
        Some(subject) => &subject.name,
        None => "",
    }
}

/// From when to when a restored connection did not work.
pub(in crate::cli) fn gap(event: &ExpiryEvent) -> Option<(Timestamp, Timestamp)> {
    match &event.detail {
        Some(Detail::Restored(restored)) => restored.gap_start.zip(restored.gap_end),
        _ => None,
    }
}

/// The event in one line.
pub(in crate::cli) fn line(event: &ExpiryEvent) -> String {
    let remedy = event.remedy.clone().unwrap_or_default();
    let mut told = match (event.connection_id.as_str(), event.workspace_id.as_str()) {
        ("", _) => format!("{}: {}", event.provider, remedy.message),
        (connection, workspace) => {
            format!("{} in {workspace} ({connection}): {}", who(event), remedy.message)
        }
    };
    if !remedy.action.is_empty() {
        told = format!("{told} {}", remedy.action);
    }
    if let Some((from, to)) = gap(event) {
        told = format!("{told} Backfill from {} to {}.", seconds(from), seconds(to));
    }
    let at = event.occurred_at.map(seconds).unwrap_or_default();
    format!("{at}  {} {told}", kind(event))
}

/// The state of one token in one line.
pub(in crate::cli) fn token_line(token: &Token) -> String {
    let badge = token.badge.clone().unwrap_or_default();
    let text = format!("● {:19}", badge.text);
    let text = match badge.color() {
        token::badge::Color::Green => green(&text),
        token::badge::Color::Amber => amber(&text),
        token::badge::Color::Red => red(&text),
        _ => grey(&text),
    };
    let end = match token.expiry.and_then(|expiry| expiry.at) {
        Some(at) => format!(", ends {}", seconds(at)),
        None => String::new(),
    };
    let at = token.updated_at.map(seconds).unwrap_or_default();
    let (name, id) = (subject_name(token.subject.as_ref()), &token.connection_id);
    format!("{at}  {text} {name} in {} ({id}): version {}{end}", token.workspace_id, token.token_version)
}

/// The event as one JSON object, with the names of the protocol.
pub(in crate::cli) fn describe(event: &ExpiryEvent) -> Value {
    let mut told = json!({
        "type": "event",
        "sequence": event.sequence,
        "cursor": event.cursor,
        "kind": kind_name(event.kind()),
        "severity": bare(event.severity().as_str_name(), "SEVERITY_"),
        "workspace_id": event.workspace_id,
        "provider": event.provider,
        "connection_id": event.connection_id,
        "subject": event.subject.as_ref().map(subject),
        "token_version": event.token_version,
        "occurred_at": time(event.occurred_at),
        "recorded_at": time(event.recorded_at),
        "status": bare(event.status().as_str_name(), "STATUS_"),
        "usable": event.usable,
        "expiry": event.expiry.as_ref().map(expiry),
        "days_left": event.days_left,
        "reason": bare(event.reason().as_str_name(), "REFUSAL_REASON_"),
        "provider_code": event.provider_code,
        "remedy": event.remedy.as_ref().map(remedy),
        "incident": event.incident,
        "closes": event.closes,
    });
    if let (Some(fields), Some((name, value))) = (told.as_object_mut(), event.detail.as_ref().map(detail)) {
        fields.insert(name.to_owned(), value);
    }
    told
}

/// The state of one token as one JSON object.
pub(in crate::cli) fn describe_token(token: &Token) -> Value {
    let badge = token.badge.clone().unwrap_or_default();
    json!({
        "type": "token",
        "connection_id": token.connection_id,
        "workspace_id": token.workspace_id,
        "provider": token.provider,
        "subject": token.subject.as_ref().map(subject),
        "token_version": token.token_version,
        "status": bare(token.status().as_str_name(), "STATUS_"),
        "usable": token.usable,
        "badge": badge.text,
        "expiry": token.expiry.as_ref().map(expiry),
        "days_left": badge.days_left,
        "reason": bare(token.invalid_reason().as_str_name(), "REFUSAL_REASON_"),
        "provider_code": token.provider_code,
        "invalid_since": time(token.invalid_since),
        "last_known_good": time(token.last_known_good),
        "next_renewal_at": time(token.next_renewal_at),
        "last_event_sequence": token.last_event_sequence,
    })
}

fn detail(detail: &Detail) -> (&'static str, Value) {
    match detail {
        Detail::Expiring(it) => {
            let threshold = it.threshold.map(|threshold| threshold.seconds);
            let deadline = bare(it.deadline().as_str_name(), "KIND_");
            ("expiring", json!({ "threshold_seconds": threshold, "deadline": deadline }))
        }
        Detail::Died(it) => {
            let (good, bad) = (time(it.last_known_good), time(it.first_known_bad));
            ("died", json!({ "last_known_good": good, "first_known_bad": bad }))
        }
        Detail::Restored(it) => {
            let (from, to, cause) = (time(it.gap_start), time(it.gap_end), kind_name(it.cause()));
            ("restored", json!({ "gap_start": from, "gap_end": to, "cause": cause }))
        }
        Detail::Renewed(it) => {
            ("renewed", json!({ "previous_expiry": it.previous_expiry.as_ref().map(expiry) }))
        }
        Detail::RotationFailed(it) => {
            let next = time(it.next_attempt_at);
            let told =
                json!({ "at_ceiling": it.at_ceiling, "attempts": it.attempts, "next_attempt_at": next });
            ("rotation_failed", told)
        }
        Detail::Changed(it) => ("changed", json!({ "added": it.added, "removed": it.removed })),
        Detail::Throttled(it) => ("throttled", json!({ "budget": it.budget.as_ref().map(budget) })),
    }
}

fn subject(subject: &Subject) -> Value {
    let kind = bare(subject.r#type().as_str_name(), "TYPE_");
    json!({ "id": subject.id, "name": subject.name, "type": kind })
}

fn expiry(expiry: &Expiry) -> Value {
    let kind = bare(expiry.kind().as_str_name(), "KIND_");
    let source = bare(expiry.source().as_str_name(), "SOURCE_");
    json!({ "kind": kind, "at": time(expiry.at), "source": source })
}

fn remedy(remedy: &Remedy) -> Value {
    let fixer = bare(remedy.fixer().as_str_name(), "FIXER_");
    json!({ "fixer": fixer, "message": remedy.message, "action": remedy.action, "url": remedy.url })
}

fn budget(budget: &Budget) -> Value {
    json!({ "scope": budget.scope, "utilization_percent": budget.utilization_percent })
}

fn bare(name: &'static str, prefix: &str) -> &'static str {
    name.strip_prefix(prefix).unwrap_or(name)
}
