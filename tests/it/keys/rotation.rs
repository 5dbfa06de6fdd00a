//! Rotation of data keys and master keys.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use token_vault_proto::v1::job_run::State;
use token_vault_proto::v1::rotate_key_request::Key;
use token_vault_tests::certificates::replace;
use token_vault_tests::prelude::*;
use token_vault_tests::{Launch, eventually_async, master_key_line, request_id};

pub(super) const LIMIT: Duration = Duration::from_secs(300);

/// The id of a line of a key file.
pub(super) fn id_of(line: &str) -> String {
    line.split(':').nth(1).expect("tvk1:id:key").to_owned()
}

/// The test's own key file, and how to start a vault with it.
pub(super) fn with_key_file(world: &World, name: &str, lines: &[&str]) -> (PathBuf, Launch) {
    let file = world.folder().join(name);
    write_keys(world, &file, lines);
    let launch = world
        .launch()
        .env("TOKEN_VAULT_MASTER_KEY", "")
        .env("TOKEN_VAULT__KEYS__MASTER_KEY_FILE", file.display().to_string());
    (file, launch)
}

/// Replaces a key file in one step, as an operator's tools do.
pub(super) fn write_keys(world: &World, file: &Path, lines: &[&str]) {
    for line in lines {
        world.know("master key", line.rsplit(':').next().expect("a line"));
    }
    replace(file, &format!("{}\n", lines.join("\n")));
}

pub(super) fn rotate(key: Key) -> pb::RotateKeyRequest {
    pb::RotateKeyRequest { key: Some(key), request_id: request_id() }
}

/// Starts a rotation, and waits for its end.
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
        // The vault still recognises the same secret, because the index key did not change.
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

    // The vault picks the new key up without a restart.
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
    let limit = Duration::from_secs(60);
    eventually_async("the old key is let go", limit, async || {
        (admin.get_vault_status(Default::default()).await.unwrap().master_keys.len() == 1).then_some(())
    })
    .await;
    world.stop();
    world.try_start_as(&launch).unwrap();
    let admin = world.admin();
    assert_eq!(admin.secret(&ana).await, secret);
    assert!(admin.fetch(&bob).await.is_ok());
    // A file without the active key changes nothing: the vault keeps the keys that it has.
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
    let printed = run(&["keys", "rotate", "--master"]);
    assert!(printed.contains("master-key-rotation succeeded: 5 of 5 done"), "{printed}");
    let printed: serde_json::Value =
        serde_json::from_str(&run(&["keys", "rotate", "--workspace", ACME, "--json"])).unwrap();
    assert_eq!((&printed["state"], &printed["done"]), (&"succeeded".into(), &1.into()), "{printed}");
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
    let run = eventually_async("the second replica reports the key", Duration::from_secs(60), async || {
        one.rotate_key(rotate(Key::Master(true))).await.ok()?.run
    })
    .await;
    assert_eq!(ended(&one, &run).await.state(), State::Succeeded);
    // A new workspace at the other replica is wrapped with the new key at once.
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
    // Without the new key, no replica starts any more.
    let (_, behind) = with_key_file(&world, "keys-3", &[&old]);
    let ended = behind.serve(world.folder(), "behind").expect_err("it lacks the key");
    assert!(ended.stderr.contains("k2"), "{}", ended.stderr);
}
