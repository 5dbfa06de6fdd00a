//! One load for all callers that want the same row at once, so that they don't queue for the few connections when a
//! cache is not fresh.
//!
//! Written by hand because a caller must get a load that began after it asked: moka's `get_with` would hand out one
//! that began before, and cache it although the caches are not fresh.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

/// What was loaded last, and when that load began.
type Loaded<V> = Arc<tokio::sync::Mutex<Option<(Instant, V)>>>;

/// Loads in flight, by key.
pub(in crate::store) struct Flights<K, V>(Mutex<HashMap<K, Loaded<V>>>);

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Flights<K, V> {
    /// The value of a load that began after this call: either this caller's own load, or one that another caller
    /// started meanwhile.
    pub(in crate::store) async fn join<E>(
        &self,
        key: &K,
        load: impl Future<Output = Result<V, E>>,
    ) -> Result<V, E> {
        let arrived = Instant::now();
        let flight = {
            let mut flights = self.0.lock();
            Arc::clone(flights.entry(key.clone()).or_default())
        };
        let outcome = {
            let mut loaded = flight.lock().await;
            match &*loaded {
                Some((began, value)) if *began >= arrived => Ok(value.clone()),
                _ => {
                    let began = Instant::now();
                    let value = load.await;
                    if let Ok(value) = &value {
                        *loaded = Some((began, value.clone()));
                    }
                    value
                }
            }
        };
        let mut flights = self.0.lock();
        // The map holds one reference and this call the other: no other caller waits.
        if Arc::strong_count(&flight) <= 2 {
            flights.remove(key);
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_crowd_shares_few_loads_and_nobody_gets_an_older_one() {
        let (flights, loads) = (Flights::<u8, u32>::default(), AtomicU32::new(0));
        let load = || async {
            let number = loads.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
            Ok::<_, Infallible>(number)
        };
        let crowd = (0..500).map(|_| flights.join(&1, load()));
        futures::future::join_all(crowd).await;
        let few = loads.load(Ordering::SeqCst);
        assert!((1..=3).contains(&few), "{few} loads");
        assert_eq!(flights.join(&1, load()).await, Ok(few), "who comes later loads anew");
        assert!(flights.0.lock().is_empty(), "nothing is kept");
    }
}
