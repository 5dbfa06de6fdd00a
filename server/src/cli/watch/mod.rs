//! `watch`: follows the feed of expiry events.

pub(super) mod json;
pub(super) mod line;

use std::io;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use futures::{FutureExt, StreamExt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;
use token_vault_client::v1::expiry_event::Kind;
use token_vault_client::v1::{EventFilter, Severity};
use token_vault_client::{EventStream, Snapshot, Start, SubscriptionCheckpoint, WatchItem, WatchOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::interval;

use self::json::kind_name;
use super::connect::{CallerArgs, in_words};
use super::terminal::table::Fit;
use super::terminal::{counted, note, say};

/// Arguments of `watch`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  token-vault watch --from earliest
      All events that are kept, then live ones.
  token-vault watch --from snapshot --min-severity warning
      The state of every connection, then its warnings.
  token-vault watch --subscription pager --json | while read -r event; do …; done
      Every event once, also over restarts of the command.

The command reconnects by itself and ends with Ctrl-C. An event that closes an incident passes every filter that the \
incident passed. With --json each line is an object; its type is event, token, snapshot_started, snapshot_complete, \
caught_up or history_lost. Interruptions are reported on stderr.")]
pub(super) struct WatchArgs {
    /// Where to start: with what happens from now on, with the oldest event that is kept, or with the state of every
    /// connection.
    #[arg(long, value_enum, default_value_t = From::Now, conflicts_with = "cursor")]
    from: From,
    /// Start just after this position, as an event's cursor names it.
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// Continue at the position of this subscription, and move it as lines are written. The vault keeps it, for each
    /// principal.
    ///
    /// Its position wins over --from and --cursor. Needs a role that may acknowledge: ingestion, alerting or admin.
    #[arg(long, value_name = "NAME")]
    subscription: Option<String>,
    /// Only this workspace; may be given several times.
    #[arg(long, value_name = "NAME")]
    workspace: Vec<String>,
    /// Only this kind; may be given several times.
    #[arg(long, value_name = "KIND", ignore_case = true, value_parser = kinds())]
    kind: Vec<Kind>,
    /// Only this severity and worse.
    #[arg(long, value_enum, value_name = "SEVERITY")]
    min_severity: Option<SeverityName>,
    /// Print each event on one line, however long, with whole ids.
    #[arg(long, conflicts_with = "json")]
    wide: bool,
    /// Print JSON lines in place of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    caller: CallerArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum From {
    Now,
    Earliest,
    Snapshot,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SeverityName {
    Info,
    Warning,
    Critical,
}

impl SeverityName {
    const fn on_the_wire(self) -> Severity {
        match self {
            Self::Info => Severity::Info,
            Self::Warning => Severity::Warning,
            Self::Critical => Severity::Critical,
        }
    }
}

/// Reads a kind by its name.
fn kinds() -> impl TypedValueParser<Value = Kind> {
    let known = || (1..).map_while(|number| Kind::try_from(number).ok());
    let find = move |name: String| known().find(|kind| kind_name(*kind).eq_ignore_ascii_case(&name));
    PossibleValuesParser::new(known().map(kind_name))
        .try_map(move |name| find(name).ok_or("is not a kind of event"))
}

/// Follows the feed until a signal ends the command, or until nobody reads its output any more.
pub(super) async fn run(args: WatchArgs) -> anyhow::Result<()> {
    let vault = args.caller.vault().await?;
    let start = match (args.cursor, args.from) {
        (Some(cursor), _) => Start::Cursor(cursor),
        (None, From::Now) => Start::Now,
        (None, From::Earliest) => Start::Earliest,
        (None, From::Snapshot) => Start::Snapshot,
    };
    let filter = EventFilter {
        workspace_ids: args.workspace,
        kinds: args.kind.into_iter().map(Into::into).collect(),
        min_severity: args.min_severity.map_or(Severity::Unspecified, SeverityName::on_the_wire).into(),
        ..EventFilter::default()
    };
    let mut options = WatchOptions::new().filter(filter).start(start);
    if let Some(name) = args.subscription {
        options = options.checkpoint(SubscriptionCheckpoint::new(&vault, name));
    }
    let mut feed = vault.watch(options);
    let shown = match (args.json, args.wide) {
        (true, _) => Shown::Json,
        (false, true) => Shown::Text(Fit::Wide),
        (false, false) => Shown::Text(Fit::Screen),
    };
    let followed = follow(&mut feed, shown).await;
    // The lines that were written count as handled, however the command ended.
    let stored = feed.close().await;
    followed?;
    stored.context("the subscription's position was not stored")
}

#[derive(Debug, Clone, Copy)]
enum Shown {
    Json,
    Text(Fit),
}

async fn follow(feed: &mut EventStream, shown: Shown) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut unread = pin!(unread());
    loop {
        let item = tokio::select! {
            item = feed.next() => Some(item),
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
            () = &mut unread => None,
        };
        let Some(item) = item else {
            // A stream counts an item as handled when it is asked for the next one. This one is not written any more.
            let _ = feed.next().now_or_never();
            return Ok(());
        };
        let Some(item) = item.transpose().map_err(in_words)? else { return Ok(()) };
        match shown {
            Shown::Json => show_json(&item)?,
            Shown::Text(fit) => show(&item, fit)?,
        }
    }
}

fn show(item: &WatchItem, fit: Fit) -> anyhow::Result<()> {
    match item {
        WatchItem::Event(event) => return say(line::event(event, fit)),
        WatchItem::Snapshot(Snapshot::Token(token)) => return say(line::token(token, fit)),
        WatchItem::Snapshot(Snapshot::Complete { token_count, .. }) => {
            note(format_args!("({}; events follow)", counted(*token_count, "connection")));
        }
        WatchItem::CaughtUp => note("(caught up)"),
        other => report_trouble(other),
    }
    Ok(())
}

fn show_json(item: &WatchItem) -> anyhow::Result<()> {
    say(match item {
        WatchItem::Event(event) => json::event(event),
        WatchItem::Snapshot(Snapshot::Started) => json!({ "type": "snapshot_started" }),
        WatchItem::Snapshot(Snapshot::Token(token)) => json::token(token),
        WatchItem::Snapshot(Snapshot::Complete { token_count, cursor }) => {
            json!({ "type": "snapshot_complete", "token_count": token_count, "cursor": cursor })
        }
        WatchItem::CaughtUp => json!({ "type": "caught_up" }),
        WatchItem::HistoryLost(error) => {
            json!({ "type": "history_lost", "reason": error.reason_name(), "message": error.message() })
        }
        other => {
            report_trouble(other);
            return Ok(());
        }
    })
}

fn report_trouble(item: &WatchItem) {
    match item {
        WatchItem::HistoryLost(error) => note(format_args!("(events are lost; a snapshot follows: {error})")),
        WatchItem::Interrupted(error) => note(format_args!("(interrupted, reconnecting: {error})")),
        WatchItem::CheckpointFailed(error) => note(format_args!("(the position is not stored yet: {error})")),
        _ => {}
    }
}

/// Waits until nobody reads stdout any more. While the feed is quiet, there is no write that could fail.
async fn unread() {
    let mut looks = interval(Duration::from_secs(1));
    loop {
        looks.tick().await;
        let stdout = io::stdout();
        let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
        let polled = poll(&mut watched, Some(&Timespec::default()));
        if polled.is_ok() && watched.iter().any(|fd| fd.revents().contains(PollFlags::ERR)) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: WatchArgs,
    }

    fn parse(line: &str) -> Result<WatchArgs, String> {
        Line::try_parse_from(line.split(' ')).map(|line| line.args).map_err(|error| error.to_string())
    }

    #[test]
    fn kinds_are_read_in_any_case_and_an_unknown_one_is_refused_with_the_known() {
        let args = parse("watch --kind expired --kind ROTATION_FAILED").unwrap();
        assert_eq!(args.kind, [Kind::Expired, Kind::RotationFailed]);
        let refused = parse("watch --kind DIED").err().unwrap();
        assert!(refused.contains("INVALIDATED") && refused.contains("DEADLINES_CHANGED"), "{refused}");
        assert!(parse("watch --kind UNSPECIFIED").is_err());
    }

    #[test]
    fn a_watch_starts_in_one_place() {
        assert!(parse("watch --cursor c").is_ok());
        assert!(parse("watch --from earliest").is_ok());
        assert!(parse("watch --from earliest --cursor c").is_err());
    }
}
