//! `api-key`: make, list, rotate and revoke the keys that services call the vault with.

mod last_admin;
mod new_file;
mod show;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use token_vault_proto::v1::api_key::Role as PbRole;
use token_vault_proto::v1::create_api_key_request::Workspaces as NewWorkspaces;
use token_vault_proto::v1::vault_admin_client::VaultAdminClient;
use token_vault_proto::v1::{
    ApiKey, CreateApiKeyRequest, CreateApiKeyResponse, ListApiKeysRequest, RevokeApiKeyRequest,
    RotateApiKeyRequest, RotateApiKeyResponse, WorkspaceList,
};
use uuid::Uuid;

use super::Mistake;
use super::connect::{Caller, CallerArgs, denied};
use super::terminal::say;
use super::terminal::time::{from_now, now};
use crate::config::{Config, Flags};
use crate::model::{BadValue, Role, WorkspaceId, WorkspaceSet};
use crate::telemetry;
use crate::vault::{CreateApiKey, Vault};
use new_file::NewFile;

/// Commands about API keys.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a key and print it on stdout, once.
    #[command(after_help = "\
Examples:
  token-vault api-key create --principal ops --role admin --all-workspaces --output ops.apikey
  token-vault api-key create --principal web --role connector --all-workspaces
  token-vault api-key create --principal ingestion-eu --role ingestion \\
      --workspace acme --workspace globex --expires-in 90d --output ingestion-eu.key
  token-vault api-key create --principal rescue --role admin --all-workspaces --offline")]
    Create(Box<CreateArgs>),
    /// List the keys, also those that are revoked or expired. The keys themselves are never shown.
    #[command(after_help = "\
Examples:
  token-vault api-key list
  token-vault api-key list --principal ingestion-eu --wide
      Every column of one principal's keys.")]
    List(ListArgs),
    /// Make a key in another one's place, of the same principal, role and workspaces, and print it on stdout, once.
    #[command(after_help = "\
Examples:
  token-vault api-key rotate abcdefghijklmnop --output ingestion.new.key
      The old key works for another 24 hours.
  token-vault api-key rotate abcdefghijklmnop --overlap 7d --expires-in 90d
  token-vault api-key rotate abcdefghijklmnop --overlap 0s
      The old key ends at once.")]
    Rotate(RotateArgs),
    /// End a key: calls with it fail within a second.
    ///
    /// The last admin key is revoked only with --lock-out.
    #[command(after_help = "\
Examples:
  token-vault api-key revoke abcdefghijklmnop --key-file ops.apikey")]
    Revoke(RevokeArgs),
}

/// Arguments of `api-key create`.
#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// Stable name of the service that calls with the key; several keys may have the same.
    #[arg(long, value_name = "NAME")]
    principal: String,
    /// What the key may do.
    #[arg(long, value_enum)]
    role: RoleName,
    #[command(flatten)]
    scope: ScopeArgs,
    /// How long the key works, such as 90d [default: until it is revoked].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    expires_in: Option<Duration>,
    #[command(flatten)]
    shown: NewKeyArgs,
    /// Write to the database directly, while no vault runs on it. Needs the database and the master key, and no API
    /// key.
    #[arg(long, conflicts_with = "key_file")]
    offline: bool,
    /// Database, for --offline: sqlite:PATH or postgres://… [key: storage.url] [default: in the data folder].
    #[arg(long, value_name = "URL", requires = "offline", help_heading = "Configuration")]
    database_url: Option<String>,
    #[command(flatten)]
    caller: CallerArgs,
}

/// Where a key may act: one of the two has to be said.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct ScopeArgs {
    /// In this workspace only; may be given several times.
    #[arg(long, value_name = "NAME")]
    workspace: Vec<String>,
    /// In every workspace, also in future ones.
    #[arg(long, conflicts_with = "workspace")]
    all_workspaces: bool,
}

/// How a new key is handed over.
#[derive(Debug, Args)]
struct NewKeyArgs {
    /// Write the key to this new file, which only you can read, in place of stdout. A file that exists is not touched.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print one JSON object in place of the bare key.
    #[arg(long)]
    json: bool,
}

/// Arguments of `api-key list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only the keys of this principal.
    #[arg(long, value_name = "NAME")]
    principal: Option<String>,
    /// Show every column and whole times, on lines as long as they need.
    #[arg(long, conflicts_with = "json")]
    wide: bool,
    /// Print one JSON object a line in place of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    caller: CallerArgs,
}

/// Arguments of `api-key rotate`.
#[derive(Debug, Args)]
pub(super) struct RotateArgs {
    /// Id of the key, as `api-key list` shows it.
    key_id: String,
    /// How long the old key goes on, at most 30d; never past its own end [default: 24h].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    overlap: Option<Duration>,
    /// How long the new key works, such as 90d [default: as long as the old one was made to].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    expires_in: Option<Duration>,
    #[command(flatten)]
    shown: NewKeyArgs,
    #[command(flatten)]
    caller: CallerArgs,
}

/// Arguments of `api-key revoke`.
#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// Id of the key, as `api-key list` shows it.
    key_id: String,
    /// Revoke the key even if it is the last one of an administrator, so that no API key can make others.
    #[arg(long)]
    lock_out: bool,
    /// Print one JSON object in place of a sentence.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    caller: CallerArgs,
}

