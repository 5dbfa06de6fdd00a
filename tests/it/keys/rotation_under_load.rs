//! Keys that are rotated while everything that they encrypt is read and while processes are killed.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use token_vault::crypto::{Binding, DataKey, KeyBinding, MasterKeys, seal};
use token_vault::model::{ConnectionId, ProviderId, Secret, TokenVersion, WorkspaceId};
use token_vault_proto::v1::job_run::State;
use token_vault_proto::v1::rotate_key_request::Key;
use token_vault_tests::fleet::{Dice, ids, turn};
use token_vault_tests::prelude::*;
use token_vault_tests::{Launch, Process, eventually_async, master_key_line};
use uuid::Uuid;

use super::rotation::{LIMIT, id_of, rotate, with_key_file, write_keys};

/// Tokens of the ordinary run. `TOKEN_VAULT_TEST_ROTATED_TOKENS=50000` asks for the full size.
const TOKENS: usize = 10_000;
const WORKSPACES: usize = 4;
const KILLS: usize = 10;
const READERS: usize = 3;

/// Processes on one database. A killed one is replaced at once.
struct Fleet<'w> {
    world: &'w World,
    launch: Launch,
    processes: Vec<Process>,
    /// One caller for each process, for the readers.
    callers: Arc<Mutex<Vec<Caller>>>,
}

impl<'w> Fleet<'w> {
    fn start(world: &'w World, launch: Launch, count: usize) -> Self {
        let processes = (0..count).map(|_| world.replica_as(&launch)).collect();
        let mut fleet = Self { world, launch, processes, callers: Arc::default() };
        fleet.tell();
        fleet
    }

    fn tell(&mut self) {
        let callers = self.processes.iter().map(|process| self.world.admin_of(process)).collect();
        *self.callers.lock().expect("no test panics here") = callers;
    }

    fn admin(&self) -> Caller {
        self.world.admin_of(&self.processes[0])
    }

    fn kill(&mut self, n: usize) {
        self.processes.remove(n).kill();
        self.processes.insert(0, self.world.replica_as(&self.launch));
        self.tell();
    }
}

/// Inserts tokens, sealed by the vault's own code with the keys from the database. Returns each
/// connection's id and secret.
pub(super) async fn plant(world: &World, count: usize, master: &str) -> Vec<(String, String)> {
    let master = MasterKeys::parse(&Secret::new(master.to_owned())).expect("a master key");
    let database = &world.database;
    let bytes = |column: &str| match database.backend() {
        Backend::Sqlite => format!("lower(hex({column}))"),
        Backend::Postgres => format!("encode({column}, 'hex')"),
    };
    let vault_id =
        database.texts(format!("SELECT {} FROM vault", database.hex_of("vault_id"))).await.remove(0);
    let sql = format!(
        "SELECT workspace_id || ' ' || {} || ' ' || master_key_id || ' ' || {} FROM workspace_keys WHERE purpose = 'data'",
        database.hex_of("key_id"),
        bytes("wrapped")
    );
    let mut keys = Vec::new();
    for row in database.texts(sql).await {
        let words: Vec<_> = row.split(' ').collect();
        let binding = KeyBinding {
            vault: vault_id.parse().expect("a UUID"),
            purpose: "data",
            workspace: words[0],
            key_id: words[1].parse().expect("a UUID"),
            version: 1,
        };
        let raw = master.unwrap(words[2], &binding, &hex::decode(words[3]).expect("hexadecimal")).await;
        let workspace = WorkspaceId::parse(words[0]).expect("an id");
        keys.push((workspace, DataKey::new(1, &raw.expect("the key opens"))));
    }
    let meta = ProviderId::parse("meta").expect("a provider");
    let app = world.sandbox.app().id;
    let mut planted = Vec::with_capacity(count);
    for chunk in ids(count).chunks(500) {
        let (mut connections, mut secrets) = (Vec::new(), Vec::new());
        for id in chunk {
            let (workspace, key) = &keys[planted.len() % keys.len()];
            let secret = format!("EAAplanted{}", Uuid::new_v4().simple());
            let connection = ConnectionId::from_uuid(*id);
            let binding = Binding { workspace, connection, provider: &meta, version: TokenVersion::FIRST };
            let sealed = seal(key, &binding, &Secret::new(secret.clone())).expect("it is sealed");
            let (id, hex) = (database.uuid(&id.to_string()), hex::encode(&sealed.bytes));
            let sealed = match database.backend() {
                Backend::Sqlite => format!("x'{hex}'"),
                Backend::Postgres => format!("'\\x{hex}'"),
            };
            connections.push(format!(
                "({id}, '{workspace}', 'meta', '{app}', '{connection}', '{connection}', 'planted', 'USER', 1, {id}, 1,
                  'LONG_LIVED_USER', 'NEVER', 9223372036854775807, '[]', '[]', 'LIVE', 0, 0)"
            ));
            secrets.push(format!("({id}, 'CURRENT', 1, {id}, 1, {sealed}, 0)"));
            planted.push((connection.to_string(), secret));
        }
        let sql = format!(
            "INSERT INTO ad_platform_connections (connection_id, workspace_id, provider, app_id, subject_key,
                 subject_id, subject_name, subject_kind, token_version, secret_id, revision, kind, expiry_source,
                 expires_sort, scopes, granular_scopes, standing, created_at, updated_at) VALUES {};
             INSERT INTO connection_secrets (connection_id, state, token_version, secret_id, data_key_version, sealed,
                 created_at) VALUES {};",
            connections.join(", "),
            secrets.join(", ")
        );
        database.execute(sql).await;
    }
    planted
}

