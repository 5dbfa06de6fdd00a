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

use crate::store::sql::StoreError;

/// What was loaded last, and from when on a caller may have arrived to get it.
type Loaded<V> = Arc<tokio::sync::Mutex<Option<(Instant, Result<V, StoreError>)>>>;

/// Loads in flight, by key.
pub(in crate::store) struct Flights<K, V>(Mutex<HashMap<K, Loaded<V>>>);

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Flights<K, V> {
    /// The value of a load that began after this call: either this caller's own load, or one that another caller
    /// started meanwhile. A failure is shared by all who waited for it: whoever tried again would only wait as long.
    pub(in crate::store) async fn join(
        &self,
        key: &K,
        load: impl Future<Output = Result<V, StoreError>>,
    ) -> Result<V, StoreError> {
        let arrived = Instant::now();
        let flight = {
            let mut flights = self.0.lock();
            Arc::clone(flights.entry(key.clone()).or_default())
        };
        let outcome = {
            let mut loaded = flight.lock().await;
            match &*loaded {
                Some((since, outcome)) if *since >= arrived => outcome.clone(),
                _ => {
                    let began = Instant::now();
                    let outcome = load.await;
                    let since = if outcome.is_ok() { began } else { Instant::now() };
                    *loaded = Some((since, outcome.clone()));
                    outcome
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
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_crowd_shares_few_loads_and_nobody_gets_an_older_one() {
        let (flights, loads) = (Flights::<u8, u32>::default(), AtomicU32::new(0));
        let load = || async {
            let number = loads.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
            Ok(number)
        };
        let crowd = (0..500).map(|_| flights.join(&1, load()));
        futures::future::join_all(crowd).await;
        let few = loads.load(Ordering::SeqCst);
        assert!((1..=3).contains(&few), "{few} loads");
        assert_eq!(flights.join(&1, load()).await.ok(), Some(few), "who comes later loads anew");
        assert!(flights.0.lock().is_empty(), "nothing is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_waits_once_for_a_failure() {
        let (flights, loads) = (Flights::<u8, u32>::default(), AtomicU32::new(0));
        let load = || async {
            loads.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(3)).await;
            Err(StoreError::Unavailable("it is away".into()))
        };
        let crowd = (0..500).map(|_| flights.join(&1, load()));
        assert!(futures::future::join_all(crowd).await.iter().all(Result::is_err));
        assert_eq!(loads.load(Ordering::SeqCst), 1);
    }
}
