//! Usage headers, parsed defensively and kept: how near each scope is to its limit.
//!
//! Headers may be missing, partial or broken; none of that fails a call. No news is not zero: what was
//! known stays.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;

use crate::model::Timestamp;

/// Scopes kept at most; beyond that news of unknown scopes is dropped.
const SCOPES: usize = 20_000;

/// How much of a scope's limit is used.
#[derive(Debug, Clone, PartialEq)]
pub struct Usage {
    /// Which scope: `app`, `ad_account:act_…`, `business:…`.
    pub scope: String,
    /// Percent of the limit; may pass 100.
    pub utilization_percent: f64,
    /// How long the provider asks to wait; zero when it does not.
    pub retry_after: Duration,
    /// When this was seen.
    pub as_of: Timestamp,
}

/// What is known of every scope.
#[derive(Debug, Default)]
pub struct UsageBook {
    scopes: Mutex<HashMap<String, Usage>>,
}

impl UsageBook {
    /// Reads the usage headers among `headers` and keeps what they tell.
    pub fn observe(&self, headers: &[(String, String)], ad_account_id: Option<&str>, now: Timestamp) {
        let news = read(headers, ad_account_id);
        if news.is_empty() {
            return;
        }
        let Ok(mut scopes) = self.scopes.lock() else { return };
        for (scope, percent, retry_after) in news {
            if scopes.len() >= SCOPES && !scopes.contains_key(&scope) {
                continue;
            }
            let usage = Usage { scope: scope.clone(), utilization_percent: percent, retry_after, as_of: now };
            scopes.insert(scope, usage);
        }
    }

    /// What is known of a scope.
    pub fn of(&self, scope: &str) -> Option<Usage> {
        self.scopes.lock().ok()?.get(scope).cloned()
    }
}

/// Name of an ad account's scope.
pub fn ad_account_scope(id: &str) -> String {
    format!("ad_account:act_{}", id.trim_start_matches("act_"))
}

/// The longest wait that the headers of a throttled reply ask for, if any does.
pub(super) fn wait_hint(headers: &[(String, String)], ad_account_id: Option<&str>) -> Option<Duration> {
    let told = headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("retry-after"))
        .filter_map(|(_, value)| value.trim().parse().ok().map(Duration::from_secs));
    let usage = read(headers, ad_account_id).into_iter().map(|(_, _, wait)| wait);
    told.chain(usage).filter(|wait| !wait.is_zero()).max()
}

type News = (String, f64, Duration);

fn read(headers: &[(String, String)], ad_account_id: Option<&str>) -> Vec<News> {
    let mut news: HashMap<String, (f64, Duration)> = HashMap::new();
    let mut add = |scope: String, percent: Option<f64>, wait: Duration| {
        let Some(percent) = percent.filter(|p| p.is_finite() && *p >= 0.0) else { return };
        let (most, longest) = news.entry(scope).or_default();
        *most = most.max(percent);
        *longest = wait.max(*longest);
    };
    for (name, value) in headers {
        let name = name.to_ascii_lowercase();
        if !name.starts_with("x-") || !(name.contains("usage") || name.contains("throttle")) {
            continue;
        }
        let Ok(value) = serde_json::from_str::<Value>(value) else {
            tracing::debug!(header = name, "a usage header can't be read; it is passed over");
            continue;
        };
        let account = ad_account_id.map(ad_account_scope);
        match name.as_str() {
            "x-app-usage" | "x-page-usage" => {
                let scope = if name == "x-app-usage" { "app" } else { "page" };
                for entry in entries(&value) {
                    let keys = ["call_count", "total_time", "total_cputime", "call_volume", "cpu_time"];
                    add(scope.to_owned(), most(entry, &keys), Duration::ZERO);
                }
            }
            "x-ad-account-usage" => {
                for entry in entries(&value) {
                    let percent = number(entry.get("acc_id_util_pct"));
                    // The reset is when use is back to nothing: a wait only once the limit is reached.
                    let blocked = percent.is_some_and(|p| p >= 100.0);
                    let wait =
                        if blocked { seconds(entry.get("reset_time_duration"), 1) } else { Duration::ZERO };
                    if let Some(scope) = account.clone() {
                        add(scope, percent, wait);
                    }
                }
            }
            "x-business-use-case-usage" => {
                for (id, list) in value.as_object().into_iter().flatten() {
                    let own = ad_account_id.is_some_and(|own| own.trim_start_matches("act_") == id);
                    let scope = if own { ad_account_scope(id) } else { format!("business_use_case:{id}") };
                    for entry in entries(list) {
                        let wait = seconds(entry.get("estimated_time_to_regain_access"), 60);
                        let keys = ["call_count", "total_cputime", "total_time"];
                        add(scope.clone(), most(entry, &keys), wait);
                    }
                }
            }
            "x-fb-ads-insights-throttle" => {
                for entry in entries(&value) {
                    add("app".to_owned(), number(entry.get("app_id_util_pct")), Duration::ZERO);
                    if let Some(scope) = account.clone() {
                        add(scope, number(entry.get("acc_id_util_pct")), Duration::ZERO);
                    }
                }
            }
            _ => {}
        }
    }
    news.into_iter().map(|(scope, (percent, wait))| (scope, percent, wait)).collect()
}

