//! Finds the first line of a log that is not as it was written, and what was done to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use uuid::Uuid;

use super::chain::{Head, Line, Link, torn_mac};
use super::files::FileSet;
use super::reading::{Log, RawLine};
use crate::crypto::MacKey;
use crate::model::AuditKind;

/// What the database knows about a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// How far it had come at most a second before the database was last written.
    pub head: Head,
    /// The name of the log that it is in.
    pub log: String,
    /// Records up to this number were deleted with old files.
    pub dropped_to: u64,
}

/// What was done to a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(const_into_str, serialize_all = "lowercase")]
pub enum Damage {
    /// A line differs from what was written.
    Edited,
    /// Lines before this one are missing.
    Deleted,
    /// A line was added, or repeats another one.
    Inserted,
    /// Lines were reordered.
    Reordered,
    /// The end of a chain, or a whole chain, is missing.
    Truncated,
}

impl Damage {
    /// For people.
    pub const fn as_str(self) -> &'static str {
        self.into_str()
    }
}

/// The first line that is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub file: PathBuf,
    /// The line's number, from 1. If the end is missing, the last line that is there.
    pub line: usize,
    pub damage: Damage,
    /// Details for people.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.file.display(), self.line, self.damage.as_str(), self.detail)
    }
}

/// What was checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    pub files: usize,
    /// Lines that are as they were written.
    pub records: usize,
    pub chains: usize,
    /// Lines that a crash tore and the next start recorded.
    pub recovered: usize,
    /// Chains that the database knows in logs that were not checked.
    pub elsewhere: usize,
    /// The first line that is broken.
    pub finding: Option<Finding>,
}

/// How a line is looked up: by its number in a chain, or by its MAC.
enum Wanted {
    Number(Uuid, u64),
    Mac(String),
}

/// Checks logs against their MACs and the database's anchors.
///
/// # Errors
/// A file can't be read.
pub fn verify(key: &MacKey, sets: &[FileSet], anchors: &[Anchor]) -> io::Result<Report> {
    let mut report = Report::default();
    let mut ends: BTreeMap<Uuid, (Head, PathBuf, usize)> = BTreeMap::new();
    let mut names = BTreeSet::new();
    for set in sets {
        names.insert(set.name());
        let mut log = Log::open(set)?;
        report.files += log.files();
        let finding = walk(key, set, &mut log, anchors, &mut ends, &mut report)?;
        if report.finding.is_none() {
            report.finding = finding;
        }
    }
    report.chains = ends.len();
    if report.finding.is_some() {
        return Ok(report);
    }
    for anchor in anchors {
        let head = anchor.head;
        let Some((end, file, line)) = ends.get(&head.chain) else {
            if !names.contains(&anchor.log) {
                report.elsewhere += 1;
            } else if anchor.dropped_to < head.number {
                let base = sets.iter().find(|set| set.name() == anchor.log).map(|set| set.base.clone());
                report.finding = Some(Finding {
                    file: base.unwrap_or_default(),
                    line: 0,
                    damage: Damage::Truncated,
                    detail: format!(
                        "the chain {} is missing; the database knows {} records of it",
                        head.chain, head.number
                    ),
                });
                return Ok(report);
            }
            continue;
        };
        if end.number < head.number {
            report.finding = Some(Finding {
                file: file.clone(),
                line: *line,
                damage: Damage::Truncated,
                detail: format!(
                    "the chain {} ends at record {}; the database knows {}",
                    head.chain, end.number, head.number
                ),
            });
            return Ok(report);
        }
    }
    Ok(report)
}

