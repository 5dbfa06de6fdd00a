//! While the database is away, every call is refused soon, however many call at once, and the vault serves again by
//! itself as soon as the database does.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use token_vault_tests::prelude::*;
use token_vault_tests::{Cluster, SmallDisk, eventually_async};

use crate::access::rpcs::{RPCS, Stalled, call, connected};
use crate::process::lifecycle::probe;

const LIMIT: Duration = Duration::from_secs(60);
/// The vault refuses within three seconds of its own time. This many are never reached, even on a busy machine.
pub(super) const FAR: Duration = Duration::from_secs(25);

/// So many calls of each RPC at once, none of which gets anything else than a clear refusal.
pub(super) async fn all_are_refused(world: &World, about: &Stalled, of_each: usize, rpcs: &[&str]) {
    // Everybody has a key of the same principal.
    let caller = world.admin().within(FAR);
    let calls = rpcs.iter().flat_map(|rpc| (0..of_each).map(move |nth| (*rpc, nth)));
    let calls = calls.map(|(rpc, nth)| {
        let called = call(&caller, rpc, about, nth);
        async move { (rpc, called.await) }
    });
    for (rpc, outcome) in join_all(calls).await {
        let no = outcome.expect_err(rpc);
        assert_eq!(
            (no.code(), no.reason()),
            (Code::Unavailable, Reason::StorageUnavailable.reason()),
            "{rpc}: {no:?}"
        );
        no.has_retry();
    }
}

/// Calls while the database goes away, and afterwards.
async fn is_refused_while_away(world: &World, about: &Stalled) {
    let rpcs: Vec<&str> = RPCS.iter().map(|(rpc, _)| *rpc).collect();
    // Nobody has found out yet that it is away. A key and a token may still be in the caches, which is no refusal.
    let caller = world.admin().within(FAR);
    let first = (0..40).map(|nth| call(&caller, "TokenVault/StoreToken", about, nth));
    for outcome in join_all(first).await {
        outcome.expect_err("nothing is stored").is(Code::Unavailable, Reason::StorageUnavailable).has_retry();
    }
    eventually_async("caches no longer count", LIMIT, async || caller.fetch(&about.connection).await.err())
        .await;
    for rpc in &rpcs {
        all_are_refused(world, about, 1, &[rpc]).await;
        all_are_refused(world, about, 400, &[rpc]).await;
    }
    all_are_refused(world, about, 400usize.div_ceil(rpcs.len()), &rpcs).await;
    eventually_async("it is not ready", LIMIT, async || {
        probe(world, "/readyz").await.contains("503").then_some(())
    })
    .await;
    assert!(probe(world, "/healthz").await.contains("200"), "a restart would help nothing");
}

async fn serves_again(world: &World, about: &Stalled) {
    let caller = world.admin();
    eventually_async("the vault serves again", LIMIT, async || {
        match call(&caller, "TokenVault/StoreToken", about, 1).await {
            Err(no) if no.code() == Code::Unavailable => None,
            outcome => {
                outcome.expect("it is stored");
                Some(())
            }
        }
    })
    .await;
    eventually_async("it says so", LIMIT, async || {
        probe(world, "/readyz").await.contains("200").then_some(())
    })
    .await;
    assert!(world.process(|process| process.ended()).is_none(), "it is the same process");
}

