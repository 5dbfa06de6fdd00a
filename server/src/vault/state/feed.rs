//! The watchers' seats: how many may watch at once, and which credentials they use.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Semaphore, watch};

use crate::model::{Credential, Principal};
use crate::vault::error::VaultError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchLimits {
    pub total: usize,
    /// The most watches of one principal, over all its keys and certificates.
    pub per_principal: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_principal: HashMap<String, usize>,
}

/// One watcher, counted until it is dropped.
struct Counted {
    taken: Arc<Mutex<Taken>>,
    principal: String,
}

impl Drop for Counted {
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

/// All watchers of one credential. They are counted here and not in their seats, so that they stop counting as soon as
/// the credential ends: a watcher whose caller does not read would notice that late.
pub struct Watchers {
    /// What the credential allowed when its first watcher began.
    pub principal: Principal,
    /// Why the credential no longer allows the watches; `None` while it does.
    ended: watch::Sender<Option<VaultError>>,
    counted: Mutex<HashMap<u64, Counted>>,
}

impl Watchers {
    pub fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    pub fn end(&self, why: VaultError) {
        self.ended.send_replace(Some(why));
        // Dropped outside of the lock.
        let counted = std::mem::take(&mut *lock(&self.counted));
        drop(counted);
    }
}

/// A watcher's seat, which it holds as long as it watches.
pub struct Seat {
    watchers: Arc<Watchers>,
    number: u64,
}

impl Seat {
    /// Becomes an error when the credential no longer allows the watch.
    pub fn permission(&self) -> watch::Receiver<Option<VaultError>> {
        self.watchers.ended.subscribe()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let counted = lock(&self.watchers.counted).remove(&self.number);
        drop(counted);
    }
}

/// The most watchers that read history from the database at once; further ones wait.
const REPLAYS: usize = 2;

pub struct Feed {
    pub seats: Seats,
    pub replays: Semaphore,
}

impl Feed {
    pub fn new(limits: WatchLimits) -> Self {
        Self { seats: Seats::new(limits), replays: Semaphore::new(REPLAYS) }
    }
}

pub struct Seats {
    limits: WatchLimits,
    watchers: Mutex<HashMap<Credential, Weak<Watchers>>>,
    taken: Arc<Mutex<Taken>>,
    numbers: AtomicU64,
}

impl Seats {
    pub fn new(limits: WatchLimits) -> Self {
        Self { limits, watchers: Mutex::default(), taken: Arc::default(), numbers: AtomicU64::default() }
    }

    fn count(&self, principal: &str) -> Result<Counted, VaultError> {
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
        Ok(Counted { taken: Arc::clone(&self.taken), principal: principal.to_owned() })
    }

    /// The watchers with the caller's credential and rights.
    fn watchers_of(&self, caller: &Principal) -> Arc<Watchers> {
        let mut watchers = lock(&self.watchers);
        let known = watchers.get(&caller.credential).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|known| known.principal == *caller && !known.has_ended()) {
            return known;
        }
        let (ended, _) = watch::channel(None);
        let new = Arc::new(Watchers { principal: caller.clone(), ended, counted: Mutex::default() });
        watchers.insert(caller.credential.clone(), Arc::downgrade(&new));
        new
    }

    /// # Errors
    /// `TooManyWatches`.
    pub fn take(&self, caller: &Principal) -> Result<Seat, VaultError> {
        let counted = self.count(&caller.name)?;
        let watchers = self.watchers_of(caller);
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        {
            let mut all = lock(&watchers.counted);
            // If the credential has just ended, count nothing; the watcher notices that at once.
            if !watchers.has_ended() {
                all.insert(number, counted);
            }
        }
        Ok(Seat { watchers, number })
    }

    /// The watchers of every credential that is in use.
    pub fn by_credential(&self) -> Vec<Arc<Watchers>> {
        let mut watchers = lock(&self.watchers);
        watchers.retain(|_, watchers| watchers.strong_count() > 0);
        watchers.values().filter_map(Weak::upgrade).collect()
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
            link: None,
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
    fn seats_are_counted_by_principal_and_in_all_and_are_free_at_once() {
        let seats = Seats::new(WatchLimits { total: 3, per_principal: 2 });
        let (ana, ana_too, bob) = (principal("ana", "a"), principal("ana", "b"), principal("bob", "c"));
        let first = seats.take(&ana).unwrap();
        let _second = seats.take(&ana_too).unwrap();
        assert_eq!(limit_of(seats.take(&ana)), "watches_per_principal", "another key is no way around");
        let _third = seats.take(&bob).unwrap();
        assert_eq!(limit_of(seats.take(&bob)), "watches");
        drop(first);
        assert_eq!(limit_of(seats.take(&ana)), "none");
    }

    #[test]
    fn a_credential_that_ends_frees_the_seats_of_watchers_that_did_not_notice_yet() {
        let seats = Seats::new(WatchLimits { total: 9, per_principal: 1 });
        let ana = principal("ana", "a");
        let unnoticed = seats.take(&ana).unwrap();
        seats.watchers_of(&ana).end(VaultError::ApiKeyInvalid);
        let next = seats.take(&principal("ana", "b")).unwrap();
        drop(unnoticed);
        assert_eq!(limit_of(seats.take(&ana)), "watches_per_principal", "no seat is freed twice");
        drop(next);
        assert_eq!(limit_of(seats.take(&ana)), "none");
    }
}
