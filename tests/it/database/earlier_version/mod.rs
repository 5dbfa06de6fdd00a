//! What an earlier version wrote is opened and served: a data folder, and a PostgreSQL database.
//!
//! `tests/fixtures/before_wings` holds both as that version left them, and what it answered. They were written by
//! [`story`], which plays the same story with any binary:
//!
//! ```text
//! TOKEN_VAULT_BINARY=/path/to/an/earlier/token-vault TOKEN_VAULT_WRITE_FIXTURES=1 \
//!     cargo test -p token-vault-tests --test it earlier_version
//! ```

mod story;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde_json::{Value, json};
use token_vault_tests::prelude::*;
use token_vault_tests::{Launch, token_vault};

/// The files of a data folder that are kept beside the database.
const FILES: [&str; 2] = ["master.key", "audit.jsonl"];

fn fixture(backend: Backend) -> PathBuf {
    let name = match backend {
        Backend::Sqlite => "sqlite",
        Backend::Postgres => "postgres",
    };
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/before_wings").join(name)
}

/// A request with a `request_id`, and the answer that a repeat of it must get.
struct Repeat {
    /// The sender: `connector` or `admin`.
    sender: String,
    rpc: String,
    message: Vec<u8>,
    answer: String,
}

impl Repeat {
    /// Sends it, and returns what identifies the answer.
    async fn send(&self, caller: &Caller) -> String {
        fn read<M: Message + Default>(bytes: &[u8]) -> M {
            M::decode(bytes).expect("a message of the protos")
        }
        fn token(token: Option<pb::Token>) -> String {
            token.map(|token| token.connection_id).unwrap_or_default()
        }
        let bytes = self.message.as_slice();
        let outcome = match self.rpc.as_str() {
            "StoreToken" => caller
                .store_with(read(bytes))
                .await
                .map(|done| format!("{} {}", done.outcome().as_str_name(), token(done.token))),
            "ExchangeToken" => caller
                .exchange_token(read(bytes))
                .await
                .map(|done| format!("{} {}", done.outcome().as_str_name(), token(done.token))),
            "RevokeToken" => caller
                .revoke_token(read(bytes))
                .await
                .map(|done| format!("{} {}", done.provider_outcome().as_str_name(), token(done.token))),
            "CreateApiKey" => caller.create_api_key(read(bytes)).await.map(|done| format!("{done:?}")),
            "RotateApiKey" => caller.rotate_api_key(read(bytes)).await.map(|done| format!("{done:?}")),
            "RevokeApiKey" => caller.revoke_api_key(read(bytes)).await.map(|done| format!("{done:?}")),
            "DeleteSubscription" => {
                caller.delete_subscription(read(bytes)).await.map(|done| format!("{done:?}"))
            }
            "RunJob" => caller
                .run_job(read(bytes))
                .await
                .map(|done| done.run.map(|run| run.run_id).unwrap_or_default()),
            "RotateKey" => caller
                .rotate_key(read(bytes))
                .await
                .map(|done| done.run.map(|run| run.run_id).unwrap_or_default()),
            "ShredWorkspace" => {
                caller.shred_workspace(read(bytes)).await.map(|done| done.connections.to_string())
            }
            rpc => panic!("nobody repeats {rpc}"),
        };
        outcome.unwrap_or_else(|no| format!("{:?} {}", no.code(), no.reason()))
    }
}

/// What the earlier version answered.
struct Facts {
    /// The vault's time when the earlier version stopped, in seconds since 1970.
    time: i64,
    /// Its API keys, by the names of their owners.
    keys: BTreeMap<String, String>,
    /// The secret of each connection that has one, by its id.
    secrets: BTreeMap<String, String>,
    /// Why each of the other connections has no secret, by its id.
    without: BTreeMap<String, String>,
    /// Every event: its sequence, its kind and its connection.
    events: Vec<String>,
    repeats: Vec<Repeat>,
    /// A run of a job.
    run: String,
    records_on_disk: usize,
}

