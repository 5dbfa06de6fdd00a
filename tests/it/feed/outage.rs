//! The feed when its database goes away, and when it comes back as another one.

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::join_all;
use token_vault_proto::v1::token::Status;
use token_vault_tests::fleet::{Crowd, Left, Memory, history, ids, turn};
use token_vault_tests::prelude::*;
use token_vault_tests::{Cluster, eventually_async};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use uuid::Uuid;

const WATCHERS: usize = 50;
const WRITERS: usize = 4;
const CHANGES: usize = 240;
const LIMIT: Duration = Duration::from_secs(120);

/// The states that the health service reports, as they change.
async fn follow_health(world: &World) -> Arc<Mutex<Vec<ServingStatus>>> {
    let health = Arc::new(Mutex::new(Vec::new()));
    let request = HealthCheckRequest { service: "tokenvault.v1.TokenVault".into() };
    let mut stream = HealthClient::new(world.channel()).watch(request).await.unwrap().into_inner();
    let all = Arc::clone(&health);
    tokio::spawn(async move {
        while let Ok(Some(answer)) = stream.message().await {
            all.lock().unwrap().push(answer.status());
        }
    });
    health
}

/// Revokes connections, and repeats each call until it succeeds.
async fn write(caller: Caller, connections: Vec<Uuid>) {
    for id in connections {
        let began = Instant::now();
        while let Err(refusal) = caller.revoke(&id.to_string()).await {
            refusal.is(Code::Unavailable, Reason::StorageUnavailable).has_retry();
            assert!(began.elapsed() < LIMIT, "{refusal:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}

/// Watches up to the event with this number, and reconnects when the storage is away. Returns how often it did.
async fn watch(caller: Caller, last: i64) -> (Memory, usize) {
    let (mut memory, mut returns) = (Memory::default(), 0);
    loop {
        match memory.stay(&caller, Instant::now() + LIMIT, |event| event.sequence == last).await {
            Left::Went if memory.events.len() as i64 == last => return (memory, returns),
            Left::Ended(Some(refusal)) => {
                refusal.is(Code::Unavailable, Reason::StorageUnavailable).has_retry();
                returns += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            left => panic!("{left:?} after {} events", memory.events.len()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_watchers_lose_nothing_while_postgresql_goes_and_comes_back() {
    let _turn = turn().await;
    let world = World::builder(Backend::Postgres)
        .own_cluster(Cluster::start())
        .config("log.level", "info")
        .start()
        .await;
    let admin = world.admin();
    let changed = ids(CHANGES);
    Crowd { ids: &changed, name: "ends", ends: None, due_before: 0 }.plant(&world).await;
    let health = follow_health(&world).await;
    let last = CHANGES as i64;
    let watchers: Vec<_> = (0..WATCHERS).map(|_| tokio::spawn(watch(admin.clone(), last))).collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| changed.iter().skip(n).step_by(WRITERS).copied().collect::<Vec<_>>())
        .map(|own| tokio::spawn(write(admin.clone(), own)))
        .collect();
    let head = async || {
        let status = admin.get_vault_status(pb::GetVaultStatusRequest {}).await.ok()?;
        Some(status.head_sequence)
    };
    // The first outage lasts a while, and the second is as short as possible.
    for (from, lasts) in [(last / 4, Duration::from_secs(5)), (last / 2, Duration::ZERO)] {
        eventually_async("some events", LIMIT, async || head().await.filter(|&head| head >= from)).await;
        world.cluster().down();
        tokio::time::sleep(lasts).await;
        world.cluster().up();
        eventually_async("the vault answers", LIMIT, head).await;
    }
    for writer in join_all(writers).await {
        writer.expect("every write is done in the end");
    }
    let feed = history(&world).await;
    assert_eq!(feed.len(), CHANGES);
    let mut announced: Vec<_> = feed.iter().map(|(kind, id)| (id.clone(), *kind)).collect();
    announced.sort();
    let wanted: Vec<_> = changed.iter().map(|id| (id.to_string(), Kind::Revoked)).collect();
    assert!(announced == wanted, "not each connection's end exactly once");
    let mut returns = 0;
    for watcher in watchers {
        let (memory, times) = watcher.await.expect("it gets to the end");
        assert!(memory.events == feed, "a watcher was told something else");
        returns += times;
    }
    let health = health.lock().unwrap().clone();
    eprintln!("watchers came back {returns} times; health told {health:?}");
    assert_eq!(health[..3], [ServingStatus::Serving, ServingStatus::NotServing, ServingStatus::Serving]);
    assert_eq!(health.last(), Some(&ServingStatus::Serving));
}

/// Copies a folder with owners and modes.
fn copy(from: &std::path::Path, to: &std::path::Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(done.success());
}

/// The denial that ends a watch which has seen this many events. An outage in between does not count as the end.
async fn told_at_last(caller: Caller, seen: i64, at_head: Arc<tokio::sync::Barrier>) -> Denial {
    let mut memory = Memory::default();
    while (memory.events.len() as i64) < seen {
        memory.stay(&caller, Instant::now() + LIMIT, |event| event.sequence == seen).await;
    }
    let mut stream = {
        let start = pb::watch_expiry_events_request::Start::Cursor(memory.cursor.clone());
        let watch = pb::WatchExpiryEventsRequest { start: Some(start), ..Default::default() };
        caller.stream(watch).await.expect("it goes on")
    };
    stream.message().await.expect("a heartbeat at once");
    at_head.wait().await;
    let began = Instant::now();
    loop {
        let refusal = match stream.message().await {
            Ok(Some(answer)) => {
                let nothing = !matches!(answer.item, Some(pb::watch_expiry_events_response::Item::Events(_)));
                assert!(nothing, "an event of another feed: {answer:?}");
                continue;
            }
            Ok(None) => panic!("it ended without a word"),
            Err(status) => Denial::from(status),
        };
        if refusal.code() != Code::Unavailable {
            return refusal;
        }
        refusal.has_retry();
        loop {
            assert!(began.elapsed() < LIMIT, "no end but {refusal:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
            let start = pb::watch_expiry_events_request::Start::Cursor(memory.cursor.clone());
            let watch = pb::WatchExpiryEventsRequest { start: Some(start), ..Default::default() };
            match caller.stream(watch).await {
                Ok(again) => {
                    stream = again;
                    break;
                }
                Err(refusal) if refusal.code() == Code::Unavailable => {}
                Err(refusal) => return refusal,
            }
        }
    }
}

/// Replaces the database under two running replicas with an older copy, after some pause.
async fn swap(pause: Duration) {
    let _turn = turn().await;
    let world = World::builder(Backend::Postgres)
        .own_cluster(Cluster::start())
        .config("log.level", "info")
        .start()
        .await;
    let other = world.replica();
    let (here, there) = (world.admin(), world.admin_of(&other));
    let ana = here.connect(ACME, &world.person("ana").long_lived_token()).await;
    let crowd = ids(40);
    Crowd { ids: &crowd, name: "crowd", ends: None, due_before: 0 }.plant(&world).await;
    let (kept, lost) = crowd.split_at(20);
    for id in &kept[..10] {
        here.revoke(&id.to_string()).await.unwrap();
    }
    let data = world.cluster().data();
    let older = data.with_extension("older");
    world.cluster().down();
    copy(&data, &older);
    world.cluster().up();
    let bob = world.person("bob").long_lived_token();
    let bob = eventually_async("stores work again", LIMIT, async || here.store(ACME, &bob).await.ok()).await;
    let bob = bob.token.unwrap().connection_id;
    for id in lost {
        eventually_async("ends work again", LIMIT, async || there.revoke(&id.to_string()).await.ok()).await;
    }
    let seen = 1 + 10 + 1 + 20;
    let at_head = Arc::new(tokio::sync::Barrier::new(WATCHERS + 1));
    let watchers: Vec<_> = (0..WATCHERS)
        .map(|n| if n % 2 == 0 { here.clone() } else { there.clone() })
        .map(|caller| tokio::spawn(told_at_last(caller, seen, Arc::clone(&at_head))))
        .collect();
    at_head.wait().await;
    // Both replicas have it in their caches.
    for caller in [&here, &there] {
        assert!(caller.get(&bob).await.is_ok());
    }

    world.cluster().down();
    tokio::time::sleep(pause).await;
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&older, &data).unwrap();
    world.cluster().up();
    for watcher in watchers {
        watcher.await.expect("it is told").is(Code::OutOfRange, Reason::FeedReplaced);
    }
    for caller in [&here, &there] {
        let gone = async || caller.get(&bob).await.err().filter(|refusal| refusal.code() == Code::NotFound);
        eventually_async("what the older copy does not hold is gone", LIMIT, gone).await;
        assert!(caller.fetch(&ana).await.is_ok(), "what it holds works");
    }
    // The caches still follow the other replica's changes, although their numbers begin below the last one.
    for id in &kept[10..] {
        let id = id.to_string();
        assert_eq!(here.get(&id).await.unwrap().status(), Status::Active);
        there.revoke(&id).await.unwrap();
        let revoked = async || (here.get(&id).await.ok()?.status() == Status::Revoked).then_some(());
        eventually_async("a change is seen at the other replica", Duration::from_secs(3), revoked).await;
    }
    let feed = history(&world).await;
    assert_eq!(feed.len(), 1 + 10 + 10);
    let mut memory = Memory::default();
    memory.stay(&here, Instant::now() + LIMIT, |event| event.sequence == 21).await;
    assert!(memory.events == feed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_of_the_database_ends_all_watches_and_empties_the_caches() {
    swap(Duration::from_secs(3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_does_one_that_comes_faster_than_an_outage_is_noticed() {
    swap(Duration::ZERO).await;
}
