//! Section `audit`.

use std::path::Path;

use super::reader::Reader;
use crate::audit::{AuditConfig, SinkConfig, SyncMode};

const MEBIBYTE: u64 = 1024 * 1024;

/// Reads it.
pub(super) fn read(reader: &mut Reader, data_dir: &Path) -> AuditConfig {
    let file = reader.path("audit.file");
    let kind = reader.parsed("audit.sink", "file", |text| match text {
        "file" => Ok("file"),
        "stdout" => Ok("stdout"),
        "off" => Ok("off"),
        _ => Err("must be file, stdout or off".to_owned()),
    });
    if kind == "off" {
        reader.warn("audit.sink is off: nobody will know who got which token".to_owned());
    }
    let sink = match (kind, file) {
        ("stdout", None) => SinkConfig::Stdout,
        ("off", None) => SinkConfig::Off,
        ("stdout" | "off", Some(_)) => {
            reader.mistake("audit.file", format!("is set, and audit.sink is {kind}; keep one of the two"));
            SinkConfig::Off
        }
        (_, Some(file)) => SinkConfig::File(file),
        (_, None) => SinkConfig::Folder(data_dir.to_path_buf()),
    };
    let sync = reader.parsed("audit.sync", SyncMode::Soon, |text| match text {
        "soon" => Ok(SyncMode::Soon),
        "always" => Ok(SyncMode::Always),
        _ => Err("must be soon or always".to_owned()),
    });
    let max_bytes = reader.parsed("audit.max_bytes", 64 * MEBIBYTE, |text| {
        let number = text.parse().ok().filter(|bytes| (4096..=1024 * 1024 * MEBIBYTE).contains(bytes));
        number.ok_or_else(|| "must be a number of bytes from 4096 to 1099511627776".to_owned())
    });
    let keep = reader.parsed("audit.keep", None, |text| match text {
        "all" => Ok(None),
        _ => text
            .parse()
            .ok()
            .filter(|files| (1..=1_000_000).contains(files))
            .map(Some)
            .ok_or_else(|| "must be all, or how many files to keep, from 1 to 1000000".to_owned()),
    });
    AuditConfig { sink, sync, max_bytes, keep }
}
