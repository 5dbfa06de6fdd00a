//! Log lines: text in a terminal, JSON elsewhere, always on stderr.
//!
//! Libraries log at `info` at most, whatever the configured level: their `debug` and `trace` lines may print headers,
//! bodies and bound values, which are secrets here.

use std::io::{self, IsTerminal};
use std::panic::PanicHookInfo;

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterExt, LevelFilter, ParseError, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, fmt};

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
    let level = directives(level).unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
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

/// Whether `text` is a level or a list of directives. A directive about a span would be read as the name of a target
/// that does not exist, and turn logging off.
pub(crate) fn is_level(text: &str) -> bool {
    !text.contains(['[', ']', '{', '}']) && directives(text).is_ok()
}

/// Empty directives, as behind a last comma, say nothing.
fn directives(text: &str) -> Result<Targets, ParseError> {
    let directives: Vec<_> =
        text.split(',').map(str::trim).filter(|directive| !directive.is_empty()).collect();
    directives.join(",").parse()
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
        assert!(is_level("info"));
        assert!(is_level("info,token_vault::vault=debug"));
        assert!(!is_level("token_vault=loud"));
        for about_spans in
            ["[call]=debug", "token_vault[call]=debug", "[{rpc}]=debug", "info,[call{rpc=a}]=debug"]
        {
            assert!(!is_level(about_spans), "{about_spans}");
        }
        assert_eq!(directives("info,").unwrap().default_level(), Some(LevelFilter::INFO));
    }
}
