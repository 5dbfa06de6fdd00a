//! Ends watches whose credential no longer allows them.

use crate::model::Principal;
use crate::vault::error::VaultError;
use crate::vault::state::Vault;

impl Vault {
    /// Checks each credential that is used for watching, once for all its watchers, and ends the watches that it no
    /// longer allows. Called several times a second: a watch must end within a second of its permission.
    pub async fn check_watchers(&self) {
        for watchers in self.feed.seats.by_credential() {
            if watchers.has_ended() {
                continue;
            }
            if let Err(error) = self.still_allowed(&watchers.principal).await {
                watchers.end(error);
            }
        }
    }

    /// Whether a credential still allows what it allowed when its first watcher began.
    async fn still_allowed(&self, caller: &Principal) -> Result<(), VaultError> {
        let Some(now_allowed) = self.principal_of(&caller.credential).await? else { return Ok(()) };
        if now_allowed.role == caller.role && now_allowed.workspaces.covers(&caller.workspaces) {
            Ok(())
        } else {
            Err(VaultError::ApiKeyInvalid)
        }
    }
}
