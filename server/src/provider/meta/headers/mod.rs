//! Meta's usage headers. Any of them may be absent, incomplete or broken, and that must not fail a call.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::provider::usage::{APP, Reading, ad_account_scope};

/// At most this many scopes are read per header; Meta sends up to 32.
const MOST_IDS: usize = 256;
/// A longer wait is shortened to this.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);
/// Meta counts a little past 100 %. More than this is a mistake.
const MOST_PERCENT: f64 = 10_000.0;
/// Fields in percent of a limit.
const PERCENTAGES: [&str; 8] = [
    "call_count",
    "total_time",
    "total_cputime",
    "call_volume",
    "cpu_time",
    "acc_id_util_pct",
    "app_id_util_pct",
    "util_pct",
];

/// The readings in the headers of one reply, and how many headers could not be read.
#[derive(Debug, Default, PartialEq)]
pub(super) struct UsageNews {
    pub(super) readings: Vec<Reading>,
    pub(super) malformed: u64,
}

/// Reads the usage headers of a reply to a call about `ad_account` (`act_…`), if it was about one.
pub(super) fn usage(headers: &[(String, String)], ad_account: Option<&str>) -> UsageNews {
    let mut news = UsageNews::default();
    let account = ad_account.map(ad_account_scope);
    for (name, text) in headers {
        let name = name.to_ascii_lowercase();
        let known = matches!(
            name.as_str(),
            "x-app-usage"
                | "x-page-usage"
                | "x-ad-account-usage"
                | "x-business-use-case-usage"
                | "x-fb-ads-insights-throttle"
        );
        if !known {
            continue;
        }
        let Some(value) = parse(text) else {
            news.malformed = news.malformed.saturating_add(1);
            continue;
        };
        let readings = &mut news.readings;
        match name.as_str() {
            "x-app-usage" => readings.extend(meter(&value, APP, "platform", |_| true)),
            "x-page-usage" => readings.extend(meter(&value, "page", "platform", |_| true)),
            "x-ad-account-usage" => {
                if let Some(account) = &account {
                    readings.extend(meter(&value, account, "points", |_| true));
                }
            }
            "x-fb-ads-insights-throttle" => {
                readings.extend(meter(&value, APP, "insights", |key| key == "app_id_util_pct"));
                if let Some(account) = &account {
                    readings.extend(meter(&value, account, "insights", |key| key == "acc_id_util_pct"));
                }
            }
            _ => readings.extend(use_cases(&value, account.as_deref())),
        }
    }
    news
}

/// JSON, or JSON with single quotes, as in some replies. Only lists and objects are of use.
fn parse(text: &str) -> Option<Value> {
    let value: Value =
        serde_json::from_str(text).or_else(|_| serde_json::from_str(&text.replace('\'', "\""))).ok()?;
    (value.is_object() || value.is_array()).then_some(value)
}

/// The reading of a header that is an object of percentages, or a list of such objects.
fn meter(value: &Value, scope: &str, meter: &str, wanted: impl Fn(&str) -> bool) -> Option<Reading> {
    objects(value)
        .filter_map(|object| {
            let percent = highest(object, &wanted);
            let resets_in = duration(object, "reset_time_duration", 1.0);
            let regain = duration(object, "estimated_time_to_regain_access", 60.0);
            // A full meter blocks until it is back to zero.
            let full = percent.is_some_and(|percent| percent >= 100.0);
            let wait = if full { regain.max(resets_in) } else { regain };
            let percent = percent.or((!wait.is_zero()).then_some(0.0))?;
            Some(Reading { scope: scope.to_owned(), meter: meter.to_owned(), percent, wait, resets_in })
        })
        .reduce(|a, b| Reading {
            percent: a.percent.max(b.percent),
            wait: a.wait.max(b.wait),
            resets_in: a.resets_in.max(b.resets_in),
            ..a
        })
}

/// The readings per id and use case.
fn use_cases(value: &Value, account: Option<&str>) -> Vec<Reading> {
    objects(value)
        .flatten()
        .take(MOST_IDS)
        .filter(|(id, _)| is_word(id))
        .flat_map(|(id, cases)| {
            let own = ad_account_scope(id);
            let scope = if account == Some(own.as_str()) { own } else { format!("business:{id}") };
            objects(cases).take(MOST_IDS).filter_map(move |case| {
                let kind = case.get("type").and_then(Value::as_str).filter(|kind| is_word(kind));
                let kind = kind.unwrap_or("other");
                meter(&Value::Object(case.clone()), &scope, kind, |_| true)
            })
        })
        .filter(|reading| reading.scope.len() <= 64)
        .collect()
}

/// An id or a name of Meta's vocabulary: it becomes part of a scope, which events and errors name.
fn is_word(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The objects of a list, or a single object.
fn objects(value: &Value) -> impl Iterator<Item = &Map<String, Value>> {
    let list = match value {
        Value::Array(list) => list.as_slice(),
        _ => std::slice::from_ref(value),
    };
    list.iter().filter_map(Value::as_object)
}

fn highest(object: &Map<String, Value>, wanted: impl Fn(&str) -> bool) -> Option<f64> {
    object
        .iter()
        .filter(|(key, _)| PERCENTAGES.contains(&key.as_str()) && wanted(key))
        .filter_map(|(_, value)| number(value).filter(|percent| *percent <= MOST_PERCENT))
        .reduce(f64::max)
}

/// The time under `key`, in units of `unit` seconds; zero when there is none.
fn duration(object: &Map<String, Value>, key: &str, unit: f64) -> Duration {
    let seconds = object.get(key).and_then(number).unwrap_or(0.0) * unit;
    Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT)
}

/// A number, also as text. Negative and infinite numbers are ignored.
fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().trim_end_matches('%').parse().ok(),
        _ => None,
    };
    number.filter(|number| number.is_finite() && *number >= 0.0)
}

/// How long to wait after too many calls in `scope`, according to the headers.
pub(super) fn wait_in_scope(headers: &[(String, String)], news: &UsageNews, scope: &str) -> Option<Duration> {
    let metered = news
        .readings
        .iter()
        .filter(|reading| reading.scope == scope)
        .map(|reading| reading.wait.max(reading.resets_in))
        .max()
        .filter(|wait| !wait.is_zero());
    metered.max(retry_after(headers))
}

/// The business with the longest block: the scope of a use-case limit when the ad account is not known.
pub(super) fn blocked_business(news: &UsageNews) -> Option<&str> {
    news.readings
        .iter()
        .filter(|reading| reading.scope.starts_with("business:"))
        .filter(|reading| !reading.wait.is_zero() || reading.percent >= 100.0)
        .max_by(|a, b| a.wait.cmp(&b.wait).then(a.percent.total_cmp(&b.percent)))
        .map(|reading| reading.scope.as_str())
}

/// `Retry-After`, in seconds or as a date, which is compared with the reply's own `Date`.
pub(super) fn retry_after(headers: &[(String, String)]) -> Option<Duration> {
    let text = find(headers, "retry-after")?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let instant = |text: &str| jiff::fmt::rfc2822::parse(text).ok().map(|zoned| zoned.timestamp());
            let (then, now) = (instant(text)?, instant(find(headers, "date")?)?);
            Duration::try_from(then.duration_since(now)).ok()?
        }
    };
    Some(wait.min(LONGEST_WAIT))
}

/// The first header of that name.
pub(super) fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests;
