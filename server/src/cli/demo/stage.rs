//! How the demo writes: numbered steps, and details below them.

use token_vault_client::v1::{Token, check::Result as CheckResult, token};

use crate::cli::terminal::paint::{amber, bold, green, red};
use crate::cli::terminal::screen::{hanging, indented};
use crate::cli::terminal::{counted, id_end, say};

/// The indent of a detail.
pub(super) const DETAIL: &str = "    ";
/// The column width for the name of a check.
const CHECK: usize = 15;

pub(super) fn step(number: u8, title: &str, what: &str) -> anyhow::Result<()> {
    say(format_args!("  {} {}", bold(&number.to_string()), bold(title)))?;
    remark(what)
}

pub(super) fn remark(text: &str) -> anyhow::Result<()> {
    say(indented(DETAIL, text))
}

pub(super) fn show(token: &Token) -> anyhow::Result<()> {
    let badge = token.badge.clone().unwrap_or_default();
    let dot = format!("● {}", badge.text);
    let dot = match badge.color() {
        token::badge::Color::Green => green(&dot),
        token::badge::Color::Amber => amber(&dot),
        token::badge::Color::Red => red(&dot),
        _ => dot,
    };
    let days = badge.days_left.filter(|_| token.usable);
    let days = days.map(|days| format!(", {} left", counted(days, "day"))).unwrap_or_default();
    let name = token.subject.as_ref().map(|subject| subject.name.as_str()).unwrap_or_default();
    say(hanging(
        &format!("{DETAIL}{dot}  "),
        &format!(
            "{name} in {} ({}), version {}{days}",
            token.workspace_id,
            id_end(&token.connection_id),
            token.token_version
        ),
    ))
}

pub(super) fn check(result: CheckResult, name: &str, message: &str) -> anyhow::Result<()> {
    let mark = match result {
        CheckResult::Pass => green("✓"),
        CheckResult::Fail => red("✗"),
        CheckResult::Warn => amber("!"),
        _ => "·".to_owned(),
    };
    say(hanging(&format!("{DETAIL}{mark} {name:CHECK$}  "), message))
}
