//! HTTP probes for an orchestrator: is the process alive, and can it take calls?

use std::io;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

#[derive(Clone)]
struct Probes {
    healthy: watch::Receiver<bool>,
    stop: CancellationToken,
}

/// Serves `/healthz` and `/readyz` until `stop`.
pub async fn serve(
    listener: TcpListener,
    healthy: watch::Receiver<bool>,
    stop: CancellationToken,
) -> io::Result<()> {
    let probes = Probes { healthy, stop: stop.clone() };
    let routes = Router::new().route("/healthz", get(alive)).route("/readyz", get(ready)).with_state(probes);
    axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// The process responds, so a restart would not help.
async fn alive() -> &'static str {
    "ok\n"
}

/// Whether the vault can take calls: it has its database and keys, and is not stopping.
async fn ready(State(probes): State<Probes>) -> (StatusCode, &'static str) {
    if probes.stop.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else if *probes.healthy.borrow() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the database or the keys are unavailable; see the log\n")
    }
}
