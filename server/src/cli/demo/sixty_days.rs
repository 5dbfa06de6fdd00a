//! Sixty days in a minute: time runs, and the feed is shown as it comes.

use std::time::Duration;

use anyhow::{Context, bail};
use futures::StreamExt;
use token_vault_client::v1::expiry_event::{Detail, Kind};
use token_vault_client::v1::{ExpiryEvent, Severity};
use token_vault_client::{Start, Vault, WatchItem, WatchOptions};
use token_vault_sandbox::{Endpoint, Fault, FaultKind, Sandbox, User};

use super::stage::{bold, green, paint, red, say, step};
use super::{person, store};

const DAY: i64 = 24 * 60 * 60;
/// When Cleo changes her password.
const PASSWORD_DAY: i64 = 20;
/// The story is over by then, whatever happened.
const LAST_DAY: i64 = 72;

/// The people whose tokens age.
struct Cast<'a> {
    sandbox: &'a Sandbox,
    connector: &'a Vault,
    ben: User,
    cleo: User,
    began: i64,
}

/// Lets sixty days pass, `days_per_second` of them each second, and tells what the feed says.
pub(super) async fn tell(
    sandbox: &Sandbox,
    connector: &Vault,
    watcher: &Vault,
    days_per_second: u32,
) -> anyhow::Result<()> {
    let options = WatchOptions::new().start(Start::Now).heartbeat(Duration::from_secs(1));
    let mut feed = watcher.watch(options);
    let (ben, cleo) = (person(sandbox, "ben"), person(sandbox, "cleo"));
    let his = ben.long_lived_token();
    store(connector, &his).await?;
    store(connector, &cleo.short_lived_token()).await?;
    // For Ben, the provider lengthens nothing: it refuses the exchange although the token works.
    let refused = FaultKind::error_with_subcode(400, 190, 460);
    sandbox.fault(Fault::on(Endpoint::OauthAccessToken).token(his).always().with(refused));
    step(
        8,
        "WatchExpiryEvents",
        "sixty days in a minute; Ana's token is renewed, Ben's can't be, and Cleo changes her password",
    )?;
    let clock = sandbox.clock();
    let cast = Cast { sandbox, connector, ben, cleo, began: clock.now() };
    clock.run_at(days_per_second.saturating_mul(u32::try_from(DAY).unwrap_or(u32::MAX)));
    let told = cast.watch(&mut feed).await;
    clock.run_at(1);
    sandbox.clear_faults();
    told
}

impl Cast<'_> {
    fn day(&self) -> i64 {
        (self.sandbox.clock().now() - self.began).div_euclid(DAY)
    }

    async fn watch(&self, feed: &mut token_vault_client::EventStream) -> anyhow::Result<()> {
        let mut password_changed = false;
        // Who reconnects, and on which day: two days after the alert, as people do.
        let mut reconnects: Vec<(&User, i64)> = Vec::new();
        let mut ben_is_back = false;
        while self.day() < LAST_DAY && !ben_is_back {
            let item = tokio::time::timeout(Duration::from_millis(100), feed.next()).await;
            let item = item.ok().map(|item| item.context("the feed ended")).transpose()?.transpose()?;
            if let Some(WatchItem::Event(event)) = item {
                show(&event, self.day())?;
                let name = event.subject.as_ref().map(|subject| subject.name.as_str()).unwrap_or_default();
                match (event.kind(), name) {
                    (Kind::Invalidated, "cleo") => reconnects.push((&self.cleo, self.day() + 2)),
                    (Kind::Expired, "ben") => reconnects.push((&self.ben, self.day() + 2)),
                    (Kind::Restored, "ben") => ben_is_back = true,
                    _ => {}
                }
            }
            if !password_changed && self.day() >= PASSWORD_DAY {
                self.cleo.changes_password();
                password_changed = true;
                say(&format!(
                    "       {:>6}  (Cleo changes her password; nobody tells the vault)",
                    day_name(self.day())
                ))?;
            }
            let today = self.day();
            if let Some(place) = reconnects.iter().position(|(_, day)| *day <= today) {
                let (user, _) = reconnects.remove(place);
                user.heals();
                store(self.connector, &user.short_lived_token()).await?;
            }
        }
        if ben_is_back {
            Ok(())
        } else {
            bail!("the feed did not tell of Ben's return within {LAST_DAY} days")
        }
    }
}

fn day_name(day: i64) -> String {
    format!("day {day}")
}

/// One line about an event, and one about the gap that it closes.
fn show(event: &ExpiryEvent, day: i64) -> anyhow::Result<()> {
    let kind = event.kind().as_str_name().trim_start_matches("KIND_");
    let name = event.subject.as_ref().map(|subject| subject.name.as_str()).unwrap_or_default();
    let what = event.remedy.as_ref().map(|remedy| remedy.message.as_str()).unwrap_or_default();
    let padded = format!("{kind:20}");
    let kind = match event.severity() {
        Severity::Critical => red(&format!("● {padded}")),
        Severity::Warning => paint("33", &format!("● {padded}")),
        _ => green(&format!("● {padded}")),
    };
    say(&format!("       {:>6}  {kind} {} {what}", day_name(day), bold(&format!("{name:5}"))))?;
    if let Some(Detail::Restored(restored)) = &event.detail
        && let (Some(from), Some(to)) = (restored.gap_start, restored.gap_end)
    {
        let (days, hours) = ((to.seconds - from.seconds) / DAY, (to.seconds - from.seconds) % DAY / 3_600);
        say(&format!("               {:20}       ingestion backfills {days} days {hours} hours", ""))?;
    }
    Ok(())
}
