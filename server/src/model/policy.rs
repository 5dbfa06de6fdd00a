//! What the operator decided about tokens: when to warn, when to renew, and which scopes are needed.

use std::time::Duration;

use super::{Guide, Timestamp};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How long before its end a token counts as expiring.
    pub warning_window: Duration,
    /// How long before its end each warning is announced; longest first, each once, at least one.
    pub thresholds: Vec<Duration>,
    pub renewal: RenewalPolicy,
    pub event_retention: Duration,
    /// Scopes that a token must have.
    pub required_scopes: Vec<String>,
    /// Scopes without which some features are missing.
    pub optional_scopes: Vec<String>,
    /// The providers' own words. It is part of the program, and no decision of the operator.
    pub guide: Guide,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenewalPolicy {
    pub enabled: bool,
    /// The youngest age at which a token is renewed.
    pub min_age: Duration,
    /// How long before its end the vault begins to renew a token.
    pub window: Duration,
}

impl Policy {
    /// How long before an end people are told of it.
    pub fn notice(&self) -> Duration {
        self.thresholds.iter().copied().fold(self.warning_window, Duration::max)
    }

    /// The tightest threshold before `end` that has been crossed.
    pub fn crossed(&self, end: Timestamp, now: Timestamp) -> Option<Duration> {
        self.thresholds.iter().copied().filter(|threshold| end - *threshold <= now).min()
    }

    /// The required scopes that are not among `granted`.
    pub fn missing_required(&self, granted: &[String]) -> Vec<String> {
        missing(&self.required_scopes, granted)
    }

    /// The optional scopes that are not among `granted`.
    pub fn missing_optional(&self, granted: &[String]) -> Vec<String> {
        missing(&self.optional_scopes, granted)
    }
}

fn missing(wanted: &[String], granted: &[String]) -> Vec<String> {
    wanted.iter().filter(|scope| !granted.contains(scope)).cloned().collect()
}

/// Only for unit tests: the product's defaults are in `config/defaults/`.
#[cfg(test)]
impl Default for Policy {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            warning_window: 7 * DAY,
            thresholds: vec![7 * DAY, 3 * DAY, DAY],
            renewal: RenewalPolicy { enabled: true, min_age: DAY, window: 30 * DAY },
            event_retention: 90 * DAY,
            required_scopes: Vec::new(),
            optional_scopes: Vec::new(),
            guide: Guide::SILENT,
        }
    }
}
