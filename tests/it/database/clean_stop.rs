//! After a clean stop, SQLite's file alone is the whole database; while the vault runs, its log does not grow for ever.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row};
use token_vault_proto::v1::create_api_key_request::Workspaces;
use token_vault_tests::prelude::*;
use token_vault_tests::{eventually, eventually_async};

/// How many clean stops under load; `TOKEN_VAULT_STOPS` asks for another number.
const STOPS: usize = 12;
const CALLERS: usize = 6;
const LIMIT: Duration = Duration::from_secs(60);
/// What SQLite keeps of its log once it is written back, and room for what was written since.
const KEPT: u64 = 6 * 1024 * 1024;

/// The log beside a database.
fn log_of(file: &Path) -> std::path::PathBuf {
    file.with_extension("db-wal")
}

fn size(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |about| about.len())
}

/// Opens a copy of the file alone, as one who stopped the vault and copied the file would, and returns the subjects
/// whose tokens it holds.
async fn subjects_in_a_copy(file: &Path) -> BTreeSet<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("copy.db");
    fs::copy(file, &copy).expect("the file can be copied");
    let options = SqliteConnectOptions::new().filename(&copy).create_if_missing(false);
    let mut session = options.connect().await.expect("the copy opens");
    let found = sqlx::query("PRAGMA integrity_check").fetch_all(&mut session).await.expect("an answer");
    let found: Vec<String> = found.iter().map(|row| row.get(0)).collect();
    assert_eq!(found, ["ok"]);
    let held = "SELECT c.subject_id FROM ad_platform_connections c JOIN connection_secrets s
                    ON s.connection_id = c.connection_id AND s.secret_id = c.secret_id";
    let rows = sqlx::query(held).fetch_all(&mut session).await.expect("good SQL");
    session.close().await.expect("a connection closes");
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_clean_stop_under_load_the_file_alone_is_the_whole_database() {
    let stops = std::env::var("TOKEN_VAULT_STOPS").map_or(STOPS, |n| n.parse().expect("a number"));
    let world = World::start(Backend::Sqlite).await;
    let file = world.database.file();
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    for stop in 0..stops {
        let before = acknowledged.lock().expect("no panic").len();
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let connector = world.caller_with(&world.bootstrap_key(), "");
                let people: Vec<_> =
                    (0..30).map(|n| world.person(&format!("person {stop} {caller} {n}"))).collect();
                let acknowledged = Arc::clone(&acknowledged);
                tokio::spawn(async move {
                    for person in people {
                        if connector.store(ACME, &person.long_lived_token()).await.is_err() {
                            return;
                        }
                        acknowledged.lock().expect("no panic").insert(person.id());
                    }
                })
            })
            .collect();
        eventually("tokens are stored", LIMIT, || {
            acknowledged.lock().expect("no panic").len() > before + stop % STOPS
        });
        world.stop();
        for caller in callers {
            caller.await.expect("a caller does not panic");
        }
        let left: Vec<_> =
            ["db-wal", "db-shm"].iter().filter(|end| file.with_extension(end).exists()).collect();
        assert!(left.is_empty(), "stop {stop}: {left:?} stayed\n{}", world.logs());
        let kept = subjects_in_a_copy(&file).await;
        let lost: Vec<_> = acknowledged.lock().expect("no panic").difference(&kept).cloned().collect();
        assert!(lost.is_empty(), "stop {stop}: acknowledged and lost: {lost:?}");
        world.start_again();
    }
}

/// Whether the database's file or its log holds these bytes, given in hexadecimal.
fn is_in_files(world: &World, secret: &str) -> bool {
    let secret = hex::decode(secret.to_lowercase()).expect("hexadecimal");
    let file = world.database.file();
    [log_of(&file), file]
        .iter()
        .any(|file| fs::read(file).unwrap_or_default().windows(secret.len()).any(|window| window == secret))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_secret_is_gone_when_the_call_is_answered_however_many_others_write() {
    let world = World::start(Backend::Sqlite).await;
    let (admin, connector) = (world.admin(), world.connector().await);
    let over = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..24)
        .map(|writer| {
            let (admin, over) = (admin.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                for nth in 0.. {
                    if over.load(Ordering::Relaxed) {
                        return nth;
                    }
                    let key = pb::CreateApiKeyRequest {
                        principal: format!("writer-{writer}-{nth}"),
                        role: Role::Viewer.into(),
                        workspaces: Some(Workspaces::AllWorkspaces(true)),
                        ..Default::default()
                    };
                    admin.create_api_key(key).await.expect("it is made");
                }
                0
            })
        })
        .collect();
    for n in 0..20 {
        let id = connector.connect(ACME, &world.person(&format!("person {n}")).long_lived_token()).await;
        let sealed = "SELECT hex(sealed) FROM connection_secrets";
        let sealed = format!("{sealed} WHERE connection_id = {}", world.database.uuid(&id));
        let secret = world.database.texts(sealed).await.remove(0);
        assert!(is_in_files(&world, &secret), "it is there before");
        admin.revoke(&id).await.expect("it is revoked");
        assert!(!is_in_files(&world, &secret), "token {n} is still there\n{}", world.logs());
    }
    over.store(true, Ordering::Relaxed);
    for written in join_all(writers).await {
        assert!(written.expect("no panic") > 0, "others wrote meanwhile");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_shrinks_after_its_peak_and_holds_no_destroyed_secret() {
    let world = World::start(Backend::Sqlite).await;
    let (connector, log) = (world.connector().await, log_of(&world.database.file()));
    let ana = world.person("ana");
    let id = connector.connect(ACME, &ana.long_lived_token()).await;
    let sealed = "SELECT hex(sealed) FROM connection_secrets";
    // While somebody reads, SQLite can't begin its log anew.
    let mut reader = world.database.sqlite_connection().await;
    sqlx::raw_sql("BEGIN; SELECT count(*) FROM ad_platform_connections").execute(&mut reader).await.unwrap();
    world
        .database
        .execute(
            "CREATE TABLE big (bytes BLOB);
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 16)
             INSERT INTO big SELECT randomblob(1048576) FROM n; DROP TABLE big",
        )
        .await;
    assert!(size(&log) > 2 * KEPT, "the log is {} bytes", size(&log));
    // What is destroyed meanwhile waits for the reader, and keeps nobody from writing.
    connector.store(ACME, &ana.long_lived_token()).await.expect("a reader is in nobody's way");
    for n in 0..20 {
        connector.connect(ACME, &world.person(&format!("person {n}")).long_lived_token()).await;
    }
    let old = world.database.texts(format!("{sealed} WHERE token_version = 2")).await.remove(0);
    reader.close().await.unwrap();
    eventually("the log shrinks", LIMIT, || size(&log) < KEPT);

    // A token that takes the place of another, and one that is revoked.
    let holds = |secret: &str| is_in_files(&world, secret);
    assert!(holds(&old), "it is there before");
    connector.store(ACME, &ana.long_lived_token()).await.unwrap();
    let new = eventually_async("the new secret is stored", LIMIT, async || {
        world.database.texts(format!("{sealed} WHERE token_version = 3")).await.pop()
    })
    .await;
    eventually("the old secret is gone", LIMIT, || !holds(&old));
    assert!(holds(&new));
    world.admin().revoke(&id).await.unwrap();
    assert!(!holds(&new), "a revoked secret is gone when the call is answered");
}
