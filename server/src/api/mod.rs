//! The gRPC API. Each handler reads its request into a command, calls one verb of the vault and renders the response.
//!
//! What applies to every call happens in the layers around the services, in the order that [`serve`] shows. This
//! module knows nothing of storage, keys or providers. Start reading at [`serve`], then `listener` (connections),
//! `layers` (the steps around a call), `access` (who may call what), `status` (errors) and `convert` (messages).
//!
//! Dependencies point downwards: services and layers use `status`, `status` uses `call`, `call` uses `denial`.

mod access;
mod admin_http;
mod call;
mod convert;
mod denial;
#[cfg(fuzzing)]
pub mod fuzzing;
mod layers;
mod limits;
mod listener;
mod status;
#[cfg(test)]
mod status_tests;
mod token_vault;
mod vault_admin;
mod watching;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use token_vault_proto::v1;
use token_vault_proto::v1::token_vault_server::TokenVaultServer;
use token_vault_proto::v1::vault_admin_server::VaultAdminServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::{Layer, ServiceBuilder};

pub use admin_http::serve as serve_admin_http;
pub use limits::Limits;
pub use listener::tls::{ClientAuth, Tls, TlsFiles};

use crate::vault::{Missing, Vault};
use layers::{
    Admission, Authenticator, admit, around, audit, authenticate, catch_panic, deadline, not_open, observe,
    translate,
};

/// The services whose health is reported.
const SERVICES: [&str; 3] = ["", "tokenvault.v1.TokenVault", "tokenvault.v1.VaultAdmin"];

/// Why the API could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is in use, or does not belong to this machine.
    #[error("cannot listen on {0}: {1}")]
    Bind(SocketAddr, io::Error),
    /// The proto descriptors are not what reflection expects.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Listens on `address`; port 0 picks a free one.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|error| ServeError::Bind(address, error))
}

/// Serves until `stop`, then lets the calls in flight end, and denies those that have not by `last_call`. Dropping this
/// future cuts all connections off. Without `tls`, in plain text.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    limits: Limits,
    vault: Arc<Vault>,
    stop: CancellationToken,
    last_call: CancellationToken,
) -> Result<(), ServeError> {
    // Responses need no limit here: `convert::bounds` makes them short enough.
    let tokens = TokenVaultServer::new(token_vault::TokenVaultService::new(vault.clone()))
        .max_decoding_message_size(limits.max_request_bytes);
    let admin = VaultAdminServer::new(vault_admin::VaultAdminService::new(vault.clone()))
        .max_decoding_message_size(limits.max_request_bytes);
    let (reporter, health) = tonic_health::server::health_reporter();
    let health_reports = tokio::spawn(report_health(reporter, vault.health(), stop.clone()));

    let layers = ServiceBuilder::new()
        .layer(around((), observe)) // first: every call gets an id and one log line
        .layer(around((), catch_panic)) // a bug ends one call, and is logged as its outcome
        .layer(around(Admission::new(&limits), admit)) // when full, deny at once: waiting calls would pile up
        .layer(around(last_call, deadline)) // limits all waiting below, authentication included
        .layer(around(Arc::new(Authenticator::new(vault.clone(), &limits)), authenticate)) // before the body is decoded
        .layer(around(vault.clone(), audit)) // the caller is known: everything below is done on its behalf
        .layer(around(limits.max_request_bytes, translate)) // next to the decoder, whose errors it rewords
        .into_inner();
    let services = Routes::new(tokens)
        .add_service(admin)
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .prepare();

    let stopping = CancellationToken::new();
    let stopper = tokio::spawn({
        let stopping = stopping.clone();
        async move {
            stop.cancelled_owned().await;
            // A watch has no end of its own, so the server would wait for it forever.
            vault.stop_watches();
            stopping.cancel();
        }
    });
    listener::serve(listener, layers.layer(services), tls, limits, stopping).await;
    health_reports.abort();
    stopper.abort();
    Ok(())
}

/// Tells callers what the vault waits for before it opens, until this future is dropped: they must not be left waiting.
pub async fn serve_before_opening(
    listener: &TcpListener,
    tls: Option<Arc<Tls>>,
    limits: Limits,
    missing: watch::Receiver<Option<Missing>>,
) {
    let (reporter, health) = tonic_health::server::health_reporter();
    for service in SERVICES {
        reporter.set_service_status(service, ServingStatus::NotServing).await;
    }
    let layers =
        ServiceBuilder::new().layer(around((), observe)).layer(around(missing, not_open)).into_inner();
    let services = layers.layer(Routes::new(health).prepare());
    listener::serve(listener, services, tls, limits, CancellationToken::new()).await;
}

/// Server reflection, for `grpcurl`. The error details are registered too, so that it can print them.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Reports the vault's health, and NOT_SERVING once it is stopping.
async fn report_health(
    reporter: HealthReporter,
    mut healthy: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    loop {
        let serving = *healthy.borrow_and_update() && !stop.is_cancelled();
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in SERVICES {
            reporter.set_service_status(service, status).await;
        }
        if stop.is_cancelled() {
            return;
        }
        tokio::select! {
            changed = healthy.changed() => if changed.is_err() { stop.cancelled().await },
            () = stop.cancelled() => {}
        }
    }
}
