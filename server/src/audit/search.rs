//! Searches a log. What it finds may be forged: only [`verify`](super::verify()) checks that.

use std::collections::BTreeSet;
use std::io;

use super::chain::Line;
use super::files::FileSet;
use super::reading::Log;
use crate::model::AuditRecord;

/// Which records to find. An unset field matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    pub connection: Option<String>,
    pub workspace: Option<String>,
    pub principal: Option<String>,
    /// The RPC's full name or its last part.
    pub rpc: Option<String>,
    /// The gRPC code or the reason.
    pub outcome: Option<String>,
    /// From this moment on, in the format of records.
    pub since: Option<String>,
    /// Before this moment.
    pub until: Option<String>,
}

impl Query {
    fn wants(&self, record: &AuditRecord) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        same(&self.connection, &record.connection)
            && same(&self.workspace, &record.workspace)
            && same(&self.principal, &record.principal)
            && self.rpc.as_deref().is_none_or(|rpc| {
                record.rpc == rpc || record.rpc.rsplit('/').next().is_some_and(|last| last == rpc)
            })
            && self
                .outcome
                .as_deref()
                .is_none_or(|outcome| record.code == outcome || record.reason == outcome)
            && self.since.as_deref().is_none_or(|since| record.at.as_str() >= since)
            && self.until.as_deref().is_none_or(|until| record.at.as_str() < until)
    }
}

/// The matching records of these logs, by time. A record that the vault wrote twice because of a crash appears once.
///
/// # Errors
/// A file can't be read.
pub fn search(sets: &[FileSet], query: &Query) -> io::Result<Vec<AuditRecord>> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for set in sets {
        let mut log = Log::open(set)?;
        while let Some(raw) = log.next_line()? {
            let Some(line) = Line::read_unchecked(&raw.bytes) else { continue };
            if query.wants(&line.record) && seen.insert(line.record.id) {
                found.push(line.record);
            }
        }
    }
    found.sort_by(|a, b| a.at.cmp(&b.at));
    Ok(found)
}