fn texts(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.as_object().expect("an object").iter();
    pairs.map(|(name, value)| (name.clone(), value.as_str().expect("a text").to_owned())).collect()
}

impl Facts {
    fn write(&self) -> Value {
        let repeats = self.repeats.iter().map(|repeat| {
            json!({
                "sender": repeat.sender, "rpc": repeat.rpc, "message": STANDARD.encode(&repeat.message),
                "answer": repeat.answer,
            })
        });
        json!({
            "time": self.time, "keys": self.keys, "secrets": self.secrets, "without": self.without,
            "events": self.events, "run": self.run, "records_on_disk": self.records_on_disk,
            "repeats": repeats.collect::<Vec<_>>(),
        })
    }

    fn read(facts: &Value) -> Self {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let repeats = facts["repeats"].as_array().expect("a list").iter().map(|repeat| Repeat {
            sender: text(&repeat["sender"]),
            rpc: text(&repeat["rpc"]),
            message: STANDARD.decode(text(&repeat["message"])).expect("base64"),
            answer: text(&repeat["answer"]),
        });
        Self {
            time: facts["time"].as_i64().expect("a time"),
            keys: texts(&facts["keys"]),
            secrets: texts(&facts["secrets"]),
            without: texts(&facts["without"]),
            events: facts["events"].as_array().expect("a list").iter().map(text).collect(),
            repeats: repeats.collect(),
            run: text(&facts["run"]),
            records_on_disk: facts["records_on_disk"].as_u64().expect("a count") as usize,
        }
    }
}

fn events(feed: &[pb::ExpiryEvent]) -> Vec<String> {
    let line = |event: &pb::ExpiryEvent| {
        format!("{} {} {}", event.sequence, event.kind().as_str_name(), event.connection_id)
    };
    feed.iter().map(line).collect()
}

/// Why a connection's secret is not handed out.
async fn why_not(ingestion: &Caller, connection: &str) -> String {
    let no = ingestion.fetch(connection).await.expect_err("it has no secret to give");
    format!("{:?} {}", no.code(), no.reason())
}

/// Puts the kept files and rows in place. It does not start the vault.
async fn restored(backend: Backend, facts: &Facts) -> (World, Launch) {
    let world = World::builder(backend).moving_time().prepare().await;
    world.sandbox.clock().set(facts.time + 1);
    let kept = fixture(backend);
    fs::create_dir_all(world.data()).expect("the test's folder is writable");
    let put = |name: &str, text: &str| {
        let file = world.data().join(name);
        fs::write(&file, text).expect("the test's folder is writable");
        fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("a mode can be set");
    };
    put("bootstrap-admin.key", &facts.keys["admin"]);
    for name in FILES {
        put(name, &fs::read_to_string(kept.join(name)).expect("the file is kept"));
    }
    let dump = fs::read_to_string(kept.join("database.sql")).expect("the file is kept");
    if backend == Backend::Sqlite {
        put("token-vault.db", "");
    }
    world.database.execute(dump).await;
    let mut launch = world.launch();
    if backend == Backend::Postgres {
        let key = fs::read_to_string(kept.join("master.key")).expect("the file is kept");
        launch = launch.env("TOKEN_VAULT_MASTER_KEY", key.trim());
    }
    (world, launch)
}

