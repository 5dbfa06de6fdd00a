//! Usage headers, parsed and kept.

use crate::model::Timestamp;
use std::time::Duration;

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
pub struct UsageBook {}
