//! Per-principal semaphores.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Above this many semaphores, idle ones are dropped.
const IDLE: usize = 1_024;

/// The same number of permits for every principal.
#[derive(Debug)]
pub struct Shares {
    each: usize,
    by_principal: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Shares {
    pub fn new(each: usize) -> Self {
        Self { each: each.min(Semaphore::MAX_PERMITS), by_principal: Mutex::default() }
    }

    /// `None` when the principal holds all of its permits.
    pub fn try_take(&self, principal: &str) -> Option<OwnedSemaphorePermit> {
        self.of(principal).try_acquire_owned().ok()
    }

    /// Waits until the principal has a permit to spare.
    pub async fn take(&self, principal: &str) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed, so this is always `Some`.
        self.of(principal).acquire_owned().await.ok()
    }

    /// The semaphore of one of them.
    pub fn of(&self, principal: &str) -> Arc<Semaphore> {
        let mut known = self.by_principal.lock();
        if let Some(semaphore) = known.get(principal) {
            return Arc::clone(semaphore);
        }
        if known.len() >= IDLE {
            // Permits and waiters hold their semaphore.
            known.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
        }
        let semaphore = Arc::new(Semaphore::new(self.each));
        known.insert(principal.to_owned(), Arc::clone(&semaphore));
        semaphore
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_principal_has_its_own_permits() {
        let shares = Shares::new(2);
        let ana: Vec<_> = (0..2).map(|_| shares.try_take("ana").unwrap()).collect();
        assert!(shares.try_take("ana").is_none());
        assert!(shares.try_take("bob").is_some());
        drop(ana);
        assert!(shares.try_take("ana").is_some());
    }

    #[test]
    fn only_idle_semaphores_are_dropped() {
        let shares = Shares::new(1);
        let held = shares.try_take("ana").unwrap();
        for n in 0..IDLE * 3 {
            assert!(shares.try_take(&n.to_string()).is_some());
        }
        assert!(shares.by_principal.lock().len() <= IDLE);
        assert!(shares.try_take("ana").is_none(), "the permit is still held");
        drop(held);
    }
}
