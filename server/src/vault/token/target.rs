//! The connection that a request names, and whether its caller may see it.

use std::sync::Arc;

use crate::model::{Connection, ConnectionId, Principal, WorkspaceId};
use crate::store::{HeldToken, Origin};
use crate::vault::error::VaultError;
use crate::vault::state::Vault;

/// Names one connection.
#[derive(Debug, Clone)]
pub struct Target {
    pub connection: ConnectionId,
    /// If given, the connection must be in this workspace.
    pub workspace: Option<WorkspaceId>,
}

impl Vault {
    /// Whether the caller may see the connection. To another tenant, it does not exist.
    pub(in crate::vault) fn admit(
        caller: &Principal,
        target: &Target,
        connection: &Connection,
    ) -> Result<(), VaultError> {
        let named = target.workspace.as_ref().is_none_or(|workspace| *workspace == connection.workspace);
        if named && caller.reaches(connection) {
            Ok(())
        } else {
            Err(VaultError::ConnectionNotFound(target.connection))
        }
    }

    /// The connection with its sealed secret, if the caller may see it. The row may come from the cache.
    pub(in crate::vault) async fn held(
        &self,
        caller: &Principal,
        target: &Target,
    ) -> Result<Arc<HeldToken>, VaultError> {
        let held = self
            .store
            .held_token(target.connection)
            .await?
            .ok_or(VaultError::ConnectionNotFound(target.connection))?;
        Self::admit(caller, target, &held.connection)?;
        Origin::note_subject(&held.connection);
        Ok(held)
    }

    /// [`Self::held`], but always from the database: a compare-and-set needs the newest row.
    pub(in crate::vault) async fn held_now(
        &self,
        caller: &Principal,
        target: &Target,
    ) -> Result<HeldToken, VaultError> {
        let held = self
            .store
            .read()
            .await?
            .held_token(target.connection)
            .await?
            .ok_or(VaultError::ConnectionNotFound(target.connection))?;
        Self::admit(caller, target, &held.connection)?;
        Origin::note_subject(&held.connection);
        Ok(held)
    }

    /// The connection of a repeated request, if its caller may still see it.
    pub(in crate::vault) async fn seen_again(
        &self,
        caller: &Principal,
        id: ConnectionId,
    ) -> Result<Connection, VaultError> {
        let target = Target { connection: id, workspace: None };
        Ok(self.held_now(caller, &target).await?.connection)
    }
}
