//! `api-key`: make, list and revoke the keys that services call the vault with.

use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use token_vault_proto::v1::api_key::{Role as PbRole, Workspaces};
use token_vault_proto::v1::create_api_key_request::Workspaces as NewWorkspaces;
use token_vault_proto::v1::vault_admin_client::VaultAdminClient;
use token_vault_proto::v1::{
    ApiKey, CreateApiKeyRequest, CreateApiKeyResponse, ListApiKeysRequest, RevokeApiKeyRequest, WorkspaceList,
};
use uuid::Uuid;

use super::connect::{CallerArgs, refused};
use super::{Mistake, note, say, table};
use crate::config::{Config, Flags};
use crate::model::{Clock, Role, Timestamp, WorkspaceId, WorkspaceSet};
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
pub(super) async fn run(command: Command, flags: Flags) -> anyhow::Result<()> {
    match command {
        Command::Create(args) if args.offline => create_offline(args, flags).await,
        Command::Create(args) => create(args, flags).await,
        Command::List(args) => list(args, flags).await,
        Command::Revoke(args) => revoke(args, flags).await,
    }
}

async fn create(args: CreateArgs, flags: Flags) -> anyhow::Result<()> {
    let caller = args.caller.connect(flags).await?;
    let workspaces = if args.all_workspaces {
        NewWorkspaces::AllWorkspaces(true)
    } else {
        NewWorkspaces::Named(WorkspaceList { workspace_ids: args.workspace })
    };
    let request = CreateApiKeyRequest {
        principal: args.principal,
        role: args.role.split().1.into(),
        workspaces: Some(workspaces),
        expires_at: end(args.expires_in).map(to_wire),
        request_id: Uuid::new_v4().to_string(),
    };
    let request = caller.request(request);
    let answer = VaultAdminClient::new(caller.channel).create_api_key(request).await.map_err(refused)?;
    show_new(&answer.into_inner(), args.json)
}

async fn create_offline(args: CreateArgs, flags: Flags) -> anyhow::Result<()> {
    let mistake = |bad: crate::model::BadValue| Mistake(format!("--workspace {bad}"));
    let named: Result<_, _> =
        args.workspace.iter().map(|id| WorkspaceId::parse(id.as_str()).map_err(mistake)).collect();
    let workspaces = if args.all_workspaces { WorkspaceSet::All } else { WorkspaceSet::Named(named?) };
    let command = CreateApiKey {
        request_id: None,
        principal: args.principal,
        role: args.role.split().0,
        workspaces,
        expires_at: end(args.expires_in),
    };
    let config = Config::load(flags)?;
    telemetry::init(config.log.format, &config.log.level)?;
    let (vault, _) = config.into_vault_config();
    let new = Vault::create_api_key_offline(vault, command).await?;
    show_new(&new.into(), args.json)
}

async fn list(args: ListArgs, flags: Flags) -> anyhow::Result<()> {
    let caller = args.caller.connect(flags).await?;
    let mut client = VaultAdminClient::new(caller.channel.clone());
    let mut keys = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListApiKeysRequest { page_size: 1_000, page_token, principal: args.principal.clone() };
        let page = client.list_api_keys(caller.request(request)).await.map_err(refused)?.into_inner();
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
        ["KEY ID", "PRINCIPAL", "ROLE", "WORKSPACES", "CREATED", "EXPIRES", "LAST USED", "REVOKED"]
            .map(str::to_owned),
    ];
    rows.extend(keys.iter().map(|key| {
        let time =
            |at: Option<prost_types::Timestamp>| at.map_or("-".to_owned(), |at| from_wire(at).to_string());
        let workspaces = named(key).map_or("all".to_owned(), |ids| ids.join(","));
        [
            key.key_id.clone(),
            key.principal.clone(),
            role(key),
            workspaces,
            time(key.created_at),
            time(key.expires_at),
            time(key.last_used_at),
            time(key.revoked_at),
        ]
    }));
    say(table(&rows))
}

async fn revoke(args: RevokeArgs, flags: Flags) -> anyhow::Result<()> {
    let caller = args.caller.connect(flags).await?;
    let request = RevokeApiKeyRequest { key_id: args.key_id, request_id: Uuid::new_v4().to_string() };
    let request = caller.request(request);
    let answer = VaultAdminClient::new(caller.channel).revoke_api_key(request).await.map_err(refused)?;
    let key = answer.into_inner().api_key.context("the vault answered without the key")?;
    if args.json {
        say(describe(&key))
    } else {
        say(format_args!("revoked {} of {}", key.key_id, key.principal))
    }
}

/// The key itself goes to stdout alone, so that it can be piped; everything else to stderr.
fn show_new(new: &CreateApiKeyResponse, as_json: bool) -> anyhow::Result<()> {
    let key = new.api_key.as_ref().context("the vault answered without the key")?;
    if as_json {
        let mut told = describe(key);
        if let Some(fields) = told.as_object_mut() {
            fields.insert("key".into(), json!(new.key));
        }
        return say(told);
    }
    note(format_args!("API key {} of {} ({}); it is shown only now:", key.key_id, key.principal, role(key)));
    say(&new.key)
}

fn describe(key: &ApiKey) -> serde_json::Value {
    let time = |at: Option<prost_types::Timestamp>| at.map(|at| from_wire(at).to_string());
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

fn end(after: Option<Duration>) -> Option<Timestamp> {
    after.map(|after| Clock::system().now() + after)
}

fn to_wire(at: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = at.unix_parts();
    prost_types::Timestamp {
        seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        nanos: i32::try_from(nanos).unwrap_or(0),
    }
}

fn from_wire(at: prost_types::Timestamp) -> Timestamp {
    Timestamp::from_micros(at.seconds.saturating_mul(1_000_000).saturating_add(i64::from(at.nanos) / 1_000))
}
