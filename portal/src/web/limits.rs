//! Token buckets: one for the requests of each address, one for the calls of each link.
//!
//! The buckets live in bounded caches. An evicted one starts full again, which costs a few calls and bounds the memory.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::HeaderMap;
use moka::sync::Cache;

/// Buckets of one kind that are kept.
const KEPT: u64 = 50_000;
/// After this long without use, a bucket is full again and can be dropped.
const IDLE: Duration = Duration::from_secs(600);

/// One bucket for each key.
pub(crate) struct Buckets<K> {
    quota: Option<Quota>,
    buckets: Cache<K, Arc<DefaultDirectRateLimiter>>,
}

impl<K: Hash + Eq + Send + Sync + 'static> Buckets<K> {
    /// `per_minute` at once, and then as many a minute; no bound where it is 0.
    pub(crate) fn new(per_minute: u32) -> Self {
        let buckets = Cache::builder().max_capacity(KEPT).time_to_idle(IDLE).build();
        Self { quota: NonZeroU32::new(per_minute).map(Quota::per_minute), buckets }
    }

    /// Takes `amount` out of the bucket of `key`. The error is how long to wait.
    pub(crate) fn take(&self, key: K, amount: NonZeroU32) -> Result<(), Duration> {
        let Some(quota) = self.quota else { return Ok(()) };
        let bucket = self.buckets.get_with(key, || Arc::new(RateLimiter::direct(quota)));
        let amount = amount.min(quota.burst_size());
        match bucket.check_n(amount) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => Err(not_until.wait_time_from(DefaultClock::default().now())),
            Err(_) => Err(Duration::from_secs(60)),
        }
    }
}

/// Where a request comes from. A proxy appends the address that it saw, so only the last entry is no client's claim.
pub(crate) fn client(peer: Option<SocketAddr>, headers: &HeaderMap, trusted_proxy: bool) -> IpAddr {
    let peer = peer.map_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
    if !trusted_proxy {
        return network(peer);
    }
    let header = headers.get_all("x-forwarded-for").into_iter().next_back();
    let last = header.and_then(|value| value.to_str().ok()).and_then(|value| value.rsplit(',').next());
    network(last.and_then(|entry| address(entry.trim())).unwrap_or(peer))
}

/// An address, as proxies write it: perhaps with a port, and IPv6 perhaps in brackets.
fn address(entry: &str) -> Option<IpAddr> {
    let bare = entry.trim_start_matches('[').trim_end_matches(']');
    bare.parse().ok().or_else(|| entry.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// The part of an address that its owner cannot change at will. An IPv6 host has a network of 2^64 addresses.
pub(crate) fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: NonZeroU32 = NonZeroU32::MIN;

    #[test]
    fn each_key_has_a_bucket_of_its_own() {
        let buckets = Buckets::new(6);
        let five = NonZeroU32::new(5).unwrap();
        assert_eq!((buckets.take("a", five), buckets.take("a", ONE)), (Ok(()), Ok(())));
        let wait = buckets.take("a", ONE).unwrap_err();
        assert!(!wait.is_zero() && wait <= Duration::from_secs(10), "{wait:?}");
        assert_eq!(buckets.take("b", ONE), Ok(()));
        assert!((0..1000).all(|_| Buckets::new(0).take("a", five).is_ok()));
        assert_eq!(Buckets::new(2).take("a", five), Ok(()), "a change always fits into a full bucket");
    }

    #[test]
    fn only_a_trusted_proxy_says_where_a_request_comes_from() {
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "6.6.6.6, 1.2.3.4".parse().unwrap());
        let peer = Some("10.0.0.1:80".parse().unwrap());
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(client(peer, &headers, false), ip("10.0.0.1"));
        assert_eq!(client(peer, &headers, true), ip("1.2.3.4"));
        headers.append("x-forwarded-for", "7.7.7.7,[2001:db8::7]:443".parse().unwrap());
        assert_eq!(client(peer, &headers, true), ip("2001:db8::"));
        headers.append("x-forwarded-for", "unknown".parse().unwrap());
        assert_eq!(client(peer, &headers, true), ip("10.0.0.1"));
        assert_eq!(address("1.2.3.4:99"), Some(ip("1.2.3.4")));
        assert_eq!(address("::1"), Some(ip("::1")));
    }
}
