//! The ids that this process is working on.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::model::RequestId;

/// What names a request: principal, RPC and request id.
pub type RequestKey = (String, &'static str, RequestId);

/// A set of ids, each held by the one task that works on it.
pub struct InFlight<K: Eq + Hash>(Arc<Mutex<HashSet<K>>>);

/// Keeps an id in flight until it is dropped.
pub struct InFlightGuard<K: Eq + Hash> {
    all: Arc<Mutex<HashSet<K>>>,
    id: K,
}

impl<K: Eq + Hash + Clone> InFlight<K> {
    /// Puts an id in flight. `None`: another task of this process already works on it.
    pub fn enter(&self, id: impl Into<K>) -> Option<InFlightGuard<K>> {
        let id = id.into();
        lock(&self.0).insert(id.clone()).then(|| InFlightGuard { all: Arc::clone(&self.0), id })
    }
}

impl<K: Eq + Hash> Default for InFlight<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Eq + Hash> Drop for InFlightGuard<K> {
    fn drop(&mut self) {
        lock(&self.all).remove(&self.id);
    }
}

fn lock<K>(all: &Mutex<HashSet<K>>) -> MutexGuard<'_, HashSet<K>> {
    all.lock()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_in_flight_once_and_until_its_guard_is_dropped() {
        let all = InFlight::<String>::default();
        let first = all.enter("a").unwrap();
        assert!(all.enter("a").is_none());
        assert!(all.enter("b").is_some());
        drop(first);
        assert!(all.enter("a").is_some());
    }
}
