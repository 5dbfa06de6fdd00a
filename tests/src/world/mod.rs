//! A vault, its database and its provider, for one test.

mod builder;
pub(crate) mod database;
mod portal;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::thread::panicking;
use std::time::Duration;

use tempfile::TempDir;
use token_vault_proto::v1::api_key::Role;
use token_vault_proto::v1::{self as pb, create_api_key_request::Workspaces};
use token_vault_sandbox::{Sandbox, User};
use tonic::transport::Channel;

pub use builder::{Builder, master_key_line};
use database::{Backend, Database};

use crate::caller::pace::Pace;
use crate::caller::{Caller, pasted, request_id, secret_part};
use crate::hunt::{Finding, Hunter};
use crate::machine::postgres::Cluster;
use crate::machine::process::{Ended, Launch, Process, channel_to};
use crate::wait::eventually_async;

/// The workspace that tests use unless they need two.
pub const ACME: &str = "acme";
/// The scopes that a person grants unless the test says otherwise.
pub const SCOPES: [&str; 3] = ["ads_read", "ads_management", "business_management"];

/// A vault in its own process, with its own database and its own sandbox.
#[derive(Debug)]
pub struct World {
    pub sandbox: Sandbox,
    pub database: Database,
    folder: TempDir,
    launch: Launch,
    process: Mutex<Option<Process>>,
    portal: Mutex<Option<Process>>,
    /// The address of each replica, and whether it still runs.
    replicas: Mutex<Vec<(SocketAddr, Weak<()>)>>,
    moving_time: bool,
    starts: Mutex<u32>,
    callers: tokio::sync::Mutex<BTreeMap<i32, Caller>>,
    secrets: Arc<Mutex<Hunter>>,
    cluster: Option<Arc<Mutex<Cluster>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl World {
    pub fn builder(backend: Backend) -> Builder {
        Builder::new(backend)
    }

    /// Starts a vault with all defaults.
    pub async fn start(backend: Backend) -> Self {
        Self::builder(backend).start().await
    }

    /// The settings with which the vault starts. A test may change them and run the vault itself.
    pub fn launch(&self) -> Launch {
        self.launch.clone()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Writes a file that holds a secret, and makes sure that no log holds it.
    pub fn secret_file(&self, name: &str, secret: &str) -> PathBuf {
        let file = self.folder().join(name);
        fs::write(&file, secret).expect("the test's folder is writable");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("a mode can be set");
        self.know(name, secret);
        file
    }

    pub fn cluster(&self) -> MutexGuard<'_, Cluster> {
        lock(self.cluster.as_ref().expect("this world brought a cluster"))
    }

    /// Starts the vault, or returns how it ended.
    pub fn try_start(&self) -> Result<(), Ended> {
        self.try_start_as(&self.launch)
    }

    /// Starts the vault with other settings, or returns how it ended.
    pub fn try_start_as(&self, launch: &Launch) -> Result<(), Ended> {
        let mut starts = lock(&self.starts);
        *starts += 1;
        let process = launch.serve(self.folder(), &format!("vault-{starts}"))?;
        *lock(&self.process) = Some(process);
        // The files that a first start writes hold secrets.
        for (name, file) in [("bootstrap key", "bootstrap-admin.key"), ("master key", "master.key")] {
            let text = fs::read_to_string(self.data().join(file)).unwrap_or_default();
            lock(&self.secrets).add(name, text.trim().rsplit(':').next().unwrap_or_default());
        }
        Ok(())
    }

    /// Starts the vault again after it was stopped or killed.
    pub fn start_again(&self) {
        if let Err(ended) = self.try_start() {
            panic!("the vault does not start: {ended:#?}");
        }
    }

    /// Starts one more process on the same PostgreSQL database. The caller owns it: `kill` ends it like a power cut.
    /// [`Caller::at`] and [`World::admin_of`] make callers of it.
    pub fn replica(&self) -> Process {
        self.replica_as(&self.launch)
    }

    /// Starts one more process with other settings.
    pub fn replica_as(&self, launch: &Launch) -> Process {
        let mut starts = lock(&self.starts);
        *starts += 1;
        let replica = launch.serve(self.folder(), &format!("vault-{starts}")).expect("a replica starts");
        lock(&self.replicas).push((replica.grpc(), replica.life()));
        replica
    }

    /// The address of every running process of this world.
    fn running(&self) -> Vec<SocketAddr> {
        let mut all: Vec<_> =
            lock(&self.process).iter().map(|process| (process.grpc(), process.life())).collect();
        all.extend(lock(&self.replicas).iter().cloned());
        all.retain(|(_, life)| life.strong_count() > 0);
        all.into_iter().map(|(grpc, _)| grpc).collect()
    }

    /// Moves time in the sandbox and in every running process, and returns when all of them have the new time. Needs
    /// [`Builder::moving_time`].
    pub async fn advance(&self, by: Duration) {
        self.sandbox.clock().advance(by);
        self.time_is_here().await;
    }

    /// Waits until no running process shows an earlier time than the sandbox does now.
    pub async fn time_is_here(&self) {
        assert!(self.moving_time, "this world's time can't be moved: start it with moving_time()");
        let now = self.sandbox.clock().now_micros();
        for process in self.running() {
            let admin = self.caller_at(&format!("http://{process}"), &self.bootstrap_key(), "");
            eventually_async(&format!("time at {process}"), Duration::from_secs(60), async || {
                let status = admin.get_vault_status(pb::GetVaultStatusRequest {}).await.ok()?;
                let time = status.server_time.expect("a status tells the time");
                (time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000 >= now).then_some(())
            })
            .await;
        }
    }

    pub fn process<T>(&self, act: impl FnOnce(&mut Process) -> T) -> T {
        act(lock(&self.process).as_mut().expect("the vault runs"))
    }

    /// Kills the process, like a power cut.
    pub fn kill(&self) {
        lock(&self.process).take().expect("the vault runs").kill();
    }

    /// Ends the process by SIGTERM, and asserts that its exit code is zero.
    pub fn stop(&self) {
        let mut process = lock(&self.process).take().expect("the vault runs");
        process.terminate();
        let status = process.wait();
        assert_eq!(status.code(), Some(0), "not a clean end:\n{}", process.output());
    }

    pub fn restart(&self) {
        self.stop();
        self.start_again();
    }

    /// The output of the running process and of the earlier ones, and the portal's.
    pub fn logs(&self) -> String {
        let mut all = String::new();
        for start in 1..=*lock(&self.starts) {
            for end in ["out", "err"] {
                let file = self.folder().join(format!("vault-{start}.{end}"));
                all += &String::from_utf8_lossy(&fs::read(file).unwrap_or_default());
            }
        }
        all + &self.portal_log()
    }

    /// What every process of this world has logged, also one that is not ready yet.
    pub fn all_logs(&self) -> String {
        let files =
            fs::read_dir(self.folder()).expect("the test's folder").flatten().map(|entry| entry.path());
        let logs = files.filter(|file| file.extension().is_some_and(|end| end == "err"));
        logs.map(|log| fs::read_to_string(log).unwrap_or_default()).collect()
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.process(|process| process.grpc()))
    }

