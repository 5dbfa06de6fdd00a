//! Connections: from the socket to the first call, and to the end.
//!
//! Each has a task, which bounds everything that a peer can draw out: handshake, silence, idleness, age. The transport
//! crate's own server has no bound on their number, and cuts calls off at the greatest age instead of letting them end.

pub(in crate::api) mod tls;

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tower::{Service, ServiceExt};

use super::limits::Limits;
use crate::model::{ClientCertificate, Timestamp};
use tls::{Tls, facts};

/// The first words of HTTP/2.
const PREFACE: usize = 24;
/// Bytes that one call, and one connection, may send before somebody reads them.
const WINDOWS: (u32, u32) = (64 * 1024, 256 * 1024);
/// After an accept that failed. Out of file descriptors, say: asking again at once would only burn the processor.
const PAUSE: Duration = Duration::from_millis(50);
/// Who has been idle for less does not make room for others.
const SETTLED: Duration = Duration::from_secs(1);

/// The other end of one connection, for the calls on it.
#[derive(Debug)]
pub(super) struct Peer {
    address: SocketAddr,
    certificate: OnceLock<ClientCertificate>,
    calls: AtomicUsize,
    /// Streams of health and reflection.
    pub(super) open_streams: AtomicUsize,
    started: Instant,
    /// Milliseconds after `started`.
    idle_since: AtomicU64,
    ending: CancellationToken,
}

impl Peer {
    fn new(address: SocketAddr) -> Self {
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

    /// Where it is.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate that it showed, whose chain was verified.
    pub(super) fn certificate(&self) -> Option<&ClientCertificate> {
        self.certificate.get()
    }

    /// Cancelled when the connection is to end: calls with no end of their own must make one.
    pub(super) fn ending(&self) -> &CancellationToken {
        &self.ending
    }

    /// For as long as the guard lives, the connection is not idle.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// How long no call has been on it; `None` while one is.
    fn idle_for(&self) -> Option<Duration> {
        if self.calls.load(Ordering::Relaxed) > 0 {
            return None;
        }
        let since = Duration::from_millis(self.idle_since.load(Ordering::Relaxed));
        Some(self.started.elapsed().saturating_sub(since))
    }
}

impl Default for Peer {
    /// Nobody: for a call that came over no connection.
    fn default() -> Self {
        Self::new(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
    }
}

/// See [`Peer::busy`].
#[derive(Debug)]
pub(super) struct Busy(Arc<Peer>);

impl Drop for Busy {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.idle_since.store(now, Ordering::Relaxed);
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All connections.
#[derive(Default)]
struct Registry(Mutex<HashMap<u64, Arc<Peer>>>);

impl Registry {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Peer>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(self: &Arc<Self>, number: u64, peer: &Arc<Peer>) -> Entry {
        self.lock().insert(number, Arc::clone(peer));
        Entry { registry: Arc::clone(self), number }
    }

