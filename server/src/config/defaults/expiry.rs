//! When tokens count as expiring, when they are renewed, and how long events are kept, by default.

use crate::config::declare::{setting, settings};
use crate::config::values::{Length, List, Switch};

settings! {
    ["expiry"] {
        /// How long before its end a token counts as expiring.
        WARNING_WINDOW: Length = setting("expiry.warning_window", Length("1h", "60d")).default("7d");
        /// How long before a token's end each warning is announced.
        THRESHOLDS: List<Length> = setting("expiry.thresholds", List {
            each: Length("1m", "60d"),
            plural: "different lengths of time, each from 1m to 60d",
            most: Some(10),
        }).entries(&["7d", "3d", "1d"]);
    }

    ["events"] {
        /// How long events are kept.
        EVENT_RETENTION: Length = setting("events.retention", Length("1h", "3650d")).default("90d");
    }

    ["rotation"] {
        /// Whether the vault renews tokens.
        ROTATION_ENABLED: Switch = setting("rotation.enabled", Switch).default("true");
        /// Younger tokens are not renewed.
        ROTATION_MIN_AGE: Length = setting("rotation.min_age", Length("1m", "60d")).default("24h");
        /// How long before a token's end the vault begins to renew it.
        ROTATION_WINDOW: Length = setting("rotation.window", Length("1h", "60d")).default("30d");
    }
}
