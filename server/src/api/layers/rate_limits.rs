//! Token buckets: one for the calls of each principal, one for the failed authentications of each address.
//!
//! The buckets live in bounded caches. An evicted caller starts with a full bucket again, which costs a few calls and
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
/// After this long without use, a bucket is full again and can be dropped.
const IDLE: Duration = Duration::from_secs(600);

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

    /// Takes one call out of the principal's bucket. The error is how long to wait for the next.
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
    Cache::builder().max_capacity(most).time_to_idle(IDLE).build()
}

/// The failed authentications of one address.
struct Failures {
    bucket: DefaultDirectRateLimiter,
    /// Milliseconds after `start` until which the address is blocked.
    blocked_until: AtomicU64,
}

pub(super) struct FailedAuthentications {
    quota: Option<Quota>,
    addresses: Cache<IpAddr, Arc<Failures>>,
    start: Instant,
}

impl FailedAuthentications {
    /// Allows this many failures a minute; no bound where `per_minute` is 0.
    pub(super) fn new(per_minute: u32) -> Self {
        let quota = NonZeroU32::new(per_minute).map(Quota::per_minute);
        Self { quota, addresses: buckets(ADDRESSES), start: Instant::now() }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// How much longer the address is blocked; `None` if it is not.
    pub(super) fn blocked_for(&self, peer: IpAddr) -> Option<Duration> {
        let failures = self.addresses.get(&network(peer))?;
        let left = failures.blocked_until.load(Ordering::Relaxed).checked_sub(self.now())?;
        (left > 0).then(|| Duration::from_millis(left))
    }

    /// Records one failure. If this was one too many, returns how long the address is blocked.
    pub(super) fn record(&self, peer: IpAddr) -> Option<Duration> {
        let quota = self.quota?;
        let full =
            || Arc::new(Failures { bucket: RateLimiter::direct(quota), blocked_until: AtomicU64::new(0) });
        let failures = self.addresses.get_with(network(peer), full);
        let not_until = failures.bucket.check().err()?;
        let wait = not_until.wait_time_from(DefaultClock::default().now()).max(Duration::from_millis(1));
        let until = self.now().saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        failures.blocked_until.fetch_max(until, Ordering::Relaxed);
        Some(wait)
    }
}

/// The part of an address that its owner cannot change at will. An IPv6 host has a network of 2^64 addresses.
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
    fn an_address_is_blocked_after_too_many_failures_and_its_neighbours_are_not() {
        let failures = FailedAuthentications::new(2);
        let [here, there] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
        assert!(failures.record(here).is_none() && failures.record(here).is_none());
        assert!(failures.blocked_for(here).is_none(), "two were allowed");
        assert!(failures.record(here).is_some_and(|wait| wait <= Duration::from_secs(30)));
        assert!(failures.blocked_for(here).is_some());
        assert!(failures.blocked_for(there).is_none());
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(network(address("2001:db8::1")), network(address("2001:db8::ffff:1")));
        assert_ne!(network(address("2001:db8::1")), network(address("2001:db8:0:1::1")));
        assert_eq!(network(address("::ffff:10.0.0.1")), address("10.0.0.1"));
    }
}