/// An object, or every object of a list.
fn entries(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().filter(|entry| entry.is_object()).collect(),
        Value::Object(_) => vec![value],
        _ => Vec::new(),
    }
}

fn most(entry: &Value, keys: &[&str]) -> Option<f64> {
    keys.iter().filter_map(|key| number(entry.get(key))).reduce(f64::max)
}

/// A number, also one that came as text.
fn number(value: Option<&Value>) -> Option<f64> {
    match value? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn seconds(value: Option<&Value>, unit: u32) -> Duration {
    let told = number(value).filter(|n| n.is_finite() && *n > 0.0).unwrap_or(0.0);
    // A day is longer than any real block; a broken header must not park a token for years.
    Duration::try_from_secs_f64(told * f64::from(unit))
        .unwrap_or(Duration::ZERO)
        .min(Duration::from_secs(86_400))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observe(headers: &[(&str, &str)]) -> UsageBook {
        let book = UsageBook::default();
        let headers: Vec<_> = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        book.observe(&headers, Some("act_10"), Timestamp::EPOCH);
        book
    }

    fn percent(book: &UsageBook, scope: &str) -> Option<f64> {
        book.of(scope).map(|usage| usage.utilization_percent)
    }

    #[test]
    fn every_element_of_every_list_is_read() {
        let book = observe(&[(
            "x-business-use-case-usage",
            r#"{"10":[{"type":"ads_insights","call_count":5,"total_cputime":1,"total_time":1,"estimated_time_to_regain_access":0},
                      {"type":"ads_management","call_count":118,"total_cputime":1,"total_time":1,"estimated_time_to_regain_access":7}],
                "777":[{"call_count":2,"total_cputime":9.5,"total_time":1}]}"#,
        )]);
        assert_eq!(percent(&book, "ad_account:act_10"), Some(118.0));
        assert_eq!(book.of("ad_account:act_10").unwrap().retry_after, Duration::from_secs(420));
        assert_eq!(percent(&book, "business_use_case:777"), Some(9.5));
    }

    #[test]
    fn the_whole_apps_use_comes_from_two_headers() {
        let book = observe(&[
            ("X-App-Usage", r#"{"call_count":28,"total_time":25,"total_cputime":"31"}"#),
            ("X-FB-Ads-Insights-Throttle", r#"{"app_id_util_pct":12.5,"acc_id_util_pct":10}"#),
        ]);
        assert_eq!(percent(&book, "app"), Some(31.0));
        assert_eq!(percent(&book, "ad_account:act_10"), Some(10.0));
    }

    #[test]
    fn broken_headers_change_nothing() {
        for broken in [
            "",
            "{",
            "[]",
            "null",
            "\"x\"",
            "{'call_count':28}",
            r#"{"call_count":null}"#,
            r#"{"call_count":"NaN"}"#,
        ] {
            let book = observe(&[("x-app-usage", r#"{"call_count":40}"#)]);
            book.observe(&[("x-app-usage".into(), broken.into())], None, Timestamp::EPOCH);
            assert_eq!(percent(&book, "app"), Some(40.0), "{broken}");
        }
    }

    #[test]
    fn the_longest_hint_wins_and_none_is_beyond_a_day() {
        let hint = |value: &str| wait_hint(&[("x-business-use-case-usage".into(), value.into())], None);
        assert_eq!(
            hint(r#"{"1":[{"call_count":1,"estimated_time_to_regain_access":99999999}]}"#),
            Some(Duration::from_secs(86_400))
        );
        assert_eq!(hint(r#"{"1":[{"call_count":1,"estimated_time_to_regain_access":-3}]}"#), None);
        assert_eq!(wait_hint(&[("Retry-After".into(), "17".into())], None), Some(Duration::from_secs(17)));
    }
}
