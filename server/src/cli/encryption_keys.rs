//! `keys`: list, make, rotate and recover the keys that everything is encrypted with.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{ArgGroup, Args, Subcommand};
use serde_json::json;
use token_vault_proto::v1::job_run::State;
use token_vault_proto::v1::rotate_key_request::Key;
use token_vault_proto::v1::vault_admin_client::VaultAdminClient;
use token_vault_proto::v1::{GetVaultStatusRequest, JobRun, ListJobRunsRequest, RotateKeyRequest};
use uuid::Uuid;

use super::Mistake;
use super::arguments::{ConfigArgs, DatabaseArgs};
use super::connect::{Caller, CallerArgs, denied};
use super::terminal::table::{Column, Fit, NOTHING, table};
use super::terminal::{counted, note, say};
use crate::config::Config;
use crate::crypto::{BreakGlassOpeningKey, add_to_key_file, create_secret_file, fresh_key_id};
use crate::model::{Secret, read_secret_file};
use crate::telemetry;
use crate::vault::Vault;

/// How often the vault is asked for the progress of a run.
const LOOK: Duration = Duration::from_millis(500);
/// The master key's file in the data folder.
const MASTER_KEY_FILE: &str = "master.key";

/// Commands about encryption keys.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the master keys that the vault holds, and how many keys each of them wraps.
    List(ListArgs),
    /// Add a fresh master key to the key file, as its newest.
    ///
    /// The vault reads the file again by itself; `keys rotate --master` then makes the key the active one. On several
    /// replicas every key file needs the same line.
    #[command(after_help = "\
Examples:
  token-vault keys generate --config /etc/token-vault.toml
      Add a key to the key file of this configuration.
  token-vault keys generate --file master.key --id 2027
      Add a key of this id to this file.")]
    Generate(GenerateArgs),
    /// Change a key while it is in use, and show the progress.
    #[command(after_help = "\
Examples:
  token-vault keys rotate --master
      Make the newest master key active; `keys generate` adds one.
  token-vault keys rotate --workspace acme
      Encrypt the secrets of this workspace with a new key.")]
    Rotate(RotateArgs),
    /// Make the key pair for the day when the master key is lost.
    #[command(subcommand)]
    BreakGlass(BreakGlassCommand),
    /// Wrap every key with the newest configured master key, after opening them with the break-glass opening key.
    ///
    /// For the day when the master key is lost. Needs the database, while no vault uses it, and a new master key: first
    /// take the lost one's line out of the key file and run `keys generate`.
    #[command(after_help = "\
Examples:
  token-vault keys recover --opening-key /media/safe/opening.key --config /etc/token-vault.toml")]
    Recover(RecoverArgs),
}

/// Commands about the break-glass key.
#[derive(Debug, Subcommand)]
pub(super) enum BreakGlassCommand {
    /// Make a pair in two new files. Needs no vault and no database.
    ///
    /// The opening key belongs offline. The sealing key is for keys.break_glass_sealing_key_file of every vault.
    #[command(after_help = "\
Examples:
  token-vault keys break-glass generate --opening-key /media/safe/opening.key --sealing-key sealing.key")]
    Generate(PairArgs),
}

/// Arguments of `keys list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Print one JSON object a line in place of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    caller: CallerArgs,
}

/// Arguments of `keys generate`.
#[derive(Debug, Args)]
pub(super) struct GenerateArgs {
    /// The key file, which is made if it does not exist [default: keys.master_key_file, else master.key in the data
    /// folder].
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Id of the new key: 1 to 64 of A-Z a-z 0-9 - _ . [default: a fresh one].
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Arguments of `keys rotate`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("key").required(true))]
pub(super) struct RotateArgs {
    /// The master key: the newest one becomes active and wraps every other key.
    #[arg(long, group = "key")]
    master: bool,
    /// The data key of this workspace: its secrets are encrypted with a new one.
    #[arg(long, group = "key", value_name = "NAME")]
    workspace: Option<String>,
    /// Do not wait for the end.
    #[arg(long)]
    no_wait: bool,
    /// Print one JSON object in place of a sentence.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    caller: CallerArgs,
}

/// Arguments of `keys break-glass generate`.
#[derive(Debug, Args)]
pub(super) struct PairArgs {
    /// New file for the opening key.
    #[arg(long, value_name = "FILE")]
    opening_key: PathBuf,
    /// New file for the sealing key. It opens nothing, but whoever has it can plant keys for a recovery to find.
    #[arg(long, value_name = "FILE")]
    sealing_key: PathBuf,
}

/// Arguments of `keys recover`.
#[derive(Debug, Args)]
pub(super) struct RecoverArgs {
    /// File with the break-glass opening key.
    #[arg(long, value_name = "FILE")]
    opening_key: PathBuf,
    #[command(flatten)]
    database: DatabaseArgs,
}

