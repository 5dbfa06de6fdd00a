//! Where audit records go by default, and how they are kept.

use super::FILE;
use crate::audit::SyncMode;
use crate::config::declare::{setting, settings};
use crate::config::values::{Checked, Choice, FilePath, Number};

settings! {
    ["audit"] {
        /// Where the audit log goes.
        AUDIT_SINK: Choice<AuditSink> = setting("audit.sink", AUDIT_SINKS).default("file");
        /// The file, with the sink `file`.
        AUDIT_FILE: FilePath = setting("audit.file", FILE)
            .unset("data folder + `/audit.jsonl`; a second replica there takes `audit-2.jsonl`", "\"/var/log/token-vault/audit.jsonl\"");
        /// When a record is on the disk: `soon` is within 100 ms, `always` is before the caller's response.
        AUDIT_SYNC: Choice<SyncMode> = setting("audit.sync", SYNC_MODES).default("soon");
        /// A file that would grow past this many bytes is renamed, and a new one begun.
        AUDIT_MAX_BYTES: Number<u64> = setting("audit.max_bytes", Number(4_096, 1_099_511_627_776)).default("67108864");
        /// How many renamed files are kept.
        AUDIT_KEEP: Checked<Option<usize>> = setting("audit.keep", Checked {
            allowed: "all, or a number of files from 1 to 1000000",
            such_as: "",
            parse: files_to_keep,
        }).default("all");
    }
}

/// The sinks by name; `audit.rs` adds the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum AuditSink {
    File,
    Stdout,
    Off,
}

const AUDIT_SINKS: Choice<AuditSink> =
    Choice(&[("file", AuditSink::File), ("stdout", AuditSink::Stdout), ("off", AuditSink::Off)]);

const SYNC_MODES: Choice<SyncMode> = Choice(&[("soon", SyncMode::Soon), ("always", SyncMode::Always)]);

fn files_to_keep(text: &str) -> Option<Option<usize>> {
    match text {
        "all" => Some(None),
        _ => text.parse().ok().filter(|files| (1..=1_000_000).contains(files)).map(Some),
    }
}