/// What the readers saw.
#[derive(Default)]
struct Seen {
    reads: AtomicU64,
    stop: AtomicBool,
    wrong: Mutex<Vec<String>>,
}

/// Fetches random tokens from any living process until it is stopped.
async fn read(
    seed: u64,
    planted: Arc<Vec<(String, String)>>,
    callers: Arc<Mutex<Vec<Caller>>>,
    seen: Arc<Seen>,
) {
    let mut dice = Dice::new(seed);
    while !seen.stop.load(Ordering::Relaxed) {
        let (id, secret) = dice.pick(&planted).clone();
        let caller = dice.pick(&callers.lock().expect("no test panics here")).clone();
        let request = pb::FetchAccessTokenRequest { connection_id: id.clone(), ..Default::default() };
        match caller.fetch_access_token(request).await {
            Ok(answer) => {
                seen.reads.fetch_add(1, Ordering::Relaxed);
                let right = token_of(&answer) == Some(&secret);
                if !right {
                    seen.wrong.lock().expect("no test panics here").push(format!("{id}: another secret"));
                }
            }
            // The process was killed, or is starting, or its predecessor still holds the database.
            Err(no) if no.code() == Code::Unavailable || no.reason().is_empty() => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(no) => seen.wrong.lock().expect("no test panics here").push(format!("{id}: {no:?}")),
        }
    }
}

fn token_of(answer: &pb::FetchAccessTokenResponse) -> Option<&String> {
    match answer.credential.as_ref()? {
        pb::fetch_access_token_response::Credential::Bearer(bearer) => Some(&bearer.access_token),
        _ => None,
    }
}

/// The runs that are still in progress.
async fn running(admin: &Caller) -> Option<Vec<pb::JobRun>> {
    let mut all = Vec::new();
    for job in ["master-key-rotation", "data-key-rotation"] {
        let request = pb::ListJobRunsRequest { job: Some(job.into()), ..Default::default() };
        all.extend(admin.list_job_runs(request).await.ok()?.runs);
    }
    all.retain(|run| run.state() == State::Running);
    Some(all)
}

