//! Following the clock of a real sandbox over HTTP.

use std::time::Duration;

use token_vault_sandbox::{Sandbox, SandboxConfig};
use tokio::time::timeout;

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

async fn sandbox() -> (Sandbox, Url) {
    rustls::crypto::ring::default_provider().install_default().ok();
    let sandbox = Sandbox::start(SandboxConfig::default()).await.unwrap();
    let url = Url::parse(&sandbox.url()).unwrap();
    (sandbox, url)
}

fn shown_by(sandbox: &Sandbox) -> Timestamp {
    Timestamp::from_micros(sandbox.clock().now_micros())
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = timeout(Duration::from_secs(10), async {
        while !holds() {
            sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "in vain: {what}");
}

#[test]
fn only_what_a_right_clock_cannot_show_is_corrected() {
    let at = |millis: i64| Timestamp::from_micros(1_000_000_000 + millis * 1_000);
    for (asked_at, answered_at, shown, same_speed, expected) in [
        // In step, also at high speed, when much time passes between request and reply.
        (0, 10, 5, true, None),
        (0, 900_000, 5, true, None),
        // Behind: forward, at once.
        (0, 10, 11, true, Some(11)),
        (0, 10, 900_000, true, Some(900_000)),
        // A little ahead: the clock is not set back for that. Far ahead: the sandbox's clock was set back.
        (30, 40, 5, true, None),
        (56, 60, 5, true, Some(5)),
        (900_000, 900_010, 5, true, Some(5)),
        // Another speed: on from here if that is near, else from what the sandbox showed.
        (0, 10, 5, false, Some(10)),
        (0, 900_000, 5, false, Some(5)),
        (0, 3, 5, false, Some(5)),
    ] {
        let corrected = correction(at(asked_at), at(answered_at), at(shown), same_speed);
        assert_eq!(corrected, expected.map(at), "{asked_at} {answered_at} {shown} {same_speed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_is_right_at_once_and_follows_every_move() {
    let (sandbox, url) = sandbox().await;
    sandbox.clock().set(1_763_859_600);
    sandbox.clock().freeze();
    let clock = Clock::system();
    let stop = CancellationToken::new();
    let task = follow(clock.clone(), &url, stop.clone()).await.unwrap();
    assert_eq!(clock.now(), shown_by(&sandbox), "already before it comes back");

    sandbox.clock().advance(60 * DAY);
    eventually("a move forward", || clock.now() == shown_by(&sandbox)).await;
    sandbox.clock().advance(Duration::from_micros(1));
    eventually("the smallest move forward", || clock.now() == shown_by(&sandbox)).await;
    sandbox.clock().set(1_763_859_600);
    eventually("a move back", || clock.now() == shown_by(&sandbox)).await;

    stop.cancel();
    timeout(Duration::from_secs(5), task).await.unwrap().unwrap();
    let stood = clock.now();
    sandbox.clock().advance(DAY);
    sleep(4 * PERIOD).await;
    assert_eq!(clock.now(), stood, "nobody follows any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fast_time_is_smooth_and_outlives_its_source() {
    let (sandbox, url) = sandbox().await;
    let clock = Clock::system();
    let _task = follow(clock.clone(), &url, CancellationToken::new()).await.unwrap();
    sandbox.clock().run_at(86_400);
    let start = clock.now();
    eventually("the speed", || clock.now().since(start) > DAY / 10).await;
    let (mut last, mut steps) = (clock.now(), 0);
    let begun = Instant::now();
    while begun.elapsed() < 10 * PERIOD {
        std::thread::sleep(Duration::from_millis(1));
        let now = clock.now();
        assert!(now >= last, "backwards by {:?}", last.since(now));
        steps += u32::from(now > last);
        last = now;
    }
    assert!(steps > 15, "it moves between two questions too: {steps}");
    sandbox.shutdown().await;
    let lost = clock.now();
    eventually("time going on", || clock.now().since(lost) > DAY / 10).await;
}

#[tokio::test]
async fn what_tells_no_time_is_refused() {
    let (sandbox, url) = sandbox().await;
    let off = Url::parse("http://graph.facebook.com").unwrap();
    let refused = follow(Clock::system(), &off, CancellationToken::new()).await.unwrap_err();
    assert!(refused.rule.contains("loopback"), "{refused}");
    sandbox.shutdown().await;
    let begun = Instant::now();
    let refused = follow(Clock::system(), &url, CancellationToken::new()).await.unwrap_err();
    assert!(
        refused.rule.contains("reports its time") && begun.elapsed() < FIRST_READING + PATIENCE,
        "{refused}"
    );
}
