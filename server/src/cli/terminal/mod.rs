//! What commands write: lines on stdout and stderr, tables, colours, times, and how wide all of it may be.

pub(super) mod paint;
pub(super) mod program;
pub(super) mod screen;
pub(super) mod table;
pub(super) mod time;

use std::io::{self, Write};

/// One line on stdout.
pub(super) fn say(line: impl std::fmt::Display) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{line}").map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Unread.into(),
        _ => anyhow::Error::from(error).context("cannot write to stdout"),
    })
}

/// One line on stderr, so that stdout holds only what the command was asked for.
pub(super) fn note(line: impl std::fmt::Display) {
    // When stderr is closed there is nowhere left to report it.
    let _ = writeln!(io::stderr(), "{line}");
}

/// The end of an id, which tells ids apart: the beginning is the time at which each was made.
pub(super) fn id_end(id: &str) -> String {
    const END: usize = 8;
    match id.char_indices().rev().nth(END - 1) {
        Some((at, _)) if at > 0 && uuid::Uuid::parse_str(id).is_ok() => {
            format!("…{}", id.get(at..).unwrap_or(id))
        }
        _ => id.to_owned(),
    }
}

/// "1 file", "2 files".
pub(super) fn counted(count: impl TryInto<u64>, what: &str) -> String {
    let count = count.try_into().unwrap_or(0);
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The reader of stdout has gone, as `head` does when it has enough. This is no failure: the command ends.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads stdout any more")]
pub(super) struct Unread;
