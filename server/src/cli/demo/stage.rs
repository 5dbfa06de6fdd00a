//! How the demo talks: lines with colours for a terminal.

use std::io::Write;

use anyhow::Context;
use token_vault_client::v1::{Token, check, token};

use crate::cli::terminal::paint::{amber, bold, green, red};

pub(super) fn show(token: &Token) -> anyhow::Result<()> {
    let badge = token.badge.clone().unwrap_or_default();
    let text = match badge.color() {
        token::badge::Color::Green => green(&format!("● {}", badge.text)),
        token::badge::Color::Amber => amber(&format!("● {}", badge.text)),
        token::badge::Color::Red => red(&format!("● {}", badge.text)),
        _ => format!("● {}", badge.text),
    };
    let days = badge
        .days_left
        .filter(|_| token.usable)
        .map(|days| format!(", {days} days left"))
        .unwrap_or_default();
    let who = token.subject.as_ref().map(|subject| subject.name.as_str()).unwrap_or_default();
    say(&format!(
        "       {text}  {who} in {}: {} version {}{days}",
        token.workspace_id, token.connection_id, token.token_version
    ))
}

pub(super) fn step(number: u8, title: &str, what: &str) -> anyhow::Result<()> {
    say(&format!("  {} {}  {what}", bold(&number.to_string()), bold(title)))
}

pub(super) fn mark(result: check::Result) -> String {
    match result {
        check::Result::Pass => green("✓"),
        check::Result::Fail => red("✗"),
        check::Result::Warn => amber("!"),
        _ => "·".to_owned(),
    }
}

pub(super) fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").context("nobody listens any more")
}