    /// A connection to the vault. After a restart it reconnects by itself only if the port is the same.
    pub fn channel(&self) -> Channel {
        Self::channel_to(&self.endpoint())
    }

    pub fn channel_to(endpoint: &str) -> Channel {
        channel_to(endpoint)
    }

    /// The bootstrap admin key, as the file contains it.
    pub fn bootstrap_key(&self) -> String {
        let file = self.data().join("bootstrap-admin.key");
        fs::read_to_string(file).expect("the first start wrote it").trim().to_owned()
    }

    /// A caller with the bootstrap admin key.
    pub fn admin(&self) -> Caller {
        self.caller_with(&self.bootstrap_key(), "")
    }

    /// Measures how fast calls are from now on.
    pub fn pace(&self) -> Pace {
        Pace::of(self.admin())
    }

    /// The admin, calling `process`. It works also while the first process does not run.
    pub fn admin_of(&self, process: &Process) -> Caller {
        self.caller_at(&format!("http://{}", process.grpc()), &self.bootstrap_key(), "")
    }

    /// A caller with this key.
    pub fn caller_with(&self, key: &str, key_id: &str) -> Caller {
        self.caller_at(&self.endpoint(), key, key_id)
    }

    fn caller_at(&self, endpoint: &str, key: &str, key_id: &str) -> Caller {
        lock(&self.secrets).add("API key", secret_part(key));
        Caller::new(channel_to(endpoint), key.to_owned(), key_id.to_owned(), Arc::clone(&self.secrets))
    }

    /// A caller with a new key for some workspaces. An empty list means all.
    pub async fn caller(&self, role: Role, workspaces: &[&str]) -> Caller {
        let named = pb::WorkspaceList { workspace_ids: workspaces.iter().map(|&id| id.to_owned()).collect() };
        let places =
            if workspaces.is_empty() { Workspaces::AllWorkspaces(true) } else { Workspaces::Named(named) };
        let name = role.as_str_name().trim_start_matches("ROLE_").to_lowercase();
        let request = pb::CreateApiKeyRequest {
            principal: format!("{name}-{}", workspaces.join("-")),
            role: role.into(),
            workspaces: Some(places),
            expires_at: None,
            request_id: request_id(),
        };
        let made = self.admin().create_api_key(request).await.expect("the admin makes keys");
        self.caller_with(&made.key, &made.api_key.map(|key| key.key_id).unwrap_or_default())
    }

