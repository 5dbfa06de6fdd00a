//! Reads a log. Nothing here is a proof: [`verify`](super::verify()) is.

use std::collections::BTreeSet;
use std::io;

use super::chain::Line;
use super::files::FileSet;
use super::reading::Log;
use crate::model::AuditRecord;

/// Which records. An unset field asks for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// The connection's id.
    pub connection: Option<String>,
    /// The workspace's id.
    pub workspace: Option<String>,
    /// The principal's name.
    pub principal: Option<String>,
    /// The RPC's name, whole or its last part.
    pub rpc: Option<String>,
    /// The gRPC code or the reason.
    pub outcome: Option<String>,
    /// From this moment, as records write it.
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

/// The records of these logs that are asked for, by time. One that a crash made the vault write twice comes once.
///
/// # Errors
/// A file can't be read.
pub fn search(sets: &[FileSet], query: &Query) -> io::Result<Vec<AuditRecord>> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for set in sets {
        let mut log = Log::open(set)?;
        while let Some(place) = log.next_line()? {
            let Some(line) = Line::read_unchecked(&place.bytes) else { continue };
            if query.wants(&line.record) && seen.insert(line.record.id) {
                found.push(line.record);
            }
        }
    }
    found.sort_by(|a, b| a.at.cmp(&b.at));
    Ok(found)
}