async fn what_an_earlier_version_wrote_is_opened_and_served(backend: Backend) {
    if std::env::var_os("TOKEN_VAULT_WRITE_FIXTURES").is_some() {
        println!("written by {}", token_vault().display());
        return story::write(backend).await;
    }
    let facts = fs::read_to_string(fixture(backend).join("facts.json")).expect("the file is kept");
    let facts = Facts::read(&serde_json::from_str(&facts).expect("JSON"));
    let (world, launch) = restored(backend, &facts).await;
    world.try_start_as(&launch).expect("the vault opens what an earlier version wrote");
    let caller = |name: &str| world.caller_with(&facts.keys[name], "");
    let (ingestion, feed) = (caller("ingestion"), caller("admin").watch_all().await);

    assert!(facts.secrets.len() > 2 && facts.without.len() > 2, "all kinds of connections are kept");
    for (connection, secret) in &facts.secrets {
        assert_eq!(ingestion.secret(connection).await, *secret, "{connection}");
    }
    for (connection, why) in &facts.without {
        assert_eq!(why_not(&ingestion, connection).await, *why, "{connection}");
    }
    let seen = feed.until("all that was kept", |seen| {
        (seen.len() >= facts.events.len()).then(|| events(&seen[..facts.events.len()]))
    });
    assert_eq!(seen.await, facts.events);
    world.sandbox.clear_requests();
    for repeat in &facts.repeats {
        assert_eq!(repeat.send(&caller(&repeat.sender)).await, repeat.answer, "{}", repeat.rpc);
    }
    assert_eq!(world.sandbox.count(Endpoint::Any), 0, "a repeat asked the provider");
    let runs = caller("admin").list_job_runs(pb::ListJobRunsRequest::default()).await.unwrap().runs;
    assert!(runs.iter().any(|run| run.run_id == facts.run), "the run is gone: {runs:?}");

    // The new version goes on from there: new data joins the old data in the feed and in the audit log.
    let new = caller("connector").connect(ACME, &world.person("new").long_lived_token()).await;
    feed.first(&new, Kind::Connected).await;
    ingestion.fetch(&new).await.expect("it is handed out");
    drop(feed);
    world.stop();
    let log = fs::read_to_string(world.data().join("audit.jsonl")).expect("the log is there");
    assert!(log.lines().count() > facts.records_on_disk, "nothing was recorded");
    let verified = launch.env("TOKEN_VAULT__LOG__LEVEL", "warn").instead(["audit", "verify"]).run();
    assert_eq!(verified.code, Some(0), "{verified:#?}");
    assert!(verified.stdout.starts_with("intact: "), "{verified:#?}");
}

/// Earlier versions believed times in milliseconds. No client can read such an instant, and no token lives so long.
async fn ends_past_all_years_become_unknown_ones(backend: Backend) {
    let facts = fs::read_to_string(fixture(backend).join("facts.json")).expect("the file is kept");
    let facts = Facts::read(&serde_json::from_str(&facts).expect("JSON"));
    let (world, launch) = restored(backend, &facts).await;
    let far = 1_795_000_000_000_000_000_i64;
    let changed = world
        .database
        .execute(format!(
            "UPDATE ad_platform_connections SET expires_at = {far}, expires_sort = {far}, data_access_ends_at = {far}, \
             issued_at = {far} WHERE expiry_source = 'PROVIDER' AND standing = 'LIVE'"
        ))
        .await;
    assert!(changed > 0);
    world.try_start_as(&launch).expect("the vault opens what an earlier version wrote");
    let unknown = "SELECT connection_id FROM ad_platform_connections WHERE expiry_source = 'UNKNOWN' \
                   AND expires_at IS NULL AND expires_sort = 0 AND data_access_ends_at IS NULL \
                   AND data_access_source = 'UNKNOWN' AND issued_at IS NULL";
    assert_eq!(world.database.count(&format!("SELECT count(*) FROM ({unknown}) AS u")).await, changed);
    let listed = world.caller_with(&facts.keys["admin"], "").list().await.unwrap().tokens;
    assert!(listed.len() > usize::try_from(changed).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_past_all_years_become_unknown_ones_on_sqlite() {
    ends_past_all_years_become_unknown_ones(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_past_all_years_become_unknown_ones_on_postgres() {
    ends_past_all_years_become_unknown_ones(Backend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_version_wrote_is_opened_and_served_on_sqlite() {
    what_an_earlier_version_wrote_is_opened_and_served(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_version_wrote_is_opened_and_served_on_postgres() {
    what_an_earlier_version_wrote_is_opened_and_served(Backend::Postgres).await;
}
