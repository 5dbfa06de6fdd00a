//! `links`: make, list and revoke the links with which people connect accounts.

use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use token_vault_proto::v1::connect_link::State;
use token_vault_proto::v1::token_vault_client::TokenVaultClient;
use token_vault_proto::v1::{
    ConnectLink, CreateConnectLinkRequest, ListConnectLinksRequest, RevokeConnectLinkRequest,
};
use uuid::Uuid;

use super::Mistake;
use super::connect::{CallerArgs, denied};
use super::terminal::table::{Column, Fit, NOTHING, table};
use super::terminal::time::{full, minute};
use super::terminal::{note, say};

/// Commands about connect links.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a link and print it on stdout, once.
    #[command(after_help = "\
Examples:
  token-vault links create --workspace acme
      For one account, within 7 days.
  token-vault links create --workspace acme --connection 01a206c3-e104-7602-81c8-46696f67bb1b
      To reconnect exactly this connection.
  token-vault links create --workspace acme --expires-in 30d --max-uses 20")]
    Create(CreateArgs),
    /// List the links, the newest first, also those that have ended. The links themselves are never shown.
    #[command(after_help = "\
Examples:
  token-vault links list
  token-vault links list --workspace acme --wide")]
    List(ListArgs),
    /// End a link at once.
    #[command(after_help = "\
Examples:
  token-vault links revoke abcdefghijklmnop")]
    Revoke(RevokeArgs),
}

/// Arguments of `links create`.
#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// The workspace that the account belongs to.
    #[arg(long, value_name = "NAME")]
    workspace: String,
    /// The ad platform [default: that of --connection, or the only one that is configured].
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    provider: String,
    /// Reconnect only this connection [default: any, or a new one].
    #[arg(long, value_name = "ID")]
    connection: Option<String>,
    /// How long the link works, 1m to 30d [default: 7d].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    expires_in: Option<Duration>,
    /// Where the person goes afterwards: one of portal.return_urls, with any query [default: nowhere].
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true)]
    return_url: String,
    /// How many accounts may be connected with it, at most 1000.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=1_000))]
    max_uses: i32,
    /// Print one JSON object in place of the bare link.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    caller: CallerArgs,
}

/// Arguments of `links list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only the links of this workspace.
    #[arg(long, value_name = "NAME")]
    workspace: Option<String>,
    /// Show whole times, on lines as long as they need.
    #[arg(long, conflicts_with = "json")]
    wide: bool,
    /// Print one JSON object a line in place of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    caller: CallerArgs,
}

/// Arguments of `links revoke`.
#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// Id of the link, as `links list` shows it.
    link_id: String,
    /// Print one JSON object in place of a sentence.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    caller: CallerArgs,
}

pub(super) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create(args) => create(args).await,
        Command::List(args) => list(args).await,
        Command::Revoke(args) => revoke(args).await,
    }
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let caller = args.caller.connect().await?;
    let expires_in = args.expires_in.map(prost_types::Duration::try_from).transpose();
    let request = CreateConnectLinkRequest {
        workspace_id: args.workspace,
        provider: args.provider,
        connection_id: args.connection,
        expires_in: expires_in.map_err(|_| Mistake("--expires-in is too long: at most 30d".to_owned()))?,
        return_url: args.return_url,
        max_uses: args.max_uses,
        request_id: Uuid::new_v4().to_string(),
    };
    let request = caller.request(request);
    let made = TokenVaultClient::new(caller.channel).create_connect_link(request).await.map_err(denied)?;
    let made = made.into_inner();
    let link = made.link.context("the vault answered without the link")?;
    if args.json {
        let mut shown = describe(&link);
        if let Some(fields) = shown.as_object_mut() {
            fields.insert("url".into(), json!(made.url));
        }
        return say(shown);
    }
    let end = link.expires_at.map(minute).unwrap_or_default();
    note(format_args!(
        "Link {} for {} works until {end} UTC. It is shown only now, and whoever has it can use it:",
        link.link_id, link.workspace_id
    ));
    say(made.url)
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let caller = args.caller.connect().await?;
    let mut client = TokenVaultClient::new(caller.channel.clone());
    let mut links = Vec::new();
    let mut page_token = String::new();
    loop {
        let workspace_id = args.workspace.clone();
        let request = ListConnectLinksRequest { page_size: 1_000, page_token, workspace_id };
        let page = client.list_connect_links(caller.request(request)).await.map_err(denied)?.into_inner();
        links.extend(page.links);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    if args.json {
        return links.iter().try_for_each(|link| say(describe(link)));
    }
    let columns = [
        ("LINK ID", Column::Whole),
        ("WORKSPACE", Column::Whole),
        ("STATE", Column::Whole),
        ("USES", Column::Whole),
        ("ENDS (UTC)", Column::Whole),
        ("CONNECTED", Column::Prose),
        ("MADE BY", Column::Prose),
    ];
    let time = |at| if args.wide { full(Some(at)).unwrap_or_default() } else { minute(at) };
    let row = |link: &ConnectLink| {
        [
            link.link_id.clone(),
            link.workspace_id.clone(),
            state(link).to_lowercase(),
            format!("{} of {}", link.uses, link.max_uses),
            link.expires_at.map_or(NOTHING.to_owned(), time),
            link.last_connection_id.clone().unwrap_or_else(|| NOTHING.to_owned()),
            link.created_by.clone(),
        ]
    };
    let rows: Vec<_> = links.iter().map(row).collect();
    say(table(columns, &rows, if args.wide { Fit::Wide } else { Fit::Screen }))
}

async fn revoke(args: RevokeArgs) -> anyhow::Result<()> {
    let caller = args.caller.connect().await?;
    let request = RevokeConnectLinkRequest { link_id: args.link_id, request_id: Uuid::new_v4().to_string() };
    let request = caller.request(request);
    let done = TokenVaultClient::new(caller.channel).revoke_connect_link(request).await.map_err(denied)?;
    let link = done.into_inner().link.context("the vault answered without the link")?;
    if args.json { say(describe(&link)) } else { say(format_args!("Link {} has ended.", link.link_id)) }
}

fn state(link: &ConnectLink) -> &'static str {
    match link.state() {
        State::Unspecified => "UNKNOWN",
        State::Open => "OPEN",
        State::Used => "USED",
        State::Expired => "EXPIRED",
        State::Revoked => "REVOKED",
    }
}

fn describe(link: &ConnectLink) -> Value {
    json!({
        "link_id": link.link_id,
        "workspace_id": link.workspace_id,
        "provider": link.provider,
        "connection_id": link.connection_id,
        "return_url": link.return_url,
        "max_uses": link.max_uses,
        "uses": link.uses,
        "state": state(link),
        "created_by": link.created_by,
        "created_at": full(link.created_at),
        "expires_at": full(link.expires_at),
        "opened_at": full(link.opened_at),
        "last_used_at": full(link.last_used_at),
        "last_connection_id": link.last_connection_id,
        "revoked_at": full(link.revoked_at),
    })
}
