//! Random histories against an independent model: no event is missing, repeated, early, late or out of order.
//!
//! Two replicas on one PostgreSQL database, or one on SQLite, live in this process, so that the test decides when each
//! of them looks at the clock. The provider is the real sandbox over HTTP, whose time stands still unless a step moves
//! it. After each step the test compares the feed with what [`model`] expects.
//!
//! Each run plays every seed of [`SEEDS`]. `TOKEN_VAULT_HISTORIES=500` adds that many new ones, and
//! `TOKEN_VAULT_HISTORY=7` plays one seed alone. The test shrinks a history that fails, and shows it with its seed.
//! Histories that found a mistake are kept as steps in [`kept`], because a seed leads to other steps whenever the
//! generator changes.

mod driver;
mod kept;
mod model;
mod steps;

use std::collections::BTreeSet;
use std::env;
use std::sync::Mutex;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use token_vault_tests::Backend;
use tokio::runtime::Runtime;

use driver::World;
use model::Kind;
use steps::Step;

/// The seeds that every run plays.
const SEEDS: [u64; 8] = [1, 2, 3, 5, 8, 13, 21, 34];
/// How often the test tries to make a failing history shorter.
const SHRINKS: u32 = 100;
/// How many histories run at once: they wait more than they work.
const AT_ONCE: usize = 4;

#[test]
fn sqlite() {
    run(Backend::Sqlite);
}

#[test]
fn postgres() {
    run(Backend::Postgres);
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

fn run(backend: Backend) {
    if let Some(seed) = number("TOKEN_VAULT_HISTORY") {
        return drop(run_one(backend, seed));
    }
    let more = number("TOKEN_VAULT_HISTORIES").unwrap_or(0);
    // The new seeds of this run.
    let first = uuid::Uuid::new_v4().as_u64_pair().0 >> 16;
    let seeds = SEEDS.into_iter().chain(first..first + more).map(Some);
    let plays = Mutex::new(std::iter::once(None).chain(seeds));
    let seen = Mutex::new(BTreeSet::new());
    let next = || plays.lock().ok()?.next();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(play) = next() {
                    let kinds = match play {
                        Some(seed) => run_one(backend, seed),
                        None => run_kept(backend),
                    };
                    seen.lock().expect("no thread panics here").extend(kinds);
                }
            });
        }
    });
    let seen: BTreeSet<Kind> = seen.into_inner().expect("no thread panics here");
    assert_eq!(seen, BTreeSet::from(Kind::ALL), "the histories leave kinds out: keep one that brings them");
}

fn runtime() -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.expect("a runtime starts")
}

fn run_kept(backend: Backend) -> BTreeSet<Kind> {
    let (runtime, mut seen) = (runtime(), BTreeSet::new());
    for (name, history) in kept::histories() {
        let played = runtime.block_on(play(backend, &history));
        seen.extend(played.unwrap_or_else(|why| panic!("{name} on {backend:?}: {why}")));
    }
    seen
}

/// Plays the history of a seed, and returns the kinds of events that occurred.
fn run_one(backend: Backend, seed: u64) -> BTreeSet<Kind> {
    let runtime = runtime();
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config =
        Config { cases: 1, max_shrink_iters: SHRINKS, failure_persistence: None, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let seen = Mutex::new(BTreeSet::new());
    let outcome = TestRunner::new_with_rng(config, rng).run(&steps::history(), |history| {
        let kinds = runtime.block_on(play(backend, &history)).map_err(TestCaseError::fail)?;
        *seen.lock().expect("no thread panics here") = kinds;
        Ok(())
    });
    match outcome {
        Ok(()) => seen.into_inner().expect("no thread panics here"),
        Err(TestError::Fail(why, history)) => {
            let steps: Vec<String> = history.iter().map(|step| format!("  {step:?},")).collect();
            panic!("seed {seed} on {backend:?}, shrunk to [\n{}\n]\n{why}", steps.join("\n"))
        }
        Err(error) => panic!("seed {seed} on {backend:?}: {error}"),
    }
}

async fn play(backend: Backend, history: &[Step]) -> Result<BTreeSet<Kind>, String> {
    let mut world = World::start(backend).await;
    for (place, step) in history.iter().enumerate() {
        world.play(step).await.map_err(|why| format!("step {place}, {step:?}: {why}"))?;
    }
    world.end().await
}
