//! How much one caller may ask: token buckets, one per principal and one per address that guesses at keys.
//!
//! The buckets live in bounded caches. Who is forgotten begins with a full bucket again, which costs a few calls and
//! bounds the memory.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use moka::sync::Cache;

/// Principals whose buckets are kept.
const PRINCIPALS: u64 = 10_000;
/// Addresses whose buckets are kept.
const ADDRESSES: u64 = 100_000;
/// A bucket that nobody used for so long is full again.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// One bucket per principal.
pub(super) struct PrincipalRates {
    quota: Option<Quota>,
    buckets: Cache<String, Arc<DefaultDirectRateLimiter>>,
}

impl PrincipalRates {
    /// `per_second` calls, and `burst` at once; no bound where `per_second` is 0.
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let quota = NonZeroU32::new(per_second)
            .map(|rate| Quota::per_second(rate).allow_burst(NonZeroU32::new(burst).unwrap_or(rate)));
        Self { quota, buckets: buckets(PRINCIPALS) }
    }

    /// Takes one call of `principal`'s share. An error says how long to wait for the next.
    pub(super) fn take(&self, principal: &str) -> Result<(), Duration> {
        let Some(quota) = self.quota else { return Ok(()) };
        let bucket = match self.buckets.get(principal) {
            Some(bucket) => bucket,
            None => self.buckets.get_with(principal.to_owned(), || Arc::new(RateLimiter::direct(quota))),
        };
        bucket.check().map_err(|not_until| not_until.wait_time_from(DefaultClock::default().now()))
    }
}

fn buckets<K: std::hash::Hash + Eq + Send + Sync + 'static, V: Clone + Send + Sync + 'static>(
    most: u64,
) -> Cache<K, V> {
    Cache::builder().max_capacity(most).time_to_idle(FORGOTTEN).build()
}

/// What one address has tried in vain.
struct Guesser {
    failures: DefaultDirectRateLimiter,
    /// Milliseconds after the start until which nothing more is looked at.
    shut_until: AtomicU64,
}

/// One bucket of failed authentications per address.
pub(super) struct Guesses {
    quota: Option<Quota>,
    guessers: Cache<IpAddr, Arc<Guesser>>,
    start: Instant,
}

impl Guesses {
    /// So many failures a minute; no bound at 0.
    pub(super) fn new(per_minute: u32) -> Self {
        let quota = NonZeroU32::new(per_minute).map(Quota::per_minute);
        Self { quota, guessers: buckets(ADDRESSES), start: Instant::now() }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// How long credentials from `peer` are not looked at, if so.
    pub(super) fn shut(&self, peer: IpAddr) -> Option<Duration> {
        let guesser = self.guessers.get(&network(peer))?;
        let left = guesser.shut_until.load(Ordering::Relaxed).checked_sub(self.now())?;
        (left > 0).then(|| Duration::from_millis(left))
    }

    /// Notes one failure; says how long the address is shut out, if this was one too many.
    pub(super) fn failed(&self, peer: IpAddr) -> Option<Duration> {
        let quota = self.quota?;
        let fresh =
            || Arc::new(Guesser { failures: RateLimiter::direct(quota), shut_until: AtomicU64::new(0) });
        let guesser = self.guessers.get_with(network(peer), fresh);
        let not_until = guesser.failures.check().err()?;
        let wait = not_until.wait_time_from(DefaultClock::default().now()).max(Duration::from_millis(1));
        let until = self.now().saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        guesser.shut_until.fetch_max(until, Ordering::Relaxed);
        Some(wait)
    }
}

/// What one guesser can't change at will: a host, or a network of IPv6, of which everybody has 2^64 addresses.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_principal_has_a_bucket_of_its_own() {
        let rates = PrincipalRates::new(1, 3);
        for _ in 0..3 {
            assert_eq!(rates.take("ana"), Ok(()));
        }
        let wait = rates.take("ana").unwrap_err();
        assert!(!wait.is_zero() && wait <= Duration::from_secs(1), "{wait:?}");
        assert_eq!(rates.take("bob"), Ok(()));
        let unbounded = PrincipalRates::new(0, 0);
        assert!((0..100_000).all(|_| unbounded.take("ana").is_ok()));
    }

    #[test]
    fn an_address_is_shut_out_after_too_many_failures_and_its_neighbours_are_not() {
        let guesses = Guesses::new(2);
        let [here, there] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
        assert!(guesses.failed(here).is_none() && guesses.failed(here).is_none());
        assert!(guesses.shut(here).is_none(), "two were allowed");
        assert!(guesses.failed(here).is_some_and(|wait| wait <= Duration::from_secs(30)));
        assert!(guesses.shut(here).is_some());
        assert!(guesses.shut(there).is_none());
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(network(address("2001:db8::1")), network(address("2001:db8::ffff:1")));
        assert_ne!(network(address("2001:db8::1")), network(address("2001:db8:0:1::1")));
        assert_eq!(network(address("::ffff:10.0.0.1")), address("10.0.0.1"));
    }
}
