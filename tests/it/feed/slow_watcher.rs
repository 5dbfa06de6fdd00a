//! A slow watcher does not slow down the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use token_vault_proto::v1::watch_expiry_events_request::{From as StartFrom, Start};
use token_vault_proto::v1::watch_expiry_events_response::Item;
use token_vault_proto::v1::{WatchExpiryEventsRequest as Watch, WatchExpiryEventsResponse};
use token_vault_tests::fleet::{Crowd, ids, turn};
use token_vault_tests::prelude::*;
use token_vault_tests::{eventually, eventually_async, seconds};
use tokio::sync::mpsc;
use tonic::Streaming;
use tonic::transport::Endpoint as Transport;

const FAST: usize = 1_000;
/// Fast watchers that share a connection.
const TOGETHER: usize = 50;
const SLOW: usize = 20;
/// Events that exist from the start. Only the slow watchers read them.
const BACKLOG: usize = 2_000;
/// The number of events in each of the two rounds, which all watchers read.
const EVENTS: usize = 150;
const LIMIT: Duration = Duration::from_secs(300);

/// Resident memory of a process, in KiB.
fn memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("Linux tells it");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a resident size");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

/// Starts a watch, and tries again if the vault can't start a thousand at once.
async fn begin(caller: &Caller, watch: Watch) -> Streaming<WatchExpiryEventsResponse> {
    let begun = async || caller.stream(watch.clone()).await.ok();
    eventually_async("a watch begins", LIMIT, begun).await
}

/// Counts events, and sends the time of each `EVENTS`th.
async fn fast(
    mut stream: Streaming<WatchExpiryEventsResponse>,
    begun: Arc<AtomicUsize>,
    tell: mpsc::UnboundedSender<Instant>,
) {
    let (mut last, mut seen) = (0, 0);
    // A watch that ends sends nothing more, which the test notices.
    while let Ok(Some(answer)) = stream.message().await {
        match answer.item {
            Some(Item::Events(batch)) => {
                for event in batch.events {
                    assert!(last == 0 || event.sequence == last + 1, "a hole after {last}");
                    last = event.sequence;
                    seen += 1;
                    if seen % EVENTS == 0 {
                        let _ = tell.send(Instant::now());
                    }
                }
            }
            _ if last == 0 => {
                begun.fetch_add(1, Ordering::SeqCst);
            }
            _ => {}
        }
    }
}

/// Reads one response a second through tiny windows, and so is always behind.
async fn slow(caller: Caller, begun: Arc<AtomicUsize>, events: Arc<AtomicUsize>) {
    let start = Some(Start::From(StartFrom::Earliest.into()));
    let mut stream = begin(&caller, Watch { start, ..Watch::default() }).await;
    let mut watches = false;
    while let Ok(Some(answer)) = stream.message().await {
        if let Some(Item::Events(batch)) = answer.item {
            events.fetch_add(batch.events.len(), Ordering::SeqCst);
        } else {
            begun.fetch_add(usize::from(!watches), Ordering::SeqCst);
            watches = true;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    begun.fetch_sub(1, Ordering::SeqCst);
}

/// Makes the deadline job announce this many expiries.
async fn announce(world: &World, events: usize) {
    let ended = world.sandbox.clock().now_micros() - 1_000_000;
    Crowd { ids: &ids(events), name: "ended", ends: Some((ended, 0)), due_before: 0 }.plant(world).await;
}

/// Makes expiries due, and returns how long the median fast watcher waited for the last of them.
async fn round(world: &World, arrivals: &mut mpsc::UnboundedReceiver<Instant>) -> Duration {
    let began = Instant::now();
    announce(world, EVENTS).await;
    let mut times = Vec::with_capacity(FAST);
    while times.len() < FAST {
        let at =
            tokio::time::timeout(LIMIT, arrivals.recv()).await.expect("all events come").expect("watchers");
        times.push(at.saturating_duration_since(began));
    }
    times.sort_unstable();
    eprintln!(
        "the last event after {:?}, {:?} in the median, {:?}",
        times[0],
        times[FAST / 2],
        times[FAST - 1]
    );
    times[FAST / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_watchers_slow_nobody_and_cost_no_memory() {
    let _turn = turn().await;
    let world = World::builder(Backend::Postgres).config("log.level", "info").start().await;
    let process = world.process(|process| process.id());
    let admin = world.admin();
    announce(&world, BACKLOG).await;
    let announced = "SELECT count(*) FROM events";
    eventually_async("the backlog", LIMIT, async || {
        (world.database.count(announced).await == BACKLOG as u64).then_some(())
    })
    .await;
    let (sender, mut arrivals) = mpsc::unbounded_channel();
    let begun = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    for _ in 0..FAST / TOGETHER {
        let caller = admin.through(World::channel_to(&world.endpoint()));
        let (begun, sender) = (Arc::clone(&begun), sender.clone());
        tokio::spawn(async move {
            for _ in 0..TOGETHER {
                let watch = Watch { heartbeat_interval: seconds(60), ..Watch::default() };
                tokio::spawn(fast(begin(&caller, watch).await, Arc::clone(&begun), sender.clone()));
            }
        });
    }
    eventually("all watch", LIMIT, || begun.load(Ordering::SeqCst) == FAST);
    let connected = started.elapsed();
    let empty = memory(process);
    let pace = world.pace();
    let without = round(&world, &mut arrivals).await;
    let before = memory(process);

    let (slow_begun, slow_events) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for _ in 0..SLOW {
        let narrow = Transport::from_shared(world.endpoint())
            .expect("an address")
            .initial_stream_window_size(4_096)
            .initial_connection_window_size(4_096)
            .connect_lazy();
        tokio::spawn(slow(admin.through(narrow), Arc::clone(&slow_begun), Arc::clone(&slow_events)));
    }
    eventually("the slow ones watch too", LIMIT, || slow_begun.load(Ordering::SeqCst) == SLOW);
    let with = round(&world, &mut arrivals).await;
    let after = memory(process);
    let seen = slow_events.load(Ordering::SeqCst);
    eprintln!(
        "{FAST} watchers in {connected:?}; {without:?} without and {with:?} with slow ones, who have {seen} events; \
         {empty}, {before}, {after} KiB"
    );
    assert_eq!(slow_begun.load(Ordering::SeqCst), SLOW, "a slow watcher was cut off");
    assert!(seen < (BACKLOG + 2 * EVENTS) * SLOW, "nobody was slow");
    assert!(
        with < pace.allows(3 * without + Duration::from_secs(1)),
        "{without:?} without slow watchers, {with:?} with them"
    );
    assert!(after < before + 64 * 1024, "{before} KiB before slow watchers, {after} KiB with them");
}
