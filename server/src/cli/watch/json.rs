//! Events, and tokens of a snapshot, as JSON for programs, with the names of the protocol.

use serde_json::{Value, json};
use token_vault_client::v1::expiry_event::{Detail, Kind};
use token_vault_client::v1::{Budget, Expiry, ExpiryEvent, Problem, Remedy, Subject, Token};

use crate::cli::terminal::time::full;

/// The kind's name without the prefix that all kinds share.
pub(in crate::cli) fn kind_name(kind: Kind) -> &'static str {
    bare(kind.as_str_name(), "KIND_")
}

/// The event as one JSON object, with the names of the protocol.
pub(super) fn event(event: &ExpiryEvent) -> Value {
    let mut fields = json!({
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
        "occurred_at": full(event.occurred_at),
        "recorded_at": full(event.recorded_at),
        "status": bare(event.status().as_str_name(), "STATUS_"),
        "usable": event.usable,
        "expiry": event.expiry.as_ref().map(expiry),
        "days_left": event.days_left.filter(|_| event.usable),
        "reason": bare(event.reason().as_str_name(), "REFUSAL_REASON_"),
        "provider_code": event.provider_code,
        "remedy": event.remedy.as_ref().map(remedy),
        "incident": event.incident,
        "closes": event.closes,
        "connect_link_id": event.connect_link_id,
    });
    if let (Some(fields), Some((name, value))) = (fields.as_object_mut(), event.detail.as_ref().map(detail)) {
        fields.insert(name.to_owned(), value);
    }
    fields
}

/// The state of one token as one JSON object.
pub(super) fn token(token: &Token) -> Value {
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
        "days_left": badge.days_left.filter(|_| token.usable),
        "reason": bare(token.invalid_reason().as_str_name(), "REFUSAL_REASON_"),
        "provider_code": token.provider_code,
        "invalid_since": full(token.invalid_since),
        "last_known_good": full(token.last_known_good),
        "next_renewal_at": full(token.next_renewal_at),
        "last_event_sequence": token.last_event_sequence,
        "problems": token.problems.iter().map(problem).collect::<Vec<_>>(),
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
            let (good, bad) = (full(it.last_known_good), full(it.first_known_bad));
            ("died", json!({ "last_known_good": good, "first_known_bad": bad }))
        }
        Detail::Restored(it) => {
            let (from, to, cause) = (full(it.gap_start), full(it.gap_end), kind_name(it.cause()));
            ("restored", json!({ "gap_start": from, "gap_end": to, "cause": cause }))
        }
        Detail::Renewed(it) => {
            ("renewed", json!({ "previous_expiry": it.previous_expiry.as_ref().map(expiry) }))
        }
        Detail::RotationFailed(it) => {
            let next = full(it.next_attempt_at);
            let fields =
                json!({ "at_ceiling": it.at_ceiling, "attempts": it.attempts, "next_attempt_at": next });
            ("rotation_failed", fields)
        }
        Detail::Changed(it) => {
            let fields = json!({
                "added": it.added,
                "removed": it.removed,
                "left_out_added": it.left_out_added,
                "left_out_removed": it.left_out_removed,
            });
            ("changed", fields)
        }
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
    json!({ "kind": kind, "at": full(expiry.at), "source": source })
}

fn remedy(remedy: &Remedy) -> Value {
    let fixer = bare(remedy.fixer().as_str_name(), "FIXER_");
    json!({ "fixer": fixer, "message": remedy.message, "action": remedy.action, "url": remedy.url })
}

fn problem(problem: &Problem) -> Value {
    json!({
        "reason": bare(problem.reason().as_str_name(), "ERROR_REASON_"),
        "severity": bare(problem.severity().as_str_name(), "SEVERITY_"),
        "since": full(problem.since),
        "remedy": problem.remedy.as_ref().map(remedy),
    })
}

fn budget(budget: &Budget) -> Value {
    json!({ "scope": budget.scope, "utilization_percent": budget.utilization_percent })
}

fn bare(name: &'static str, prefix: &str) -> &'static str {
    name.strip_prefix(prefix).unwrap_or(name)
}
