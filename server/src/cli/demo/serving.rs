//! The vault of the demo: its own process, in its own folder. Both end with the demo, however the demo ends.

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use token_vault_client::{ApiKey, Vault};
use token_vault_sandbox::Sandbox;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use crate::cli::terminal::program::program;
use crate::config::{Config, Flags};
use crate::crypto::create_secret_file;
use crate::model::Secret;
use crate::{serve, telemetry};

/// The prefix of every demo folder's name.
const FOLDER: &str = "token-vault-demo-";
/// The number of characters that make the folder's name unique. People paste commands with this name, so it is short.
const UNIQUE: usize = 8;

/// The demo's own folder, which is deleted when the demo ends.
pub(super) struct DemoFolder(pub(super) PathBuf);

impl DemoFolder {
    pub(super) fn create() -> anyhow::Result<Self> {
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let name = format!("{FOLDER}{}", unique.get(..UNIQUE).unwrap_or(&unique));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder))
    }

    fn log(&self) -> PathBuf {
        self.0.join("vault.log")
    }

    /// The last line of the vault's log.
    pub(super) fn last_log_line(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        log.lines().last().unwrap_or("it is empty").to_owned()
    }
}

impl Drop for DemoFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The vault in its own process.
pub(super) struct Serving {
    pub(super) child: Child,
    /// The vault ends when this closes. It is not left in `child`, because waiting for a child closes its stdin.
    _stdin: ChildStdin,
    pub(super) grpc: SocketAddr,
    pub(super) key_file: PathBuf,
}

impl Serving {
    pub(super) async fn start(
        listen: &str,
        folder: &DemoFolder,
        sandbox: &Sandbox,
        portal_url: &str,
    ) -> anyhow::Result<Self> {
        let secret_file = folder.0.join("app.secret");
        let app = sandbox.app();
        let secret = app.secrets.first().cloned().context("the sandbox's app has no secret")?;
        create_secret_file(&secret_file, &Secret::new(secret))?;
        let log = std::fs::File::create(folder.log())?;
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(program);
        // Nothing of the operator's own configuration may reach the demo.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TOKEN_VAULT"))
        {
            command.env_remove(name);
        }
        let mut child = command
            .args(["demo-vault", "--listen", listen, "--folder"])
            .arg(&folder.0)
            .env("TOKEN_VAULT__SERVER__ADMIN_LISTEN", "127.0.0.1:0")
            .env("TOKEN_VAULT__PROVIDERS__META__APP_ID", app.id)
            .env(
                "TOKEN_VAULT__PROVIDERS__META__APP_SECRET_FILES",
                format!("[{:?}]", secret_file.display().to_string()),
            )
            .env("TOKEN_VAULT__PROVIDERS__META__GRAPH_URL", sandbox.url())
            .env("TOKEN_VAULT__PROVIDERS__META__DIALOG_URL", sandbox.url())
            .env("TOKEN_VAULT__PORTAL__URL", portal_url)
            // The vault's time is the sandbox's, so that the demo can let it run.
            .env("TOKEN_VAULT__PROVIDERS__META__FOLLOW_SANDBOX_CLOCK", "true")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the vault")?;
        let stdin = child.stdin.take().context("cannot hold the vault's stdin")?;
        let stdout = child.stdout.take().context("cannot read what the vault writes")?;
        let ready =
            tokio::time::timeout(Duration::from_secs(20), BufReader::new(stdout).lines().next_line()).await;
        let Ok(Ok(Some(line))) = ready else {
            bail!(
                "the vault did not start on {listen} (try --listen 127.0.0.1:0): {}",
                folder.last_log_line()
            );
        };
        let grpc = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix("grpc="))
            .and_then(|address| address.parse().ok())
            .ok_or_else(|| anyhow!("the vault wrote {line:?} instead of where it listens"))?;
        Ok(Self { child, _stdin: stdin, grpc, key_file: data(&folder.0).join("bootstrap-admin.key") })
    }

    pub(super) async fn connect(&self, key: ApiKey) -> anyhow::Result<Vault> {
        Ok(Vault::connect(format!("http://{}", self.grpc), key).await?)
    }

    /// SIGTERM, as an operator would send it; a vault that does not end in time is killed.
    pub(super) async fn stop(&mut self) {
        if let Some(pid) =
            self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = tokio::time::timeout(Duration::from_secs(20), self.child.wait()).await;
    }
}

fn data(folder: &Path) -> PathBuf {
    folder.join("data")
}

/// Arguments of the demo's vault.
#[derive(Debug, Args)]
pub(crate) struct DemoVaultArgs {
    #[arg(long)]
    listen: String,
    #[arg(long)]
    folder: PathBuf,
}

/// Serves as `serve` does, until stdin closes. The demo holds the other end of stdin, so it closes even when the demo
/// is killed. Then this process also deletes the folder, because nobody else would.
///
/// # Errors
/// As `serve`.
pub(crate) async fn run_vault(args: DemoVaultArgs) -> anyhow::Result<()> {
    static ALONE: AtomicBool = AtomicBool::new(false);
    let flags = Flags { listen: Some(args.listen), data_dir: Some(data(&args.folder)), ..Flags::default() };
    let config = Config::load(flags)?;
    telemetry::init(config.log.format, &config.log.level)?;
    // Use a plain thread, because the end of the process does not wait for it.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        ALONE.store(true, Ordering::Relaxed);
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
    });
    let ended = serve::run(config, &program()).await;
    let is_demo = args.folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(FOLDER));
    if is_demo && ALONE.load(Ordering::Relaxed) {
        let _ = std::fs::remove_dir_all(&args.folder);
    }
    ended
}
