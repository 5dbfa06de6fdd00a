//! What is logged by default.

use crate::config::declare::{setting, settings};
use crate::config::values::{Choice, LogLevel};
use crate::telemetry::LogFormat;

settings! {
    /// Log lines go to stderr. Libraries log at `info` at most, since their finer lines may hold secrets.
    ["log"] {
        /// How much is logged. Parts that a list does not name are logged at the level that stands alone in it, or at
        /// `info`. A part, but not everything, may also be `off`.
        LOG_LEVEL: LogLevel = setting("log.level", LogLevel).default("info");
        /// The form of log lines; `auto` is text in a terminal and JSON elsewhere.
        LOG_FORMAT: Choice<LogFormat> = setting("log.format", LOG_FORMATS).default("auto");
    }
}

const LOG_FORMATS: Choice<LogFormat> =
    Choice(&[("auto", LogFormat::Auto), ("json", LogFormat::Json), ("text", LogFormat::Text)]);
