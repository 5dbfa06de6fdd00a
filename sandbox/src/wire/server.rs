//! Accepts connections, serves them, and resets them when a fault says so.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use futures::future::BoxFuture;
use http::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower::{Service, ServiceExt};

use super::reply::CutConnection;

/// Serves until it is dropped, which closes every connection.
pub(crate) async fn serve(listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                continue;
            }
        };
        connections.spawn(serve_connection(stream, router.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve_connection(stream: TcpStream, router: Router) {
    let cut = Arc::new(AtomicBool::new(false));
    let io = TokioIo::new(CuttableStream { stream, cut: cut.clone() });
    let service = TowerToHyperService::new(CuttingService { router, cut });
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().half_close(false);
    if let Err(error) = builder.serve_connection(io, service).await {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// A stream that ends with RST instead of FIN when `cut` is set.
struct CuttableStream {
    stream: TcpStream,
    cut: Arc<AtomicBool>,
}

impl Drop for CuttableStream {
    fn drop(&mut self) {
        if self.cut.load(Ordering::SeqCst)
            && let Err(error) = self.stream.set_zero_linger()
        {
            tracing::debug!(%error, "a connection could not be reset");
        }
    }
}

impl AsyncRead for CuttableStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for CuttableStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The router. A response with [`CutConnection`] becomes an error, which ends the connection.
#[derive(Clone)]
struct CuttingService {
    router: Router,
    cut: Arc<AtomicBool>,
}

impl<B> Service<Request<B>> for CuttingService
where
    B: axum::body::HttpBody<Data = axum::body::Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response;
    type Error = io::Error;
    type Future = BoxFuture<'static, Result<Response, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Self { router, cut } = self.clone();
        Box::pin(async move {
            let response = router
                .oneshot(request.map(Body::new))
                .await
                .unwrap_or_else(|never: Infallible| match never {});
            if response.extensions().get::<CutConnection>().is_none() {
                return Ok(response);
            }
            cut.store(true, Ordering::SeqCst);
            Err(io::Error::from(io::ErrorKind::ConnectionReset))
        })
    }
}
