//! The connection that a request names, and whether its caller may see it.

use crate::model::{Connection, ConnectionId, Principal, WorkspaceId};
use crate::vault::error::VaultError;
use crate::vault::state::Vault;

/// Names one connection, and the workspace that the caller believes it in.
#[derive(Debug, Clone)]
pub struct Target {
    /// The connection.
    pub connection: ConnectionId,
    /// If given, must be its workspace.
    pub workspace: Option<WorkspaceId>,
}

impl Vault {
    /// The connection that a caller names, if it may see it; one of another tenant is as one that does not exist.
    pub(in crate::vault) fn admit(
        caller: &Principal,
        target: &Target,
        connection: &Connection,
    ) -> Result<(), VaultError> {
        let named = target.workspace.as_ref().is_none_or(|workspace| *workspace == connection.workspace);
        if named && caller.workspaces.contains(&connection.workspace) {
            Ok(())
        } else {
            Err(VaultError::ConnectionNotFound(target.connection))
        }
    }
}
