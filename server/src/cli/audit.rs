//! `audit`: check the audit log, and read it.

use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::json;

use super::Mistake;
use super::arguments::DatabaseArgs;
use super::terminal::table::table;
use super::terminal::{counted, say};
use crate::audit::Query;
use crate::config::Config;
use crate::model::AuditRecord;
use crate::telemetry;
use crate::vault::{Vault, VaultConfig};

/// Commands about the audit log.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check that the log is as it was written: exit 0 if so, 1 with the first broken line if not.
    ///
    /// Needs the database and the master key; the vault may run meanwhile. Names file, line and kind of damage:
    /// edited, deleted, inserted, reordered or truncated.
    #[command(after_help = "\
Examples:
  token-vault audit verify --config /etc/token-vault.toml
  token-vault audit verify --file /backup/audit.jsonl --json")]
    Verify(VerifyArgs),
    /// Show records, by time. Proves nothing: `audit verify` does.
    #[command(after_help = "\
Examples:
  token-vault audit search --connection 0193… --since 7d
  token-vault audit search --principal ingestion-eu --rpc FetchAccessToken --outcome OK --json")]
    Search(Box<SearchArgs>),
}

/// Arguments of `audit verify`.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    files: FileArgs,
    /// Print one JSON object instead of a sentence.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct FileArgs {
    /// This log, with those that were put aside from it; may be given several times [default: as configured].
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
    #[arg(long, value_name = "WORKSPACE")]
    workspace: Option<String>,
    /// Only by this principal; the vault's own jobs are `system:<job>`.
    #[arg(long, value_name = "NAME")]
    principal: Option<String>,
    /// Only this RPC, such as FetchAccessToken.
    #[arg(long, value_name = "RPC")]
    rpc: Option<String>,
    /// Only with this gRPC code or reason, such as OK or ROLE_INSUFFICIENT.
    #[arg(long, value_name = "OUTCOME")]
    outcome: Option<String>,
    /// From this moment: 2026-01-31T12:00:00Z, or so long ago: 7d.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<String>,
    /// Before this moment.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<String>,
    /// Print one JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
}

/// Runs one of them.
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
    let mut rows =
        vec![["TIME", "WHO", "WHAT", "ABOUT", "VERSION", "OUTCOME", "FROM", "CALL"].map(str::to_owned)];
    rows.extend(records.iter().map(row));
    say(table(&rows))
}

fn row(record: &AuditRecord) -> [String; 8] {
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let what = match record.rpc.rsplit('/').next().filter(|rpc| !rpc.is_empty()) {
        Some(rpc) => rpc.to_owned(),
        None => format!("{:?}", record.kind).to_lowercase(),
    };
    let about = if record.connection.is_empty() {
        or_dash(&record.object)
    } else {
        format!("{}/{}", record.workspace, record.connection)
    };
    let outcome = if record.reason.is_empty() { or_dash(&record.code) } else { record.reason.clone() };
    [
        record.at.clone(),
        or_dash(&record.principal),
        what,
        about,
        record.version.map_or("-".to_owned(), |version| version.to_string()),
        outcome,
        or_dash(&record.peer),
        or_dash(&record.call_id),
    ]
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
