//! The vault of the demo: a process of its own, in a folder that goes with it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use token_vault_client::{ApiKey, Vault};
use token_vault_sandbox::Sandbox;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::crypto::create_secret_file;
use crate::model::Secret;

/// A folder of the demo's own; gone when the demo ends.
pub(super) struct DemoFolder(pub(super) PathBuf);

impl DemoFolder {
    pub(super) fn create() -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("token-vault-demo-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder))
    }

    fn log(&self) -> PathBuf {
        self.0.join("vault.log")
    }

    /// The last line of the vault's log.
    pub(super) fn last_words(&self) -> String {
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
pub(super) struct Serving {
    pub(super) child: Child,
    pub(super) grpc: SocketAddr,
    pub(super) key_file: PathBuf,
}

impl Serving {
    pub(super) async fn start(listen: &str, folder: &DemoFolder, sandbox: &Sandbox) -> anyhow::Result<Self> {
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
            // Time is the sandbox's: it can be let run.
            .env("TOKEN_VAULT__PROVIDERS__META__FOLLOW_SANDBOX_CLOCK", "true")
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

    pub(super) async fn connect(&self, key: ApiKey) -> anyhow::Result<Vault> {
        Ok(Vault::connect(format!("http://{}", self.grpc), key).await?)
    }

    /// SIGTERM, as an operator would; what does not end in time is killed.
    pub(super) async fn stop(&mut self) {
        if let Some(pid) =
            self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = tokio::time::timeout(Duration::from_secs(20), self.child.wait()).await;
    }
}
