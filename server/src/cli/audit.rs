//! `audit`: check the audit log, and read it.

use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::json;

use super::Mistake;
use super::arguments::DatabaseArgs;
use super::terminal::id_end;
use super::terminal::table::{Column, Fit, NOTHING, table};
use super::terminal::time::shortened;
use super::terminal::{counted, say};
use crate::audit::Query;
use crate::config::Config;
use crate::model::AuditRecord;
use crate::telemetry;
use crate::vault::{Vault, VaultConfig};

/// Commands about the audit log.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check that nobody has changed the log: exit 0 if it is intact, 1 with the first broken line if not.
    ///
    /// Needs the database and the master key; the vault may run meanwhile. A broken line is reported with its file, its
    /// number and the kind of damage: edited, deleted, inserted, reordered or truncated.
    #[command(after_help = "\
Examples:
  token-vault audit verify --config /etc/token-vault.toml
      The log of this configuration.
  token-vault audit verify --file /backup/audit.jsonl --json
      A copy of a log, with the result for a program.")]
    Verify(VerifyArgs),
    /// Show records, by time. This does not check them: `audit verify` does.
    #[command(after_help = "\
Examples:
  token-vault audit search --connection 01a206c3-e104-7602-81c8-46696f67bb1b --since 7d
      What happened to this connection in the last week.
  token-vault audit search --principal ingestion-eu --rpc FetchAccessToken --wide
      Which tokens this service received.
  token-vault audit search --outcome ROLE_INSUFFICIENT --since 24h --json
      Who was denied, for a program.")]
    Search(Box<SearchArgs>),
}

/// Arguments of `audit verify`.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    files: FileArgs,
    /// Print one JSON object in place of a sentence.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct FileArgs {
    /// Read this log, with the files that were rotated out of it; may be given several times [default: as configured].
    #[arg(long, value_name = "FILE")]
    file: Vec<PathBuf>,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Arguments of `audit search`.
#[derive(Debug, Args)]
pub(super) struct SearchArgs {
    #[command(flatten)]
    files: FileArgs,
    /// Only about this connection.
    #[arg(long, value_name = "ID")]
    connection: Option<String>,
    /// Only in this workspace.
    #[arg(long, value_name = "NAME")]
    workspace: Option<String>,
    /// Only by this principal; the vault's own jobs are `system:` and the job's name.
    #[arg(long, value_name = "NAME")]
    principal: Option<String>,
    /// Only this RPC, such as FetchAccessToken.
    #[arg(long, value_name = "RPC")]
    rpc: Option<String>,
    /// Only with this gRPC code or reason, such as OK or ROLE_INSUFFICIENT.
    #[arg(long, value_name = "OUTCOME")]
    outcome: Option<String>,
    /// From this moment, such as 2026-01-31T12:00:00Z, or from this long ago, such as 7d.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<String>,
    /// Before this moment.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<String>,
    /// Show every column, whole ids and whole times, on lines as long as they need.
    #[arg(long, conflicts_with = "json")]
    wide: bool,
    /// Print one JSON object a line in place of a table.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Verify(args) => verify(&args.files.file, args.json, &configured(args.files.database)?).await,
        Command::Search(args) => search(*args),
    }
}

fn configured(database: DatabaseArgs) -> anyhow::Result<VaultConfig> {
    let config = Config::load(database.into())?;
    telemetry::init(config.log.format, &config.log.level)?;
    Ok(config.into_vault_config().0)
}

async fn verify(files: &[PathBuf], as_json: bool, config: &VaultConfig) -> anyhow::Result<()> {
    let report = Vault::verify_audit(config, files).await?;
    if as_json {
        let finding = report.finding.as_ref().map(|finding| {
            json!({
                "file": finding.file.display().to_string(),
                "line": finding.line,
                "damage": finding.damage.as_str(),
                "detail": finding.detail,
            })
        });
        say(json!({
            "intact": report.finding.is_none(),
            "files": report.files,
            "records": report.records,
            "chains": report.chains,
            "recovered": report.recovered,
            "chains_elsewhere": report.elsewhere,
            "finding": finding,
        }))?;
    }
    if let Some(finding) = report.finding {
        bail!("the audit log was tampered with or damaged: {finding}");
    }
    if !as_json {
        let torn = match report.recovered {
            0 => String::new(),
            n => format!("; {n} torn by a crash and sealed"),
        };
        let elsewhere = match report.elsewhere {
            0 => String::new(),
            n => format!("; {} in other logs not looked at", counted(n, "chain")),
        };
        say(format_args!(
            "intact: {} in {} and {}{torn}{elsewhere}",
            counted(report.records, "record"),
            counted(report.chains, "chain"),
            counted(report.files, "file")
        ))?;
    }
    Ok(())
}

