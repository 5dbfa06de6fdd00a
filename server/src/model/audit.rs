//! Audit records: who did what, when, to which object, and how it ended. They hold ids only: no secret, and no name
//! or address of a person.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Role, Timestamp, WorkspaceSet};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditKind {
    /// A secret left the vault.
    HandedOut,
    Changed,
    /// A call that can change something ended without a change.
    Unchanged,
    /// A call was denied.
    Refused,
    /// A chain begins: a process started.
    Opened,
    /// A chain begins, and covers a line that a crash left incomplete.
    Recovered,
    /// The chain continues in another file.
    Continued,
    /// The log can be written again after a failure.
    Resumed,
    /// The process shut down cleanly; the chain is complete.
    Closed,
}

/// Empty texts and absent numbers are not written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Unique, so that a record which was written twice because of a crash is recognised.
    pub id: Uuid,
    /// RFC 3339, in UTC.
    pub at: String,
    pub kind: AuditKind,
    /// The principal's name, or `system:<job>`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub principal: String,
    /// The id of the key, or the name of the certificate or token.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub credential: String,
    /// `tokenvault.v1.TokenVault/StoreToken`, or the job's name for what the vault does by itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rpc: String,
    /// As in logs and in the metadata of the response.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub call_id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub workspace: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub connection: String,
    /// The token's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i32>,
    /// The id of the connect link that the caller acts for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub link: String,
    /// What else it is about: `api_key:…`, `subscription:…`, `job_run:…`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub object: String,
    /// What the API key permits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grants: Option<Grants>,
    /// The gRPC code: `OK`, `PERMISSION_DENIED` …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub code: String,
    /// The reason of the denial: `ROLE_INSUFFICIENT` …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The caller's own id of the request.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// The caller's address and port.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub peer: String,
    /// How many more records like this one were not written, to save disk space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppressed: Option<u64>,
    /// Length of an incomplete line, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub torn_bytes: Option<u64>,
    /// The MAC of an incomplete line's bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub torn_mac: String,
    /// In a chain's first record: the MAC of the last line before it, which belongs to another chain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub follows: String,
    /// In a file's first record: the name of the file that it continues.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub continues: String,
}

/// What an API key permits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    pub principal: String,
    pub role: String,
    /// Absent: all workspaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspaces: Option<Vec<String>>,
    /// RFC 3339, in UTC; absent: the key does not expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// The id of the key that replaces it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<String>,
}

impl Grants {
    pub fn new(principal: &str, role: Role, workspaces: &WorkspaceSet, end: Option<Timestamp>) -> Self {
        Self {
            principal: principal.to_owned(),
            role: role.as_str().to_owned(),
            replaced_by: None,
            workspaces: match workspaces {
                WorkspaceSet::All => None,
                WorkspaceSet::Named(named) => Some(named.iter().map(ToString::to_string).collect()),
            },
            expires_at: end.map(|end| end.to_string()),
        }
    }
}

impl AuditRecord {
    /// A record with nothing else in it yet.
    pub fn new(kind: AuditKind, at: Timestamp) -> Self {
        Self {
            id: Uuid::new_v4(),
            // Always the same number of digits, so that texts sort like instants.
            at: format!("{at:.6}"),
            kind,
            principal: String::new(),
            credential: String::new(),
            rpc: String::new(),
            call_id: String::new(),
            workspace: String::new(),
            connection: String::new(),
            version: None,
            link: String::new(),
            object: String::new(),
            grants: None,
            code: String::new(),
            reason: String::new(),
            request_id: String::new(),
            peer: String::new(),
            suppressed: None,
            torn_bytes: None,
            torn_mac: String::new(),
            follows: String::new(),
            continues: String::new(),
        }
    }
}
