//! `demo`: a vault and a Graph API sandbox on loopback, a story in the terminal, and both stay up.
//!
//! The vault is this very program, started as `serve` in a process of its own: what the story shows is what
//! an operator gets.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use token_vault_client::v1::{
    CreateApiKeyRequest, ListTokensRequest, ReportTokenErrorRequest, StoreTokenRequest, Token, api_key,
    check, create_api_key_request, store_token_request, token,
};
use token_vault_client::{ApiKey, Vault, v1};
use token_vault_sandbox::{Sandbox, SandboxConfig, User};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::DEFAULT_LISTEN;
use crate::crypto::create_secret_file;
use crate::model::Secret;

const WORKSPACE: &str = "acme";

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
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
pub async fn run(args: DemoArgs, listen: Option<String>) -> anyhow::Result<()> {
    let listen = listen.unwrap_or_else(|| DEFAULT_LISTEN.to_string());
    // From here on a signal is ours to answer: else it would leave the vault and the folder behind.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut told_to_end = pin!(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    let folder = DemoFolder::create()?;
    // In mid-story the vault is killed where it stands: its folder goes anyway.
    let (sandbox, mut serving, connection) = tokio::select! {
        begun = begin(&args, &listen, &folder) => begun?,
        () = &mut told_to_end => bail!("stopped before the story was told"),
    };
    if args.once {
        serving.stop().await;
        return Ok(());
    }
    try_it_yourself(&serving, &sandbox, &connection)?;
    tokio::select! {
        // A terminal's Ctrl-C reaches the vault too, which may be the first to end.
        biased;
        () = &mut told_to_end => {}
        ended = serving.child.wait() => bail!("the vault ended ({}): {}", ended?, folder.last_words()),
    }
    say("\nstopping…")?;
    serving.stop().await;
    Ok(())
}

/// Starts both and tells the story.
async fn begin(
    args: &DemoArgs,
    listen: &str,
    folder: &DemoFolder,
) -> anyhow::Result<(Sandbox, Serving, String)> {
    let sandbox = Sandbox::start(SandboxConfig { listen: args.sandbox_listen, ..SandboxConfig::default() })
        .await
        .with_context(|| {
            format!("the sandbox can't listen on {}; try --sandbox-listen 127.0.0.1:0", args.sandbox_listen)
        })?;
    let serving = Serving::start(listen, folder, &sandbox).await?;
    // The folder is gone when the person reads this: the log has to speak here.
    let connection = story(&serving, folder, &sandbox).await.map_err(|error| {
        error.context(format!("the story broke off; the vault's log ends with: {}", folder.last_words()))
    })?;
    Ok((sandbox, serving, connection))
}

/// What happens to a token, step by step. Gives the connection that works at the end.
async fn story(serving: &Serving, folder: &DemoFolder, sandbox: &Sandbox) -> anyhow::Result<String> {
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
    let mut text = String::new();
    writeln!(text, "\n{}", bold("Try it yourself (this key works while the demo runs):"))?;
    writeln!(text, "  KEY=$(cat {})", serving.key_file.display())?;
    writeln!(text, "  grpcurl -plaintext {vault} list")?;
    writeln!(text, "  grpcurl -plaintext {vault} describe tokenvault.v1.TokenVault")?;
    writeln!(text, "{}", call("TokenVault/ListTokens", "{}"))?;
    writeln!(
        text,
        "{}",
        call("TokenVault/FetchAccessToken", &format!("{{\"connection_id\":\"{connection}\"}}"))
    )?;
    writeln!(
        text,
        "{}",
        call("TokenVault/ValidateToken", &format!("{{\"connection_id\":\"{connection}\"}}"))
    )?;
    let body =
        format!("{{\"workspace_id\":\"{WORKSPACE}\",\"provider\":\"meta\",\"access_token\":\"{pasted}\"}}");
    writeln!(text, "\n  # Bob pastes a token (of the sandbox; it is worth nothing elsewhere):")?;
    writeln!(text, "{}", call("TokenVault/StoreToken", &body))?;
    writeln!(text, "\n  # Ana changes her password; validate again and see:")?;
    writeln!(text, "  curl -d '{{\"action\":\"changes_password\"}}' {graph}/_sandbox/users/ana/actions")?;
    writeln!(text, "\n  # From Rust:")?;
    writeln!(
        text,
        "  TOKEN_VAULT_ENDPOINT=http://{vault} TOKEN_VAULT_API_KEY=$KEY cargo run -p token-vault-client --example fetch -- {connection}"
    )?;
    writeln!(text, "\nAll that the sandbox can do: curl {graph}/_sandbox")?;
    writeln!(text, "Ctrl-C ends the demo and forgets everything.")?;
    say(text.trim_end())
}