    /// Whether there is room for one more. When full, the connection that has been idle longest is told to end.
    fn has_room(&self, most: usize) -> bool {
        let all = self.lock();
        if all.len() < most {
            return true;
        }
        let settled = all.values().filter(|known| !known.ending.is_cancelled());
        let idlest = settled
            .filter_map(|known| Some((known.idle_for()?, known)))
            .filter(|(idle, _)| *idle >= SETTLED)
            .max_by_key(|(idle, _)| *idle);
        // It leaves a moment after it is told: a few more than `most` for that moment.
        match idlest {
            Some((_, known)) if all.len() < most.saturating_add(SPARE) => {
                known.ending.cancel();
                true
            }
            _ => false,
        }
    }
}

/// Connections that may come while others, which were told to go, have not gone yet.
const SPARE: usize = 256;
/// How long an idle connection has for its farewell. Calls in flight have the whole grace.
const FAREWELL: Duration = Duration::from_secs(1);

/// One place in the registry.
struct Entry {
    registry: Arc<Registry>,
    number: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.lock().remove(&self.number);
    }
}

/// What every connection needs.
struct Host<S> {
    service: S,
    tls: Option<Arc<Tls>>,
    limits: Limits,
    stop: CancellationToken,
}

/// Accepts until `stop`, then comes back when the last connection has ended.
pub(super) async fn serve<S>(
    listener: TcpListener,
    service: S,
    tls: Option<Arc<Tls>>,
    limits: Limits,
    stop: CancellationToken,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let host = Arc::new(Host { service, tls, limits, stop: stop.clone() });
    let (registry, tasks) = (Arc::new(Registry::default()), TaskTracker::new());
    let (mut number, mut told) = (0_u64, Instant::now().checked_sub(Duration::from_secs(60)));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let (socket, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                sleep(PAUSE).await;
                continue;
            }
        };
        if !registry.has_room(host.limits.max_connections) {
            if told.is_none_or(|at| at.elapsed() > Duration::from_secs(10)) {
                tracing::warn!(
                    limit = host.limits.max_connections,
                    "as many connections as there may be, none idle; new ones are closed"
                );
                told = Some(Instant::now());
            }
            continue;
        }
        number += 1;
        let (host, peer) = (Arc::clone(&host), Arc::new(Peer::new(address)));
        let entry = registry.enter(number, &peer);
        tasks.spawn(async move {
            match host.meet(socket, &peer).await {
                Ok(()) => {}
                // Who set up a client wants to know; who knocks at ports may not fill the log.
                Err(why) if is_about_certificates(&why) => {
                    tracing::info!(peer = %peer.address, %why, "a client's certificate is not accepted");
                }
                Err(why) => tracing::debug!(peer = %peer.address, %why, "a connection came to nothing"),
            }
            drop(entry);
        });
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

impl<S> Host<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    /// Shakes hands, and serves.
    async fn meet(&self, socket: TcpStream, peer: &Arc<Peer>) -> io::Result<()> {
        // Without it, a small answer waits for the peer's delayed acknowledgement: 40 ms.
        socket.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            self.drive(socket, peer).await;
            return Ok(());
        };
        let shaking = timeout(self.limits.handshake_timeout, TlsAcceptor::from(tls.config()).accept(socket));
        let stream = tokio::select! {
            shaken = shaking => shaken.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??,
            () = peer.ending.cancelled() => return Ok(()),
            () = self.stop.cancelled() => return Ok(()),
        };
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        if let Some(leaf) = shown {
            // Verified and yet not to be read: it is nobody's and has ended, which the first call is told.
            let unreadable = || ClientCertificate { names: Vec::new(), not_after: Timestamp::EPOCH };
            let _ = peer.certificate.set(facts(leaf.as_ref()).unwrap_or_else(unreadable));
        }
        self.drive(stream, peer).await;
        Ok(())
    }

