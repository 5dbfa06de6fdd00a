//! Keys that are changed while everything that they encrypt is in use.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
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
use token_vault_tests::{Launch, Process, eventually_async, master_key_line, request_id};
use uuid::Uuid;

const LIMIT: Duration = Duration::from_secs(300);
/// Tokens of the ordinary run. `TOKEN_VAULT_TEST_ROTATED_TOKENS=50000` asks for the full size.
const TOKENS: usize = 10_000;
const WORKSPACES: usize = 4;
const KILLS: usize = 10;
const READERS: usize = 3;

/// The id of a line of a key file.
fn id_of(line: &str) -> String {
    line.split(':').nth(1).expect("tvk1:id:key").to_owned()
}

/// A key file of the test's own, and how to start a vault with it.
pub fn with_key_file(world: &World, name: &str, lines: &[&str]) -> (PathBuf, Launch) {
    let file = world.folder().join(name);
    write_keys(world, &file, lines);
    let launch = world
        .launch()
        .env("TOKEN_VAULT_MASTER_KEY", "")
        .env("TOKEN_VAULT__KEYS__MASTER_KEY_FILE", file.display().to_string());
    (file, launch)
}

/// Writes a key file aside and puts it in place, as an operator's tools do.
fn write_keys(world: &World, file: &Path, lines: &[&str]) {
    for line in lines {
        world.know("master key", line.rsplit(':').next().expect("a line"));
    }
    let aside = file.with_extension("new");
    fs::write(&aside, format!("{}\n", lines.join("\n"))).expect("the test's folder is writable");
    fs::rename(&aside, file).expect("one folder");
}

fn rotate(key: Key) -> pb::RotateKeyRequest {
    pb::RotateKeyRequest { key: Some(key), request_id: request_id() }
}

/// Begins a rotation, and waits for its end.
async fn rotated(admin: &Caller, key: Key) -> pb::JobRun {
    let run = admin.rotate_key(rotate(key)).await.expect("it begins").run.expect("a run");
    ended(admin, &run).await
}

async fn ended(admin: &Caller, run: &pb::JobRun) -> pb::JobRun {
    eventually_async(&format!("the end of {}", run.job), LIMIT, async || {
        admin.runs(&run.job).await.into_iter().find(|now| now.run_id == run.run_id && now.ended_at.is_some())
    })
    .await
}

fn done(run: &pb::JobRun) -> (State, i64, i64) {
    (run.state(), run.done, run.failed)
}

async fn active(caller: &Caller) -> Vec<String> {
    let status = caller.get_vault_status(Default::default()).await.expect("a status");
    status.master_keys.into_iter().filter(|key| key.active).map(|key| key.key_id).collect()
}

on_both_databases! {
    async fn a_new_data_key_encrypts_its_workspace_and_no_other(world: World) {
        let admin = world.admin();
        let ana = admin.connect(ACME, &world.person("ana").long_lived_token()).await;
        let bob = admin.connect(ACME, &world.person("bob").long_lived_token()).await;
        let eve = admin.connect("globex", &world.person("eve").long_lived_token()).await;
        let secrets = [admin.secret(&ana).await, admin.secret(&bob).await, admin.secret(&eve).await];
        let sealed = world.database.rows("connection_secrets").await;
        let run = rotated(&admin, Key::WorkspaceId(ACME.into())).await;
        assert_eq!(done(&run), (State::Succeeded, 2, 0));
        let now = world.database.rows("connection_secrets").await;
        assert_eq!(now.iter().filter(|row| sealed.contains(row)).count(), 1, "globex is left alone");
        assert_eq!([admin.secret(&ana).await, admin.secret(&bob).await, admin.secret(&eve).await], secrets);
        let versions = "SELECT workspace_id || ' ' || version FROM workspace_keys WHERE purpose = 'data' ORDER BY 1";
        assert_eq!(world.database.texts(versions).await, ["acme 2", "globex 1"], "the old key is gone");
        let known = admin.get_workspace(pb::GetWorkspaceRequest { workspace_id: ACME.into() }).await.unwrap();
        assert_eq!(known.workspace.map(|known| (known.data_key_version, known.token_count)), Some((2, 2)));
        // The same secret is seen to be the same: the index key did not change.
        let again = admin.store(ACME, &secrets[0]).await.unwrap();
        assert_eq!(again.outcome(), pb::intake_result::Outcome::Unchanged);
        assert_eq!(again.token.unwrap().connection_id, ana);
        let carol = admin.connect(ACME, &world.person("carol").long_lived_token()).await;
        world.restart();
        let admin = world.admin();
        assert_eq!([admin.secret(&ana).await, admin.secret(&bob).await, admin.secret(&eve).await], secrets);
        assert!(admin.fetch(&carol).await.is_ok());

        let nowhere = admin.rotate_key(rotate(Key::WorkspaceId("nowhere".into()))).await.unwrap_err();
        nowhere.is(Code::NotFound, Reason::WorkspaceNotFound);
        let limited = world.caller(Role::Admin, &["globex"]).await;
        limited.rotate_key(rotate(Key::WorkspaceId(ACME.into()))).await.unwrap_err().is(Code::NotFound, Reason::WorkspaceNotFound);
        limited.rotate_key(rotate(Key::Master(true))).await.unwrap_err().is(Code::PermissionDenied, Reason::RoleInsufficient);
        assert!(limited.rotate_key(rotate(Key::WorkspaceId("globex".into()))).await.is_ok());
    }
}

