//! Sixty days in a minute: time runs, people act, and the feed is shown as it comes.
//!
//! The vault's jobs take real time. So that a slow machine shows the same story, the simulated time stands still where
//! a scene waits for its event, and while somebody pastes a token.

use std::time::Duration;

use anyhow::{Context, bail};
use futures::StreamExt;
use token_vault_client::v1::expiry_event::Kind;
use token_vault_client::v1::{ExpiryEvent, GetVaultStatusRequest};
use token_vault_client::{EventStream, Start, Vault, WatchItem, WatchOptions};
use token_vault_sandbox::{ExchangeMood, Sandbox, User};

use super::stage::{DETAIL, step};
use super::story::{person, store};
use crate::cli::terminal::paint::{bold, grey};
use crate::cli::terminal::screen::hanging;
use crate::cli::terminal::time::minute;
use crate::cli::terminal::{counted, say};
use crate::cli::watch::{json, line};

const DAY: i64 = 24 * 60 * 60;
/// The longest real time to wait for an event, once simulated time stands still for it.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many days of Ben's token are left when he pastes it.
const LEFT_OF_BENS: u32 = 26;
/// Column widths that fit the kinds of events and the names in this story.
const KIND: usize = 15;
const NAME: usize = 4;

/// Lets sixty days pass, `days_per_second` of them each second, and shows the feed.
pub(super) async fn tell(
    sandbox: &Sandbox,
    connector: &Vault,
    admin: &Vault,
    days_per_second: u32,
) -> anyhow::Result<()> {
    step(8, "WatchExpiryEvents", "Sixty days in a minute: the feed from its beginning, then live.")?;
    let options = WatchOptions::new().start(Start::Earliest).heartbeat(Duration::from_secs(1));
    let began = sandbox.clock().now();
    let speed = days_per_second.saturating_mul(u32::try_from(DAY).unwrap_or(u32::MAX));
    let feed = admin.watch(options);
    let mut days = Days { sandbox, connector, admin, feed, began, speed, seen: Vec::new() };
    let played = days.play().await;
    sandbox.clock().run_at(1);
    sandbox.set_mood(ExchangeMood::default());
    played
}

struct Days<'a> {
    sandbox: &'a Sandbox,
    connector: &'a Vault,
    admin: &'a Vault,
    feed: EventStream,
    /// Day 0, in seconds since 1970.
    began: i64,
    speed: u32,
    /// The events so far.
    seen: Vec<(String, Kind)>,
}