/// A folder of the demo's own; gone when the demo ends.
struct DemoFolder(PathBuf);

impl DemoFolder {
    fn create() -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("token-vault-demo-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder))
    }

    fn log(&self) -> PathBuf {
        self.0.join("vault.log")
    }

    /// The last line of the vault's log.
    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        log.lines().last().unwrap_or("it said nothing").to_owned()
    }
}

impl Drop for DemoFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The vault in its own process.
struct Serving {
    child: Child,
    grpc: SocketAddr,
    key_file: PathBuf,
}

impl Serving {
    async fn start(listen: &str, folder: &DemoFolder, sandbox: &Sandbox) -> anyhow::Result<Self> {
        let (data, secret_file) = (folder.0.join("data"), folder.0.join("app.secret"));
        let app = sandbox.app();
        let secret = app.secrets.first().cloned().context("the sandbox's app has no secret")?;
        create_secret_file(&secret_file, &Secret::new(secret))?;
        let log = std::fs::File::create(folder.log())?;
        let program = std::env::current_exe().context("this program can't find itself")?;
        let mut command = Command::new(program);
        // Nothing of the operator's own configuration may reach the demo.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TOKEN_VAULT"))
        {
            command.env_remove(name);
        }
        let mut child = command
            .args(["serve", "--listen", listen, "--data-dir"])
            .arg(&data)
            .env("TOKEN_VAULT__SERVER__ADMIN_LISTEN", "127.0.0.1:0")
            .env("TOKEN_VAULT__PROVIDERS__META__APP_ID", app.id)
            .env(
                "TOKEN_VAULT__PROVIDERS__META__APP_SECRET_FILES",
                format!("[{:?}]", secret_file.display().to_string()),
            )
            .env("TOKEN_VAULT__PROVIDERS__META__GRAPH_URL", sandbox.url())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("the vault can't be started")?;
        let stdout = child.stdout.take().context("the vault's output can't be read")?;
        let ready =
            tokio::time::timeout(Duration::from_secs(20), BufReader::new(stdout).lines().next_line()).await;
        let Ok(Ok(Some(line))) = ready else {
            bail!("the vault did not start on {listen} (try --listen 127.0.0.1:0): {}", folder.last_words());
        };
        let grpc = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix("grpc="))
            .and_then(|address| address.parse().ok())
            .ok_or_else(|| anyhow!("the vault said {line:?} instead of where it listens"))?;
        Ok(Self { child, grpc, key_file: data.join("bootstrap-admin.key") })
    }

    async fn connect(&self, key: ApiKey) -> anyhow::Result<Vault> {
        Ok(Vault::connect(format!("http://{}", self.grpc), key).await?)
    }

    /// SIGTERM, as an operator would; what does not end in time is killed.
    async fn stop(&mut self) {
        if let Some(pid) =
            self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = tokio::time::timeout(Duration::from_secs(20), self.child.wait()).await;
    }
}

fn show(token: &Token) -> anyhow::Result<()> {
    let badge = token.badge.clone().unwrap_or_default();
    let text = match badge.color() {
        token::badge::Color::Green => green(&format!("● {}", badge.text)),
        token::badge::Color::Amber => paint("33", &format!("● {}", badge.text)),
        token::badge::Color::Red => red(&format!("● {}", badge.text)),
        _ => format!("● {}", badge.text),
    };
    let days = badge
        .days_left
        .filter(|_| token.usable)
        .map(|days| format!(", {days} days left"))
        .unwrap_or_default();
    let who = token.subject.as_ref().map(|subject| subject.name.as_str()).unwrap_or_default();
    say(&format!(
        "       {text}  {who} in {}: {} version {}{days}",
        token.workspace_id, token.connection_id, token.token_version
    ))
}

fn step(number: u8, title: &str, what: &str) -> anyhow::Result<()> {
    say(&format!("  {} {}  {what}", bold(&number.to_string()), bold(title)))
}

fn mark(result: check::Result) -> String {
    match result {
        check::Result::Pass => green("✓"),
        check::Result::Fail => red("✗"),
        check::Result::Warn => paint("33", "!"),
        _ => "·".to_owned(),
    }
}

fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").context("nobody listens any more")
}

fn paint(code: &str, text: &str) -> String {
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if colours { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

fn bold(text: &str) -> String {
    paint("1", text)
}

fn green(text: &str) -> String {
    paint("32", text)
}

fn red(text: &str) -> String {
    paint("31", text)
}