    /// A caller with a new key of this principal for all workspaces.
    pub async fn key_of(&self, principal: &str, role: Role) -> Caller {
        self.key_made_by(&self.admin(), principal, role).await
    }

    /// A caller with a new key made by `admin`, who may call over another connection.
    pub async fn key_made_by(&self, admin: &Caller, principal: &str, role: Role) -> Caller {
        let request = pb::CreateApiKeyRequest {
            principal: principal.into(),
            role: role.into(),
            workspaces: Some(Workspaces::AllWorkspaces(true)),
            ..Default::default()
        };
        let made = admin.create_api_key(request).await.expect("the admin makes keys");
        self.caller_with(&made.key, &made.api_key.expect("a key").key_id)
    }

    async fn of_role(&self, role: Role) -> Caller {
        let mut callers = self.callers.lock().await;
        let known = callers.get(&role.into()).map(|known| self.caller_with(known.key(), known.key_id()));
        match known {
            Some(caller) => caller,
            None => {
                let caller = self.caller(role, &[]).await;
                callers.insert(role.into(), caller.clone());
                caller
            }
        }
    }

    /// A connector for all workspaces, which stores tokens.
    pub async fn connector(&self) -> Caller {
        self.of_role(Role::Connector).await
    }

    /// An ingestion service for all workspaces, which fetches tokens.
    pub async fn ingestion(&self) -> Caller {
        self.of_role(Role::Ingestion).await
    }

    /// A viewer of all workspaces.
    pub async fn viewer(&self) -> Caller {
        self.of_role(Role::Viewer).await
    }

    /// An alerting service for all workspaces.
    pub async fn alerting(&self) -> Caller {
        self.of_role(Role::Alerting).await
    }

    /// A person who granted every scope.
    pub fn person(&self, name: &str) -> User {
        self.sandbox.user(name).grants(SCOPES)
    }

    /// What Meta would send now to say that the person removed the app.
    pub fn signed_request(&self, person: &User) -> String {
        let app = self.sandbox.app();
        let secret = app.secrets.first().expect("the app has a secret");
        token_vault_sandbox::signed_request(secret, &person.id(), self.sandbox.clock().now())
    }

    /// Waits until no connection is due for validation, as a second grant of a person makes the first one.
    pub async fn nothing_is_due(&self) {
        let now = self.sandbox.clock().now_micros();
        let due = format!("SELECT count(*) FROM ad_platform_connections WHERE next_validation_at <= {now}");
        eventually_async("nothing is due", Duration::from_secs(60), async || {
            (self.database.count(&due).await == 0).then_some(())
        })
        .await;
    }

    pub fn pasted(&self, workspace: &str, token: &str) -> pb::StoreTokenRequest {
        pasted(workspace, token)
    }

    /// Adds a secret to those that must not occur in the logs.
    pub fn know(&self, name: &str, secret: &str) {
        lock(&self.secrets).add(name, secret);
    }

    /// Every secret of this run: the vault's, and all that were sent to the provider.
    pub fn secrets(&self) -> Hunter {
        let mut hunter = lock(&self.secrets).clone();
        let names = [
            "access_token",
            "input_token",
            "fb_exchange_token",
            "client_secret",
            "appsecret_proof",
            "revoke_token",
            "code",
            "code_verifier",
        ];
        for request in self.sandbox.requests() {
            for (name, value) in request.query.iter().chain(&request.form) {
                if names.contains(&name.as_str()) {
                    // An app token is `id|secret`, and its id is not secret.
                    hunter.add(name, value.rsplit('|').next().unwrap_or_default());
                }
            }
            if let Some((_, token)) = request.header("authorization").and_then(|value| value.split_once(' '))
            {
                hunter.add("authorization", token.rsplit('|').next().unwrap_or_default());
            }
        }
        hunter
    }

    fn leaks(&self) -> Vec<Finding> {
        self.secrets().search("the logs", self.logs().as_bytes())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if panicking() {
            eprintln!("--- the vault's last words ---\n{}", tail(&self.logs(), 40));
            return;
        }
        self.stop_portal();
        if lock(&self.process).is_some() {
            self.stop();
        }
        let leaks = self.leaks();
        assert!(leaks.is_empty(), "secrets in the logs: {leaks:#?}");
    }
}

fn tail(text: &str, lines: usize) -> String {
    let quiet = text.lines().filter(|line| !line.contains("\"TRACE\"") && !line.contains("\"DEBUG\""));
    let all: Vec<_> = quiet.collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