pub(super) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::List(args) => list(args).await,
        Command::Generate(args) => generate(args),
        Command::Rotate(args) => rotate(args).await,
        Command::BreakGlass(BreakGlassCommand::Generate(args)) => generate_pair(&args),
        Command::Recover(args) => recover(args).await,
    }
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let caller = args.caller.connect().await?;
    let request = caller.request(GetVaultStatusRequest {});
    let status = VaultAdminClient::new(caller.channel).get_vault_status(request).await.map_err(denied)?;
    let keys = status.into_inner().master_keys;
    if args.json {
        return keys.iter().try_for_each(|key| {
            say(json!({ "key_id": key.key_id, "active": key.active, "keys": key.data_key_count }))
        });
    }
    let columns = ["MASTER KEY", "ACTIVE", "KEYS"].map(|name| (name, Column::Whole));
    let rows: Vec<_> = keys
        .into_iter()
        .map(|key| {
            let active = if key.active { "yes" } else { NOTHING };
            [key.key_id, active.to_owned(), key.data_key_count.to_string()]
        })
        .collect();
    say(table(columns, &rows, Fit::Screen))
}

fn generate(args: GenerateArgs) -> anyhow::Result<()> {
    let file = match args.file {
        Some(file) => file,
        None => {
            let config = Config::load(args.config.into())?;
            if config.keys.master_key.is_some() {
                let why = "the master keys come from TOKEN_VAULT_MASTER_KEY; name a file by --file, and add its line there";
                return Err(Mistake(why.into()).into());
            }
            config.keys.master_key_file.unwrap_or_else(|| config.data_dir.join(MASTER_KEY_FILE))
        }
    };
    let id = args.id.unwrap_or_else(fresh_key_id);
    add_to_key_file(&file, &id).with_context(|| format!("cannot add a key to {}", file.display()))?;
    note(format_args!("added master key {id} to {}; back the file up", file.display()));
    say(id)
}

async fn rotate(args: RotateArgs) -> anyhow::Result<()> {
    let caller = args.caller.connect().await?;
    let key = match args.workspace {
        Some(workspace) => Key::WorkspaceId(workspace),
        None => Key::Master(args.master),
    };
    let request = RotateKeyRequest { key: Some(key), request_id: Uuid::new_v4().to_string() };
    let mut client = VaultAdminClient::new(caller.channel.clone());
    let response = client.rotate_key(caller.request(request)).await.map_err(denied)?;
    let mut run = response.into_inner().run.context("the vault answered without the run")?;
    if !args.no_wait {
        run = wait(&caller, run).await?;
    }
    let failed = run.state() == State::Failed || run.failed > 0;
    if args.json {
        say(json!({
            "run_id": run.run_id, "job": run.job, "state": state(&run), "done": run.done, "total": run.total,
            "failed": run.failed, "error": run.error,
        }))?;
    } else {
        say(progress(&run))?;
    }
    if failed {
        Err(anyhow::anyhow!("{} of {} could not be changed; the vault's log says why", run.failed, run.done))
    } else {
        Ok(())
    }
}

/// Shows the progress of a run until it has ended.
async fn wait(caller: &Caller, begun: JobRun) -> anyhow::Result<JobRun> {
    let mut client = VaultAdminClient::new(caller.channel.clone());
    let mut shown = String::new();
    loop {
        let request = ListJobRunsRequest { job: Some(begun.job.clone()), ..Default::default() };
        let page = client.list_job_runs(caller.request(request)).await.map_err(denied)?.into_inner();
        let run = page.runs.into_iter().find(|run| run.run_id == begun.run_id);
        let run = run.context("the vault does not list the run")?;
        if run.state() != State::Running {
            return Ok(run);
        }
        let progress = progress(&run);
        if progress != shown {
            note(&progress);
            shown = progress;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn progress(run: &JobRun) -> String {
    let failed = if run.failed > 0 { format!(", {} failed", run.failed) } else { String::new() };
    let error = if run.error.is_empty() { String::new() } else { format!(": {}", run.error) };
    format!("{} {}: {} of {} done{failed}{error}", run.job, state(run), run.done, run.total)
}

fn state(run: &JobRun) -> String {
    run.state().as_str_name().trim_start_matches("STATE_").to_ascii_lowercase()
}

fn generate_pair(args: &PairArgs) -> anyhow::Result<()> {
    let (opening, sealing) = BreakGlassOpeningKey::generate();
    for (file, key) in [(&args.opening_key, opening), (&args.sealing_key, sealing)] {
        let line = Secret::new(format!("{}\n", key.expose()));
        create_secret_file(file, &line).with_context(|| format!("cannot write {}", file.display()))?;
    }
    note(format_args!(
        "wrote the opening key to {}: keep it offline, away from the vault; {} is for \
         keys.break_glass_sealing_key_file of every vault",
        args.opening_key.display(),
        args.sealing_key.display()
    ));
    Ok(())
}

async fn recover(args: RecoverArgs) -> anyhow::Result<()> {
    let text = read_secret_file(&args.opening_key)
        .with_context(|| format!("cannot read {}", args.opening_key.display()))?;
    let opening = BreakGlassOpeningKey::parse(&text)
        .map_err(|error| Mistake(format!("{} {error}", args.opening_key.display())))?;
    let config = Config::load(args.database.into())?;
    telemetry::init(config.log.format, &config.log.level)?;
    let (vault, _) = config.into_vault_config();
    let recovered = Vault::recover_keys(vault, &opening).await?;
    say(format_args!("wrapped {} by master key {}", counted(recovered.keys, "key"), recovered.master_key))
}
