//! Every replica serves the same feed.

use std::time::{Duration, Instant};

use token_vault_proto::v1::watch_expiry_events_response::Item;
use token_vault_proto::v1::{RevokeApiKeyRequest, WatchExpiryEventsRequest as Watch};
use token_vault_tests::fleet::{Crowd, Dice, ids};
use token_vault_tests::prelude::*;
use token_vault_tests::{Feed, request_id};
use tokio::sync::mpsc;

const CHANGES: usize = 60;

/// When each event reached a watcher.
async fn arrivals(caller: &Caller) -> mpsc::UnboundedReceiver<(String, Instant)> {
    let mut stream = caller.stream(Watch::default()).await.expect("all roles may watch");
    assert!(matches!(stream.message().await.unwrap().unwrap().item, Some(Item::Heartbeat(_))));
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok(Some(answer)) = stream.message().await {
            let Some(Item::Events(batch)) = answer.item else { continue };
            for event in batch.events {
                let _ = sender.send((event.connection_id, Instant::now()));
            }
        }
    });
    receiver
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_at_one_replica_sees_at_once_what_another_did() {
    let world = World::start(Backend::Postgres).await;
    let other = world.replica();
    let there = world.admin_of(&other);
    let changed = ids(CHANGES);
    Crowd { ids: &changed, name: "ends", ends: None, due_before: 0 }.plant(&world).await;
    let mut seen = arrivals(&world.admin()).await;
    let (mut dice, mut took, mut slowness) = (Dice::new(5), Vec::new(), Vec::new());
    for id in &changed {
        // Idle for a random time, so that the changes do not follow the polls.
        tokio::time::sleep(Duration::from_millis(110) + dice.time(Duration::from_millis(200))).await;
        // The time that a plain call to the watcher's replica takes is allowed in addition to the event's.
        let asked = Instant::now();
        world.admin().get(&id.to_string()).await.expect("it is there");
        slowness.push(asked.elapsed());
        there.revoke(&id.to_string()).await.expect("it ends");
        let answered = Instant::now();
        let next = tokio::time::timeout(Duration::from_secs(5), seen.recv()).await;
        let (connection, at) = next.expect("it comes at all").expect("the watch goes on");
        assert_eq!(connection, id.to_string());
        took.push(at.saturating_duration_since(answered));
    }
    took.sort_unstable();
    slowness.sort_unstable();
    let allowed = Duration::from_millis(500) + slowness[CHANGES / 2];
    let (median, last) = (took[CHANGES / 2], took[CHANGES - 1]);
    eprintln!(
        "from the answer at one replica to the watcher at another: median {median:?}, longest {last:?}"
    );
    assert!(median < allowed, "in the median {median:?}, and not {allowed:?}");
}

/// How long a watch at one replica continues after its key was revoked at another.
async fn outlives(world: &World, there: &Caller) -> Duration {
    let viewer = world.caller(Role::Viewer, &[]).await;
    let watches: Vec<Feed> = vec![viewer.watch_all().await, viewer.watch_all().await];
    watches[1].caught_up().await;
    let request = RevokeApiKeyRequest { key_id: viewer.key_id().into(), request_id: request_id() };
    there.revoke_api_key(request).await.expect("the admin revokes keys");
    let revoked = Instant::now();
    for watch in &watches {
        let end = watch.ended().await.expect("it is told why");
        end.is(Code::Unauthenticated, Reason::ApiKeyInvalid);
    }
    revoked.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_revoked_at_one_replica_ends_watches_at_another_also_while_thousands_of_ends_are_announced() {
    let world = World::builder(Backend::Postgres).config("log.level", "info").start().await;
    let other = world.replica();
    let (there, pace) = (world.admin_of(&other), world.pace());
    let idle = outlives(&world, &there).await;
    let now = world.sandbox.clock().now_micros();
    let ending = ids(6_000);
    Crowd { ids: &ending, name: "ended", ends: Some((now - 1_000_000, 0)), due_before: 0 }
        .plant(&world)
        .await;
    let busy = outlives(&world, &there).await;
    eprintln!("a watch outlived its key by {idle:?} while idle, {busy:?} under load");
    for outlived in [idle, busy] {
        assert!(outlived < pace.allows(Duration::from_secs(3)), "it outlived its key by {outlived:?}");
    }
}
