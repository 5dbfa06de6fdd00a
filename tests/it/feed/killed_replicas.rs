//! Replicas that are killed in the middle of their work on ten thousand connections.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use token_vault_proto::v1::job_run::State;
use token_vault_proto::v1::{GetVaultStatusRequest, JobRun, ListJobRunsRequest, RunJobRequest};
use token_vault_tests::fleet::{Crowd, Dice, Memory, history, ids, turn};
use token_vault_tests::prelude::*;
use token_vault_tests::{Process, eventually_async, request_id};
use uuid::Uuid;

const CONNECTIONS: usize = 10_000;
/// How many of these connections have a token.
const REAL: usize = 200;
const KILLS: usize = 20;
const SWEEP: &str = "meta-token-expiry";
const DAY: i64 = 86_400_000_000;
const LIMIT: Duration = Duration::from_secs(300);

/// Two replicas. A killed one is replaced at once.
struct Pair<'w> {
    world: &'w World,
    processes: Vec<Process>,
}

impl<'w> Pair<'w> {
    fn start(world: &'w World) -> Self {
        Self { world, processes: vec![world.replica(), world.replica()] }
    }

    fn admin(&self, n: usize) -> Caller {
        self.world.admin_of(&self.processes[n])
    }

    fn kill(&mut self, n: usize) {
        self.processes.remove(n).kill();
        self.processes.push(self.world.replica());
    }

    /// Finds the replica with this name.
    async fn named(&self, name: &str) -> Option<usize> {
        for n in 0..self.processes.len() {
            let admin = self.admin(n);
            let status = eventually_async("a replica answers", LIMIT, async || {
                admin.get_vault_status(GetVaultStatusRequest {}).await.ok()
            });
            if status.await.replica == name {
                return Some(n);
            }
        }
        None
    }

    async fn run(&self, id: &str) -> JobRun {
        let request = ListJobRunsRequest { job: Some(SWEEP.into()), ..Default::default() };
        let admin = self.admin(0);
        let page = eventually_async("the admin lists runs", LIMIT, async || {
            admin.list_job_runs(request.clone()).await.ok()
        });
        page.await.runs.into_iter().find(|run| run.run_id == id).expect("a run is listed")
    }

    async fn begin(&self) -> String {
        let request = RunJobRequest { job: SWEEP.into(), request_id: request_id() };
        let admin = self.admin(0);
        let begun =
            eventually_async("a run begins", LIMIT, async || admin.run_job(request.clone()).await.ok());
        begun.await.run.expect("a run").run_id
    }
}

/// Every event of every connection.
fn by_connection(feed: &[(Kind, String)]) -> BTreeMap<&str, Vec<Kind>> {
    let mut all: BTreeMap<&str, Vec<Kind>> = BTreeMap::new();
    for (kind, id) in feed {
        all.entry(id).or_default().push(*kind);
    }
    all
}

