//! Collects every field that breaks its rule, so that a caller sees all of them at once.

use prost_types::{Duration as PbDuration, Timestamp as PbTimestamp};

use super::time::{parse_instant, parse_length};
use crate::model::{BadValue, ConnectionId, RequestId, Timestamp, TokenVersion, WorkspaceId};
use crate::vault::{FieldViolation, Target, VaultError};

/// The page size when the request names none.
const PAGE: u32 = 50;
const LARGEST_PAGE: u32 = 1_000;
/// Longest page token, in bytes.
const PAGE_TOKEN: usize = 4 * 1024;

#[derive(Debug, Default)]
pub(super) struct Fields(Vec<FieldViolation>);

impl Fields {
    pub(super) fn violated(&mut self, field: impl Into<String>, rule: impl ToString) {
        self.0.push(FieldViolation::new(field, rule));
    }

    /// The parsed value; `None` and a violation if it is bad.
    pub(super) fn keep<T>(&mut self, field: &str, parsed: Result<T, BadValue>) -> Option<T> {
        parsed.map_err(|bad| self.violated(field, bad)).ok()
    }

    /// A text of 1 to `most` characters, none of them a control character.
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

    /// Adds a violation if `condition` holds.
    pub(super) fn reject_if(&mut self, condition: bool, field: &str, rule: &str) {
        if condition {
            self.violated(field, rule);
        }
    }

    /// The idempotency key; empty means none.
    pub(super) fn request_id(&mut self, text: String) -> Option<RequestId> {
        if text.is_empty() { None } else { self.keep("request_id", RequestId::parse(text)) }
    }

    pub(super) fn version(&mut self, field: &str, version: Option<i32>) -> Option<TokenVersion> {
        version.and_then(|version| self.keep(field, TokenVersion::new(version)))
    }

    pub(super) fn workspace(&mut self, field: &str, text: String) -> Option<WorkspaceId> {
        self.keep(field, WorkspaceId::parse(text))
    }

    pub(super) fn connection(&mut self, text: &str) -> Option<ConnectionId> {
        self.keep("connection_id", ConnectionId::parse(text))
    }

    /// A connection, and the workspace that it must be in if one is named.
    pub(super) fn target(&mut self, connection: &str, workspace: Option<String>) -> Option<Target> {
        let connection = self.connection(connection);
        let workspace = workspace.and_then(|text| self.workspace("workspace_id", text));
        connection.map(|connection| Target { connection, workspace })
    }

    /// A duration; unset means none.
    pub(super) fn length(&mut self, field: &str, length: Option<PbDuration>) -> Option<std::time::Duration> {
        length.and_then(|length| self.keep(field, parse_length(length)))
    }

    /// An instant; unset means none.
    pub(super) fn instant(&mut self, field: &str, at: Option<PbTimestamp>) -> Option<Timestamp> {
        at.and_then(|at| self.keep(field, parse_instant(at)))
    }

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

    /// The token of a listing's next page; empty for the first page.
    pub(super) fn page_token(&mut self, token: String) -> String {
        self.reject_if(token.len() > PAGE_TOKEN, "page_token", "must be at most 4096 characters");
        token
    }

    /// Fails if there is a violation.
    pub(super) fn check(self) -> Result<(), VaultError> {
        if self.0.is_empty() { Ok(()) } else { Err(VaultError::Fields(self.0)) }
    }

    /// The value if there is no violation. A missing value without a violation is a bug.
    pub(super) fn finish<T>(self, value: Option<T>) -> Result<T, VaultError> {
        self.check()?;
        value.ok_or(VaultError::Internal)
    }
}