async fn rotation_under_fire(backend: Backend, processes: usize) {
    let _turn = turn().await;
    let count =
        std::env::var("TOKEN_VAULT_TEST_ROTATED_TOKENS").ok().and_then(|n| n.parse().ok()).unwrap_or(TOKENS);
    let world = World::builder(backend).config("log.level", "info").prepare().await;
    let began = Instant::now();
    let mut lines = vec![master_key_line("k0")];
    let (file, launch) = with_key_file(&world, "keys", &[&lines[0]]);
    let mut fleet = Fleet::start(&world, launch.clone(), processes);
    let workspaces: Vec<_> = (0..WORKSPACES).map(|n| format!("ws-{n}")).collect();
    for workspace in &workspaces {
        fleet.admin().connect(workspace, &world.person(workspace).long_lived_token()).await;
    }
    let planted = Arc::new(plant(&world, count, &lines[0]).await);
    let prepared = began.elapsed();

    let seen = Arc::new(Seen::default());
    let readers: Vec<_> = (0..READERS)
        .map(|n| {
            tokio::spawn(read(n as u64, Arc::clone(&planted), Arc::clone(&fleet.callers), Arc::clone(&seen)))
        })
        .collect();
    let (mut dice, mut in_a_run, mut rounds) = (Dice::new(3), 0, 0);
    for kill in 0..KILLS {
        let admin = fleet.admin();
        let going = eventually_async("the vault answers", LIMIT, async || running(&admin).await).await;
        if going.is_empty() {
            rounds += 1;
            let line = master_key_line(&format!("k{rounds}"));
            lines.push(line);
            write_keys(&world, &file, &lines.iter().map(String::as_str).collect::<Vec<_>>());
            for workspace in &workspaces {
                eventually_async("a data key's rotation begins", LIMIT, async || {
                    admin.rotate_key(rotate(Key::WorkspaceId(workspace.clone()))).await.ok()
                })
                .await;
            }
            eventually_async("a master key's rotation begins", LIMIT, async || {
                admin.rotate_key(rotate(Key::Master(true))).await.ok()
            })
            .await;
        }
        tokio::time::sleep(dice.time(Duration::from_millis(700))).await;
        in_a_run += usize::from(running(&admin).await.is_some_and(|going| !going.is_empty()));
        fleet.kill(kill % processes);
    }
    let admin = fleet.admin();
    eventually_async("every rotation ends", LIMIT, async || running(&admin).await.filter(Vec::is_empty))
        .await;
    seen.stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.expect("a reader ends");
    }
    let reads = seen.reads.load(Ordering::Relaxed);
    eprintln!(
        "{count} tokens prepared in {prepared:?}; {rounds} rounds, {in_a_run} of {KILLS} kills within a run, {reads} reads; \
         all in {:?}",
        began.elapsed()
    );
    let wrong = seen.wrong.lock().expect("no test panics here").clone();
    assert!(wrong.is_empty(), "{} reads went wrong: {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    assert!(reads > 1_000, "only {reads} reads");
    assert!(in_a_run >= KILLS / 2, "only {in_a_run} kills were in the middle of a run");

    let newest = id_of(lines.last().expect("a key"));
    let old = "SELECT count(*) FROM workspace_keys WHERE retired_at IS NOT NULL";
    assert_eq!(world.database.count(old).await, 0, "old data keys are left");
    let behind = "SELECT count(*) FROM connection_secrets s JOIN ad_platform_connections c ON c.connection_id = s.connection_id
                   WHERE NOT EXISTS (SELECT 1 FROM workspace_keys k WHERE k.workspace_id = c.workspace_id
                                        AND k.purpose = 'data' AND k.version = s.data_key_version)";
    assert_eq!(world.database.count(behind).await, 0, "secrets are left under old keys");
    assert_eq!(
        world.database.count("SELECT min(data_key_version) FROM connection_secrets").await,
        rounds + 1
    );
    for table in ["workspace_keys", "vault_keys"] {
        let left = format!("SELECT count(*) FROM {table} WHERE master_key_id <> '{newest}'");
        assert_eq!(world.database.count(&left).await, 0, "{table} has rows under an old master key");
    }
    // The old master keys can be removed now.
    drop(fleet);
    write_keys(&world, &file, &[lines.last().expect("a key")]);
    let last = world.replica_as(&launch);
    let admin = world.admin_of(&last);
    let unreadable: BTreeSet<String> = stream::iter(planted.iter())
        .map(|(id, secret)| {
            let (admin, id, secret) = (admin.clone(), id.clone(), secret.clone());
            async move {
                let request = pb::FetchAccessTokenRequest { connection_id: id.clone(), ..Default::default() };
                let answer = admin.fetch_access_token(request).await;
                let same = answer.as_ref().is_ok_and(|answer| token_of(answer) == Some(&secret));
                (!same).then_some(id)
            }
        })
        .buffer_unordered(16)
        .filter_map(async |id| id)
        .collect()
        .await;
    assert!(unreadable.is_empty(), "{} tokens can't be read", unreadable.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotations_under_load_and_kills_leave_no_token_unreadable_on_sqlite() {
    rotation_under_fire(Backend::Sqlite, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotations_under_load_and_kills_leave_no_token_unreadable_on_two_replicas() {
    rotation_under_fire(Backend::Postgres, 2).await;
}
