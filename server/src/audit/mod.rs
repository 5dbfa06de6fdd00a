//! The audit log: who got which secret, who changed what, and who was turned away. Hash-chained JSON lines in a
//! file or on stdout.
//!
//! [`Audit`] is the sink: one thread writes, many callers share one write, and who can't be written down gets
//! nothing. [`verify`] finds the first line that is not as it was written; [`search`] reads. What a record says
//! stands in `model/audit.rs`. Start with `chain.rs` (a line), then `sink.rs`.

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
    /// Into this file, and none other.
    File(PathBuf),
    /// Into the first file of this folder that no other process writes: `audit.jsonl`, `audit-2.jsonl` …
    Folder(PathBuf),
    /// To stdout, one line each.
    Stdout,
    /// Nowhere: nothing is recorded.
    Off,
}

/// When a record is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncMode {
    /// Within 100 ms.
    Soon,
    /// Before the answer.
    Always,
}

/// What an operator decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditConfig {
    /// Where to.
    pub sink: SinkConfig,
    /// How safe before the answer.
    pub sync: SyncMode,
    /// A file that would grow beyond this is put aside and another begun.
    pub max_bytes: u64,
    /// So many files that were put aside are kept; none means all.
    pub keep: Option<usize>,
}

/// The sink does not take a record, or not in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit log can't be written")]
pub struct AuditUnavailable;

/// Why the log can't be opened. The text names the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AuditOpenError(pub String);
