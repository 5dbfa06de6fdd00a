//! When jobs run by default, and how many calls they make at once.

use crate::config::declare::{setting, settings};
use crate::config::values::{Cron, Length, Number};

settings! {
    /// Cron expressions have six fields, in UTC: second, minute, hour, day of month, month, day of week. Where both
    /// kinds of days are limited, either is enough. `off` switches a job off; an expression that is never due is refused.
    ["jobs"] {
        /// When every connection is due for validation with its provider.
        META_TOKEN_EXPIRY_JOB: Cron = setting("jobs.meta_token_expiry", Cron).default("0 0 6 * * *");
        /// When the vault looks for tokens to renew.
        ROTATION_JOB: Cron = setting("jobs.rotation", Cron).default("0 * * * * *");
        /// When old events are deleted.
        EVENT_RETENTION_JOB: Cron = setting("jobs.event_retention", Cron).default("0 30 3 * * *");
        /// When data that is no longer needed is deleted.
        HOUSEKEEPING_JOB: Cron = setting("jobs.housekeeping", Cron).default("0 15 * * * *");
        /// How late work may be before an `OVERDUE` event is announced.
        OVERDUE_AFTER: Length = setting("jobs.overdue_after", Length("1s", "24h")).default("15m");
        /// Connections that are validated at once by `jobs.meta_token_expiry`, and never more than 8.
        SWEEP_CONCURRENCY: Number<usize> = setting("jobs.sweep_concurrency", Number(1, 64)).default("8");
    }
}
