//! The other end of one connection.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::model::ClientCertificate;

/// What the calls on one connection know about its other end.
#[derive(Debug)]
pub(in crate::api) struct Peer {
    address: SocketAddr,
    certificate: OnceLock<ClientCertificate>,
    calls: AtomicUsize,
    /// Streams of health and reflection.
    pub(in crate::api) open_streams: AtomicUsize,
    started: Instant,
    /// Milliseconds after `started`.
    idle_since: AtomicU64,
    ending: CancellationToken,
}

impl Peer {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            certificate: OnceLock::new(),
            calls: AtomicUsize::new(0),
            open_streams: AtomicUsize::new(0),
            started: Instant::now(),
            idle_since: AtomicU64::new(0),
            ending: CancellationToken::new(),
        }
    }

    pub(in crate::api) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate that the client presented, whose chain was verified.
    pub(in crate::api) fn certificate(&self) -> Option<&ClientCertificate> {
        self.certificate.get()
    }

    pub(super) fn set_certificate(&self, certificate: ClientCertificate) {
        // There is one handshake per connection.
        let _ = self.certificate.set(certificate);
    }

    /// Cancelled when the connection is to end. A watch, which has no end of its own, must end then.
    pub(in crate::api) fn ending(&self) -> &CancellationToken {
        &self.ending
    }

    /// While the guard lives, the connection is not idle.
    pub(in crate::api) fn busy(self: &Arc<Self>) -> Busy {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// How long the connection has had no call; `None` while it has one.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        if self.calls.load(Ordering::Relaxed) > 0 {
            return None;
        }
        let since = Duration::from_millis(self.idle_since.load(Ordering::Relaxed));
        Some(self.started.elapsed().saturating_sub(since))
    }

    #[cfg(test)]
    pub(super) fn started_at(started: Instant) -> Self {
        Self { started, ..Self::default() }
    }
}

impl Default for Peer {
    /// For a call that came over no connection.
    fn default() -> Self {
        Self::new(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
    }
}

#[derive(Debug)]
pub(in crate::api) struct Busy(Arc<Peer>);

impl Drop for Busy {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.idle_since.store(now, Ordering::Relaxed);
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_idle_from_the_end_of_its_last_call() {
        let peer = Arc::new(Peer::default());
        assert!(peer.idle_for().is_some());
        let (first, second) = (peer.busy(), peer.busy());
        drop(first);
        assert_eq!(peer.idle_for(), None);
        drop(second);
        assert!(peer.idle_for().is_some_and(|idle| idle < Duration::from_secs(60)));
    }
}
