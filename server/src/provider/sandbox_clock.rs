//! Makes the vault follow the sandbox's clock, so that months pass within minutes in demos and tests.

#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::Deserialize;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::is_loopback;
use crate::model::{BadValue, Clock, Timestamp};

/// How often the sandbox is asked. In between, time passes at the speed that it reported.
const PERIOD: Duration = Duration::from_millis(20);
/// Timeout of one request.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the first reading may take.
const FIRST_READING: Duration = Duration::from_secs(5);
/// The clock is not set back if it is ahead by less than this.
const JITTER: Duration = Duration::from_millis(50);

/// Sets `clock` to the time of the sandbox at `graph_url` and returns; a task keeps it so until `stop`. While the
/// sandbox does not reply, time passes at the last known speed.
///
/// # Errors
/// The host is not loopback, or the sandbox does not report its time within five seconds.
pub async fn follow(
    clock: Clock,
    graph_url: &Url,
    stop: CancellationToken,
) -> Result<JoinHandle<()>, BadValue> {
    let mut follower = Follower::new(clock, graph_url)?;
    let deadline = Instant::now() + FIRST_READING;
    while let Err(why) = follower.look().await {
        if Instant::now() + PERIOD >= deadline {
            return Err(BadValue::new(format!("must be a sandbox that reports its time: {why}")));
        }
        sleep(PERIOD).await;
    }
    Ok(tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = follower.run() => {}
        }
    }))
}

/// The parts of the reply to `GET /_sandbox/clock` that are used here.
#[derive(Debug, Deserialize)]
struct Reading {
    now_us: i64,
    speed: u32,
}

#[derive(Debug)]
struct Follower {
    client: reqwest::Client,
    url: Url,
    clock: Clock,
    /// The last reported speed.
    speed: Option<u32>,
}

impl Follower {
    #[expect(clippy::disallowed_methods, reason = "no provider is asked: a loopback client without secrets")]
    fn new(clock: Clock, graph_url: &Url) -> Result<Self, BadValue> {
        let mut url = graph_url.clone();
        if !is_loopback(&url) {
            return Err(BadValue::new("must have a loopback host"));
        }
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["_sandbox", "clock"]);
        }
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(PATIENCE)
            .build()
            .map_err(|error| BadValue::new(format!("the HTTP client can't be set up: {error}")))?;
        Ok(Self { client, url, clock, speed: None })
    }

    async fn run(mut self) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lost = false;
        loop {
            ticks.tick().await;
            let looked = self.look().await;
            match &looked {
                Ok(()) if lost => tracing::info!("the sandbox reports its time again"),
                Err(error) if !lost => {
                    tracing::warn!(%error, "the sandbox does not report its time; time passes at the last known speed");
                }
                _ => {}
            }
            lost = looked.is_err();
        }
    }

    async fn look(&mut self) -> Result<(), reqwest::Error> {
        let asked_at = self.clock.now();
        let reply = self.client.get(self.url.clone()).send().await?.error_for_status()?;
        let Reading { now_us, speed } = reply.json().await?;
        let shown = Timestamp::from_micros(now_us);
        let same_speed = self.speed == Some(speed);
        if let Some(now) = correction(asked_at, self.clock.now(), shown, same_speed) {
            self.clock.run_from(now, speed);
            self.speed = Some(speed);
        }
        Ok(())
    }
}

/// The time to set the clock to, if it is wrong: it showed `asked_at` when the sandbox was asked and shows
/// `answered_at` now; in between, the sandbox's clock showed `shown`.
///
/// A clock that is right is not past `shown` when it asks, nor behind `shown` when the reply arrives.
fn correction(
    asked_at: Timestamp,
    answered_at: Timestamp,
    shown: Timestamp,
    same_speed: bool,
) -> Option<Timestamp> {
    let set_back = asked_at > shown + JITTER;
    let behind = answered_at < shown;
    if same_speed && !set_back && !behind {
        return None;
    }
    let nearly = answered_at >= shown && answered_at <= shown + JITTER;
    Some(if nearly { answered_at } else { shown })
}
