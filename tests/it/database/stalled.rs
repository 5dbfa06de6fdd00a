//! The database answers reads, and writes stall or are refused: nobody queues for them, the vault says that it is not
//! ready, and goes on by itself.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use sqlx::Connection;
use token_vault_tests::prelude::*;
use token_vault_tests::{Cluster, eventually, eventually_async};

use super::away::{FAR, all_are_refused};
use crate::access::rpcs::{Stalled, call, connected};
use crate::process::lifecycle::probe;

const LIMIT: Duration = Duration::from_secs(60);
const WRITE: &str = "VaultAdmin/CreateApiKey";

async fn world(backend: Backend) -> (World, Stalled) {
    let mut builder = World::builder(backend).config("server.limits.max_calls_per_principal", "2000");
    if backend == Backend::Postgres {
        builder = builder.own_cluster(Cluster::start());
    }
    let world = builder.start().await;
    let about = connected(&world, "ana").await;
    (world, about)
}

/// Changes a setting of the whole cluster, while it runs.
async fn set(world: &World, setting: &str) {
    world.database.execute(format!("ALTER SYSTEM {setting}")).await;
    world.database.execute("SELECT pg_reload_conf()").await;
}

async fn readiness(world: &World, code: &str) {
    eventually_async(&format!("readiness is {code}"), LIMIT, async || {
        probe(world, "/readyz").await.contains(code).then_some(())
    })
    .await;
}

async fn writes_are_refused(world: &World, about: &Stalled) {
    for callers in [400, 1, 40, 400] {
        all_are_refused(world, about, callers, &[WRITE]).await;
    }
    readiness(world, "503").await;
    assert!(probe(world, "/healthz").await.contains("200"), "a restart would help nothing");
    let caller = world.admin();
    caller.get(&about.connection).await.expect("reads go on");
    all_are_refused(world, about, 40, &[WRITE]).await;
}

async fn writes_succeed_again(world: &World, about: &Stalled) {
    let caller = world.admin();
    eventually_async("writes succeed again", LIMIT, async || call(&caller, WRITE, about, 500).await.ok())
        .await;
    readiness(world, "200").await;
    assert!(world.process(|process| process.ended()).is_none(), "it is the same process");
}

/// Every API key that there is has its record in the audit log, also one whose COMMIT came late.
async fn every_change_is_recorded(world: &World) {
    let log = world.data().join("audit.jsonl");
    let keys = world.database.texts("SELECT api_key_id FROM api_keys").await;
    eventually_async("every change is in the audit log", LIMIT, async || {
        let text = fs::read_to_string(&log).expect("the log can be read");
        keys.iter().all(|key| text.contains(&format!("api_key:{key}"))).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_hangs_lets_nobody_queue_and_is_recorded_if_it_succeeds_late() {
    let (world, about) = world(Backend::Postgres).await;
    // So many callers that every transaction has a change of theirs.
    let made = Arc::new(AtomicUsize::new(0));
    let callers = (0..40).map(|caller| {
        let (admin, made) = (world.admin().within(FAR), Arc::clone(&made));
        tokio::spawn(async move {
            loop {
                let nth = made.fetch_add(1, Ordering::Relaxed);
                if let Err(no) = admin.create_api_key(key(format!("caller-{caller}-{nth}"))).await {
                    return no;
                }
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    eventually("keys are made", LIMIT, || made.load(Ordering::Relaxed) > 200);
    // Every COMMIT waits for a standby that does not exist.
    set(&world, "SET synchronous_standby_names = 'nobody'").await;
    for refused in join_all(callers).await {
        let no = refused.expect("no panic");
        no.is(Code::Unavailable, Reason::StorageUnavailable).has_retry();
    }
    let before = world.database.count("SELECT count(*) FROM api_keys").await;
    writes_are_refused(&world, &about).await;
    set(&world, "RESET synchronous_standby_names").await;
    writes_succeed_again(&world, &about).await;
    let after = world.database.count("SELECT count(*) FROM api_keys").await;
    assert!(after > before + 1, "a COMMIT in doubt succeeds in the end");
    every_change_is_recorded(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgresql_that_only_reads_is_not_ready() {
    let (world, about) = world(Backend::Postgres).await;
    set(&world, "SET default_transaction_read_only = on").await;
    writes_are_refused(&world, &about).await;
    set(&world, "RESET default_transaction_read_only").await;
    writes_succeed_again(&world, &about).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sqlite_file_that_another_process_locks_lets_nobody_queue() {
    let (world, about) = world(Backend::Sqlite).await;
    let mut other = world.database.sqlite_connection().await;
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.expect("it is free");
    writes_are_refused(&world, &about).await;
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.expect("it is ours");
    other.close().await.expect("a connection closes");
    writes_succeed_again(&world, &about).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_slow_statement_fails_alone() {
    let world = World::start(Backend::Postgres).await;
    world
        .database
        .execute(
            "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN PERFORM pg_sleep(60); RETURN NEW; END';
             CREATE TRIGGER dawdle BEFORE INSERT ON api_keys FOR EACH ROW
                 WHEN (NEW.principal = 'slow') EXECUTE FUNCTION dawdle()",
        )
        .await;
    let admin = world.admin();
    let slow = tokio::spawn({
        let admin = admin.clone();
        async move { admin.create_api_key(key("slow".into())).await }
    });
    let others = (0..40).map(|nth| {
        let admin = admin.clone();
        async move { admin.create_api_key(key(format!("other-{nth}"))).await }
    });
    for other in join_all(others).await {
        other.expect("the others succeed");
    }
    let no = slow.await.expect("no panic").expect_err("it takes too long");
    no.is(Code::Unavailable, Reason::StorageUnavailable).has_retry();
    assert!(!world.logs().contains("writes were not committed"), "{}", world.logs());
    readiness(&world, "200").await;
}

fn key(principal: String) -> pb::CreateApiKeyRequest {
    use token_vault_proto::v1::create_api_key_request::Workspaces;
    pb::CreateApiKeyRequest {
        principal,
        role: Role::Viewer.into(),
        workspaces: Some(Workspaces::AllWorkspaces(true)),
        ..Default::default()
    }
}
