//! The audit log: who got which secret, who changed what, and who was denied. Hash-chained JSON lines in a file or on
//! stdout.
//!
//! [`Audit`] is the sink: one thread writes, many callers share one write, and a call that can't be recorded gets
//! nothing. [`verify`] finds the first line that is not as it was written; [`search`] reads. A record's fields stand
//! in `model/audit.rs`. Start with `chain.rs` (a line), then `sink.rs` and `writer.rs`.

mod chain;
mod files;
mod log_file;
mod progress;
mod reading;
mod search;
mod sink;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

use std::path::PathBuf;

pub use chain::{Head, Line, Link};
pub use files::{FileSet, file_sets};
pub use progress::Surplus;
pub use search::{Query, search};
pub use sink::Audit;
pub use verify::{Anchor, Damage, Finding, Report, verify};

/// Where records go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkConfig {
    /// Into this file.
    File(PathBuf),
    /// Into the first file of this folder that no other process writes: `audit.jsonl`, `audit-2.jsonl` …
    Folder(PathBuf),
    /// To stdout.
    Stdout,
    /// Nowhere: nothing is recorded.
    Off,
}

/// When a record is flushed to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncMode {
    /// Within 100 ms.
    Soon,
    /// Before the response.
    Always,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditConfig {
    pub sink: SinkConfig,
    pub sync: SyncMode,
    /// A file that would grow beyond this is put aside, and another is begun.
    pub max_bytes: u64,
    /// How many files that were put aside are kept; `None` keeps all.
    pub keep: Option<usize>,
}

/// The sink did not write a record, or not in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit log can't be written")]
pub struct AuditUnavailable;

/// Why the log can't be opened. The text for the operator names the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AuditOpenError(pub String);
