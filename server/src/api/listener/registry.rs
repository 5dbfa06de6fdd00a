//! All open connections, and the eviction of idle ones when there are too many.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::peer::Peer;
use parking_lot::{Mutex, MutexGuard};

/// Minimum idle time before a connection may be evicted.
const MIN_IDLE: Duration = Duration::from_secs(1);
/// Connections accepted beyond the limit while evicted ones are still closing.
const SPARE: usize = 256;

#[derive(Default)]
pub(super) struct Registry(Mutex<HashMap<u64, Arc<Peer>>>);

impl Registry {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Peer>>> {
        self.0.lock()
    }

    pub(super) fn enter(self: &Arc<Self>, number: u64, peer: &Arc<Peer>) -> Entry {
        self.lock().insert(number, Arc::clone(peer));
        Entry { registry: Arc::clone(self), number }
    }

    /// Whether one more connection fits. When full, evicts the connection that has been idle longest.
    pub(super) fn has_room(&self, limit: usize) -> bool {
        let all = self.lock();
        if all.len() < limit {
            return true;
        }
        let staying = all.values().filter(|peer| !peer.ending().is_cancelled());
        let idlest = staying
            .filter_map(|peer| Some((peer.idle_for()?, peer)))
            .filter(|(idle, _)| *idle >= MIN_IDLE)
            .max_by_key(|(idle, _)| *idle);
        // An evicted connection takes a moment to close, during which there are a few more than `limit`.
        match idlest {
            Some((_, peer)) if all.len() < limit.saturating_add(SPARE) => {
                peer.ending().cancel();
                true
            }
            _ => false,
        }
    }
}

/// A connection's entry, until it is dropped.
pub(super) struct Entry {
    registry: Arc<Registry>,
    number: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn when_full_the_idlest_is_evicted_and_the_busy_never_are() {
        let registry = Arc::new(Registry::default());
        let long_ago = |seconds| {
            let started = Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
            Arc::new(Peer::started_at(started))
        };
        let (idlest, idle, busy) = (long_ago(30), long_ago(20), long_ago(40));
        let _call = busy.busy();
        let entries =
            [(0, &idlest), (1, &idle), (2, &busy)].map(|(number, peer)| registry.enter(number, peer));
        assert!(registry.has_room(4) && !idlest.ending().is_cancelled());
        assert!(registry.has_room(3) && idlest.ending().is_cancelled() && !idle.ending().is_cancelled());
        assert!(registry.has_room(3) && idle.ending().is_cancelled());
        assert!(!registry.has_room(3) && !busy.ending().is_cancelled(), "no idle connection is left");
        drop(entries);
        assert!(registry.has_room(1));
    }
}
