//! HTTP probes for an orchestrator: is the process alive, and can it take calls? Only the first is a reason to restart
//! it: what makes a vault unready, such as a full disk, a restart would not mend.

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

/// Serves the probes until it is aborted; after `stop`, the vault is alive and not ready.
pub async fn serve(
    listener: TcpListener,
    healthy: watch::Receiver<bool>,
    stop: CancellationToken,
) -> io::Result<()> {
    let probes = Probes { healthy, stop };
    let routes = Router::new()
        .route("/livez", get(alive))
        .route("/healthz", get(alive)) // the older name
        .route("/readyz", get(ready))
        .with_state(probes);
    axum::serve(listener, routes).await
}

/// The process responds, so a restart would not help.
async fn alive() -> &'static str {
    "alive\n"
}

/// Whether calls are answered: the database and the audit log can be written, and the vault is not stopping.
async fn ready(State(probes): State<Probes>) -> (StatusCode, &'static str) {
    if probes.stop.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else if *probes.healthy.borrow() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the database or the audit log can't be written; see the log\n")
    }
}
