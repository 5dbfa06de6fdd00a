//! `api-key`: make, list, rotate and revoke the keys that services call the vault with.

use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use token_vault_proto::v1::api_key::{Role as PbRole, Workspaces};
use token_vault_proto::v1::create_api_key_request::Workspaces as NewWorkspaces;
use token_vault_proto::v1::vault_admin_client::VaultAdminClient;
use token_vault_proto::v1::{
    ApiKey, CreateApiKeyRequest, CreateApiKeyResponse, ListApiKeysRequest, RevokeApiKeyRequest,
    RotateApiKeyRequest, RotateApiKeyResponse, WorkspaceList,
};
use uuid::Uuid;

use super::Mistake;
use super::connect::{CallerArgs, denied};
use super::terminal::table::{cell, from_now, table, time, to_wire};
use super::terminal::{note, say};
use crate::config::{Config, Flags};
use crate::model::{Role, WorkspaceId, WorkspaceSet};
use crate::telemetry;
use crate::vault::{CreateApiKey, Vault};

/// Commands about API keys.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a key and print it, once, on stdout.
    #[command(after_help = "\
Examples:
  token-vault api-key create --principal web --role connector --all-workspaces
  token-vault api-key create --principal ingestion-eu --role ingestion --workspace acme --workspace globex \\
      --expires-in 90d > ingestion.key
  token-vault api-key create --principal rescue --role admin --all-workspaces --offline")]
    Create(CreateArgs),
    /// List the keys, revoked and expired ones too; never the keys themselves.
    List(ListArgs),
    /// Make a key in another's place, of the same principal, role and workspaces, and print it, once, on stdout.
    #[command(after_help = "\
Examples:
  token-vault api-key rotate abcdefghijklmnop > ingestion.key                 # the old key goes on for 24 hours
  token-vault api-key rotate abcdefghijklmnop --overlap 7d --expires-in 90d
  token-vault api-key rotate abcdefghijklmnop --overlap 0s                    # the old key ends at once")]
    Rotate(RotateArgs),
    /// End a key; calls with it fail within a second.
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
    /// In every workspace, future ones too.
    #[arg(long, required_unless_present = "workspace", conflicts_with = "workspace")]
    all_workspaces: bool,
    /// Only in this workspace; may be given several times.
    #[arg(long, value_name = "WORKSPACE")]
    workspace: Vec<String>,
    /// How long the key works, such as 90d [default: until it is revoked].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    expires_in: Option<Duration>,
    /// Print one JSON object instead of the bare key.
    #[arg(long)]
    json: bool,
    /// Write to the database directly, while no vault runs: needs database and master key, and no API key.
    /// An endpoint in the environment is for other commands, and passed over.
    #[arg(long, conflicts_with = "key_file")]
    offline: bool,
    /// Database, for --offline: sqlite:PATH or postgres://… [key: storage.url] [default: in the data folder].
    #[arg(long, value_name = "URL", requires = "offline", help_heading = "Configuration")]
    database_url: Option<String>,
    #[command(flatten)]
    caller: CallerArgs,
}

/// Arguments of `api-key list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only this principal's.
    #[arg(long, value_name = "NAME")]
    principal: Option<String>,
    /// Print one JSON object a line instead of a table.
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
    /// Print one JSON object instead of the bare key.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    caller: CallerArgs,
}

/// Arguments of `api-key revoke`.
#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// Id of the key, as `api-key list` shows it.
    key_id: String,
    /// Print one JSON object instead of a sentence.
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
    /// Looks on: lists, status.
    Viewer,
    /// Everything.
    Admin,
}

impl RoleName {
    fn split(self) -> (Role, PbRole) {
        match self {
            Self::Connector => (Role::Connector, PbRole::Connector),
            Self::Ingestion => (Role::Ingestion, PbRole::Ingestion),
            Self::Alerting => (Role::Alerting, PbRole::Alerting),
            Self::Viewer => (Role::Viewer, PbRole::Viewer),
            Self::Admin => (Role::Admin, PbRole::Admin),
        }
    }
}

/// Runs one of them.
pub(super) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create(args) if args.offline => create_offline(args).await,
        Command::Create(args) => create(args).await,
        Command::List(args) => list(args).await,
        Command::Rotate(args) => rotate(args).await,
        Command::Revoke(args) => revoke(args).await,
    }
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let caller = args.caller.connect().await?;
    let workspaces = if args.all_workspaces {
        NewWorkspaces::AllWorkspaces(true)
    } else {
        NewWorkspaces::Named(WorkspaceList { workspace_ids: args.workspace })
    };
    let request = CreateApiKeyRequest {
        principal: args.principal,
        role: args.role.split().1.into(),
        workspaces: Some(workspaces),
        expires_at: args.expires_in.map(from_now).map(to_wire),
        request_id: Uuid::new_v4().to_string(),
    };
    let request = caller.request(request);
    let answer = VaultAdminClient::new(caller.channel).create_api_key(request).await.map_err(denied)?;
    let CreateApiKeyResponse { api_key, key } = answer.into_inner();
    show_new(api_key.as_ref(), &key, None, args.json)
}

