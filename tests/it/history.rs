//! Random histories against an independent model: no event is missing, doubled, early, late or out of order.
//!
//! Two replicas on one PostgreSQL database, or one on SQLite, live in this process, so that the test decides when
//! each of them looks at the clock; the provider is the real sandbox over HTTP, whose time stands still unless a
//! step moves it. After each step the feed is compared with what [`model`] says it must hold.
//!
//! Every seed of [`SEEDS`] is run each time. `TOKEN_VAULT_HISTORIES=500` adds as many new ones; one that fails is
//! shrunk and shown with its seed. What it found goes into [`KEPT`], as steps: seeds change their meaning when the
//! steps do.

mod driver;
mod model;
mod steps;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use token_vault_tests::Backend;

use driver::World;
use steps::Step;

/// Run each time.
const SEEDS: [u64; 12] = [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233];
/// Attempts to make a failing history shorter.
const SHRINKS: u32 = 150;

#[test]
fn sqlite() {
    run(Backend::Sqlite);
}

#[test]
fn postgres() {
    run(Backend::Postgres);
}

fn run(backend: Backend) {
    let more = std::env::var("TOKEN_VAULT_HISTORIES").ok();
    let more: u64 = more.map_or(0, |number| number.parse().expect("TOKEN_VAULT_HISTORIES is a number"));
    // New ones each time: the clock is as good a source as any, and the failure names the seed.
    let first = uuid::Uuid::new_v4().as_u64_pair().0 >> 16;
    let seeds: Vec<u64> = SEEDS.into_iter().chain(first..first + more).collect();
    let driver = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let driver = driver.expect("a runtime starts");
    let one = std::env::var("TOKEN_VAULT_HISTORY").ok();
    let one: Option<u64> = one.map(|seed| seed.parse().expect("TOKEN_VAULT_HISTORY is a seed"));
    for seed in one.map_or(seeds, |seed| vec![seed]) {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let config = Config {
            cases: 1,
            max_shrink_iters: SHRINKS,
            failure_persistence: None,
            source_file: None,
            ..Config::default()
        };
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(config, rng);
        let outcome = runner.run(&steps::history(), |history| {
            driver.block_on(play(backend, &history)).map_err(TestCaseError::fail)
        });
        match outcome {
            Ok(()) => {}
            Err(TestError::Fail(why, history)) => {
                panic!("seed {seed} on {backend:?}, shrunk to {history:#?}\n{why}")
            }
            Err(error) => panic!("seed {seed} on {backend:?}: {error}"),
        }
    }
}

async fn play(backend: Backend, history: &[Step]) -> Result<(), String> {
    let mut world = World::start(backend).await;
    for (place, step) in history.iter().enumerate() {
        world.play(step).await.map_err(|why| format!("step {place}, {step:?}: {why}"))?;
    }
    world.end().await
}