async fn a_new_master_key_takes_over(backend: Backend) {
    let world = World::builder(backend).prepare().await;
    let (old, new) = (master_key_line("k-2026"), master_key_line("k-2027"));
    let (file, launch) = with_key_file(&world, "keys", &[&old]);
    world.try_start_as(&launch).unwrap();
    let admin = world.admin();
    let ana = admin.connect(ACME, &world.person("ana").long_lived_token()).await;
    let secret = admin.secret(&ana).await;

    let none = admin.rotate_key(rotate(Key::Master(true))).await.unwrap_err();
    none.is(Code::FailedPrecondition, Reason::MasterKeyNotReady).says("key_id", id_of(&old));
    admin
        .rotate_key(rotate(Key::Master(false)))
        .await
        .unwrap_err()
        .is(Code::InvalidArgument, Reason::FieldInvalid)
        .field("master");
    admin
        .rotate_key(pb::RotateKeyRequest::default())
        .await
        .unwrap_err()
        .is(Code::InvalidArgument, Reason::FieldInvalid)
        .field("key");

    // Taken up without a restart.
    write_keys(&world, &file, &[&old, &new]);
    let request = rotate(Key::Master(true));
    let run = admin.rotate_key(request.clone()).await.unwrap().run.unwrap();
    // Three keys of the vault, two of the workspace.
    assert_eq!(done(&ended(&admin, &run).await), (State::Succeeded, 5, 0));
    let again = admin.rotate_key(request).await.unwrap().run.unwrap();
    assert_eq!(again.run_id, run.run_id, "a repeat answers with the same run");
    assert_eq!(active(&admin).await, [id_of(&new)]);
    let keys = admin.get_vault_status(Default::default()).await.unwrap().master_keys;
    let counts: Vec<_> = keys.iter().map(|key| (key.key_id.as_str(), key.data_key_count)).collect();
    assert_eq!(counts, [(id_of(&new).as_str(), 5), (id_of(&old).as_str(), 0)]);
    assert_eq!(admin.secret(&ana).await, secret);
    let bob = admin.connect("globex", &world.person("bob").long_lived_token()).await;

    write_keys(&world, &file, &[&new]);
    let limit = Duration::from_secs(20);
    eventually_async("the old key is let go", limit, async || {
        (admin.get_vault_status(Default::default()).await.unwrap().master_keys.len() == 1).then_some(())
    })
    .await;
    world.stop();
    world.try_start_as(&launch).unwrap();
    let admin = world.admin();
    assert_eq!(admin.secret(&ana).await, secret);
    assert!(admin.fetch(&bob).await.is_ok());
    // A file without the key that is in use changes nothing: what is at hand stays.
    write_keys(&world, &file, &[&master_key_line("stranger")]);
    eventually_async("it is told", limit, async || {
        world.logs().contains("the vault keeps the keys it has").then_some(())
    })
    .await;
    assert_eq!(active(&admin).await, [id_of(&new)]);
    admin.connect("initech", &world.person("eve").long_lived_token()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_master_key_wraps_everything_and_the_old_one_can_go_on_sqlite() {
    a_new_master_key_takes_over(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_master_key_wraps_everything_and_the_old_one_can_go_on_postgres() {
    a_new_master_key_takes_over(Backend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_makes_lists_and_rotates_keys() {
    let world = World::start(Backend::Sqlite).await;
    let ana = world.admin().connect(ACME, &world.person("ana").long_lived_token()).await;
    let secret = world.admin().secret(&ana).await;
    let run = |words: &[&str]| {
        let launch = world.launch().env("TOKEN_VAULT_ENDPOINT", world.endpoint());
        let ended = launch.instead(words.iter().copied()).run();
        assert_eq!(ended.code, Some(0), "{words:?}: {ended:?}");
        ended.stdout
    };
    let id = run(&["keys", "generate", "--id", "k-2"]);
    assert_eq!(id.trim(), "k-2");
    let file = fs::read_to_string(world.data().join("master.key")).unwrap();
    world.know("master key", file.trim().rsplit(':').next().unwrap());
    assert_eq!(file.lines().count(), 2, "the key before stays");
    let told = run(&["keys", "rotate", "--master"]);
    assert!(told.contains("master-key-rotation succeeded: 5 of 5 done"), "{told}");
    let told: serde_json::Value =
        serde_json::from_str(&run(&["keys", "rotate", "--workspace", ACME, "--json"])).unwrap();
    assert_eq!((&told["state"], &told["done"]), (&"succeeded".into(), &1.into()), "{told}");
    let listed = run(&["keys", "list"]);
    let row = listed.lines().find(|line| line.starts_with("k-2")).expect("the new key is listed");
    assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["k-2", "yes", "5"], "{listed}");
    assert_eq!(world.admin().secret(&ana).await, secret);
    let nothing = world
        .launch()
        .env("TOKEN_VAULT_ENDPOINT", world.endpoint())
        .instead(["keys", "rotate", "--master"])
        .run();
    assert_eq!(nothing.code, Some(1));
    assert!(nothing.stderr.contains("no newer one"), "{}", nothing.stderr);
    let neither = world.launch().instead(["keys", "rotate"]).run();
    assert_eq!(neither.code, Some(2), "{neither:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lacks_the_new_key_is_named_and_one_that_has_it_follows() {
    let world = World::builder(Backend::Postgres).prepare().await;
    let (old, new) = (master_key_line("k1"), master_key_line("k2"));
    let (first_file, first) = with_key_file(&world, "keys-1", &[&old]);
    let (second_file, second) = with_key_file(&world, "keys-2", &[&old]);
    let (first, second) = (world.replica_as(&first), world.replica_as(&second));
    let (one, two) = (world.admin_of(&first), world.admin_of(&second));
    let ana = one.connect(ACME, &world.person("ana").long_lived_token()).await;
    let secret = one.secret(&ana).await;
    assert_eq!(two.secret(&ana).await, secret);

    write_keys(&world, &first_file, &[&old, &new]);
    let name = two.get_vault_status(Default::default()).await.unwrap().replica;
    let no = one.rotate_key(rotate(Key::Master(true))).await.unwrap_err();
    no.is(Code::FailedPrecondition, Reason::MasterKeyNotReady).says("key_id", "k2").says("replicas", &name);
    assert_eq!(active(&one).await, ["k1"]);

    write_keys(&world, &second_file, &[&old, &new]);
    let run = eventually_async("the second replica reports the key", Duration::from_secs(20), async || {
        one.rotate_key(rotate(Key::Master(true))).await.ok()?.run
    })
    .await;
    assert_eq!(ended(&one, &run).await.state(), State::Succeeded);
    // A workspace that comes into being over there is wrapped by the new key at once.
    let bob = two.connect("globex", &world.person("bob").long_lived_token()).await;
    let under = world.database.texts("SELECT DISTINCT master_key_id FROM workspace_keys").await;
    assert_eq!(under, ["k2"]);
    let run = rotated(&two, Key::WorkspaceId(ACME.into())).await;
    assert_eq!(done(&run), (State::Succeeded, 1, 0));
    for caller in [&one, &two] {
        assert_eq!(caller.secret(&ana).await, secret);
        assert!(caller.fetch(&bob).await.is_ok());
        assert_eq!(active(caller).await, ["k2"]);
    }
    // Without the new key no replica starts any more.
    let (_, behind) = with_key_file(&world, "keys-3", &[&old]);
    let ended = behind.serve(world.folder(), "behind").expect_err("it lacks the key");
    assert!(ended.stderr.contains("k2"), "{}", ended.stderr);
}

/// Processes on one database, each of which has a successor when it is killed.
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

/// Puts tokens into workspaces, sealed by the vault's own code under the keys that the database has. Gives each
/// connection's id and secret.
pub async fn plant(world: &World, count: usize, master: &str) -> Vec<(String, String)> {
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

/// What readers saw.
#[derive(Default)]
struct Seen {
    reads: AtomicU64,
    stop: AtomicBool,
    wrong: Mutex<Vec<String>>,
}

/// Reads tokens one after the other, at whichever process lives, until told to stop.
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
            // The process was killed, is starting, or its database is held by the one that was.
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

/// The runs that go on.
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
    // The old master keys can go.
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
