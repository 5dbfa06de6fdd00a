//! Keys and workspaces: what can be asked of them and what they answer.

use crate::model::{RequestId, WorkspaceId};
pub use crate::store::WorkspaceFacts;

/// Which key to rotate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyToRotate {
    /// The newest master key becomes the active one.
    Master,
    /// A workspace gets a new data key.
    Workspace(WorkspaceId),
}

/// Begins the rotation of a key.
#[derive(Debug, Clone)]
pub struct RotateKey {
    /// Idempotency key.
    pub request_id: Option<RequestId>,
    /// Which.
    pub key: KeyToRotate,
}

/// One master key that this process holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterKeyState {
    /// Names it.
    pub id: String,
    /// It wraps new keys.
    pub active: bool,
    /// How many keys it wraps now.
    pub keys: i64,
}

/// Destroys a workspace's keys.
#[derive(Debug, Clone)]
pub struct ShredWorkspace {
    /// Idempotency key.
    pub request_id: Option<RequestId>,
    /// Which.
    pub workspace: WorkspaceId,
    /// The same once more.
    pub confirm: String,
    /// End its tokens at the provider first.
    pub revoke_at_provider: bool,
}

/// Answer of shredding.
#[derive(Debug, Clone)]
pub struct Shredded {
    /// The workspace as it is now.
    pub workspace: WorkspaceFacts,
    /// Connections that were not ended before.
    pub connections: i64,
}

/// Which workspaces, by id.
#[derive(Debug, Clone, Default)]
pub struct ListWorkspaces {
    /// How many at most; 1 to 1000.
    pub page_size: u32,
    /// Where to go on; empty at the start.
    pub page_token: String,
}

/// One page of workspaces.
#[derive(Debug)]
pub struct WorkspacePage {
    /// The workspaces.
    pub workspaces: Vec<WorkspaceFacts>,
    /// Where the next page starts; empty on the last.
    pub next_page_token: String,
}
