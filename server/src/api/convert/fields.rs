//! Gathers every field that breaks its rule, so that a caller sees all of them at once.

use prost_types::{Duration as PbDuration, Timestamp as PbTimestamp};

use super::time::{parse_instant, parse_length};
use crate::model::{BadValue, ConnectionId, RequestId, Timestamp, TokenVersion, WorkspaceId};
use crate::vault::{FieldViolation, Target, VaultError};

/// Page size when none is asked for.
const PAGE: u32 = 50;
/// The largest page.
const LARGEST_PAGE: u32 = 1_000;
/// Longest page token, in bytes.
const PAGE_TOKEN: usize = 4 * 1024;

/// The violations so far.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<FieldViolation>);

impl Fields {
    /// Notes that `field` breaks `rule`.
    pub(super) fn violated(&mut self, field: impl Into<String>, rule: impl ToString) {
        self.0.push(FieldViolation::new(field, rule));
    }

    /// The value, or a note.
    pub(super) fn keep<T>(&mut self, field: &str, parsed: Result<T, BadValue>) -> Option<T> {
        parsed.map_err(|bad| self.violated(field, bad)).ok()
    }

    /// A text of at least one character and at most `most`, with no control characters.
    pub(super) fn text(&mut self, field: &str, text: Option<String>, most: usize) -> Option<String> {
        let text = text?;
        let good = !text.is_empty() && text.chars().count() <= most && !text.chars().any(char::is_control);
        if good {
            Some(text)
        } else {
            self.violated(field, format!("must be 1 to {most} printable characters"));
            None
        }
    }

    /// Says when `condition` holds.
    pub(super) fn refuse_if(&mut self, condition: bool, field: &str, rule: &str) {
        if condition {
            self.violated(field, rule);
        }
    }

    /// The idempotency key; empty means none.
    pub(super) fn request_id(&mut self, text: String) -> Option<RequestId> {
        if text.is_empty() { None } else { self.keep("request_id", RequestId::parse(text)) }
    }

    /// The version that must be held.
    pub(super) fn version(&mut self, field: &str, version: Option<i32>) -> Option<TokenVersion> {
        version.and_then(|version| self.keep(field, TokenVersion::new(version)))
    }

    /// A workspace.
    pub(super) fn workspace(&mut self, field: &str, text: String) -> Option<WorkspaceId> {
        self.keep(field, WorkspaceId::parse(text))
    }

    /// A connection.
    pub(super) fn connection(&mut self, text: &str) -> Option<ConnectionId> {
        self.keep("connection_id", ConnectionId::parse(text))
    }

    /// A connection and the workspace it must be in.
    pub(super) fn target(&mut self, connection: &str, workspace: Option<String>) -> Option<Target> {
        let connection = self.connection(connection);
        let workspace = workspace.and_then(|text| self.workspace("workspace_id", text));
        connection.map(|connection| Target { connection, workspace })
    }

    /// A length of time; unset means none.
    pub(super) fn length(&mut self, field: &str, length: Option<PbDuration>) -> Option<std::time::Duration> {
        length.and_then(|length| self.keep(field, parse_length(length)))
    }

    /// An instant; unset means none.
    pub(super) fn instant(&mut self, field: &str, at: Option<PbTimestamp>) -> Option<Timestamp> {
        at.and_then(|at| self.keep(field, parse_instant(at)))
    }

    /// The number of items on a page.
    pub(super) fn page_size(&mut self, size: i32) -> u32 {
        match u32::try_from(size) {
            Ok(0) => PAGE,
            Ok(size) if size <= LARGEST_PAGE => size,
            _ => {
                self.violated("page_size", format!("must be 0 to {LARGEST_PAGE}"));
                PAGE
            }
        }
    }

    /// Where a listing goes on; empty at its start.
    pub(super) fn page_token(&mut self, token: String) -> String {
        self.refuse_if(token.len() > PAGE_TOKEN, "page_token", "must be at most 4096 characters");
        token
    }

    /// Fails if anything was noted.
    pub(super) fn check(self) -> Result<(), VaultError> {
        if self.0.is_empty() { Ok(()) } else { Err(VaultError::Fields(self.0)) }
    }

    /// The value if nothing was noted. A missing value without a note is a bug.
    pub(super) fn finish<T>(self, value: Option<T>) -> Result<T, VaultError> {
        self.check()?;
        value.ok_or(VaultError::Internal)
    }
}
