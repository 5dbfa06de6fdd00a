//! How much of a provider's limits is used, according to the latest replies; kept per scope.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::model::Timestamp;
use parking_lot::{Mutex, MutexGuard};

/// How long a reading counts. Limits apply to a rolling hour, so an older reading no longer means anything.
const FRESH: Duration = Duration::from_secs(60 * 60);
/// Beyond this many meters, the oldest are dropped.
const MOST_METERS: usize = 10_000;

/// The scope whose limit applies to every token of the app.
pub(super) const APP: &str = "app";

pub fn ad_account_scope(id: &str) -> String {
    format!("ad_account:act_{}", id.strip_prefix("act_").unwrap_or(id))
}

#[derive(Debug, Clone, PartialEq)]
pub struct Usage {
    /// `app`, `ad_account:act_…`, `business:…`.
    pub scope: String,
    /// May exceed 100.
    pub utilization_percent: f64,
    /// Zero when the provider does not ask to wait.
    pub retry_after: Duration,
    pub as_of: Timestamp,
}

/// One meter of a scope in one reply.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reading {
    /// `app`, `ad_account:act_…`, `business:…`.
    pub(super) scope: String,
    /// The header, or the use case within it.
    pub(super) meter: String,
    pub(super) percent: f64,
    /// Zero when the provider does not ask to wait.
    pub(super) wait: Duration,
    /// When the meter is back to zero; zero when that is not known.
    pub(super) resets_in: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    percent: f64,
    wait: Duration,
    as_of: Timestamp,
}

/// The latest readings of every scope. Bounded; in memory only.
#[derive(Debug, Default)]
pub struct UsageBook {
    meters: Mutex<HashMap<(String, String), Kept>>,
    malformed: AtomicU64,
}

impl UsageBook {
    /// Keeps the readings of one reply. Of a meter that is in it twice, the higher value counts.
    pub(super) fn keep(&self, readings: Vec<Reading>, now: Timestamp) {
        let mut meters = self.lock();
        for reading in readings {
            let kept = meters.entry((reading.scope, reading.meter)).or_insert(Kept {
                percent: reading.percent,
                wait: reading.wait,
                as_of: now,
            });
            let same_reply = kept.as_of == now;
            kept.percent = if same_reply { kept.percent.max(reading.percent) } else { reading.percent };
            kept.wait = if same_reply { kept.wait.max(reading.wait) } else { reading.wait };
            kept.as_of = now;
        }
        if meters.len() > MOST_METERS {
            meters.retain(|_, kept| now.since(kept.as_of) < FRESH);
            forget_oldest(&mut meters);
        }
    }

    pub(super) fn count_malformed(&self, headers: u64) {
        self.malformed.fetch_add(headers, Ordering::Relaxed);
    }

    /// How many usage headers could not be read since the start.
    pub fn malformed(&self) -> u64 {
        self.malformed.load(Ordering::Relaxed)
    }

    /// The tightest limit that applies to every token of the app. `None`: no reading within the hour.
    pub fn of_app(&self, now: Timestamp) -> Option<Usage> {
        self.tightest(now, |scope| scope == APP)
    }

    /// The tightest limit on calls about one ad account; the app's own limits do not count. `None`: no reading within
    /// the hour.
    pub fn of_ad_account(&self, ad_account_id: &str, now: Timestamp) -> Option<Usage> {
        let number = ad_account_id.strip_prefix("act_").unwrap_or(ad_account_id);
        let own = ad_account_scope(number);
        // If the account of a call is not known, its meters are kept under the bare id.
        let bare = format!("business:{number}");
        self.tightest(now, |scope| scope == own || scope == bare)
    }

    fn tightest(&self, now: Timestamp, wanted: impl Fn(&str) -> bool) -> Option<Usage> {
        self.lock()
            .iter()
            .filter(|((scope, _), kept)| wanted(scope) && now.since(kept.as_of) < FRESH)
            .map(|((scope, _), kept)| Usage {
                scope: scope.clone(),
                utilization_percent: kept.percent,
                retry_after: (kept.as_of + kept.wait).since(now),
                as_of: kept.as_of,
            })
            // A scope for which callers must wait is blocked, whatever its percentage.
            .max_by(|a, b| {
                a.retry_after
                    .cmp(&b.retry_after)
                    .then(a.utilization_percent.total_cmp(&b.utilization_percent))
            })
    }

