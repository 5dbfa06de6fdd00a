//! How the demo talks: lines with colours for a terminal.

use std::io::{IsTerminal, Write};

use anyhow::Context;
use token_vault_client::v1::{Token, check, token};

pub(super) fn show(token: &Token) -> anyhow::Result<()> {
    let badge = token.badge.clone().unwrap_or_default();
    let text = match badge.color() {
        token::badge::Color::Green => green(&format!("● {}", badge.text)),
        token::badge::Color::Amber => paint("33", &format!("● {}", badge.text)),
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
        check::Result::Warn => paint("33", "!"),
        _ => "·".to_owned(),
    }
}

pub(super) fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").context("nobody listens any more")
}

pub(super) fn paint(code: &str, text: &str) -> String {
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if colours { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

pub(super) fn bold(text: &str) -> String {
    paint("1", text)
}

pub(super) fn green(text: &str) -> String {
    paint("32", text)
}

pub(super) fn red(text: &str) -> String {
    paint("31", text)
}