fn search(args: SearchArgs) -> anyhow::Result<()> {
    let config = configured(args.files.database)?;
    let query = Query {
        connection: args.connection,
        workspace: args.workspace,
        principal: args.principal,
        rpc: args.rpc,
        outcome: args.outcome,
        since: args.since,
        until: args.until,
    };
    let records = Vault::search_audit(&config, &args.files.file, &query)?;
    if args.json {
        return records.iter().try_for_each(|record| say(serde_json::to_string(record)?));
    }
    say(if args.wide { wide_list(&records) } else { short_list(&records) })
}

fn short_list(records: &[AuditRecord]) -> String {
    let columns = [
        ("TIME (UTC)", Column::Whole),
        ("WHO", Column::Whole),
        ("ABOUT", Column::Prose),
        ("WHAT", Column::Prose),
    ];
    let rows: Vec<_> = records
        .iter()
        .map(|record| {
            [
                shortened(&record.at, "2026-01-31T12:00:00".len()),
                or_nothing(&record.principal),
                about(record),
                format!("{}: {}", what(record), outcome(record)),
            ]
        })
        .collect();
    table(columns, &rows, Fit::Screen)
}

fn wide_list(records: &[AuditRecord]) -> String {
    let names = ["TIME", "WHO", "WHAT", "WORKSPACE", "ABOUT", "VERSION", "OUTCOME", "FROM", "CALL"];
    let rows: Vec<_> = records
        .iter()
        .map(|record| {
            let object = if record.connection.is_empty() { &record.object } else { &record.connection };
            [
                record.at.clone(),
                or_nothing(&record.principal),
                what(record),
                or_nothing(&record.workspace),
                or_nothing(object),
                record.version.map_or(NOTHING.to_owned(), |version| version.to_string()),
                outcome(record),
                or_nothing(&record.peer),
                or_nothing(&record.call_id),
            ]
        })
        .collect();
    table(names.map(|name| (name, Column::Whole)), &rows, Fit::Wide)
}

fn or_nothing(text: &str) -> String {
    if text.is_empty() { NOTHING.to_owned() } else { text.to_owned() }
}

/// The RPC, or for the vault's own records their kind.
fn what(record: &AuditRecord) -> String {
    match record.rpc.rsplit('/').next().filter(|rpc| !rpc.is_empty()) {
        Some(rpc) => rpc.to_owned(),
        None => format!("{:?}", record.kind).to_lowercase(),
    }
}

/// Names the object, such as "acme …6f67bb1b v3" or "api_key abcdefghijklmnop". It consists of words, so that the cell
/// can wrap.
fn about(record: &AuditRecord) -> String {
    let object = if record.connection.is_empty() { &record.object } else { &record.connection };
    let version = record.version.map(|version| format!("v{version}")).unwrap_or_default();
    // An object is named with its kind, such as "api_key:abcdefghijklmnop".
    let object = match object.split_once(':') {
        Some((kind, id)) => format!("{kind} {}", id_end(id)),
        None => id_end(object),
    };
    let words = [record.workspace.clone(), object, version];
    let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
    or_nothing(&words.join(" "))
}

fn outcome(record: &AuditRecord) -> String {
    or_nothing(if record.reason.is_empty() { &record.code } else { &record.reason })
}

/// A moment as records write it.
fn moment(text: &str) -> Result<String, Mistake> {
    let at = match humantime::parse_duration(text) {
        Ok(ago) => jiff::Timestamp::now().checked_sub(ago).ok(),
        Err(_) => text.parse::<jiff::Timestamp>().ok(),
    };
    at.map(|at| format!("{at:.6}")).ok_or_else(|| {
        Mistake("must be a moment such as 2026-01-31T12:00:00Z, or a length of time such as 7d".into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_sort_as_texts() {
        let whole = moment("2026-01-31T12:00:00Z").unwrap();
        let part = moment("2026-01-31T12:00:00.5Z").unwrap();
        assert_eq!(whole, "2026-01-31T12:00:00.000000Z");
        assert!(whole < part);
        assert!(moment("7d").unwrap() < moment("1h").unwrap());
        moment("yesterday").unwrap_err();
    }
}
