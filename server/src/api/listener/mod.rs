//! The gRPC port: accepts connections and serves HTTP/2 on each, in a task of its own.
//!
//! Hand-written, because tonic's own server has no limit on the number of connections, and at the maximum age of a
//! connection cuts its calls off instead of letting them end. A connection's task bounds everything that a client
//! could prolong: handshake, silence, idleness and age.

mod connection;
mod leftover;
mod peer;
mod registry;
pub(in crate::api) mod tls;

use std::borrow::Borrow;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tower::Service;

pub(super) use peer::Peer;

use super::limits::Limits;
use connection::Host;
use registry::Registry;
use tls::Tls;

/// The pause after a failed accept. Without file descriptors, for instance, an immediate retry would only burn CPU.
const PAUSE: Duration = Duration::from_millis(50);
/// How often the log repeats that there are too many connections.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// Accepts connections until `stop`, then returns when the last one has ended. Dropping the future ends them at once.
pub(super) async fn serve<S>(
    listener: impl Borrow<TcpListener>,
    service: S,
    tls: Option<Arc<Tls>>,
    limits: Limits,
    stop: CancellationToken,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let cut_off = CancellationToken::new();
    let _cut_off = cut_off.clone().drop_guard();
    let host = Arc::new(Host { service, tls, limits, stop: stop.clone(), cut_off });
    let (registry, tasks) = (Arc::new(Registry::default()), TaskTracker::new());
    let (mut number, mut warned_at) = (0_u64, None::<Instant>);
    loop {
        let accepted = tokio::select! {
            accepted = listener.borrow().accept() => accepted,
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
            if warned_at.is_none_or(|at| at.elapsed() > WARN_EVERY) {
                tracing::warn!(
                    limit = host.limits.max_connections,
                    "the limit of connections is reached and none is idle: new connections are closed"
                );
                warned_at = Some(Instant::now());
            }
            continue;
        }
        number += 1;
        let (host, peer) = (Arc::clone(&host), Arc::new(Peer::new(address)));
        let entry = registry.enter(number, &peer);
        tasks.spawn(async move {
            match host.run(socket, &peer).await {
                Ok(()) => {}
                // At `info`, because it helps whoever sets up a client; the rest could be a port scan.
                Err(why) if is_about_certificates(&why) => {
                    tracing::info!(peer = %peer.address(), %why, "a client's certificate is not accepted");
                }
                Err(why) => tracing::debug!(peer = %peer.address(), %why, "a handshake failed"),
            }
            drop(entry);
        });
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

fn is_about_certificates(why: &io::Error) -> bool {
    let cause = why.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented))
}