async fn world_with_a_cluster() -> (World, Stalled) {
    let world = World::builder(Backend::Postgres).own_cluster(Cluster::start()).start().await;
    let about = connected(&world, "ana").await;
    (world, about)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_database_lets_nobody_wait() {
    let (world, about) = world_with_a_cluster().await;
    world.cluster().down();
    is_refused_while_away(&world, &about).await;
    world.cluster().up();
    serves_again(&world, &about).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_database_lets_nobody_wait() {
    let (world, about) = world_with_a_cluster().await;
    let frozen = world.cluster().freeze();
    is_refused_while_away(&world, &about).await;
    drop(frozen);
    serves_again(&world, &about).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_refuses_connections_lets_nobody_wait() {
    let (world, about) = world_with_a_cluster().await;
    world.cluster().refuse();
    is_refused_while_away(&world, &about).await;
    world.cluster().admit();
    serves_again(&world, &about).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_at_the_provider_when_the_database_hangs_is_refused_too() {
    let (world, _) = world_with_a_cluster().await;
    let admin = world.admin().within(FAR);
    let token = world.person("bob").long_lived_token();
    let stall = Fault::on(Endpoint::AdAccounts).token(&token).with(FaultKind::Hang);
    world.sandbox.fault(Fault::on(Endpoint::Permissions).token(&token).with(FaultKind::Hang));
    world.sandbox.fault(stall);
    let store = tokio::spawn({
        let (admin, token) = (admin.clone(), token.clone());
        async move { admin.store(ACME, &token).await }
    });
    token_vault_tests::eventually("it is at the provider", LIMIT, || {
        world.sandbox.unanswered(Endpoint::Permissions) == 1
    });
    let frozen = world.cluster().freeze();
    world.sandbox.clear_faults();
    let no = store.await.expect("no panic").expect_err("it can't be saved");
    no.is(Code::Unavailable, Reason::StorageUnavailable).has_retry();
    drop(frozen);
    eventually_async("it is stored in the end", LIMIT, async || admin.store(ACME, &token).await.ok()).await;
}

/// The database and the audit log on one disk, as in the default layout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_on_a_full_disk_waits_for_room() {
    if SmallDisk::rerun(module_path!(), "a_start_on_a_full_disk_waits_for_room") {
        return;
    }
    let world = World::builder(Backend::Sqlite).prepare().await;
    let disk = SmallDisk::at(&world.data(), 8 * 1_024);
    let (grpc, probes) = (free_address(), free_address());
    let launch = world
        .launch()
        .env("TOKEN_VAULT__SERVER__LISTEN", grpc.as_str())
        .env("TOKEN_VAULT__SERVER__ADMIN_LISTEN", probes.as_str());
    world.try_start_as(&launch).expect("there is room");
    let admin = world.admin();
    let id = admin.connect(ACME, &world.person("ana").long_lived_token()).await;
    world.stop();
    disk.fill();
    let refused = launch.clone().instead(["migrate"]).run();
    assert!(refused.code == Some(1) && refused.stderr.contains("make room"), "{refused:?}");

    let world = Arc::new(world);
    let starting = tokio::task::spawn_blocking({
        let (world, launch) = (Arc::clone(&world), launch.clone());
        move || world.try_start_as(&launch)
    });
    let early = admin.through(World::channel_to(&format!("http://{grpc}")));
    let told = eventually_async("callers are told", LIMIT, async || {
        early.list().await.err().filter(|no| no.reason() == Reason::StorageUnavailable.reason())
    });
    told.await.is(Code::Unavailable, Reason::StorageUnavailable).has_retry();
    let check = |word: &str| launch.clone().instead(["healthcheck", word]).run();
    assert_eq!(check("--live").code, Some(0), "a restart would mend nothing");
    assert_eq!(check("--ready").code, Some(1));
    disk.free();
    starting.await.unwrap().expect("it starts by itself");
    assert_eq!(check("--ready").code, Some(0));
    world.admin().fetch(&id).await.expect("nothing is lost");
    world.stop();
}

fn free_address() -> String {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    socket.local_addr().expect("it is bound").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_makes_the_vault_unready_and_reads_go_on() {
    if SmallDisk::rerun(module_path!(), "a_full_disk_makes_the_vault_unready_and_reads_go_on") {
        return;
    }
    let world = World::builder(Backend::Sqlite).prepare().await;
    let folder = world.folder().join("small-disk");
    let disk = SmallDisk::at(&folder, 8 * 1_024);
    let url = format!("sqlite:{}", folder.join("vault.db").display());
    world.try_start_as(&world.launch().env("TOKEN_VAULT__STORAGE__URL", url)).expect("there is room");
    let admin = world.admin();
    let id = admin.connect(ACME, &world.person("ana").long_lived_token()).await;
    assert!(probe(&world, "/readyz").await.contains("200"));
    disk.fill();
    eventually_async("a store fails", LIMIT, async || {
        let token = world.person(&token_vault_tests::request_id()).long_lived_token();
        admin.store(ACME, &token).await.err()
    })
    .await
    .is(Code::Unavailable, Reason::StorageUnavailable)
    .has_retry();
    eventually_async("it is not ready", LIMIT, async || {
        probe(&world, "/readyz").await.contains("503").then_some(())
    })
    .await;
    assert!(probe(&world, "/healthz").await.contains("200"), "a restart would help nothing");
    admin.get(&id).await.expect("reads go on");
    admin.list().await.expect("lists go on");
    disk.free();
    eventually_async("it is ready again", LIMIT, async || {
        probe(&world, "/readyz").await.contains("200").then_some(())
    })
    .await;
    admin.store(ACME, &world.person("bob").long_lived_token()).await.expect("stores work again");
}