async fn create_offline(args: CreateArgs) -> anyhow::Result<()> {
    let mistake = |bad: crate::model::BadValue| Mistake(format!("--workspace {bad}"));
    let named: Result<_, _> =
        args.workspace.iter().map(|id| WorkspaceId::parse(id.as_str()).map_err(mistake)).collect();
    let workspaces = if args.all_workspaces { WorkspaceSet::All } else { WorkspaceSet::Named(named?) };
    let command = CreateApiKey {
        request_id: None,
        principal: args.principal,
        role: args.role.split().0,
        workspaces,
        expires_at: args.expires_in.map(from_now),
    };
    let config = Config::load(Flags { database_url: args.database_url, ..args.caller.config.into() })?;
    telemetry::init(config.log.format, &config.log.level)?;
    let (vault, _) = config.into_vault_config();
    let new = Vault::create_api_key_offline(vault, command).await?;
    let CreateApiKeyResponse { api_key, key } = new.into();
    show_new(api_key.as_ref(), &key, None, args.json)
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let caller = args.caller.connect().await?;
    let mut client = VaultAdminClient::new(caller.channel.clone());
    let mut keys = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListApiKeysRequest { page_size: 1_000, page_token, principal: args.principal.clone() };
        let page = client.list_api_keys(caller.request(request)).await.map_err(denied)?.into_inner();
        keys.extend(page.api_keys);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    if args.json {
        return keys.iter().try_for_each(|key| say(describe(key)));
    }
    let mut rows = vec![
        [
            "KEY ID",
            "PRINCIPAL",
            "ROLE",
            "WORKSPACES",
            "CREATED",
            "EXPIRES",
            "LAST USED",
            "REVOKED",
            "REPLACED BY",
        ]
        .map(str::to_owned),
    ];
    rows.extend(keys.iter().map(|key| {
        let workspaces = named(key).map_or("all".to_owned(), |ids| ids.join(","));
        [
            key.key_id.clone(),
            key.principal.clone(),
            role(key),
            workspaces,
            cell(key.created_at),
            cell(key.expires_at),
            cell(key.last_used_at),
            cell(key.revoked_at),
            key.replaced_by.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    }));
    say(table(&rows))
}

async fn rotate(args: RotateArgs) -> anyhow::Result<()> {
    let caller = args.caller.connect().await?;
    let overlap = args.overlap.map(prost_types::Duration::try_from).transpose();
    let request = RotateApiKeyRequest {
        key_id: args.key_id,
        overlap: overlap.map_err(|_| Mistake("--overlap is too long: at most 30d".to_owned()))?,
        expires_at: args.expires_in.map(from_now).map(to_wire),
        request_id: Uuid::new_v4().to_string(),
    };
    let request = caller.request(request);
    let answer = VaultAdminClient::new(caller.channel).rotate_api_key(request).await.map_err(denied)?;
    let RotateApiKeyResponse { api_key, key, replaced } = answer.into_inner();
    show_new(api_key.as_ref(), &key, replaced.as_ref(), args.json)
}

async fn revoke(args: RevokeArgs) -> anyhow::Result<()> {
    let caller = args.caller.connect().await?;
    let request = RevokeApiKeyRequest { key_id: args.key_id, request_id: Uuid::new_v4().to_string() };
    let request = caller.request(request);
    let answer = VaultAdminClient::new(caller.channel).revoke_api_key(request).await.map_err(denied)?;
    let key = answer.into_inner().api_key.context("the vault answered without the key")?;
    if args.json {
        say(describe(&key))
    } else {
        say(format_args!("revoked {} of {}", key.key_id, key.principal))
    }
}

/// The key itself goes to stdout alone, so that it can be piped; everything else to stderr.
fn show_new(
    new: Option<&ApiKey>,
    secret: &str,
    replaced: Option<&ApiKey>,
    as_json: bool,
) -> anyhow::Result<()> {
    let key = new.context("the vault answered without the key")?;
    if as_json {
        let mut told = describe(key);
        if let Some(fields) = told.as_object_mut() {
            fields.insert("key".into(), json!(secret));
            fields.extend(replaced.map(|old| ("replaced".into(), describe(old))));
        }
        return say(told);
    }
    if let Some(old) = replaced {
        note(format_args!("it replaces {}, which ends {}", old.key_id, cell(old.expires_at)));
    }
    note(format_args!("API key {} of {} ({}); it is shown only now:", key.key_id, key.principal, role(key)));
    say(secret)
}

fn describe(key: &ApiKey) -> serde_json::Value {
    json!({
        "key_id": key.key_id,
        "principal": key.principal,
        "role": role(key),
        "all_workspaces": named(key).is_none(),
        "workspaces": named(key).unwrap_or_default(),
        "created_at": time(key.created_at),
        "expires_at": time(key.expires_at),
        "last_used_at": time(key.last_used_at),
        "revoked_at": time(key.revoked_at),
        "replaced_by": key.replaced_by,
    })
}

fn role(key: &ApiKey) -> String {
    let name = key.role().as_str_name();
    name.strip_prefix("ROLE_").unwrap_or(name).to_ascii_lowercase()
}

/// The workspaces that the key names; `None` for all.
fn named(key: &ApiKey) -> Option<&[String]> {
    match &key.workspaces {
        Some(Workspaces::Named(list)) => Some(&list.workspace_ids),
        Some(Workspaces::AllWorkspaces(_)) | None => None,
    }
}
