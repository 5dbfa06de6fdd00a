//! Two processes never exchange one token at the same time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use token_vault_tests::prelude::*;
use token_vault_tests::{eventually, eventually_async};

const STALL: Duration = Duration::from_millis(250);

/// When each exchange of a stored token reached the provider, in microseconds.
fn exchanges(world: &World) -> Vec<i64> {
    let all = world.sandbox.requests();
    all.iter().filter(|r| r.param("fb_exchange_token").is_some()).map(|r| r.at_micros).collect()
}

/// Exchanges again and again. Returns how many exchanges succeeded, and how many met another in progress.
async fn hammer(caller: Caller, id: String, until: Instant) -> (usize, usize) {
    let (mut done, mut refused) = (0, 0);
    while Instant::now() < until {
        match caller.exchange(&id).await {
            Ok(_) => done += 1,
            Err(refusal) => {
                // On a busy machine the database may time out before anything began.
                match refusal.code() {
                    Code::Aborted => refused += 1,
                    code => assert_eq!(code, Code::Unavailable, "{refusal:?}"),
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    (done, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn exchanges_of_one_token_asked_for_at_two_replicas_never_overlap_at_the_provider() {
    let world = World::start(Backend::Postgres).await;
    let other = world.replica();
    let (here, there) = (world.admin(), world.admin_of(&other));
    let id = here.connect(ACME, &world.person("ana").long_lived_token()).await;
    let before = exchanges(&world).len();
    let stall = FaultKind::StallFirstByte(STALL);
    world.sandbox.fault(Fault::on(Endpoint::OauthAccessToken).always().with(stall));
    let until = Instant::now() + Duration::from_secs(8);
    let at = |caller: &Caller| {
        let all = (0..6).map(|_| tokio::spawn(hammer(caller.clone(), id.clone(), until)));
        all.collect::<Vec<_>>()
    };
    let (ours, theirs) = (at(&here), at(&there));
    let mut counts = Vec::new();
    for tasks in [ours, theirs] {
        let results = join_all(tasks).await.into_iter().map(|task| task.expect("no other refusal"));
        counts.push(results.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1)));
    }
    let asked = exchanges(&world).split_off(before);
    let done: usize = counts.iter().map(|(done, _)| done).sum();
    eprintln!("exchanges done and refused at each replica: {counts:?}");
    assert_eq!(asked.len(), done, "the provider was asked once for each that was done");
    assert!(counts.iter().all(|(done, refused)| *done >= 1 && *refused >= 20), "no race: {counts:?}");
    assert!(done >= 5, "{counts:?}");
    let shortest = asked.windows(2).map(|two| two[1] - two[0]).min().unwrap_or(0);
    // The provider held each exchange for this long before it answered.
    assert!(u128::try_from(shortest).unwrap_or(0) >= STALL.as_micros(), "{shortest} µs apart: {asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_dies_inside_its_exchange_is_given_time_before_another_one_asks() {
    let world = World::start(Backend::Postgres).await;
    let dying = world.replica();
    let (here, there) = (world.admin(), world.admin_of(&dying));
    let id = here.connect(ACME, &world.person("ana").long_lived_token()).await;
    let before = exchanges(&world).len();
    let stall = FaultKind::StallFirstByte(Duration::from_secs(60));
    world.sandbox.fault(Fault::on(Endpoint::OauthAccessToken).with(stall));
    let lost = tokio::spawn({
        let id = id.clone();
        async move { there.exchange(&id).await }
    });
    eventually("the exchange is at the provider", Duration::from_secs(60), || {
        exchanges(&world).len() == before + 1
    });
    dying.kill();
    assert!(lost.await.expect("a call ends").is_err());
    let refused = AtomicUsize::new(0);
    let done = eventually_async("another replica exchanges it", Duration::from_secs(60), async || match here
        .exchange(&id)
        .await
    {
        Ok(done) => Some(done),
        Err(refusal) => {
            assert_eq!(refusal.code(), Code::Aborted, "{refusal:?}");
            refused.fetch_add(1, Ordering::SeqCst);
            None
        }
    })
    .await;
    assert_eq!(done.token.expect("a token").connection_id, id);
    let asked = exchanges(&world).split_off(before);
    assert_eq!(asked.len(), 2);
    // The longest time of a provider call, retries included.
    assert!(asked[1] - asked[0] >= 20_000_000, "{} µs apart", asked[1] - asked[0]);
    assert!(refused.load(Ordering::SeqCst) > 0, "nobody was refused while the dead one counted as living");
}
