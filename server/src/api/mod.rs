//! gRPC in. Reads requests into the vault's commands, calls one verb each, renders the answer.
//!
//! Everything that holds for every call stands around the services, in the order that [`serve`] shows.
//! This module knows nothing of storage, keys or providers. Start reading at [`serve`], then
//! `listener` (connections), `access` (who may what), `status` (what went wrong) and `convert` (what was meant).

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
pub use listener::tls::{ClientAuth, Tls, TlsFiles, TlsProblem};

use crate::vault::Vault;
use layers::{Gate, Places, admit, around, audit, authenticate, catch_panic, deadline, observe, translate};

/// Largest answer message: a page of a thousand tokens or events.
const LARGEST_ANSWER: usize = 4 * 1024 * 1024;
/// What health is told about.
const SERVICES: [&str; 3] = ["", "tokenvault.v1.TokenVault", "tokenvault.v1.VaultAdmin"];

/// Why the API could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address can't be had.
    #[error("cannot listen on {0}: {1}")]
    Bind(SocketAddr, io::Error),
    /// Server reflection can't be built from the descriptors.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Listens on `address`; port 0 picks a free one.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|error| ServeError::Bind(address, error))
}

/// Serves until `stop`, then lets the calls in flight end. The caller bounds how long that may take. Without `tls`, in the
/// clear.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    limits: Limits,
    vault: Arc<Vault>,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let tokens = TokenVaultServer::new(token_vault::TokenVaultService::new(vault.clone()))
        .max_decoding_message_size(limits.max_request_bytes)
        .max_encoding_message_size(LARGEST_ANSWER);
    let admin = VaultAdminServer::new(vault_admin::VaultAdminService::new(vault.clone()))
        .max_decoding_message_size(limits.max_request_bytes)
        .max_encoding_message_size(LARGEST_ANSWER);
    let (reporter, health) = tonic_health::server::health_reporter();
    let following = tokio::spawn(follow_health(reporter, vault.health(), stop.clone()));

    let layers = ServiceBuilder::new()
        .layer(around((), observe)) // first: whatever happens below has an id and is logged once
        .layer(around((), catch_panic)) // a bug ends one call, and is logged as its outcome
        .layer(around(Places::new(&limits), admit)) // full? refuse now: waiting would only pile up
        .layer(around((), deadline)) // bounds all that may wait below: authentication reads too
        .layer(around(Gate::new(vault.clone(), &limits), authenticate)) // before a byte of the body is decoded
        .layer(around(vault.clone(), audit)) // who is known: from here on, what is done is done on somebody's behalf
        .layer(around(limits.max_request_bytes, translate)) // next to the decoder, whose refusals it words
        .into_inner();
    let services = Routes::new(tokens)
        .add_service(admin)
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .prepare();

    let stopping = CancellationToken::new();
    let ending = tokio::spawn({
        let stopping = stopping.clone();
        async move {
            stop.cancelled_owned().await;
            // A watch has no end of its own, and the server would wait for it.
            vault.stop_watches();
            stopping.cancel();
        }
    });
    listener::serve(listener, layers.layer(services), tls, limits, stopping).await;
    following.abort();
    ending.abort();
    Ok(())
}

/// What `grpcurl` asks. The error details are registered too, or it could not print them.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Tells health what the vault says of itself; once stopping, that it serves no more.
async fn follow_health(
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
