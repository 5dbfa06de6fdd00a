//! `/act_{id}/insights`: rows whose numbers are strings, and no rows without delivery.

use http::Method;
use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde_json::{Map, Value, json};

use crate::auth::Caller;
use crate::people::AdAccount;
use crate::routes::ad_accounts;
use crate::state::State;
use crate::wire::error::{self, GraphError};
use crate::wire::reply::Outcome;
use crate::wire::request::GraphRequest;

/// Metrics and their values of a day, in hundredths.
const METRICS: [(&str, i64); 9] = [
    ("spend", 76_278),
    ("impressions", 5_161_700),
    ("clicks", 120_400),
    ("reach", 3_900_100),
    ("cpc", 63),
    ("cpm", 1_477),
    ("ctr", 233),
    ("frequency", 132),
    ("unique_clicks", 98_700),
];
/// Metrics that are ratios, so that days do not add up.
const RATIOS: [&str; 4] = ["cpc", "cpm", "ctr", "frequency"];
const MONEY: [&str; 3] = ["spend", "cpc", "cpm"];

/// The report. Levels below the account have a single row, of an invented campaign.
pub(crate) fn report(state: &State, caller: &Caller, request: &GraphRequest, id: &str) -> Outcome {
    super::only(request, id, &[Method::GET])?;
    let account = ad_accounts::find(state, caller, request, id)?;
    let zone = TimeZone::get(&account.spec.timezone_name).unwrap_or(TimeZone::UTC);
    let today = Timestamp::from_second(state.now())
        .map(|now| now.to_zoned(zone).date())
        .map_err(|_| GraphError::default())?;
    let (since, until) = range(request, today)?;
    if since < today.saturating_sub(37.months()) {
        let text =
            "(#3018) The start date of the time range cannot be beyond 37 months from the current date";
        return Err(GraphError::new(400, 3018, text));
    }
    let fields: Vec<&str> =
        request.param("fields").unwrap_or("impressions,spend").split(',').map(str::trim).collect();
    let daily = request.param("time_increment") == Some("1");
    let mut rows = Vec::new();
    if account.spec.delivers {
        let mut start = since;
        while start <= until {
            let end = if daily { start } else { until };
            rows.push(row(&account, &fields, start, end)?);
            start = end.saturating_add(1.day());
        }
    }
    if rows.is_empty() {
        return Ok(json!({ "data": [] }).into());
    }
    let cursors = json!({ "before": "MAZDZD", "after": "MAZDZD" });
    Ok(json!({ "data": rows, "paging": { "cursors": cursors } }).into())
}

fn row(account: &AdAccount, fields: &[&str], since: Date, until: Date) -> Result<Value, GraphError> {
    let days = i64::from((until - since).get_days()) + 1;
    let mut row = Map::new();
    for &field in fields {
        let value = match field {
            "account_id" => json!(account.id),
            "account_name" => json!(account.spec.name),
            "account_currency" => json!(account.spec.currency),
            "campaign_id" => json!(format!("6{}", account.id)),
            "campaign_name" => json!("Autumn"),
            "adset_id" => json!(format!("61{}", account.id)),
            "ad_id" => json!(format!("62{}", account.id)),
            "actions" => json!([{ "action_type": "link_click", "value": (1_204 * days).to_string() }]),
            "date_start" | "date_stop" => continue,
            metric => metric_value(metric, days)?,
        };
        row.insert(field.to_owned(), value);
    }
    row.insert("date_start".into(), json!(since.to_string()));
    row.insert("date_stop".into(), json!(until.to_string()));
    Ok(Value::Object(row))
}

fn metric_value(name: &str, days: i64) -> Result<Value, GraphError> {
    let (_, daily) = METRICS.iter().find(|(known, _)| *known == name).ok_or_else(|| {
        error::parameter(format!("(#100) {name} is not valid for fields param. please check https://developers.facebook.com/docs/marketing-api/reference/ads-insights/ for all valid values"))
    })?;
    let ratio = RATIOS.contains(&name);
    let hundredths = if ratio { *daily } else { daily * days };
    Ok(json!(if ratio || MONEY.contains(&name) {
        format!("{}.{:02}", hundredths / 100, hundredths % 100)
    } else {
        (hundredths / 100).to_string()
    }))
}

fn range(request: &GraphRequest, today: Date) -> Result<(Date, Date), GraphError> {
    if let Some(text) = request.param("time_range") {
        let range: Value = serde_json::from_str(text).unwrap_or_default();
        let date =
            |key: &str| range.get(key).and_then(Value::as_str).and_then(|day| day.parse::<Date>().ok());
        return match (date("since"), date("until")) {
            (Some(since), Some(until)) if since <= until => Ok((since, until)),
            _ => Err(error::parameter("(#100) Must be a date representation in the format YYYY-MM-DD")),
        };
    }
    let preset = request.param("date_preset").unwrap_or("last_30d");
    preset_range(preset, today)
        .ok_or_else(|| error::parameter("(#100) date_preset must be one of the following values: today, yesterday, this_month, last_month, this_quarter, maximum, data_maximum, last_3d, last_7d, last_14d, last_28d, last_30d, last_90d, last_week_mon_sun, last_week_sun_sat, last_quarter, last_year, this_week_mon_today, this_week_sun_today, this_year"))
}

fn preset_range(preset: &str, today: Date) -> Option<(Date, Date)> {
    let back = |days: i64| today.saturating_sub(days.days());
    let yesterday = back(1);
    let quarter = |date: Date| Date::new(date.year(), (date.month() - 1) / 3 * 3 + 1, 1).unwrap_or(date);
    let year = Date::new(today.year(), 1, 1).unwrap_or(today);
    let monday = i64::from(today.weekday().since(Weekday::Monday));
    let sunday = i64::from(today.weekday().since(Weekday::Sunday));
    Some(match preset {
        "today" => (today, today),
        "yesterday" => (yesterday, yesterday),
        "this_month" => (today.first_of_month(), today),
        "last_month" => {
            let end = today.first_of_month().saturating_sub(1.day());
            (end.first_of_month(), end)
        }
        "this_quarter" => (quarter(today), today),
        "last_quarter" => {
            let end = quarter(today).saturating_sub(1.day());
            (quarter(end), end)
        }
        "this_year" => (year, today),
        "last_year" => {
            let end = year.saturating_sub(1.day());
            (Date::new(end.year(), 1, 1).unwrap_or(end), end)
        }
        "this_week_mon_today" => (back(monday), today),
        "this_week_sun_today" => (back(sunday), today),
        "last_week_mon_sun" => (back(monday + 7), back(monday + 1)),
        "last_week_sun_sat" => (back(sunday + 7), back(sunday + 1)),
        "maximum" | "data_maximum" => (today.saturating_sub(36.months()), today),
        _ => {
            let days = preset.strip_prefix("last_")?.strip_suffix('d')?.parse().ok()?;
            if ![3, 7, 14, 28, 30, 90].contains(&days) {
                return None;
            }
            (back(days), yesterday)
        }
    })
}
