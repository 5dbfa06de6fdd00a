//! `demo`: a vault and a Graph API sandbox on loopback, a story in the terminal, and both stay up.
//!
//! The vault is this very program, started as `serve` in a process of its own: what the story shows is what
//! an operator gets.

mod serving;
mod sixty_days;
mod stage;

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;

use anyhow::{Context, bail};
use clap::Args;
use token_vault_client::v1::{
    CreateApiKeyRequest, ListTokensRequest, ReportTokenErrorRequest, StoreTokenRequest, api_key,
    create_api_key_request, store_token_request,
};
use token_vault_client::{ApiKey, Vault, v1};
use token_vault_sandbox::{Sandbox, SandboxConfig, User};
use tokio::signal::unix::{SignalKind, signal};

pub(super) use self::serving::{DemoVaultArgs, run_vault};

use self::serving::{DemoFolder, Serving};
use self::stage::{mark, say, show, step};
use super::terminal::paint::{bold, red};
use crate::config::DEFAULT_LISTEN;

const WORKSPACE: &str = "acme";
/// Days that pass in a second, with somebody who watches and without.
const PACE: (u32, u32) = (1, 8);

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Where the vault listens for gRPC; port 0 picks a free one.
    #[arg(long, value_name = "ADDRESS", default_value_t = DEFAULT_LISTEN.to_string())]
    listen: String,
    /// Where the Graph API sandbox listens; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7500")]
    sandbox_listen: SocketAddr,
    /// Tell the story and end, instead of staying up.
    #[arg(long)]
    once: bool,
}

/// Runs the demo.
///
/// # Errors
/// When an address is taken, or a step of the story does not go as it should.
pub async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let mut stopped = pin!(signals()?);
    let folder = DemoFolder::create()?;
    let (sandbox, mut serving, connection) = tokio::select! {
        begun = begin(&args, &folder) => begun?,
        // Dropping the story kills the vault.
        () = &mut stopped => bail!("stopped in the middle of the story"),
    };
    if args.once {
        serving.stop().await;
        return Ok(());
    }
    try_it_yourself(&serving, &sandbox, &connection)?;
    tokio::select! {
        // A terminal's Ctrl-C reaches the vault too, which may be the first to end.
        biased;
        () = &mut stopped => {}
        ended = serving.child.wait() => bail!("the vault ended ({}): {}", ended?, folder.last_log_line()),
    }
    // The terminal may be gone.
    let _ = say("\nstopping…");
    serving.stop().await;
    Ok(())
}

/// Ends with the first signal that asks the demo to end. SIGHUP comes when its terminal is closed.
fn signals() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// Starts both and tells the story.
async fn begin(args: &DemoArgs, folder: &DemoFolder) -> anyhow::Result<(Sandbox, Serving, String)> {
    let sandbox = Sandbox::start(SandboxConfig { listen: args.sandbox_listen, ..SandboxConfig::default() })
        .await
        .with_context(|| {
            format!("the sandbox can't listen on {}; try --sandbox-listen 127.0.0.1:0", args.sandbox_listen)
        })?;
    let serving = Serving::start(&args.listen, folder, &sandbox).await?;
    // The folder is gone when the person reads this: the log has to speak here.
    let days_per_second = if args.once { PACE.1 } else { PACE.0 };
    let connection = story(&serving, folder, &sandbox, days_per_second).await.map_err(|error| {
        error.context(format!("the story broke off; the vault's log ends with: {}", folder.last_log_line()))
    })?;
    Ok((sandbox, serving, connection))
}

/// What happens to a token, step by step. Gives the connection that works at the end.
async fn story(
    serving: &Serving,
    folder: &DemoFolder,
    sandbox: &Sandbox,
    days_per_second: u32,
) -> anyhow::Result<String> {
    let admin = serving.connect(ApiKey::from_file(folder.0.join("data/bootstrap-admin.key"))?).await?;
    say(&format!("\n{}\n", bold("Token Vault: the life of a token")))?;

    let connector = serving.connect(new_key(&admin, "web", api_key::Role::Connector).await?).await?;
    let ingestion = serving.connect(new_key(&admin, "ingestion", api_key::Role::Ingestion).await?).await?;
    step(
        1,
        "API keys",
        "made one for the web service (connector) and one for ingestion; each only for workspace acme",
    )?;

    let ana = person(sandbox, "ana");
    let stored = store(&connector, &ana.short_lived_token()).await?;
    let token = stored.token.context("the vault told of no token")?;
    step(
        2,
        "StoreToken",
        "Ana pastes a short-lived token; the vault exchanges it, checks it, seals it, proves it",
    )?;
    show(&token)?;
    for found in &stored.checks {
        let message = found.remedy.as_ref().map(|remedy| remedy.message.as_str()).unwrap_or_default();
        say(&format!("       {} {:16} {message}", mark(found.result()), found.name))?;
    }

    let fetched = ingestion.fetch_access_token(&token.connection_id).await?;
    step(3, "FetchAccessToken", "ingestion gets the long-lived one, and what Meta wants with it")?;
    say(&format!(
        "       version {}, {} characters, with {}; keep it {} s at most",
        fetched.version,
        fetched.secret().len(),
        fetched.send_with().map(|(_, name, _)| name.to_owned()).collect::<Vec<_>>().join(", "),
        fetched.cache_for.as_secs()
    ))?;

    ana.changes_password();
    let report = ReportTokenErrorRequest {
        connection_id: token.connection_id.clone(),
        secret_id: Some(fetched.secret_id.clone()),
        http_status: 400,
        code: "190".into(),
        subcode: "460".into(),
        ..ReportTokenErrorRequest::default()
    };
    let verdict = ingestion.report_token_error(report).await?;
    step(
        4,
        "ReportTokenError",
        "Ana changes her password; ingestion sees 190/460 and says so; the vault asks Meta itself",
    )?;
    show(&verdict.token.context("the vault told of no token")?)?;

    step(5, "FetchAccessToken", "the dead token is refused, with its reason and who can mend it")?;
    match ingestion.fetch_access_token(&token.connection_id).await {
        Ok(_) => bail!("a dead token was handed out"),
        Err(error) => say(&format!("       {} {}: {}", red("✗"), error.reason_name(), error.message()))?,
    }

    ana.heals();
    let stored = store(&connector, &ana.short_lived_token()).await?;
    step(6, "StoreToken", "Ana reconnects: the same connection, the next version")?;
    show(&stored.token.context("the vault told of no token")?)?;

    let listed = admin.list_tokens(ListTokensRequest::default()).await?;
    step(7, "ListTokens", &format!("{} connection in the vault", listed.tokens.len()))?;
    for token in &listed.tokens {
        show(token)?;
    }
    sixty_days::tell(sandbox, &connector, &admin, days_per_second).await?;
    Ok(token.connection_id)
}

