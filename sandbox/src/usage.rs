//! Rate limits: meters that grow with calls and decay with time, blocks, and the four usage headers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::config::AccessTier;
use crate::wire::error::GraphError;

/// 100 % in the unit of the meters.
const FULL: i64 = 100_000_000;
/// How many seconds a call during a block adds to it.
const PENALTY: i64 = 10;
/// Calls per hour and app outside the ads surface: 200 for each of 100 daily users.
const APP_QUOTA: i64 = 20_000;
const HOUR: i64 = 3_600;

/// What a limit applies to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageScope {
    /// The platform limit: `X-App-Usage`, error 4.
    App,
    /// `app_id_util_pct` of `X-FB-Ads-Insights-Throttle`, error 4/1504022.
    AppInsights,
    /// Points of one ad account: `X-Ad-Account-Usage`, error 17/2446079. Digits without `act_`.
    AdAccount(String),
    /// One business use case of an ad account or business: `X-Business-Use-Case-Usage`, error 8000x.
    UseCase {
        /// Ad account (without `act_`) or business.
        id: String,
        /// `ads_insights`, `ads_management`, `custom_audience`, `pages` and so on.
        kind: String,
    },
}

impl UsageScope {
    pub(crate) fn use_case(id: &str, kind: &str) -> Self {
        Self::UseCase { id: id.to_owned(), kind: kind.to_owned() }
    }

    /// Seconds until an untouched meter is back at 0.
    fn decay(&self) -> i64 {
        if matches!(self, Self::AdAccount(_)) { 300 } else { HOUR }
    }

    /// How many seconds a full meter blocks.
    fn block(&self, tier: AccessTier) -> i64 {
        match (self, tier) {
            (Self::AdAccount(_), AccessTier::Full) => 60,
            (Self::AdAccount(_), AccessTier::Limited) => 300,
            _ => HOUR,
        }
    }