    /// A panic while the lock was held leaves the book usable, since every change is complete in itself.
    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), Kept>> {
        self.meters.lock()
    }
}

/// Drops a tenth at once, so that a full book is not searched at every reading.
fn forget_oldest(meters: &mut HashMap<(String, String), Kept>) {
    let room = MOST_METERS - MOST_METERS / 10;
    if meters.len() <= room {
        return;
    }
    let mut ages: Vec<Timestamp> = meters.values().map(|kept| kept.as_of).collect();
    ages.sort_unstable();
    let mut surplus = meters.len() - room;
    let Some(&edge) = ages.get(surplus) else { return };
    meters.retain(|_, kept| {
        let forget = surplus > 0 && kept.as_of <= edge;
        surplus -= usize::from(forget);
        !forget
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(scope: &str, meter: &str, percent: f64, wait: u64) -> Reading {
        Reading {
            scope: scope.into(),
            meter: meter.into(),
            percent,
            wait: Duration::from_secs(wait),
            resets_in: Duration::ZERO,
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(1_000_000 + seconds)
    }

    #[test]
    fn the_tightest_meter_of_a_scope_speaks_for_it() {
        let book = UsageBook::default();
        book.keep(vec![reading(APP, "platform", 28.0, 0), reading(APP, "insights", 81.5, 0)], at(0));
        book.keep(vec![reading("ad_account:act_1", "points", 99.0, 0)], at(0));
        assert_eq!(book.of_app(at(1)).unwrap().utilization_percent, 81.5);
        book.keep(vec![reading(APP, "insights", 12.0, 0)], at(2));
        assert_eq!(book.of_app(at(3)).unwrap().utilization_percent, 28.0);
    }

    #[test]
    fn a_block_counts_more_than_a_percentage_and_runs_down() {
        let book = UsageBook::default();
        book.keep(vec![reading(APP, "a", 90.0, 0), reading(APP, "b", 10.0, 300)], at(0));
        let usage = book.of_app(at(100)).unwrap();
        assert_eq!((usage.utilization_percent, usage.retry_after), (10.0, Duration::from_secs(200)));
        assert_eq!(book.of_app(at(301)).unwrap().utilization_percent, 90.0);
    }

    #[test]
    fn of_a_meter_that_is_twice_in_a_reply_the_higher_counts() {
        let book = UsageBook::default();
        book.keep(vec![reading(APP, "a", 90.0, 5), reading(APP, "a", 10.0, 0)], at(0));
        let usage = book.of_app(at(0)).unwrap();
        assert_eq!((usage.utilization_percent, usage.retry_after), (90.0, Duration::from_secs(5)));
    }

    #[test]
    fn an_old_reading_does_not_count() {
        let book = UsageBook::default();
        book.keep(vec![reading(APP, "a", 90.0, 0)], at(0));
        assert!(book.of_app(at(3_599)).is_some());
        assert_eq!(book.of_app(at(3_600)), None);
    }

    #[test]
    fn an_ad_account_is_found_under_both_of_its_names() {
        let book = UsageBook::default();
        book.keep(vec![reading("business:7", "ads_insights", 50.0, 0)], at(0));
        book.keep(vec![reading("ad_account:act_7", "points", 40.0, 0)], at(0));
        for id in ["act_7", "7"] {
            assert_eq!(book.of_ad_account(id, at(0)).unwrap().utilization_percent, 50.0);
        }
        assert_eq!(book.of_ad_account("act_8", at(0)), None);
    }

    #[test]
    fn the_book_is_bounded_and_keeps_the_newest() {
        let book = UsageBook::default();
        for n in 0..i64::try_from(MOST_METERS).unwrap() + 500 {
            book.keep(vec![reading(&format!("business:{n}"), "pages", 1.0, 0)], at(n / 10));
        }
        assert!(book.lock().len() <= MOST_METERS);
        assert!(book.of_ad_account("10499", at(1_049)).is_some());
        assert_eq!(book.of_ad_account("0", at(1_049)), None);
    }
}