async fn store(connector: &Vault, secret: &str) -> anyhow::Result<v1::IntakeResult> {
    let request = StoreTokenRequest {
        workspace_id: WORKSPACE.into(),
        provider: "meta".into(),
        credential: Some(store_token_request::Credential::AccessToken(secret.to_owned())),
        ..StoreTokenRequest::default()
    };
    connector.store_token(request).await?.result.context("the vault answered with nothing")
}

async fn new_key(admin: &Vault, principal: &str, role: api_key::Role) -> anyhow::Result<ApiKey> {
    let named = v1::WorkspaceList { workspace_ids: vec![WORKSPACE.into()] };
    let request = CreateApiKeyRequest {
        principal: principal.into(),
        role: role.into(),
        workspaces: Some(create_api_key_request::Workspaces::Named(named)),
        ..CreateApiKeyRequest::default()
    };
    Ok(ApiKey::new(admin.create_api_key(request).await?.key))
}

fn person(sandbox: &Sandbox, name: &str) -> User {
    sandbox.user(name).grants(["ads_read", "ads_management", "business_management"]).with_ad_accounts(3)
}

fn try_it_yourself(serving: &Serving, sandbox: &Sandbox, connection: &str) -> anyhow::Result<()> {
    let (vault, graph) = (serving.grpc, sandbox.url());
    // A person of the sandbox: this token is worth nothing anywhere else.
    let pasted = person(sandbox, "bob").short_lived_token();
    let key = "authorization: Bearer $KEY";
    let call = |method: &str, body: &str| {
        format!("  grpcurl -plaintext -H \"{key}\" -d '{body}' {vault} tokenvault.v1.{method}")
    };
    let of_connection = format!("{{\"connection_id\":\"{connection}\"}}");
    let pasted =
        format!("{{\"workspace_id\":\"{WORKSPACE}\",\"provider\":\"meta\",\"access_token\":\"{pasted}\"}}");
    let program = std::env::current_exe().context("this program can't find itself")?;
    let program = program.display();
    let mut text = String::new();
    writeln!(text, "\n{}", bold("Try it yourself, in another shell (this key works while the demo runs):"))?;
    writeln!(text, "  KEY=$(cat {})", serving.key_file.display())?;
    writeln!(text, "  grpcurl -plaintext {vault} list")?;
    writeln!(text, "  grpcurl -plaintext {vault} describe tokenvault.v1.TokenVault")?;
    writeln!(text, "{}", call("TokenVault/ListTokens", "{}"))?;
    writeln!(text, "{}", call("TokenVault/FetchAccessToken", &of_connection))?;
    writeln!(text, "{}", call("TokenVault/ValidateToken", &of_connection))?;
    writeln!(text, "\n  # Follow the feed, from its beginning and then live; Ctrl-C ends it:")?;
    writeln!(text, "{}", call("TokenVault/WatchExpiryEvents", "{\"from\":\"FROM_EARLIEST\"}"))?;
    writeln!(text, "\n  # The same a line per event, and the jobs:")?;
    writeln!(text, "  export TOKEN_VAULT_ENDPOINT=http://{vault} TOKEN_VAULT_API_KEY=$KEY")?;
    writeln!(text, "  {program} watch --from earliest")?;
    writeln!(text, "  {program} jobs")?;
    writeln!(text, "  {program} jobs runs meta-token-expiry")?;
    writeln!(text, "\n  # Bob pastes a token (of the sandbox; it is worth nothing elsewhere):")?;
    writeln!(text, "{}", call("TokenVault/StoreToken", &pasted))?;
    writeln!(text, "\n  # Ana changes her password; a day passes, and the daily job finds out:")?;
    writeln!(text, "  curl -d '{{\"action\":\"changes_password\"}}' {graph}/_sandbox/users/ana/actions")?;
    writeln!(text, "  curl -d '{{\"advance_seconds\":86400}}' {graph}/_sandbox/clock")?;
    writeln!(text, "\n  # From Rust (ingestion, alerting and fetch are the examples):")?;
    writeln!(text, "  cargo run -p token-vault-client --example ingestion -- /tmp/feed-position")?;
    writeln!(text, "\nAll that the sandbox can do: curl {graph}/_sandbox")?;
    writeln!(text, "Ctrl-C ends the demo and forgets everything.")?;
    say(text.trim_end())
}