impl Days<'_> {
    async fn play(&mut self) -> anyhow::Result<()> {
        // The provider does not extend Ben's token; Ana's is extended once it is due.
        self.sandbox.set_mood(ExchangeMood::SameExpiry);
        let (ben, cleo) = (person(self.sandbox, "ben"), person(self.sandbox, "cleo"));
        let life = Duration::from_secs(86_400) * LEFT_OF_BENS;
        self.act(&format!("Ben pastes a token that has {LEFT_OF_BENS} days left"))?;
        store(self.connector, &ben.long_lived_token_with_life(life)).await?;
        self.act("Cleo pastes hers")?;
        store(self.connector, &cleo.short_lived_token()).await?;
        self.wait_for("cleo", Kind::Connected, 1).await?;

        self.run_to(13.0).await?;
        self.wait_for("ben", Kind::RotationFailed, 1).await?;

        self.run_to(14.5).await?;
        self.act("Cleo changes her password, and nobody reports it")?;
        cleo.changes_password();
        self.run_to(16.0).await?;
        self.wait_for("cleo", Kind::Invalidated, 1).await?;
        self.run_to(17.5).await?;
        self.reconnects("Cleo", &cleo).await?;

        // Warnings come 7, 3 and 1 days before Ben's token ends, and then it ends.
        for (warnings, day) in [(1, 19.5), (2, 23.5), (3, 25.5)] {
            self.run_to(day).await?;
            self.wait_for("ben", Kind::Expiring, warnings).await?;
        }
        self.run_to(26.5).await?;
        self.wait_for("ben", Kind::Expired, 1).await?;
        self.sandbox.set_mood(ExchangeMood::Extends);
        self.run_to(28.0).await?;
        self.reconnects("Ben", &ben).await?;

        self.run_to(44.0).await?;
        self.wait_for("ana", Kind::Rotated, 1).await?;
        self.run_to(60.0).await?;
        self.wait_for("cleo", Kind::Rotated, 1).await
    }

    /// Days since the beginning.
    fn day(&self) -> i64 {
        (self.sandbox.clock().now() - self.began).div_euclid(DAY)
    }

    /// Somebody pastes a new token. Time stands still meanwhile, because a pasted token lives for ninety minutes only.
    async fn reconnects(&mut self, name: &str, user: &User) -> anyhow::Result<()> {
        self.act(&format!("{name} reconnects"))?;
        store(self.connector, &user.short_lived_token()).await?;
        self.wait_for(&name.to_lowercase(), Kind::Restored, 1).await
    }

    /// Lets time run to a day and shows the events meanwhile. Then time stands still.
    async fn run_to(&mut self, day: f64) -> anyhow::Result<()> {
        let clock = self.sandbox.clock();
        let end = Duration::from_secs(86_400).mul_f64(day);
        let end = self.began.saturating_add(i64::try_from(end.as_secs()).unwrap_or(i64::MAX));
        clock.run_at(self.speed);
        while clock.now() < end {
            let left = Duration::from_secs(u64::try_from(end - clock.now()).unwrap_or(0));
            let left = (left / self.speed.max(1)).max(Duration::from_millis(1));
            if let Ok(item) = tokio::time::timeout(left, self.feed.next()).await {
                self.take(item)?;
            }
        }
        clock.freeze();
        self.time_has_stopped().await
    }

    /// Waits until the vault knows that time stands still: at this speed it would soon be hours ahead.
    async fn time_has_stopped(&self) -> anyhow::Result<()> {
        let patience = tokio::time::Instant::now() + PATIENCE;
        // Require it twice in a row, because a clock that still runs may agree by chance.
        let mut agreed = 0;
        loop {
            let time = self.admin.get_vault_status(GetVaultStatusRequest {}).await?.server_time;
            let same = time.is_some_and(|time| time.seconds.abs_diff(self.sandbox.clock().now()) < 60);
            agreed = if same { agreed + 1 } else { 0 };
            if agreed == 2 {
                return Ok(());
            }
            if tokio::time::Instant::now() > patience {
                bail!("the vault does not follow the sandbox's time");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Shows events until this many of one kind have come about a person.
    async fn wait_for(&mut self, name: &str, kind: Kind, times: usize) -> anyhow::Result<()> {
        let patience = tokio::time::Instant::now() + PATIENCE;
        let wanted = (name.to_owned(), kind);
        while self.seen.iter().filter(|seen| **seen == wanted).count() < times {
            match tokio::time::timeout_at(patience, self.feed.next()).await {
                Ok(item) => self.take(item)?,
                Err(_) => {
                    bail!("no event {} about {name} came (day {})", json::kind_name(kind), self.day())
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, item: Option<Result<WatchItem, token_vault_client::Error>>) -> anyhow::Result<()> {
        if let WatchItem::Event(event) = item.context("the feed ended")?? {
            self.show(&event)?;
            self.seen.push((line::who(&event).to_owned(), event.kind()));
        }
        Ok(())
    }

    /// Shows an event, and the gap that it closes.
    fn show(&self, event: &ExpiryEvent) -> anyhow::Result<()> {
        let at = event.occurred_at.map_or(self.began, |at| at.seconds);
        let what = event.remedy.as_ref().map(|remedy| remedy.message.as_str()).unwrap_or_default();
        let name = bold(&format!("{:NAME$}", line::who(event)));
        let first = format!("{DETAIL}{}  {}  {name}  ", self.date(at), line::kind(event, KIND));
        say(hanging(&first, what))?;
        if let Some((from, to)) = line::gap(event) {
            let hours = (to.seconds - from.seconds) / 3_600;
            let (days, hours) = (counted(hours / 24, "day"), counted(hours % 24, "hour"));
            let indent = " ".repeat(textwrap::core::display_width(&first));
            say(hanging(&indent, &format!("Backfill {} to {}: {days} {hours}.", minute(from), minute(to))))?;
        }
        Ok(())
    }

    /// Shows what somebody does without the vault's knowledge.
    fn act(&self, text: &str) -> anyhow::Result<()> {
        let now = self.sandbox.clock().now();
        say(grey(&format!("{DETAIL}{}  {text}", self.date(now))))
    }

    fn date(&self, at: i64) -> String {
        format!("day {:2}", (at - self.began).div_euclid(DAY).max(0))
    }
}