/// The roles by name.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleName {
    /// Brings tokens in: stores, exchanges, validates, revokes, lists.
    Connector,
    /// Uses tokens: fetches secrets, reports refusals, validates, lists.
    Ingestion,
    /// Watches tokens: lists.
    Alerting,
    /// Reads only: lists, status.
    Viewer,
    /// Everything.
    Admin,
    /// Shows connection cards: acts only for the connect link that it sends.
    Portal,
}

impl RoleName {
    fn split(self) -> (Role, PbRole) {
        match self {
            Self::Connector => (Role::Connector, PbRole::Connector),
            Self::Ingestion => (Role::Ingestion, PbRole::Ingestion),
            Self::Alerting => (Role::Alerting, PbRole::Alerting),
            Self::Viewer => (Role::Viewer, PbRole::Viewer),
            Self::Admin => (Role::Admin, PbRole::Admin),
            Self::Portal => (Role::Portal, PbRole::Portal),
        }
    }
}

pub(super) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create(args) if args.offline => create_offline(*args).await,
        Command::Create(args) => create(*args).await,
        Command::List(args) => list(args).await,
        Command::Rotate(args) => rotate(args).await,
        Command::Revoke(args) => revoke(args).await,
    }
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let caller = args.caller.connect().await?;
    let workspaces = if args.scope.all_workspaces {
        NewWorkspaces::AllWorkspaces(true)
    } else {
        NewWorkspaces::Named(WorkspaceList { workspace_ids: args.scope.workspace })
    };
    let request = CreateApiKeyRequest {
        principal: args.principal,
        role: args.role.split().1.into(),
        workspaces: Some(workspaces),
        expires_at: args.expires_in.map(from_now),
        request_id: Uuid::new_v4().to_string(),
    };
    let file = args.shown.output.as_deref().map(NewFile::create).transpose()?;
    let request = caller.request(request);
    let response = VaultAdminClient::new(caller.channel).create_api_key(request).await.map_err(denied)?;
    let CreateApiKeyResponse { api_key, key } = response.into_inner();
    show::show_new(api_key.as_ref(), &key, None, file, args.shown.json)
}

async fn create_offline(args: CreateArgs) -> anyhow::Result<()> {
    let mistake = |bad: BadValue| Mistake(format!("--workspace {bad}"));
    let named: Result<_, _> =
        args.scope.workspace.iter().map(|id| WorkspaceId::parse(id.as_str()).map_err(mistake)).collect();
    let workspaces = if args.scope.all_workspaces { WorkspaceSet::All } else { WorkspaceSet::Named(named?) };
    let command = CreateApiKey {
        request_id: None,
        principal: args.principal,
        role: args.role.split().0,
        workspaces,
        expires_at: args.expires_in.map(|after| now() + after),
    };
    let config = Config::load(Flags { database_url: args.database_url, ..args.caller.config.into() })?;
    telemetry::init(config.log.format, &config.log.level)?;
    let (vault, _) = config.into_vault_config();
    let file = args.shown.output.as_deref().map(NewFile::create).transpose()?;
    let new = Vault::create_api_key_offline(vault, command).await?;
    let CreateApiKeyResponse { api_key, key } = new.into();
    show::show_new(api_key.as_ref(), &key, None, file, args.shown.json)
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let caller = args.caller.connect().await?;
    let keys = all_keys(&caller, args.principal).await?;
    if args.json {
        return keys.iter().try_for_each(|key| say(show::describe(key)));
    }
    say(show::list(&keys, args.wide))
}

async fn all_keys(caller: &Caller, principal: Option<String>) -> anyhow::Result<Vec<ApiKey>> {
    let mut client = VaultAdminClient::new(caller.channel.clone());
    let mut keys = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListApiKeysRequest { page_size: 1_000, page_token, principal: principal.clone() };
        let page = client.list_api_keys(caller.request(request)).await.map_err(denied)?.into_inner();
        keys.extend(page.api_keys);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(keys);
        }
    }
}

async fn rotate(args: RotateArgs) -> anyhow::Result<()> {
    let caller = args.caller.connect().await?;
    let overlap = args.overlap.map(prost_types::Duration::try_from).transpose();
    let request = RotateApiKeyRequest {
        key_id: args.key_id,
        overlap: overlap.map_err(|_| Mistake("--overlap is too long: at most 30d".to_owned()))?,
        expires_at: args.expires_in.map(from_now),
        request_id: Uuid::new_v4().to_string(),
    };
    let file = args.shown.output.as_deref().map(NewFile::create).transpose()?;
    let request = caller.request(request);
    let response = VaultAdminClient::new(caller.channel).rotate_api_key(request).await.map_err(denied)?;
    let RotateApiKeyResponse { api_key, key, replaced } = response.into_inner();
    show::show_new(api_key.as_ref(), &key, replaced.as_ref(), file, args.shown.json)
}

async fn revoke(args: RevokeArgs) -> anyhow::Result<()> {
    let caller = args.caller.connect().await?;
    if !args.lock_out && !caller.admins_without_keys {
        last_admin::check(&args.key_id, &all_keys(&caller, None).await?)?;
    }
    let request = RevokeApiKeyRequest { key_id: args.key_id, request_id: Uuid::new_v4().to_string() };
    let request = caller.request(request);
    let response = VaultAdminClient::new(caller.channel).revoke_api_key(request).await.map_err(denied)?;
    let key = response.into_inner().api_key.context("the vault answered without the key")?;
    if args.json {
        say(show::describe(&key))
    } else {
        say(format_args!("revoked {} of {}", key.key_id, key.principal))
    }
}
