//! Section `audit`.

use std::path::Path;

use crate::audit::{AuditConfig, SinkConfig};
use crate::config::defaults::{AUDIT_FILE, AUDIT_KEEP, AUDIT_MAX_BYTES, AUDIT_SINK, AUDIT_SYNC, AuditSink};
use crate::config::reader::Reader;

pub(in crate::config) fn read(reader: &mut Reader, data_dir: &Path) -> AuditConfig {
    let file = reader.find(&AUDIT_FILE);
    let kind = reader.get(&AUDIT_SINK);
    if kind == AuditSink::Off {
        reader.warn("audit.sink is off: there is no record of who was given which token".to_owned());
    }
    if kind != AuditSink::File && file.is_some() {
        reader.mistake(AUDIT_FILE.name, "is of no use unless audit.sink is file");
    }
    let sink = match (kind, file) {
        (AuditSink::Stdout, _) => SinkConfig::Stdout,
        (AuditSink::Off, _) => SinkConfig::Off,
        (AuditSink::File, Some(file)) => SinkConfig::File(file),
        (AuditSink::File, None) => SinkConfig::Folder(data_dir.to_path_buf()),
    };
    AuditConfig {
        sink,
        sync: reader.get(&AUDIT_SYNC),
        max_bytes: reader.get(&AUDIT_MAX_BYTES),
        keep: reader.get(&AUDIT_KEEP),
    }
}
