//! Authentication of callers, and the API keys that admins manage.

pub(super) mod api_key_rotation;
pub(super) mod api_key_row;
pub(super) mod api_keys;
pub(super) mod authenticate;
pub(in crate::vault) mod connect_links;

use crate::model::Principal;
use crate::vault::error::VaultError;

/// Denies callers that may not act in all workspaces. For whatever belongs to no workspace, or to all of them.
pub(super) fn require_all_workspaces(caller: &Principal) -> Result<(), VaultError> {
    if caller.reaches_all_workspaces() {
        Ok(())
    } else {
        Err(VaultError::RoleInsufficient { role: caller.role })
    }
}
