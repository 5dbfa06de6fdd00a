//! Accepts connections and serves HTTP/1.1 on each, in a task of its own, which bounds everything that a client could
//! prolong.

mod shares;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::config::{ConfigError, Limits, PortalConfig};
use crate::routes::{self, Portal};
use crate::tls::Tls;
use crate::web::limits::network;
use shares::Shares;

/// The pause after a failed accept. Without file descriptors, an immediate retry would only burn CPU.
const PAUSE: Duration = Duration::from_millis(50);
/// How often the log repeats that there are too many connections.
const WARN_EVERY: Duration = Duration::from_secs(10);
/// The head of a request. The address of a callback has up to 8 KiB, and the cookies take some more.
const LARGEST_HEAD: usize = 32 * 1024;

/// Why the portal does not serve.
#[derive(Debug, thiserror::Error)]
pub enum PortalError {
    /// The configuration breaks a rule.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The certificate or its key can't be used.
    #[error("{file} {why}")]
    Tls {
        /// The file.
        file: PathBuf,
        /// What is wrong with it, as a sentence that follows the file.
        why: String,
    },
    /// The listener does not work.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Serves the portal until `stop`, and then until the requests in flight are answered, within
/// [`stop_grace`](Limits::stop_grace).
///
/// # Errors
/// When the configuration breaks a rule, or the certificate can't be used.
pub async fn serve(
    config: PortalConfig,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<(), PortalError> {
    let limits = config.limits.clone();
    let trusted_proxy = config.trusted_proxy;
    config.check_encryption(listener.local_addr()?.ip())?;
    let tls = config.tls.clone().map(Tls::load).transpose()?.map(Arc::new);
    let host = Arc::new(Host {
        routes: routes::all(Arc::new(Portal::new(config)?)),
        tls: tls.clone(),
        limits: limits.clone(),
        stop: stop.clone(),
    });
    tracing::info!(address = %listener.local_addr()?, tls = tls.is_some(), "the portal serves");
    let reloading = tls.map(|tls| tokio::spawn(tls.reload_until(stop.clone())));
    let (tasks, cut_off) = (TaskTracker::new(), CancellationToken::new());
    let _cut_off = cut_off.clone().drop_guard();
    let mut warned_at = None::<Instant>;
    let room = Arc::new(Semaphore::new(limits.max_connections));
    let shares = (!trusted_proxy).then(|| Shares::new((limits.max_connections / 10).max(1)));
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
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            if warned_at.is_none_or(|at| at.elapsed() > WARN_EVERY) {
                tracing::warn!(
                    limit = limits.max_connections,
                    "the limit of connections is reached: new ones are closed"
                );
                warned_at = Some(Instant::now());
            }
            continue;
        };
        // Behind a proxy all come from its address. The share is of networks, as the limits of requests are.
        let share = match shares.as_ref().map(|shares| shares.take(network(address.ip()))) {
            Some(None) => {
                tracing::debug!(%address, "an address has too many connections");
                continue;
            }
            Some(share) => share,
            None => None,
        };
        let (host, cut_off) = (Arc::clone(&host), cut_off.clone());
        tasks.spawn(async move {
            let _share = share;
            tokio::select! {
                () = host.run(socket, address, permit) => {}
                () = cut_off.cancelled() => {}
            }
        });
    }
    drop(listener);
    tasks.close();
    if timeout(limits.stop_grace, tasks.wait()).await.is_err() {
        tracing::warn!("requests in flight took too long and are cut off, because the portal stops");
    }
    if let Some(reloading) = reloading {
        reloading.abort();
    }
    Ok(())
}

struct Host {
    routes: Router,
    tls: Option<Arc<Tls>>,
    limits: Limits,
    stop: CancellationToken,
}

impl Host {
    async fn run(&self, socket: TcpStream, address: SocketAddr, _room: OwnedSemaphorePermit) {
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "a connection failed");
            return;
        }
        let Some(tls) = &self.tls else { return self.serve(socket, address).await };
        let handshake = TlsAcceptor::from(tls.config()).accept(socket);
        match timeout(self.limits.read_timeout, handshake).await {
            Ok(Ok(stream)) => self.serve(stream, address).await,
            Ok(Err(error)) => tracing::debug!(%error, "a handshake failed"),
            Err(_) => tracing::debug!("a handshake took too long"),
        }
    }

    async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, address: SocketAddr) {
        let service = service_fn(|request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(address));
            self.routes.clone().oneshot(request)
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(self.limits.read_timeout)
            .max_buf_size(LARGEST_HEAD);
        let mut serving = pin!(http.serve_connection(TokioIo::new(stream), service));
        let mut old = pin!(sleep(self.limits.max_connection_age));
        // Whoever reads slowly keeps a connection open; this ends it whatever it does.
        let mut too_old =
            pin!(sleep(self.limits.max_connection_age.saturating_add(self.limits.answer_timeout)));
        let mut ending = false;
        loop {
            tokio::select! {
                served = &mut serving => {
                    if let Err(error) = served {
                        tracing::debug!(%error, "a connection failed");
                    }
                    return;
                }
                () = &mut old, if !ending => {
                    ending = true;
                    serving.as_mut().graceful_shutdown();
                }
                () = self.stop.cancelled(), if !ending => {
                    ending = true;
                    serving.as_mut().graceful_shutdown();
                }
                () = &mut too_old => return,
            }
        }
    }
}

#[cfg(test)]
mod tests;
