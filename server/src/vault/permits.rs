//! What watchers live by: their callers' keys. One look per key, however many watch with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::watch;

use super::{Vault, VaultError};
use crate::model::{ApiKeyId, Principal};

/// A key with watchers on it: what it allowed when the first of them came, and why it does not any more.
pub(super) struct Permit {
    principal: Principal,
    ended: watch::Sender<Option<VaultError>>,
}

impl Permit {
    /// Follows the permission: an error is its end.
    pub(super) fn follow(&self) -> watch::Receiver<Option<VaultError>> {
        self.ended.subscribe()
    }
}

/// The keys with watchers on them.
#[derive(Default)]
pub(super) struct Permits(Mutex<HashMap<ApiKeyId, Weak<Permit>>>);

impl Permits {
    /// The caller's permit, shared by all who watch with the same key and rights.
    fn of(&self, caller: &Principal) -> Arc<Permit> {
        let mut permits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = permits.get(&caller.key_id).and_then(Weak::upgrade);
        if let Some(permit) = known.filter(|p| p.principal == *caller && p.ended.borrow().is_none()) {
            return permit;
        }
        let (ended, _) = watch::channel(None);
        let permit = Arc::new(Permit { principal: caller.clone(), ended });
        permits.insert(caller.key_id.clone(), Arc::downgrade(&permit));
        permit
    }

    fn in_use(&self) -> Vec<Arc<Permit>> {
        let mut permits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        permits.retain(|_, permit| permit.strong_count() > 0);
        permits.values().filter_map(Weak::upgrade).collect()
    }
}

impl Vault {
    pub(super) fn permit(&self, caller: &Principal) -> Arc<Permit> {
        self.permits.of(caller)
    }

    /// Looks at every key that somebody watches with, and ends the watches of those that allow it no more. Called
    /// several times a second: a watch must end within a second of its permission.
    pub async fn check_watchers(&self) {
        for permit in self.permits.in_use() {
            if permit.ended.borrow().is_some() {
                continue;
            }
            if let Err(error) = self.still_allowed(&permit.principal).await {
                permit.ended.send_replace(Some(error));
            }
        }
    }

    /// Whether a caller that was let in still may do what it does.
    async fn still_allowed(&self, caller: &Principal) -> Result<(), VaultError> {
        let now_allowed = self.principal_of(&caller.key_id).await?;
        if now_allowed.role == caller.role && now_allowed.workspaces.covers(&caller.workspaces) {
            Ok(())
        } else {
            Err(VaultError::ApiKeyInvalid)
        }
    }
}
