//! Limits on callers: calls, watches, and guesses at keys.

use std::time::Duration;

use token_vault_proto::v1::WatchExpiryEventsRequest as Watch;
use token_vault_tests::prelude::*;
use token_vault_tests::{eventually, eventually_async};
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::transport::abuse::LIMIT;

on_both_databases! {
    with |builder| builder
        .config("server.limits.per_principal_rps", "2")
        .config("server.limits.per_principal_burst", "20")
        .config("server.limits.per_principal_watches", "3");

    async fn a_principal_that_calls_too_often_waits_and_others_do_not(world: World) {
        let (hasty, same) = (world.key_of("hasty", Role::Viewer).await, world.key_of("hasty", Role::Viewer).await);
        let calm = world.key_of("calm", Role::Viewer).await;
        let mut refused = None;
        for _ in 0..200 {
            if let Err(no) = hasty.list().await {
                refused = Some(no);
                break;
            }
        }
        let no = refused.expect("two hundred at once are too many");
        no.is(Code::ResourceExhausted, Reason::RateLimited).has_retry().says("limit", "per_principal_rps");
        calm.list().await.expect("another principal has its own share");
        // Another key of the same principal shares its limit.
        let mut another = None;
        for _ in 0..50 {
            another = same.list().await.err();
            if another.is_some() {
                break;
            }
        }
        another.expect("the share is the principal's").is(Code::ResourceExhausted, Reason::RateLimited);
        eventually_async("who waits is let in again", LIMIT, async || {
            tokio::time::sleep(no.retry_after().unwrap()).await;
            hasty.list().await.ok()
        })
        .await;
    }

    async fn a_principal_has_so_many_watches_and_each_place_is_free_at_once(world: World) {
        let (eager, same) = (world.key_of("eager", Role::Viewer).await, world.key_of("eager", Role::Viewer).await);
        let calm = world.key_of("calm", Role::Viewer).await;
        let mut feeds = Vec::new();
        for _ in 0..3 {
            feeds.push(eager.watch(Watch::default()).await.unwrap());
        }
        for caller in [&eager, &same] {
            let no = caller.watch(Watch::default()).await.unwrap_err();
            no.is(Code::ResourceExhausted, Reason::RateLimited).has_retry().says("limit", "watches_per_principal");
        }
        calm.watch(Watch::default()).await.expect("another principal has places of its own");
        // A stream of this caller ends.
        drop(feeds.pop());
        let again = async || {
            tokio::time::sleep(Duration::from_millis(500)).await;
            same.watch(Watch::default()).await.ok()
        };
        let own = eventually_async("a place is free", LIMIT, again).await;
        // A key is revoked while its streams are open.
        let revoke = pb::RevokeApiKeyRequest { key_id: eager.key_id().into(), ..Default::default() };
        world.admin().revoke_api_key(revoke).await.unwrap();
        let more = eventually_async("the key's places are free", LIMIT, again).await;
        drop((own, more, feeds));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_too_many_at_once_are_refused_at_once_and_probes_are_not() {
    let world = World::builder(Backend::Sqlite).config("server.limits.max_calls", "2").start().await;
    let connector = world.connector().await;
    let before = world.sandbox.requests().len();
    world.sandbox.fault(Fault::on(Endpoint::Any).with(FaultKind::StallFirstByte(Duration::from_secs(3))));
    let slow: Vec<_> = ["ana", "bob"]
        .map(|name| {
            let (connector, token) = (connector.clone(), world.person(name).long_lived_token());
            tokio::spawn(async move { connector.store(ACME, &token).await })
        })
        .into();
    eventually("both are on their way", LIMIT, || world.sandbox.requests().len() >= before + 2);
    let no = connector.list().await.unwrap_err();
    no.is(Code::ResourceExhausted, Reason::RateLimited).has_retry().says("limit", "in_flight");
    let mut health = HealthClient::new(world.channel());
    health.check(HealthCheckRequest::default()).await.expect("a probe is always answered");
    world.sandbox.clear_faults();
    for call in slow {
        call.await.unwrap().expect("those that were let in are answered");
    }
    connector.list().await.expect("there is room again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guessing_at_keys_is_slowed_down_and_who_was_let_in_before_is_not() {
    let world = World::builder(Backend::Sqlite)
        .config("server.limits.failed_authentications_per_minute", "30")
        .start()
        .await;
    let (good, later) = (world.admin(), world.viewer().await);
    good.list().await.unwrap();
    let guess = |n: u32| format!("Bearer tva_{n:016}_{}", "A".repeat(43));
    let mut slowed = None;
    for n in 0..200 {
        let no = good.saying(Some(&guess(n))).list().await.unwrap_err();
        if no.code() == Code::ResourceExhausted {
            slowed = Some((n, no));
            break;
        }
        no.is(Code::Unauthenticated, Reason::ApiKeyInvalid);
    }
    let (n, no) = slowed.expect("two hundred guesses are too many");
    assert!(n >= 30, "{n} were looked at");
    no.is(Code::ResourceExhausted, Reason::RateLimited).has_retry().says("limit", "failed_authentications");
    for _ in 0..20 {
        good.list().await.expect("who was let in before is no guesser, though the address is the same");
    }
    later.list().await.expect("nor is who was never here and has a key");
    let newest = world.key_of("newest", Role::Viewer).await;
    newest.list().await.expect("even one that was made just now");
    let shut = good.saying(Some(&guess(500))).list().await.unwrap_err();
    shut.is(Code::ResourceExhausted, Reason::RateLimited);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_health_are_bounded_and_a_probe_is_always_answered() {
    let world = World::builder(Backend::Sqlite).config("server.limits.max_open_streams", "20").start().await;
    let request = || HealthCheckRequest { service: String::new() };
    let follow = async |channel: &Channel| HealthClient::new(channel.clone()).watch(request()).await;
    let (first, second) = (world.channel(), world.channel());
    let mut streams = Vec::new();
    let refused = |status: tonic::Status| {
        let no = Denial::from(status);
        no.is(Code::ResourceExhausted, Reason::RateLimited).has_retry().says("limit", "open_streams");
    };
    for _ in 0..16 {
        streams.push(follow(&first).await.expect("a connection has so many"));
    }
    refused(follow(&first).await.unwrap_err());
    for _ in 0..4 {
        streams.push(follow(&second).await.expect("another has its own, while there are any"));
    }
    refused(follow(&second).await.unwrap_err());
    for channel in [&first, &second, &world.channel()] {
        HealthClient::new(channel.clone()).check(request()).await.expect("a probe is always answered");
    }
    world.admin().list().await.expect("so are calls with a key");
    drop(streams);
    eventually_async("places are free again", LIMIT, async || follow(&first).await.ok()).await;
}
