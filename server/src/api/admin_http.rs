//! HTTP for those who watch the process: is it alive, may it be sent calls.

use std::io;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What the probes look at.
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

/// The process answers; a restart would help nothing.
async fn alive() -> &'static str {
    "ok\n"
}

/// Calls can be answered: the database is there and the process is not stopping.
async fn ready(State(probes): State<Probes>) -> (StatusCode, &'static str) {
    if probes.stop.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else if *probes.healthy.borrow() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the database or the keys are away; see the log\n")
    }
}
