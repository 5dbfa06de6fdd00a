//! Log lines: text in a terminal, JSON elsewhere, always on stderr.
//!
//! Libraries log at `info` at most, whatever the configured level: their `debug` and `trace` lines may print headers,
//! bodies and bound values, which are secrets here.

use std::collections::HashSet;
use std::io::{self, IsTerminal};
use std::panic::PanicHookInfo;

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterExt, LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, fmt};

/// The level of parts that `log.level` does not name, where no level stands alone: errors are always logged.
const UNNAMED: LevelFilter = LevelFilter::INFO;

const LEVELS: [(&str, LevelFilter); 5] = [
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
];

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text in a terminal, JSON elsewhere.
    Auto,
    Json,
    Text,
}

/// Starts logging, at a level that the configuration has checked. Called once per process.
pub fn init(format: LogFormat, level: &str) -> Result<(), TryInitError> {
    let terminal = io::stderr().is_terminal();
    let json = match format {
        LogFormat::Auto => !terminal,
        LogFormat::Json => true,
        LogFormat::Text => false,
    };
    let level = directives(level).unwrap_or_else(|| Targets::new().with_default(UNNAMED));
    let lines = layer(json, terminal).with_filter(level.and(filter_fn(is_allowed)));
    tracing_subscriber::registry().with(lines).try_init()?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Logs a panic like anything else, so that a log of JSON lines has no other lines.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map_or(String::new(), ToString::to_string);
    tracing::error!(location, cause = panic.payload_as_str().unwrap_or(""), "panic");
}

/// Whether `text` is a level or a list of directives.
pub(crate) fn is_level(text: &str) -> bool {
    directives(text).is_some()
}

/// Reads a level, or a list of levels of parts (`PART=LEVEL`) in which one level may stand alone. Empty directives, as
/// behind a last comma, say nothing.
///
/// The library's own parser takes a word that is no level for the name of a part, and then logs nothing of any other
/// part, not even errors.
fn directives(text: &str) -> Option<Targets> {
    let mut targets = Targets::new().with_default(UNNAMED);
    let mut named = HashSet::new();
    for directive in text.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        let part = directive.split_once('=').map(|(part, level)| (part.trim(), level.trim()));
        // What is named twice would have two levels.
        if !named.insert(part.map(|(part, _)| part)) {
            return None;
        }
        targets = match part {
            None => targets.with_default(level(directive)?),
            Some((part, "off")) if is_part(part) => targets.with_target(part, LevelFilter::OFF),
            Some((part, word)) if is_part(part) => targets.with_target(part, level(word)?),
            Some(_) => return None,
        };
    }
    (!named.is_empty()).then_some(targets)
}

fn level(word: &str) -> Option<LevelFilter> {
    LEVELS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, level)| *level)
}

/// Whether `name` may name a part of the program, such as `token_vault::vault`.
fn is_part(name: &str) -> bool {
    let is_identifier = |word: &str| {
        !word.starts_with(|first: char| first.is_ascii_digit())
            && !word.is_empty()
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    name.split("::").all(is_identifier)
}

fn layer<S>(json: bool, terminal: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(terminal);
    if json { lines.json().flatten_event(true).with_span_list(false).boxed() } else { lines.boxed() }
}

fn is_allowed(metadata: &Metadata<'_>) -> bool {
    let most = match metadata.target().split("::").next() {
        // It logs its internals at `info`.
        Some("tokio_cron_scheduler") => Level::WARN,
        _ => Level::INFO,
    };
    *metadata.level() <= most || is_ours(metadata.target())
}

fn is_ours(target: &str) -> bool {
    let root = target.split("::").next().unwrap_or(target);
    root == "token_vault" || root.starts_with("token_vault_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_that_see_secrets_stay_quiet() {
        for target in
            ["h2", "h2::codec::framed_read", "hyper::client", "sqlx::query", "reqwest", "token_vaults"]
        {
            assert!(!is_ours(target), "{target}");
        }
        for target in ["token_vault", "token_vault::api", "token_vault_sandbox"] {
            assert!(is_ours(target), "{target}");
        }
    }

    #[test]
    fn levels_are_checked() {
        for good in ["info", "WARN", "info,token_vault::vault=debug", "h2=off, token_vault=trace", "error,"] {
            assert!(is_level(good), "{good}");
        }
        // Each of these was taken for the name of a part, and turned all logging off.
        for bad in
            ["warning", "inof", "err", "critical", "information", "verbose", "all", "none", "token_vault"]
        {
            assert!(!is_level(bad), "{bad}");
            assert!(!is_level(&format!("info,{bad}")) && !is_level(&format!("token_vault={bad}")), "{bad}");
        }
        for bad in
            ["", ",", "off", "3", "=debug", "token-vault=debug", "a::=info", "info,debug", "h2=info,h2=warn"]
        {
            assert!(!is_level(bad), "{bad}");
        }
        assert!(!is_level("token_vault=loud"));
        for about_spans in
            ["[call]=debug", "token_vault[call]=debug", "[{rpc}]=debug", "info,[call{rpc=a}]=debug"]
        {
            assert!(!is_level(about_spans), "{about_spans}");
        }
        assert_eq!(directives("info,").unwrap().default_level(), Some(LevelFilter::INFO));
    }

    #[test]
    fn errors_of_every_part_are_logged_whatever_is_named() {
        for text in ["error", "h2=off", "token_vault::vault=debug", "sqlx=error,warn", "hyper=trace,"] {
            let targets = directives(text).unwrap();
            for part in ["token_vault::api", "token_vault", "reqwest"] {
                assert!(targets.would_enable(part, &Level::ERROR), "{text}: {part}");
            }
        }
        let level = directives("token_vault::vault=debug").unwrap();
        assert!(level.would_enable("token_vault::vault::jobs", &Level::DEBUG));
        assert!(!level.would_enable("token_vault::api", &Level::DEBUG));
    }
}
