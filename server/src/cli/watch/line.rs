//! How an event, and a token of a snapshot, are shown to people: a line with time, kind and owner, and below it,
//! indented, what is wrong and what to do about it.

use token_vault_client::Timestamp;
use token_vault_client::v1::expiry_event::Detail;
use token_vault_client::v1::{ExpiryEvent, Remedy, Severity, Subject, Token, token};

use super::json::kind_name;
use crate::cli::terminal::id_end;
use crate::cli::terminal::paint::{amber, green, grey, red};
use crate::cli::terminal::screen::indented;
use crate::cli::terminal::table::Fit;
use crate::cli::terminal::time::{minute, second};

/// Column widths: for a time to the minute, and for the longest kind.
const TIME: usize = "2027-01-15 08:00".len();
const KIND: usize = 20;

/// The kind in the colour of how the token is after the event: red does not work, amber needs attention.
pub(in crate::cli) fn kind(event: &ExpiryEvent, width: usize) -> String {
    let text = format!("● {:width$}", kind_name(event.kind()));
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

/// The subject that the token acts for, or the provider if the event is about a provider.
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

/// The time during which a restored connection did not work.
pub(in crate::cli) fn gap(event: &ExpiryEvent) -> Option<(Timestamp, Timestamp)> {
    match &event.detail {
        Some(Detail::Restored(restored)) => restored.gap_start.zip(restored.gap_end),
        _ => None,
    }
}

/// Shows an event.
pub(super) fn event(event: &ExpiryEvent, fit: Fit) -> String {
    let whom = match event.connection_id.as_str() {
        "" => event.provider.clone(),
        connection => owner(who(event), &event.workspace_id, connection, fit),
    };
    let mut remarks: Vec<_> = event.remedy.iter().map(in_words).collect();
    if let Some((from, to)) = gap(event) {
        remarks.push(format!("Backfill from {} to {} UTC.", second(from), second(to)));
    }
    block(event.occurred_at, &kind(event, KIND), &whom, &remarks, fit)
}

/// Shows the state of a token, with everything that is wrong with it.
pub(super) fn token(token: &Token, fit: Fit) -> String {
    let badge = token.badge.clone().unwrap_or_default();
    let text = format!("● {:KIND$}", badge.text);
    let text = match badge.color() {
        token::badge::Color::Green => green(&text),
        token::badge::Color::Amber => amber(&text),
        token::badge::Color::Red => red(&text),
        _ => grey(&text),
    };
    // If the token does not work, its end does not matter.
    let end = token.expiry.and_then(|expiry| expiry.at).filter(|_| token.usable);
    let end = end.map(|at| format!(", ends {}", minute(at))).unwrap_or_default();
    let owner = owner(subject_name(token.subject.as_ref()), &token.workspace_id, &token.connection_id, fit);
    let whom = format!("{owner}, version {}{end}", token.token_version);
    let remarks: Vec<_> =
        token.problems.iter().filter_map(|problem| problem.remedy.as_ref()).map(in_words).collect();
    block(token.updated_at, &text, &whom, &remarks, fit)
}

fn owner(name: &str, workspace: &str, connection: &str, fit: Fit) -> String {
    let id = if fit == Fit::Wide { connection.to_owned() } else { id_end(connection) };
    format!("{name} in {workspace} ({id})")
}

fn in_words(remedy: &Remedy) -> String {
    format!("{} {} {}", remedy.message, remedy.action, remedy.url).trim().to_owned()
}

fn block(at: Option<Timestamp>, what: &str, whom: &str, remarks: &[String], fit: Fit) -> String {
    if fit == Fit::Wide {
        let at = at.map(second).unwrap_or_default();
        let remarks: String = remarks.iter().map(|remark| format!(" {remark}")).collect();
        return format!("{at}  {what} {whom}:{remarks}").trim_end_matches(':').to_owned();
    }
    let indent = " ".repeat(TIME + 4);
    let head = format!("{:TIME$}  {what} {whom}", at.map(minute).unwrap_or_default());
    let remarks = remarks.iter().map(|remark| indented(&indent, remark));
    std::iter::once(head).chain(remarks).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use token_vault_client::v1::Problem;
    use token_vault_client::v1::expiry_event::Kind;

    use super::*;

    const ID: &str = "01a206c3-e104-7602-81c8-46696f67bb1b";

    fn remedy() -> Option<Remedy> {
        Some(Remedy { message: "It is dead.".into(), action: "Reconnect.".into(), ..Remedy::default() })
    }

    #[test]
    fn an_event_is_a_line_with_what_to_do_below() {
        let shown = ExpiryEvent {
            connection_id: ID.into(),
            workspace_id: "acme".into(),
            subject: Some(Subject { name: "Ana".into(), ..Subject::default() }),
            kind: Kind::Invalidated.into(),
            occurred_at: Some(Timestamp { seconds: 1_800_000_000, nanos: 0 }),
            remedy: remedy(),
            ..ExpiryEvent::default()
        };
        assert_eq!(
            event(&shown, Fit::Screen),
            "2027-01-15 08:00  ● INVALIDATED          Ana in acme (…6f67bb1b)\n                    It is dead. Reconnect."
        );
        let wide = event(&shown, Fit::Wide);
        assert!(wide.lines().count() == 1 && wide.contains(ID) && wide.ends_with("Reconnect."), "{wide}");
    }

    #[test]
    fn a_dead_token_shows_why_and_not_when_it_would_have_ended() {
        let end = token_vault_client::v1::Expiry { at: Some(Timestamp::default()), ..Default::default() };
        let dead = Token {
            connection_id: ID.into(),
            expiry: Some(end),
            problems: vec![Problem { remedy: remedy(), ..Problem::default() }],
            ..Token::default()
        };
        let shown = token(&dead, Fit::Screen);
        assert!(shown.contains("It is dead. Reconnect.") && !shown.contains("ends"), "{shown}");
        assert!(token(&Token { usable: true, ..dead }, Fit::Screen).contains("ends"));
    }
}