    /// Serves calls until the peer goes, or its time is over.
    async fn drive(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: &Arc<Peer>) {
        let limits = &self.limits;
        let heard = Arc::new(AtomicUsize::new(0));
        let stream = TokioIo::new(Heard { stream, bytes: Arc::clone(&heard) });
        let answer = service_fn({
            let (service, peer) = (self.service.clone(), Arc::clone(peer));
            move |request: Request<hyper::body::Incoming>| {
                let (service, peer) = (service.clone(), Arc::clone(&peer));
                async move {
                    let busy = peer.busy();
                    let mut request = request.map(Body::new);
                    request.extensions_mut().insert(peer);
                    let answer = service.oneshot(request).await;
                    drop(busy);
                    answer
                }
            }
        });
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .keep_alive_interval(limits.keepalive_interval)
            .keep_alive_timeout(limits.keepalive_timeout)
            .max_concurrent_streams(limits.max_streams_per_connection)
            .max_header_list_size(limits.max_header_bytes)
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1);
        let mut serving = pin!(http.serve_connection(stream, answer));
        let mut first_words = pin!(sleep(limits.handshake_timeout));
        let mut old = pin!(sleep(about(limits.max_connection_age)));
        let mut idle = pin!(sleep(limits.idle_timeout));
        let mut over = pin!(sleep(Duration::MAX));
        let (mut listened, mut ending, mut stopping, mut waited) = (false, false, false, false);
        loop {
            tokio::select! {
                served = &mut serving => {
                    if let Err(error) = served {
                        tracing::debug!(peer = %peer.address, %error, "a connection broke");
                    }
                    return;
                }
                () = &mut first_words, if !listened => {
                    listened = true;
                    if heard.load(Ordering::Relaxed) < PREFACE {
                        tracing::debug!(peer = %peer.address, "a connection said nothing");
                        return;
                    }
                }
                () = &mut old, if !ending => peer.ending.cancel(),
                () = &mut idle, if !ending => match peer.idle_for() {
                    Some(idle_for) if idle_for >= limits.idle_timeout => peer.ending.cancel(),
                    idle_for => {
                        let left = limits.idle_timeout.saturating_sub(idle_for.unwrap_or_default());
                        idle.set(sleep(left.max(Duration::from_millis(1))));
                    }
                },
                () = peer.ending.cancelled(), if !ending => {
                    ending = true;
                    serving.as_mut().graceful_shutdown();
                    over.set(sleep(FAREWELL));
                }
                // The caller bounds how long that may take.
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    serving.as_mut().graceful_shutdown();
                }
                () = &mut over, if ending => {
                    if peer.idle_for().is_some() || waited {
                        tracing::debug!(peer = %peer.address, idle = !waited, "a connection is cut off: its grace is over");
                        return;
                    }
                    waited = true;
                    over.set(sleep(limits.max_connection_age_grace));
                }
            }
        }
    }
}

fn is_about_certificates(why: &io::Error) -> bool {
    let cause = why.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented))
}

/// A tenth more or less, so that connections that came together do not all come back together.
fn about(time: Duration) -> Duration {
    let part = u16::try_from(uuid::Uuid::new_v4().as_u128() & 0xffff).unwrap_or(0);
    time.mul_f64(0.9 + 0.2 * f64::from(part) / f64::from(u16::MAX))
}

/// A stream that counts what the peer says.
struct Heard<T> {
    stream: T,
    bytes: Arc<AtomicUsize>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Heard<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let read = buf.filled().len().saturating_sub(before);
        // A relaxed load and a rare store: the count matters for the first words only.
        if read > 0 && self.bytes.load(Ordering::Relaxed) < PREFACE {
            self.bytes.fetch_add(read, Ordering::Relaxed);
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Heard<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
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

    #[test]
    fn ages_differ_by_a_tenth_at_most() {
        let ages: std::collections::BTreeSet<_> = (0..50).map(|_| about(Duration::from_secs(100))).collect();
        assert!(ages.len() > 10, "{ages:?}");
        let bounds = Duration::from_secs(90)..=Duration::from_secs(110);
        assert!(ages.iter().all(|age| bounds.contains(age)), "{ages:?}");
    }

    #[test]
    fn when_full_the_idlest_makes_room_and_the_busy_never_do() {
        let registry = Arc::new(Registry::default());
        let long_ago = |seconds| {
            let started = Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
            Arc::new(Peer { started, ..Peer::default() })
        };
        let (idlest, idle, busy) = (long_ago(30), long_ago(20), long_ago(40));
        let _call = busy.busy();
        let entries =
            [(0, &idlest), (1, &idle), (2, &busy)].map(|(number, peer)| registry.enter(number, peer));
        assert!(registry.has_room(4) && !idlest.ending.is_cancelled());
        assert!(registry.has_room(3) && idlest.ending.is_cancelled() && !idle.ending.is_cancelled());
        assert!(registry.has_room(3) && idle.ending.is_cancelled());
        assert!(!registry.has_room(3) && !busy.ending.is_cancelled(), "nobody is left who could go");
        drop(entries);
        assert!(registry.has_room(1));
    }
}