/// Reads a log once, two neighbouring lines at a time. It reads the log again only to name what is broken.
fn walk(
    key: &MacKey,
    set: &FileSet,
    log: &mut Log,
    anchors: &[Anchor],
    ends: &mut BTreeMap<Uuid, (Head, PathBuf, usize)>,
    report: &mut Report,
) -> io::Result<Option<Finding>> {
    let mut last: Option<Link> = None;
    let read = |raw: Option<RawLine>| raw.map(|raw| (Line::read(key, &raw.bytes), raw));
    let mut coming = read(log.next_line()?);
    while let Some((line, raw)) = coming {
        coming = read(log.next_line()?);
        let next = coming.as_ref().and_then(|(next, _)| next.as_ref());
        let find = |damage, detail: String| {
            Ok(Some(Finding { file: raw.file.clone(), line: raw.line, damage, detail }))
        };
        let Some(line) = line else {
            if next.is_some_and(|next| seals(key, next, &raw.bytes)) {
                report.recovered += 1;
                continue;
            }
            if is_ready_line(&raw.bytes) {
                continue;
            }
            if coming.is_none() && !raw.ended {
                // A crash tore it; the next start records that. The anchors show whether more is missing.
                continue;
            }
            // Does this line continue its chain?
            let expected =
                next.map(|next| next.number == ends.get(&next.chain).map_or(0, |(head, ..)| head.number) + 1);
            return if expected == Some(true) {
                find(Damage::Inserted, "the vault did not write this line".into())
            } else {
                find(Damage::Edited, "this line is not what the vault wrote".into())
            };
        };
        let follows = &line.record.follows;
        if line.number == 1 && !follows.is_empty() && last.map(hex::encode).as_ref() != Some(follows) {
            // The lines before the first one that is kept were deleted with old files.
            let dropped = last.is_none()
                && anchors.iter().any(|anchor| {
                    anchor.dropped_to >= anchor.head.number && hex::encode(anchor.head.mac) == *follows
                });
            if stands(key, set, &Wanted::Mac(follows.clone()))? {
                return find(Damage::Reordered, "the line before this one was moved elsewhere".into());
            }
            if !dropped {
                return find(Damage::Deleted, "the line before this one is missing".into());
            }
        }
        last = Some(line.mac);
        let begun = ends.get(&line.chain).map(|(head, ..)| *head);
        let dropped =
            anchors.iter().find(|anchor| anchor.head.chain == line.chain).map_or(0, |a| a.dropped_to);
        let before = match begun {
            Some(head) => head,
            // This is the first line of its chain that is left: those before it were deleted with old files. Some files
            // that may be deleted may still be there.
            None if line.number > 1 && line.number <= dropped + 1 => {
                Head { chain: line.chain, number: line.number - 1, mac: line.prev }
            }
            None => Head { chain: line.chain, number: 0, mac: [0; 32] },
        };
        if line.number <= before.number {
            return find(Damage::Inserted, format!("record {} is here a second time", line.number));
        }
        if line.number > before.number + 1 {
            let wanted = before.number + 1;
            return if stands(key, set, &Wanted::Number(line.chain, wanted))? {
                find(Damage::Reordered, format!("record {wanted} comes after record {}", line.number))
            } else {
                find(
                    Damage::Deleted,
                    format!("records {wanted} to {} are missing before it", line.number - 1),
                )
            };
        }
        if line.prev != before.mac {
            return find(
                Damage::Inserted,
                format!("record {} does not continue the one before it", line.number),
            );
        }
        if let Some(anchor) =
            anchors.iter().find(|a| a.head.chain == line.chain && a.head.number == line.number)
            && anchor.head.mac != line.mac
        {
            return find(
                Damage::Edited,
                format!("record {} is not the one that the database knows", line.number),
            );
        }
        let head = Head { chain: line.chain, number: line.number, mac: line.mac };
        ends.insert(line.chain, (head, raw.file, raw.line));
        report.records += 1;
    }
    Ok(None)
}

/// Whether the log has this genuine line anywhere.
fn stands(key: &MacKey, set: &FileSet, wanted: &Wanted) -> io::Result<bool> {
    let mut log = Log::open(set)?;
    while let Some(raw) = log.next_line()? {
        let is_it = Line::read(key, &raw.bytes).is_some_and(|line| match wanted {
            Wanted::Number(chain, number) => line.chain == *chain && line.number == *number,
            Wanted::Mac(mac) => hex::encode(line.mac) == *mac,
        });
        if is_it {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The vault's own line on stdout, which may be the sink.
fn is_ready_line(bytes: &[u8]) -> bool {
    let addresses = || {
        let rest = std::str::from_utf8(bytes).ok()?.strip_prefix("token-vault ready: grpc=")?;
        rest.split_once(" admin=")
    };
    addresses().is_some_and(|(grpc, admin)| {
        grpc.parse::<SocketAddr>().is_ok() && admin.parse::<SocketAddr>().is_ok()
    })
}

fn seals(key: &MacKey, line: &Line, torn: &[u8]) -> bool {
    line.record.kind == AuditKind::Recovered
        && line.record.torn_bytes == u64::try_from(torn.len()).ok()
        && line.record.torn_mac == torn_mac(key, torn)
}
