use std::time::Duration;

use super::{retry_after, usage};

fn line(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// Scope, meter, percent, wait in seconds.
type Row<'a> = (&'a str, &'a str, f64, u64);

fn check(headers: &[(&str, &str)], expected: &[Row<'_>], malformed: u64) {
    let lines: Vec<_> = headers.iter().map(|(name, value)| line(name, value)).collect();
    let news = usage(&lines, Some("act_1020304050"));
    let got: Vec<Row<'_>> = news
        .readings
        .iter()
        .map(|r| (r.scope.as_str(), r.meter.as_str(), r.percent, r.wait.as_secs()))
        .collect();
    assert_eq!(got, expected, "{headers:?}");
    assert_eq!(news.malformed, malformed, "{headers:?}");
}

const ACCOUNT: &str = "ad_account:act_1020304050";

#[test]
fn the_documented_headers_are_read() {
    check(
        &[("X-App-Usage", r#"{"call_count":28,"total_time":25,"total_cputime":31}"#)],
        &[("app", "platform", 31.0, 0)],
        0,
    );
    check(
        &[(
            "x-ad-account-usage",
            r#"{"acc_id_util_pct":9.67,"reset_time_duration":100,"ads_api_access_tier":"x"}"#,
        )],
        &[(ACCOUNT, "points", 9.67, 0)],
        0,
    );
    check(
        &[("x-fb-ads-insights-throttle", r#"{"app_id_util_pct":12.5,"acc_id_util_pct":10}"#)],
        &[("app", "insights", 12.5, 0), (ACCOUNT, "insights", 10.0, 0)],
        0,
    );
    check(
        &[(
            "X-Business-Use-Case-Usage",
            r#"{"1020304050":[{"type":"ads_insights","call_count":85,"total_cputime":12,"estimated_time_to_regain_access":0},
                              {"type":"ads_management","call_count":118,"estimated_time_to_regain_access":7}],
                "777000111":[{"type":"custom_audience","call_count":2}]}"#,
        )],
        &[
            (ACCOUNT, "ads_insights", 85.0, 0),
            (ACCOUNT, "ads_management", 118.0, 420),
            ("business:777000111", "custom_audience", 2.0, 0),
        ],
        0,
    );
    check(&[("X-Page-Usage", "{'call_count': 90}")], &[("page", "platform", 90.0, 0)], 0);
}

#[test]
fn broken_headers_never_fail_and_are_counted() {
    for broken in ["", "{", r#"{"call_count":28"#, "null", "5", "\"x\"", "<html>", "NaN"] {
        for name in [
            "x-app-usage",
            "x-page-usage",
            "x-ad-account-usage",
            "x-business-use-case-usage",
            "x-fb-ads-insights-throttle",
        ] {
            check(&[(name, broken)], &[], 1);
        }
    }
}

#[test]
fn odd_values_are_read_as_far_as_possible() {
    let table: [(&str, Option<f64>); 15] = [
        (r#"{"call_count":"28"}"#, Some(28.0)),
        (r#"{"call_count":"28.5%"}"#, Some(28.5)),
        (r#"{"call_count":null,"total_time":7}"#, Some(7.0)),
        (r#"{"call_count":[28]}"#, None),
        (r#"{"call_count":-4}"#, None),
        (r#"{"call_count":"inf","total_time":"NaN"}"#, None),
        (r#"{"call_count":1e999}"#, None),
        (r#"{"call_count":1e30}"#, None),
        (r#"{"call_count":1e30,"total_time":7}"#, Some(7.0)),
        (r#"{"call_count":18446744073709551617}"#, None),
        (r#"[{"call_count":28},{"call_count":40},3]"#, Some(40.0)),
        (r#"{"call_volume":3,"cpu_time":9}"#, Some(9.0)),
        (r#"{"unheard_of":99}"#, None),
        ("{}", None),
        ("[]", None),
    ];
    for (text, expected) in table {
        let news = usage(&[line("x-app-usage", text)], None);
        assert_eq!(news.readings.first().map(|reading| reading.percent), expected, "{text}");
        assert!(news.malformed <= u64::from(text.contains("1e999")), "{text}");
    }
    // An object in place of a list, a list in place of the object, elements of other types.
    let buc = r#"[{"7":{"call_count":5}},{"8":[null,3,{"type":5,"call_count":6}]}]"#;
    check(
        &[("x-business-use-case-usage", buc)],
        &[("business:7", "other", 5.0, 0), ("business:8", "other", 6.0, 0)],
        0,
    );
    // An id becomes part of a scope, which events and errors name; a use case becomes the name of a meter.
    let buc =
        r#"{"7\u0000":[{"call_count":5}],"":[{"call_count":5}],"8":[{"type":"a\u0000b","call_count":6}]}"#;
    check(&[("x-business-use-case-usage", buc)], &[("business:8", "other", 6.0, 0)], 0);
}

#[test]
fn a_repeated_header_is_read_each_time_and_a_broken_one_spoils_no_other() {
    check(
        &[
            ("X-App-Usage", r#"{"call_count":1}"#),
            ("x-app-usage", r#"{"call_count":90}"#),
            ("x-app-usage", "{"),
        ],
        &[("app", "platform", 1.0, 0), ("app", "platform", 90.0, 0)],
        1,
    );
}

#[test]
fn a_full_meter_blocks_until_it_is_back_at_zero() {
    check(
        &[("x-ad-account-usage", r#"{"acc_id_util_pct":100,"reset_time_duration":100}"#)],
        &[(ACCOUNT, "points", 100.0, 100)],
        0,
    );
}

#[test]
fn absurd_waits_are_cut() {
    for minutes in ["1e300", "99999999999", "\"9e99\""] {
        let text = format!(r#"{{"7":[{{"call_count":1,"estimated_time_to_regain_access":{minutes}}}]}}"#);
        let news = usage(&[line("x-business-use-case-usage", &text)], None);
        assert_eq!(news.readings[0].wait, Duration::from_secs(24 * 60 * 60), "{minutes}");
    }
}

#[test]
fn meters_of_an_unknown_ad_account_are_dropped() {
    let news = usage(&[line("x-ad-account-usage", r#"{"acc_id_util_pct":9}"#)], None);
    assert_eq!((news.readings.len(), news.malformed), (0, 0));
}

#[test]
fn retry_after_comes_as_seconds_or_as_a_date() {
    let date = line("Date", "Mon, 23 Nov 2026 05:00:00 GMT");
    let seconds = |headers: &[(String, String)]| retry_after(headers).map(|wait| wait.as_secs());
    assert_eq!(seconds(&[line("Retry-After", " 17 ")]), Some(17));
    assert_eq!(seconds(&[line("retry-after", "Mon, 23 Nov 2026 05:01:00 GMT"), date.clone()]), Some(60));
    assert_eq!(seconds(&[line("retry-after", "Mon, 23 Nov 2026 04:01:00 GMT"), date]), None);
    assert_eq!(seconds(&[line("retry-after", "soon")]), None);
    assert_eq!(seconds(&[line("retry-after", "-5")]), None);
    assert_eq!(seconds(&[]), None);
}
