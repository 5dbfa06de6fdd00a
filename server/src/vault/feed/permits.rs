//! What watchers live by: their callers' credentials, and the places that there are. One look per credential, however
//! many watch with it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::watch;

use crate::model::{Credential, Principal};
use crate::vault::error::VaultError;
use crate::vault::state::Vault;

/// How many may watch at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchLimits {
    /// All together.
    pub total: usize,
    /// One principal, with all its keys and certificates.
    pub per_principal: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who watches, by name.
#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_principal: HashMap<String, usize>,
}

/// One of the places; free again when dropped.
struct Place {
    taken: Arc<Mutex<Taken>>,
    principal: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.total = taken.total.saturating_sub(1);
        if let Some(count) = taken.by_principal.get_mut(&self.principal) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.by_principal.remove(&self.principal);
            }
        }
    }
}

/// A credential with watchers on it: what it allowed when the first of them came, and why it does not any more. It holds
/// its watchers' places, so that they are free as soon as it ends: a watcher whose caller reads nothing notices late.
pub(in crate::vault) struct Permit {
    principal: Principal,
    ended: watch::Sender<Option<VaultError>>,
    places: Mutex<HashMap<u64, Place>>,
}

impl Permit {
    fn end(&self, why: VaultError) {
        self.ended.send_replace(Some(why));
        // Dropped outside of the lock.
        let places = std::mem::take(&mut *lock(&self.places));
        drop(places);
    }
}

/// A watcher's share of its permit, and its place.
pub(in crate::vault) struct Seat {
    permit: Arc<Permit>,
    number: u64,
}

impl Seat {
    /// Follows the permission: an error is its end.
    pub(in crate::vault) fn follow(&self) -> watch::Receiver<Option<VaultError>> {
        self.permit.ended.subscribe()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let place = lock(&self.permit.places).remove(&self.number);
        drop(place);
    }
}

/// The credentials with watchers on them.
pub(in crate::vault) struct Permits {
    limits: WatchLimits,
    permits: Mutex<HashMap<Credential, Weak<Permit>>>,
    taken: Arc<Mutex<Taken>>,
    numbers: AtomicU64,
}

impl Permits {
    pub(in crate::vault) fn new(limits: WatchLimits) -> Self {
        Self { limits, permits: Mutex::default(), taken: Arc::default(), numbers: AtomicU64::default() }
    }

    fn take_place(&self, principal: &str) -> Result<Place, VaultError> {
        let mut taken = lock(&self.taken);
        if taken.total >= self.limits.total {
            return Err(VaultError::TooManyWatches { limit: "watches" });
        }
        let count = taken.by_principal.entry(principal.to_owned()).or_default();
        if *count >= self.limits.per_principal {
            return Err(VaultError::TooManyWatches { limit: "watches_per_principal" });
        }
        *count += 1;
        taken.total += 1;
        Ok(Place { taken: Arc::clone(&self.taken), principal: principal.to_owned() })
    }

    /// The caller's permit, shared by all who watch with the same credential and rights.
    fn of(&self, caller: &Principal) -> Arc<Permit> {
        let mut permits = lock(&self.permits);
        let known = permits.get(&caller.credential).and_then(Weak::upgrade);
        if let Some(permit) = known.filter(|p| p.principal == *caller && p.ended.borrow().is_none()) {
            return permit;
        }
        let (ended, _) = watch::channel(None);
        let permit = Arc::new(Permit { principal: caller.clone(), ended, places: Mutex::default() });
        permits.insert(caller.credential.clone(), Arc::downgrade(&permit));
        permit
    }

    /// A seat for one more watcher.
    ///
    /// # Errors
    /// `TooManyWatches`.
    pub(in crate::vault) fn sit(&self, caller: &Principal) -> Result<Seat, VaultError> {
        let place = self.take_place(&caller.name)?;
        let permit = self.of(caller);
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        {
            let mut places = lock(&permit.places);
            // A permit that ended just now holds no place; its watcher is told at once.
            if permit.ended.borrow().is_none() {
                places.insert(number, place);
            }
        }
        Ok(Seat { permit, number })
    }

    fn in_use(&self) -> Vec<Arc<Permit>> {
        let mut permits = lock(&self.permits);
        permits.retain(|_, permit| permit.strong_count() > 0);
        permits.values().filter_map(Weak::upgrade).collect()
    }
}

impl Vault {
    /// Looks at every credential that somebody watches with, and ends the watches of those that allow it no more. Called
    /// several times a second: a watch must end within a second of its permission.
    pub async fn check_watchers(&self) {
        for permit in self.permits.in_use() {
            if permit.ended.borrow().is_some() {
                continue;
            }
            if let Err(error) = self.still_allowed(&permit.principal).await {
                permit.end(error);
            }
        }
    }

    /// Whether a caller that was let in still may do what it does.
    async fn still_allowed(&self, caller: &Principal) -> Result<(), VaultError> {
        let Some(now_allowed) = self.principal_of(&caller.credential).await? else { return Ok(()) };
        if now_allowed.role == caller.role && now_allowed.workspaces.covers(&caller.workspaces) {
            Ok(())
        } else {
            Err(VaultError::ApiKeyInvalid)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ApiKeyId, Role, WorkspaceSet};

    fn principal(name: &str, key: &str) -> Principal {
        Principal {
            name: name.into(),
            credential: Credential::ApiKey(ApiKeyId::parse(key.repeat(16)).unwrap()),
            role: Role::Viewer,
            workspaces: WorkspaceSet::All,
        }
    }

    fn limit_of(refused: Result<Seat, VaultError>) -> &'static str {
        match refused {
            Err(VaultError::TooManyWatches { limit }) => limit,
            Err(other) => panic!("{other:?}"),
            Ok(_) => "none",
        }
    }

    #[test]
    fn places_are_counted_by_principal_and_in_all_and_come_back_at_once() {
        let permits = Permits::new(WatchLimits { total: 3, per_principal: 2 });
        let (ana, ana_too, bob) = (principal("ana", "a"), principal("ana", "b"), principal("bob", "c"));
        let first = permits.sit(&ana).unwrap();
        let _second = permits.sit(&ana_too).unwrap();
        assert_eq!(limit_of(permits.sit(&ana)), "watches_per_principal", "another key is no way around");
        let _third = permits.sit(&bob).unwrap();
        assert_eq!(limit_of(permits.sit(&bob)), "watches");
        drop(first);
        assert_eq!(limit_of(permits.sit(&ana)), "none");
    }

    #[test]
    fn a_permit_that_ends_frees_the_places_of_watchers_that_did_not_notice_yet() {
        let permits = Permits::new(WatchLimits { total: 9, per_principal: 1 });
        let ana = principal("ana", "a");
        let unnoticed = permits.sit(&ana).unwrap();
        permits.of(&ana).end(VaultError::ApiKeyInvalid);
        let next = permits.sit(&principal("ana", "b")).unwrap();
        drop(unnoticed);
        assert_eq!(limit_of(permits.sit(&ana)), "watches_per_principal", "no place comes back twice");
        drop(next);
        assert_eq!(limit_of(permits.sit(&ana)), "none");
    }
}
