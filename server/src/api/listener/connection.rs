//! One connection, from the handshake to its end.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::{Service, ServiceExt};

use super::leftover::Whole;
use super::peer::Peer;
use super::tls::{Tls, facts};
use crate::api::limits::Limits;
use crate::backoff::about;
use crate::model::{ClientCertificate, Timestamp};

/// Length of the HTTP/2 client preface.
const PREFACE: usize = 24;
/// Flow control: bytes that one call may send before they are read.
const CALL_WINDOW: u32 = 64 * 1024;
/// Flow control: bytes that one connection may send before they are read.
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// How long an idle connection may take to close. Calls in flight have the whole configured grace.
const CLOSING: Duration = Duration::from_secs(1);

/// What all connections share.
pub(super) struct Host<S> {
    pub(super) service: S,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) limits: Limits,
    pub(super) stop: CancellationToken,
    /// Cancelled when the calls in flight have had their time.
    pub(super) cut_off: CancellationToken,
}

impl<S> Host<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    /// Does the handshake, then serves calls until the connection ends.
    pub(super) async fn run(&self, socket: TcpStream, peer: &Arc<Peer>) -> io::Result<()> {
        // Otherwise a small response waits up to 40 ms for the client's delayed acknowledgement.
        socket.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            self.serve(socket, peer).await;
            return Ok(());
        };
        let handshake =
            timeout(self.limits.handshake_timeout, TlsAcceptor::from(tls.config()).accept(socket));
        let stream = tokio::select! {
            done = handshake => done.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??,
            () = peer.ending().cancelled() => return Ok(()),
            () = self.stop.cancelled() => return Ok(()),
        };
        let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        if let Some(leaf) = leaf {
            // Valid chain but unparsable leaf: treat it as expired, so that the calls are denied with a reason.
            let unparsable = || ClientCertificate { names: Vec::new(), not_after: Timestamp::EPOCH };
            peer.set_certificate(facts(leaf.as_ref()).unwrap_or_else(unparsable));
        }
        self.serve(stream, peer).await;
        Ok(())
    }

    /// Serves calls until the client disconnects, the connection is idle or old, or the server stops.
    async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: &Arc<Peer>) {
        let limits = &self.limits;
        let received = Arc::new(AtomicUsize::new(0));
        let stream = TokioIo::new(Counted { stream, received: Arc::clone(&received) });
        let service = service_fn({
            let (service, peer) = (self.service.clone(), Arc::clone(peer));
            move |request: Request<hyper::body::Incoming>| {
                let (service, peer) = (service.clone(), Arc::clone(&peer));
                async move {
                    let busy = peer.busy();
                    let mut request = request.map(|body| Body::new(Whole::new(body)));
                    request.extensions_mut().insert(peer);
                    let response = service.oneshot(request).await;
                    drop(busy);
                    response
                }
            }
        });
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .keep_alive_interval(limits.keepalive_interval)
            .keep_alive_timeout(limits.keepalive_timeout)
            .max_concurrent_streams(limits.max_streams_per_connection)
            .max_header_list_size(limits.max_header_bytes)
            .initial_stream_window_size(CALL_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        let mut serving = pin!(http.serve_connection(stream, service));
        let mut preface_due = pin!(sleep(limits.handshake_timeout));
        let mut too_old = pin!(sleep(about(limits.max_connection_age)));
        let mut too_idle = pin!(sleep(limits.idle_timeout));
        let mut cut_off = pin!(sleep(Duration::MAX));
        let mut without_calls = pin!(sleep(Duration::MAX));
        let (mut preface_checked, mut ending, mut stopping, mut in_grace) = (false, false, false, false);
        loop {
            tokio::select! {
                served = &mut serving => {
                    if let Err(error) = served {
                        tracing::debug!(peer = %peer.address(), %error, "a connection failed");
                    }
                    return;
                }
                () = &mut preface_due, if !preface_checked => {
                    preface_checked = true;
                    if received.load(Ordering::Relaxed) < PREFACE {
                        tracing::debug!(peer = %peer.address(), "a connection sent nothing within the handshake timeout");
                        return;
                    }
                }
                () = &mut too_old, if !ending => peer.ending().cancel(),
                () = &mut too_idle, if !ending => match peer.idle_for() {
                    Some(idle_for) if idle_for >= limits.idle_timeout => peer.ending().cancel(),
                    idle_for => {
                        let left = limits.idle_timeout.saturating_sub(idle_for.unwrap_or_default());
                        too_idle.set(sleep(left.max(Duration::from_millis(1))));
                    }
                },
                () = peer.ending().cancelled(), if !ending => {
                    ending = true;
                    serving.as_mut().graceful_shutdown();
                    cut_off.set(sleep(CLOSING));
                }
                // The caller of the server bounds how long this may take.
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    serving.as_mut().graceful_shutdown();
                    without_calls.set(sleep(CLOSING));
                }
                // A client that says nothing would keep its connection open although nobody waits for it.
                () = &mut without_calls, if stopping => {
                    if peer.idle_for().is_some_and(|idle_for| idle_for >= CLOSING) {
                        tracing::debug!(peer = %peer.address(), "a connection without calls is cut off, because the server stops");
                        return;
                    }
                    without_calls.set(sleep(CLOSING));
                }
                () = self.cut_off.cancelled() => {
                    tracing::debug!(peer = %peer.address(), "a connection is cut off, because the server stops");
                    return;
                }
                () = &mut cut_off, if ending => {
                    if peer.idle_for().is_some() || in_grace {
                        tracing::debug!(peer = %peer.address(), idle = !in_grace, "a connection is cut off: its grace is over");
                        return;
                    }
                    in_grace = true;
                    cut_off.set(sleep(limits.max_connection_age_grace));
                }
            }
        }
    }
}

/// A stream that counts the bytes received, until the preface is complete.
struct Counted<T> {
    stream: T,
    received: Arc<AtomicUsize>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let read = buf.filled().len().saturating_sub(before);
        if read > 0 && self.received.load(Ordering::Relaxed) < PREFACE {
            self.received.fetch_add(read, Ordering::Relaxed);
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
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
    fn ages_differ_by_a_tenth_at_most() {
        let ages: std::collections::BTreeSet<_> = (0..50).map(|_| about(Duration::from_secs(100))).collect();
        assert!(ages.len() > 10, "{ages:?}");
        let bounds = Duration::from_secs(90)..=Duration::from_secs(110);
        assert!(ages.iter().all(|age| bounds.contains(age)), "{ages:?}");
    }
}
