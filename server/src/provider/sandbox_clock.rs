//! Lets the vault's domain time be that of the Graph API sandbox, so that demos and tests see months pass.

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

/// How often the sandbox is asked. In between, time goes on at the speed that it told.
const PERIOD: Duration = Duration::from_millis(20);
/// One question.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the first answer may take.
const FIRST_READING: Duration = Duration::from_secs(5);
/// Being ahead by so little is no reason to let time run backwards.
const JITTER: Duration = Duration::from_millis(50);

/// Sets `clock` to the time of the sandbox at `graph_url` and comes back; a task keeps it so until `stop`.
/// When the sandbox can't be asked any more, time goes on as it last went.
///
/// # Errors
/// The URL is not of a loopback host, or the sandbox does not tell its time within five seconds.
pub async fn follow(
    clock: Clock,
    graph_url: &Url,
    stop: CancellationToken,
) -> Result<JoinHandle<()>, BadValue> {
    let mut follower = Follower::new(clock, graph_url)?;
    let deadline = Instant::now() + FIRST_READING;
    while let Err(why) = follower.look().await {
        if Instant::now() + PERIOD >= deadline {
            return Err(BadValue::new(format!("must be a sandbox that tells its time: {why}")));
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

/// What `GET /_sandbox/clock` answers, as far as it matters here.
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
    /// What the sandbox told last; `None` before it told anything.
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
                Ok(()) if lost => tracing::info!("the sandbox tells its time again"),
                Err(error) if !lost => {
                    tracing::warn!(%error, "the sandbox does not tell its time, which goes on as it last went");
                }
                _ => {}
            }
            lost = looked.is_err();
        }
    }

    /// Asks once.
    async fn look(&mut self) -> Result<(), reqwest::Error> {
        let asked_at = self.clock.now();
        let reply = self.client.get(self.url.clone()).send().await?.error_for_status()?;
        let Reading { now_us, speed } = reply.json().await?;
        let told = Timestamp::from_micros(now_us);
        let same_speed = self.speed == Some(speed);
        if let Some(now) = correction(asked_at, self.clock.now(), told, same_speed) {
            self.clock.run_from(now, speed);
            self.speed = Some(speed);
        }
        Ok(())
    }
}

/// Where the clock has to go on from, if not from where it is: it was `asked_at` when the sandbox was asked and
/// is `answered_at` now; in between, the sandbox read its own as `told`.
///
/// A clock that was right then is not past `told` when it asks, nor behind it when the answer is there.
fn correction(
    asked_at: Timestamp,
    answered_at: Timestamp,
    told: Timestamp,
    same_speed: bool,
) -> Option<Timestamp> {
    let set_back = asked_at > told + JITTER;
    let behind = answered_at < told;
    if same_speed && !set_back && !behind {
        return None;
    }
    let nearly = answered_at >= told && answered_at <= told + JITTER;
    Some(if nearly { answered_at } else { told })
}