    fn error(&self, http: u16) -> GraphError {
        let crowded = |code, text: &str| {
            GraphError::new(http, code, text).subcode(2_446_079).for_people(
                "Ad Account Has Too Many API Calls",
                "There have been too many calls from this ad-account. Wait a bit and try again.",
            )
        };
        let named = |code, what: &str| {
            let text = format!(
                "(#{code}) There have been too many calls {what}. Wait a bit and try again. For more info, please \
                 refer to https://developers.facebook.com/docs/graph-api/overview/rate-limiting."
            );
            if matches!(code, 80_003 | 80_004) {
                crowded(code, &text)
            } else {
                GraphError::new(http, code, text)
            }
        };
        match self {
            Self::App => GraphError::new(http, 4, "(#4) Application request limit reached").transient(true),
            Self::AppInsights => GraphError::new(http, 4, "(#4) Application request limit reached")
                .subcode(1_504_022)
                .transient(true),
            Self::AdAccount(_) => crowded(17, "(#17) User request limit reached").transient(true),
            Self::UseCase { kind, .. } => match kind.as_str() {
                "ads_insights" => named(80_000, "from this ad-account"),
                "pages" => named(80_001, "to this Page account"),
                "instagram" => named(80_002, "to this Instagram account"),
                "custom_audience" => named(80_003, "from this ad-account"),
                "leadgen" => named(80_005, "to this Page account"),
                "messenger" => named(80_006, "to this Messenger account"),
                "whatsapp" => named(80_008, "to this WhatsApp Business account"),
                "catalog_management" => named(80_009, "to this catalog account"),
                "catalog_batch" => named(80_014, "to this catalog account"),
                _ => named(80_004, "to this ad-account"),
            },
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Meter {
    level: i64,
    at: i64,
    blocked_until: i64,
}

impl Meter {
    fn level_at(&self, now: i64, decay: i64) -> i64 {
        let gone = now.saturating_sub(self.at).max(0).saturating_mul(FULL) / decay.max(1);
        self.level.saturating_sub(gone).max(0)
    }
}

/// One call, as the limits see it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Call {
    /// The ad account in the path, without `act_`.
    pub(crate) account: Option<String>,
    pub(crate) insights: bool,
    /// Whether the ads limits count it instead of the platform limit.
    pub(crate) ads: bool,
    pub(crate) write: bool,
    pub(crate) active_ads: i64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Usage {
    meters: BTreeMap<UsageScope, Meter>,
}

impl Usage {
    /// Sets a meter; at 100 % or more its scope is blocked.
    pub(crate) fn set(&mut self, scope: UsageScope, percent: f64, now: i64, tier: AccessTier) {
        let level = micro_percent(percent);
        let blocked_until = if level >= FULL { now.saturating_add(scope.block(tier)) } else { 0 };
        self.meters.insert(scope, Meter { level, at: now, blocked_until });
    }

    /// Blocks a scope for some seconds, with its meter at 100 % or where it was above.
    pub(crate) fn block(&mut self, scope: UsageScope, seconds: i64, now: i64) {
        let decay = scope.decay();
        let meter = self.meters.entry(scope).or_default();
        meter.level = meter.level_at(now, decay).max(FULL);
        meter.at = now;
        meter.blocked_until = now.saturating_add(seconds);
    }

    pub(crate) fn clear(&mut self) {
        self.meters.clear();
    }

    /// Counts a call. While its scope is blocked this is an error and prolongs the block.
    pub(crate) fn count(
        &mut self,
        call: &Call,
        tier: AccessTier,
        now: i64,
        http: u16,
    ) -> Result<(), GraphError> {
        for (scope, share) in shares(call, tier) {
            let (decay, block) = (scope.decay(), scope.block(tier));
            let meter = self.meters.entry(scope.clone()).or_default();
            if meter.blocked_until > now {
                meter.blocked_until = meter.blocked_until.saturating_add(PENALTY);
                return Err(scope.error(http));
            }
            let still = if meter.blocked_until == 0 { meter.level_at(now, decay) } else { 0 };
            *meter = Meter { level: still.saturating_add(share), at: now, blocked_until: 0 };
            if meter.level >= FULL {
                meter.blocked_until = now.saturating_add(block);
            }
        }
        if let Some(account) = &call.account {
            self.refuse_blocked_use_case(account, now, http)?;
        }
        Ok(())
    }

    /// Tests can also block use cases that are not counted here.
    fn refuse_blocked_use_case(&mut self, account: &str, now: i64, http: u16) -> Result<(), GraphError> {
        let counted = ["ads_insights", "ads_management"];
        for (scope, meter) in &mut self.meters {
            let UsageScope::UseCase { id, kind } = scope else { continue };
            if id == account && !counted.contains(&kind.as_str()) && meter.blocked_until > now {
                meter.blocked_until = meter.blocked_until.saturating_add(PENALTY);
                return Err(scope.error(http));
            }
        }
        Ok(())
    }

    fn level(&self, scope: &UsageScope, now: i64) -> i64 {
        self.meters.get(scope).map_or(0, |meter| meter.level_at(now, scope.decay()))
    }

    /// The usage headers of a reply. At low use only insights have one.
    pub(crate) fn headers(&self, call: &Call, tier: AccessTier, now: i64) -> Vec<(&'static str, String)> {
        let mut headers = Vec::new();
        let app = whole(self.level(&UsageScope::App, now));
        if app >= 1 {
            let slower = app - app / 10;
            let usage = json!({ "call_count": app, "total_time": slower, "total_cputime": slower });
            headers.push(("x-app-usage", usage.to_string()));
        }
        if let Some(account) = &call.account {
            let level = self.level(&UsageScope::AdAccount(account.clone()), now);
            if level >= FULL / 100 {
                let reset = level.saturating_mul(300) / FULL;
                let usage = json!({ "acc_id_util_pct": fraction(level), "reset_time_duration": reset,
                                    "ads_api_access_tier": tier.word() });
                headers.push(("x-ad-account-usage", usage.to_string()));
            }
            if call.insights {
                let usage = json!({
                    "app_id_util_pct": fraction(self.level(&UsageScope::AppInsights, now)),
                    "acc_id_util_pct": fraction(self.level(&UsageScope::use_case(account, "ads_insights"), now)),
                    "ads_api_access_tier": tier.word(),
                });
                headers.push(("x-fb-ads-insights-throttle", usage.to_string()));
            }
        }
        if call.ads
            && let Some(usage) = self.use_cases(tier, now)
        {
            headers.push(("x-business-use-case-usage", usage.to_string()));
        }
        headers
    }

    /// All use cases with any usage, up to 32 ids. Within an id the highest comes last.
    fn use_cases(&self, tier: AccessTier, now: i64) -> Option<Value> {
        let mut by_id: BTreeMap<&str, Vec<(i64, Value)>> = BTreeMap::new();
        for (scope, meter) in &self.meters {
            let UsageScope::UseCase { id, kind } = scope else { continue };
            let percent = whole(meter.level_at(now, scope.decay()));
            let left = meter.blocked_until.saturating_sub(now).max(0);
            if percent < 1 && left == 0 {
                continue;
            }
            let mut entry = json!({ "type": kind, "call_count": percent, "total_cputime": percent / 2,
                "total_time": percent / 3, "estimated_time_to_regain_access": (left + 59) / 60 });
            if let (Some(entry), "ads_insights" | "ads_management") = (entry.as_object_mut(), kind.as_str()) {
                entry.insert("ads_api_access_tier".into(), json!(tier.word()));
            }
            by_id.entry(id).or_default().push((percent, entry));
        }
        let mut usage = Map::new();
        for (id, mut entries) in by_id.into_iter().take(32) {
            entries.sort_by_key(|(percent, _)| *percent);
            usage.insert(id.to_owned(), entries.into_iter().map(|(_, entry)| entry).collect());
        }
        (!usage.is_empty()).then_some(Value::Object(usage))
    }
}

/// Which meters a call moves, and by how much.
fn shares(call: &Call, tier: AccessTier) -> Vec<(UsageScope, i64)> {
    if !call.ads {
        return vec![(UsageScope::App, FULL / APP_QUOTA)];
    }
    let Some(account) = &call.account else { return Vec::new() };
    let (points, insights, management) = match tier {
        AccessTier::Limited => (60, 600, 300),
        AccessTier::Full => (9_000, 190_000, 100_000),
    };
    let weight = if call.write { 3 } else { 1 };
    let mut shares = vec![(UsageScope::AdAccount(account.clone()), weight * FULL / points)];
    if call.insights {
        shares.push((UsageScope::AppInsights, FULL / 1_000_000));
        let quota = insights + 400 * call.active_ads;
        shares.push((UsageScope::use_case(account, "ads_insights"), FULL / quota.max(1)));
    } else {
        let quota = management + 40 * call.active_ads;
        shares.push((UsageScope::use_case(account, "ads_management"), FULL / quota.max(1)));
    }
    shares
}

fn whole(level: i64) -> i64 {
    level / (FULL / 100)
}

/// A percentage with two decimals.
fn fraction(level: i64) -> f64 {
    let hundredths = level / (FULL / 10_000);
    format!("{}.{:02}", hundredths / 100, hundredths % 100).parse().unwrap_or(0.0)
}

#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "float to integer saturates, as wanted"
)]
fn micro_percent(percent: f64) -> i64 {
    (percent * 1_000_000.0).round() as i64
}