/// Checks that a watcher sees exactly what the feed holds.
async fn is_told(caller: &Caller, feed: &[(Kind, String)]) {
    let (mut memory, last) = (Memory::default(), feed.len() as i64);
    memory.stay(caller, Instant::now() + LIMIT, |event| event.sequence == last).await;
    assert!(memory.events == feed, "{} of {last} events", memory.events.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_over_ten_thousand_ends_on_another_replica_and_tells_each_thing_once() {
    let world = World::builder(Backend::Postgres)
        .config("log.level", "info")
        .config("jobs.sweep_concurrency", "2")
        .prepare()
        .await;
    let mut pair = Pair::start(&world);
    let began = Instant::now();
    let people: Vec<_> = (0..REAL).map(|n| world.person(&format!("person {n}"))).collect();
    let connector = pair.admin(0);
    let real: Vec<String> = stream::iter(&people)
        .map(|person| {
            let (connector, token) = (connector.clone(), person.long_lived_token());
            async move { connector.connect(ACME, &token).await }
        })
        .buffered(8)
        .collect()
        .await;
    // What the sweep finds out about each of them.
    for person in &people {
        person.forgets(["business_management"]);
    }
    // The ids of these connections lie between those of the real ones, in the order of the sweep.
    let crowd: Vec<Uuid> = real
        .iter()
        .map(|id| id.parse::<Uuid>().expect("an id").as_u128())
        .flat_map(|id| (1..=((CONNECTIONS - REAL) / REAL) as u128).map(move |n| Uuid::from_u128(id + n)))
        .collect();
    let ends = world.sandbox.clock().now_micros() + 5 * DAY;
    Crowd { ids: &crowd, name: "crowd", ends: Some((ends, 1_000)), due_before: 7 * DAY }.plant(&world).await;
    let prepared = began.elapsed();

    let (mut dice, mut run, mut runs, mut handed_over) = (Dice::new(2), pair.begin().await, 1, 0);
    for kill in 0..KILLS {
        let now = eventually_async("somebody works on the run", LIMIT, async || {
            let now = pair.run(&run).await;
            let works = now.state() != State::Running || pair.named(&now.replica).await.is_some();
            works.then_some(now)
        })
        .await;
        if now.state() != State::Running {
            assert_eq!(now.state(), State::Succeeded, "{now:?}");
            (run, runs) = (pair.begin().await, runs + 1);
        }
        tokio::time::sleep(dice.time(Duration::from_millis(500))).await;
        let now = pair.run(&run).await;
        let worker = pair.named(&now.replica).await.unwrap_or(kill % 2);
        handed_over += usize::from(now.state() == State::Running);
        pair.kill(worker);
    }
    let last = eventually_async("the run ends", LIMIT * 2, async || {
        Some(pair.run(&run).await).filter(|run| run.state() != State::Running)
    })
    .await;
    eprintln!(
        "prepared in {prepared:?}; {runs} runs, {handed_over} of {KILLS} kills in the middle of one; all in {:?}",
        began.elapsed()
    );
    assert_eq!((last.state(), last.total), (State::Succeeded, CONNECTIONS as i64), "{last:?}");
    assert!(pair.named(&last.replica).await.is_some(), "it ended on a replica that lives");
    assert!(handed_over >= KILLS * 3 / 4, "only {handed_over} kills were in the middle of a run");
    let generations = "SELECT sum(generation - 1) FROM job_runs WHERE job = 'meta-token-expiry'";
    assert!(world.database.count(generations).await >= handed_over as u64 - 1);

    let feed = history(&world).await;
    let announced = by_connection(&feed);
    assert_eq!(announced.len(), CONNECTIONS);
    for id in &real {
        assert_eq!(announced[id.as_str()], [Kind::Connected, Kind::ScopesChanged], "{id}");
    }
    for id in &crowd {
        assert_eq!(announced[id.to_string().as_str()], [Kind::Expiring], "{id}");
    }
    is_told(&pair.admin(0), &feed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_deadlines_are_announced_once_each_although_whoever_does_it_is_killed() {
    let _turn = turn().await;
    let world = World::builder(Backend::Postgres).moving_time().config("log.level", "info").prepare().await;
    let mut pair = Pair::start(&world);
    let crowd = ids(CONNECTIONS);
    let ends = world.sandbox.clock().now_micros() + 20 * DAY;
    Crowd { ids: &crowd, name: "crowd", ends: Some((ends, 0)), due_before: 7 * DAY }.plant(&world).await;
    let (mut dice, mut in_the_middle, began) = (Dice::new(3), 0, Instant::now());
    // Move time into the last three days, and then past the end.
    for days in [18, 3] {
        world.sandbox.clock().advance(Duration::from_secs(days * 86_400));
        let now = world.sandbox.clock().now_micros();
        let due = format!("SELECT count(*) FROM ad_platform_connections WHERE next_deadline_at <= {now}");
        assert_eq!(world.database.count(&due).await, CONNECTIONS as u64);
        eventually_async("the first are announced", LIMIT, async || {
            (world.database.count(&due).await < CONNECTIONS as u64).then_some(())
        })
        .await;
        for _ in 0..KILLS / 2 {
            tokio::time::sleep(dice.time(Duration::from_millis(250))).await;
            in_the_middle += usize::from(world.database.count(&due).await > 0);
            let one = dice.below(2);
            pair.kill(one);
        }
        eventually_async("all are announced", LIMIT, async || {
            (world.database.count(&due).await == 0).then_some(())
        })
        .await;
    }
    eprintln!("{in_the_middle} of {KILLS} kills in the middle; all in {:?}", began.elapsed());
    assert!(in_the_middle >= KILLS / 4, "only {in_the_middle} kills were in the middle");
    let feed = history(&world).await;
    let announced = by_connection(&feed);
    assert_eq!(announced.len(), CONNECTIONS);
    for (id, kinds) in announced {
        assert_eq!(kinds, [Kind::Expiring, Kind::Expired], "{id}");
    }
    is_told(&pair.admin(0), &feed).await;
}
