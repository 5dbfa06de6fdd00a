//! What an audit record says: who did what, when, to which thing, and how it ended. Ids only: no secret, no name
//! of a person, no address of one has a place here.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Role, Timestamp, WorkspaceSet};

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditKind {
    /// A secret left the vault.
    HandedOut,
    /// Something changed.
    Changed,
    /// A call that may change something ended, and nothing was changed.
    Unchanged,
    /// A caller was turned away.
    Refused,
    /// A chain begins: a process started.
    Opened,
    /// A chain begins, and seals a line that a crash tore.
    Recovered,
    /// The chain goes on in another file.
    Continued,
    /// The sink works again after it failed.
    Resumed,
    /// The process ended in order; the chain is complete.
    Closed,
}

/// One record. Empty texts and absent numbers are not written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Unique; a record that a crash made the vault write twice is known by it.
    pub id: Uuid,
    /// When, as RFC 3339 in UTC.
    pub at: String,
    /// What about.
    pub kind: AuditKind,
    /// Who: the principal's name, or `system:<job>`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub principal: String,
    /// With which key, by its id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub credential: String,
    /// What: the RPC as `tokenvault.v1.TokenVault/StoreToken`; a job's name for what the vault does by itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rpc: String,
    /// The call, as in logs and in the answer's metadata.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub call_id: String,
    /// In which workspace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub workspace: String,
    /// Which connection.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub connection: String,
    /// Which version of its token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i32>,
    /// What else, by its id: `api_key:…`, `subscription:…`, `job_run:…`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub object: String,
    /// Of an API key: what it lets its holder do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grants: Option<Grants>,
    /// The gRPC code: `OK`, `PERMISSION_DENIED` …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub code: String,
    /// The refusal's reason: `ROLE_INSUFFICIENT` …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The caller's own id of its request.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// From where: address and port.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub peer: String,
    /// How many more like it were not written, to spare the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppressed: Option<u64>,
    /// Of a torn line: its length in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub torn_bytes: Option<u64>,
    /// Of a torn line: the MAC of its bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub torn_mac: String,
    /// Of a chain's first record: the MAC of the line that stood last before it, of another chain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub follows: String,
    /// Of a file that goes on another: the other's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub continues: String,
}

/// What an API key lets its holder do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// As whom its holder calls.
    pub principal: String,
    /// In which role.
    pub role: String,
    /// In which workspaces; absent: in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspaces: Option<Vec<String>>,
    /// Until when, as RFC 3339 in UTC; absent: until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// The id of the key that stands in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<String>,
}

impl Grants {
    /// As they are written.
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
    /// A record of that kind, at that moment, with nothing else in it yet.
    pub fn new(kind: AuditKind, at: Timestamp) -> Self {
        Self {
            id: Uuid::new_v4(),
            // As many digits always: texts sort as moments do.
            at: format!("{at:.6}"),
            kind,
            principal: String::new(),
            credential: String::new(),
            rpc: String::new(),
            call_id: String::new(),
            workspace: String::new(),
            connection: String::new(),
            version: None,
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
