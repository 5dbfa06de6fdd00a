//! The feed's order: 1, 2, 3… for every watcher, whichever replica writes and whichever transactions are rolled back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use token_vault_tests::eventually_async;
use token_vault_tests::fleet::{Crowd, Dice, Left, Memory, history, ids, turn};
use token_vault_tests::prelude::*;
use uuid::Uuid;

const WRITERS: usize = 16;
const WATCHERS: usize = 20;
/// How many writes of each writer must succeed. After every fourth comes one that is rolled back.
const WRITES: usize = 80;
/// How many ends the deadline job announces meanwhile.
const ENDS: usize = 800;
const LIMIT: Duration = Duration::from_secs(300);

/// Makes PostgreSQL refuse writes about some connections. For one kind it refuses after the vault has drafted the event
/// and opened the incident, so that the unit is rolled back to its savepoint. For the other it refuses at COMMIT, when
/// the events of the whole batch have their numbers. Sequences count both cases, because they are not rolled back.
const TRAPS: &str = "
    CREATE SEQUENCE lost_units;
    CREATE SEQUENCE lost_commits;
    CREATE FUNCTION lose_unit() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM nextval('lost_units'); RAISE EXCEPTION 'trapped'; END $$;
    CREATE FUNCTION lose_commit() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM nextval('lost_commits'); RAISE EXCEPTION 'trapped' USING ERRCODE = 'disk_full'; END $$;
    CREATE TRIGGER lose_unit BEFORE UPDATE ON ad_platform_connections
        FOR EACH ROW WHEN (NEW.subject_name = 'lost unit') EXECUTE FUNCTION lose_unit();
    CREATE CONSTRAINT TRIGGER lose_commit AFTER UPDATE ON ad_platform_connections DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.subject_name = 'lost commit') EXECUTE FUNCTION lose_commit();";

async fn counted(world: &World, sequence: &str) -> u64 {
    let sql = format!("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {sequence}");
    world.database.count(&sql).await
}

/// Revokes connections. The database refuses every fifth revocation.
async fn write(caller: Caller, sound: Vec<Uuid>, trapped: Vec<Uuid>) {
    let mut trapped = trapped.into_iter();
    for (n, id) in sound.into_iter().enumerate() {
        let id = id.to_string();
        let started = Instant::now();
        // When a batch is lost, its other units are lost too; their callers are told to try again.
        while let Err(refusal) = caller.revoke(&id).await {
            assert_eq!(refusal.code(), Code::Unavailable, "{refusal:?}");
            assert!(started.elapsed() < LIMIT, "{id} can't be ended: {refusal:?}");
        }
        if n % 4 == 3 {
            let id = trapped.next().expect("one for every four").to_string();
            caller.revoke(&id).await.expect_err("the database refuses it");
        }
    }
}

/// Watches for a while, at one replica after another, until it has seen as many events as there are in the end.
async fn watch(everywhere: Vec<Caller>, mut dice: Dice, all: Arc<AtomicUsize>) -> (Memory, usize) {
    let (mut memory, mut stays, began) = (Memory::default(), 0, Instant::now());
    while memory.events.len() < all.load(Ordering::SeqCst) {
        assert!(began.elapsed() < LIMIT, "only {} events after {stays} stays", memory.events.len());
        stays += 1;
        let until = Instant::now() + dice.time(Duration::from_millis(1_500));
        // The watcher may leave in the middle of a message, and continue from an event in it.
        let mut patience = 1 + dice.below(400);
        let left = memory.stay(dice.pick(&everywhere), until, |_| {
            patience -= 1;
            patience == 0
        });
        match left.await {
            Left::Went => {}
            // The machine may be too busy for its database. A watcher that comes back has lost nothing.
            Left::Ended(Some(refusal)) if refusal.code() == Code::Unavailable => drop(refusal.has_retry()),
            Left::Ended(why) => panic!("a stream ended by itself: {why:?}"),
        }
    }
    (memory, stays)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_watcher_sees_one_to_n_while_sixteen_write_to_four_replicas_and_a_fifth_is_rolled_back() {
    let _turn = turn().await;
    let world = World::builder(Backend::Postgres).config("log.level", "info").start().await;
    let others: Vec<_> = (0..3).map(|_| world.replica()).collect();
    let everywhere: Vec<_> =
        std::iter::once(world.admin()).chain(others.iter().map(|process| world.admin_of(process))).collect();
    world.database.execute(TRAPS).await;
    let (sound, trapped) = (ids(WRITERS * WRITES), ids(WRITERS * WRITES / 4));
    Crowd { ids: &sound, name: "sound", ends: None, due_before: 0 }.plant(&world).await;
    let (units, commits): (Vec<_>, Vec<_>) = trapped.iter().partition(|id| id.as_u128() % 8 != 0);
    Crowd { ids: &units, name: "lost unit", ends: None, due_before: 0 }.plant(&world).await;
    Crowd { ids: &commits, name: "lost commit", ends: None, due_before: 0 }.plant(&world).await;

    let all = Arc::new(AtomicUsize::new(usize::MAX));
    let watchers: Vec<_> = (0..WATCHERS)
        .map(|n| tokio::spawn(watch(everywhere.clone(), Dice::new(n as u64), Arc::clone(&all))))
        .collect();
    let ending = ids(ENDS);
    let soon = world.sandbox.clock().now_micros() + 1_000_000;
    Crowd { ids: &ending, name: "ends soon", ends: Some((soon, 10_000)), due_before: 0 }.plant(&world).await;
    let began = Instant::now();
    let writers = (0..WRITERS).map(|n| {
        let own = |all: &[Uuid]| all.iter().skip(n).step_by(WRITERS).copied().collect::<Vec<_>>();
        tokio::spawn(write(everywhere[n % everywhere.len()].clone(), own(&sound), own(&trapped)))
    });
    for writer in join_all(writers).await {
        writer.expect("a writer writes");
    }
    let took = began.elapsed();
    let n = sound.len() + ENDS;
    let announced = "SELECT count(*) FROM events WHERE kind = 'EXPIRED'";
    eventually_async("every end is announced", LIMIT, async || {
        (world.database.count(announced).await == ENDS as u64).then_some(())
    })
    .await;

    let feed = history(&world).await;
    let mut wanted: BTreeMap<String, Kind> = sound.iter().map(|id| (id.to_string(), Kind::Revoked)).collect();
    wanted.extend(ending.iter().map(|id| (id.to_string(), Kind::Expired)));
    let announced: BTreeMap<_, _> = feed.iter().map(|(kind, id)| (id.clone(), *kind)).collect();
    assert!(announced == wanted, "not each once: {} of {} connections", announced.len(), wanted.len());
    assert_eq!(feed.len(), n, "some event came twice, or one that was rolled back came at all");
    all.store(n, Ordering::SeqCst);
    let mut all_stays = 0;
    for watcher in watchers {
        let (memory, stays) = watcher.await.expect("a watcher watches");
        assert!(memory.events == feed, "a watcher was told something else than the feed holds");
        all_stays += stays;
    }
    let (units, commits) = (counted(&world, "lost_units").await, counted(&world, "lost_commits").await);
    eprintln!("{n} events in {took:?}; {units} units and {commits} commits rolled back; {all_stays} stays");
    assert!(units >= 100 && commits >= 20, "{units} units and {commits} commits were rolled back");
    assert!(all_stays >= 5 * WATCHERS, "nobody came and went: {all_stays} stays");
    let unnumbered = "SELECT count(*) FROM incidents WHERE opened_sequence < 0 OR closed_sequence < 0";
    assert_eq!(world.database.count(unnumbered).await, 0);
}
