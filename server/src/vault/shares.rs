//! Shares of what is scarce: who takes much of it takes it from himself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Principals that are remembered although they hold nothing.
const IDLE: usize = 1_024;

/// Places of which every principal has the same number.
#[derive(Debug)]
pub struct Shares {
    each: usize,
    of: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Shares {
    /// So many for each.
    pub fn new(each: usize) -> Self {
        Self { each: each.min(Semaphore::MAX_PERMITS), of: Mutex::default() }
    }

    /// One of this principal's places; `None` when it holds all of them.
    pub fn try_take(&self, principal: &str) -> Option<OwnedSemaphorePermit> {
        self.of(principal).try_acquire_owned().ok()
    }

    /// One of this principal's places, as soon as there is one.
    pub async fn take(&self, principal: &str) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        self.of(principal).acquire_owned().await.ok()
    }

    fn of(&self, principal: &str) -> Arc<Semaphore> {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = of.get(principal) {
            return Arc::clone(places);
        }
        if of.len() >= IDLE {
            // A place that is held, or waited for, holds on to the rest.
            of.retain(|_, places| Arc::strong_count(places) > 1);
        }
        let places = Arc::new(Semaphore::new(self.each));
        of.insert(principal.to_owned(), Arc::clone(&places));
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_as_many_and_nobody_takes_anothers() {
        let shares = Shares::new(2);
        let ana: Vec<_> = (0..2).map(|_| shares.try_take("ana").unwrap()).collect();
        assert!(shares.try_take("ana").is_none());
        assert!(shares.try_take("bob").is_some());
        drop(ana);
        assert!(shares.try_take("ana").is_some());
    }

    #[test]
    fn who_holds_nothing_is_forgotten_and_who_does_is_not() {
        let shares = Shares::new(1);
        let held = shares.try_take("ana").unwrap();
        for n in 0..IDLE * 3 {
            assert!(shares.try_take(&n.to_string()).is_some());
        }
        assert!(shares.of.lock().unwrap().len() <= IDLE);
        assert!(shares.try_take("ana").is_none(), "its place is still held");
        drop(held);
    }
}
