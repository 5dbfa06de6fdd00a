use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use token_vault_sandbox::{App, Sandbox, SandboxConfig};

use super::database::{Backend, Database};
use super::{World, lock};
use crate::hunt::Hunter;
use crate::machine::postgres::{Cluster, shared_cluster};
use crate::machine::process::Launch;

/// Where connect links lead, unless a test runs a portal.
const PORTAL: &str = "https://connect.example";

#[derive(Debug, Clone)]
pub struct Builder {
    backend: Backend,
    env: Vec<(String, String)>,
    without: Vec<String>,
    cluster: Option<Arc<Mutex<Cluster>>>,
    moving_time: bool,
    portal: bool,
}

/// A fresh master key in the form of the key file.
pub fn master_key_line(id: &str) -> String {
    let bytes: Vec<u8> =
        [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()].iter().flat_map(|id| *id.as_bytes()).collect();
    format!("tvk1:{id}:{}", STANDARD.encode(bytes))
}

/// The environment variable of a key.
fn variable(key: &str) -> String {
    format!("TOKEN_VAULT__{}", key.replace('.', "__").to_uppercase())
}

impl Builder {
    pub(super) fn new(backend: Backend) -> Self {
        Self {
            backend,
            env: Vec::new(),
            without: Vec::new(),
            cluster: None,
            moving_time: false,
            portal: false,
        }
    }

    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Sets one key of the vault's configuration: `config("expiry.warning_window", "3d")`.
    pub fn config(self, key: &str, value: impl Into<String>) -> Self {
        self.env(&variable(key), value)
    }

    /// Leaves one key of the vault's configuration unset.
    pub fn without(mut self, key: &str) -> Self {
        self.without.push(variable(key));
        self
    }

    /// Lets the vault follow the sandbox's clock, which the test moves: see [`World::advance`].
    pub fn moving_time(self) -> Self {
        let builder = self.config("providers.meta.follow_sandbox_clock", "true");
        Self { moving_time: true, ..builder }
    }

    /// Runs a portal too, to which connect links lead: see [`World::portal`].
    pub fn portal(self) -> Self {
        // The address must be known before the vault starts, since links begin with it. An address of its own makes the
        // portal another site than the sandbox, as it is in real life, and keeps its port free until it starts.
        let [_, a, b, c, ..] = *uuid::Uuid::new_v4().as_bytes();
        let host = Ipv4Addr::new(127, a, b, c.clamp(1, 254));
        let free = TcpListener::bind((host, 0)).expect("every address of 127.0.0.0/8 is this machine");
        let address = free.local_addr().expect("it has a port");
        let builder = self.config("portal.url", format!("http://{address}"));
        Self { portal: true, ..builder.config("portal.listen", address.to_string()) }
    }

    /// Uses the test's own PostgreSQL cluster, which it may stop.
    pub fn own_cluster(mut self, cluster: Cluster) -> Self {
        self.cluster = Some(Arc::new(Mutex::new(cluster)));
        self
    }

    /// Prepares everything, and starts the vault.
    pub async fn start(self) -> World {
        let portal = self.portal;
        let world = self.prepare().await;
        world.start_again();
        if portal {
            world.start_portal().await;
        }
        world
    }

    /// Prepares everything, but does not start a vault.
    pub async fn prepare(self) -> World {
        let folder = tempfile::Builder::new().prefix("token-vault-test-").tempdir().expect("a temp folder");
        let app_secret = uuid::Uuid::new_v4().simple().to_string();
        let app = App { secrets: vec![app_secret.clone()], ..App::default() };
        let config = SandboxConfig { apps: vec![app], ..SandboxConfig::default() };
        let sandbox = Sandbox::start(config).await.expect("the sandbox starts");
        let mut secrets = Hunter::default();
        secrets.add("app secret", &app_secret);

        let secret_file = folder.path().join("app.secret");
        fs::write(&secret_file, &app_secret).expect("the test's folder is writable");
        fs::set_permissions(&secret_file, fs::Permissions::from_mode(0o600)).expect("a mode can be set");
        let data = folder.path().join("data");
        // The settings are in the environment, so that commands other than `serve` can use them too.
        let mut launch = Launch::new(["serve"])
            .env("TOKEN_VAULT__SERVER__LISTEN", "127.0.0.1:0")
            .env("TOKEN_VAULT__DATA_DIR", data.display().to_string())
            .env("TOKEN_VAULT__SERVER__ADMIN_LISTEN", "127.0.0.1:0")
            .env("TOKEN_VAULT__PROVIDERS__META__APP_ID", sandbox.app().id)
            .env("TOKEN_VAULT__PROVIDERS__META__APP_SECRET_FILES", format!("[{secret_file:?}]"))
            .env("TOKEN_VAULT__PROVIDERS__META__GRAPH_URL", sandbox.url())
            .env("TOKEN_VAULT__PROVIDERS__META__DIALOG_URL", sandbox.url())
            .env("TOKEN_VAULT__PORTAL__URL", PORTAL)
            .env("TOKEN_VAULT__PORTAL__RETURN_URLS", "[\"https://app.example/settings\"]")
            .env("TOKEN_VAULT__LOG__LEVEL", "trace")
            .env("TOKEN_VAULT__LOG__FORMAT", "json");
        let database = match (self.backend, &self.cluster) {
            (Backend::Sqlite, _) => Database::sqlite(&data),
            (Backend::Postgres, None) => Database::postgres(shared_cluster()).await,
            (Backend::Postgres, Some(cluster)) => {
                let url = lock(cluster).url("postgres");
                Database::postgres_of_its_own(&url)
            }
        };
        launch = match self.backend {
            Backend::Sqlite => launch.env("TOKEN_VAULT__STORAGE__URL", database.url()),
            Backend::Postgres => {
                let key = master_key_line("test-key");
                secrets.add("master key", key.rsplit(':').next().unwrap_or_default());
                let password = database.url().split(['@', ':']).nth(2).unwrap_or_default().to_owned();
                secrets.add("database password", password);
                launch.env("TOKEN_VAULT__STORAGE__URL", database.url()).env("TOKEN_VAULT_MASTER_KEY", key)
            }
        };
        for (name, value) in self.env {
            launch = launch.env(&name, value);
        }
        for name in self.without {
            launch = launch.without(&name);
        }
        World {
            sandbox,
            database,
            folder,
            launch,
            process: Mutex::default(),
            portal: Mutex::default(),
            replicas: Mutex::default(),
            moving_time: self.moving_time,
            starts: Mutex::default(),
            callers: tokio::sync::Mutex::default(),
            secrets: Arc::new(Mutex::new(secrets)),
            cluster: self.cluster,
        }
    }
}
