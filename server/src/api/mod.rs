//! gRPC in. Reads requests into the vault's commands, calls one verb each, renders the answer.
//!
//! Everything that holds for every call stands around the services, in the order that [`serve`] shows.
//! This module knows nothing of storage, keys or providers. Start reading at [`serve`], then
//! `access` (who may what), `status` (what went wrong) and `convert` (what was meant).

mod access;
mod admin_http;
mod call;
mod convert;
mod layers;
mod refused;
mod status;
#[cfg(test)]
mod status_tests;
mod token_vault;
mod vault_admin;
mod watching;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use token_vault_proto::v1;
use token_vault_proto::v1::token_vault_server::TokenVaultServer;
use token_vault_proto::v1::vault_admin_server::VaultAdminServer;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::ServiceBuilder;

pub use admin_http::serve as serve_admin_http;

use crate::vault::Vault;
use layers::{admit, around, audit, authenticate, catch_panic, deadline, observe, translate};

/// Largest request message. A report carries at most 16 KiB of body and 64 headers.
const LARGEST_REQUEST: usize = 1024 * 1024;
/// Largest answer message: a page of a thousand tokens or events.
const LARGEST_ANSWER: usize = 4 * 1024 * 1024;
/// Calls in flight at once, over all connections. Past that they are refused at once. A watch is in flight until its
/// headers are sent; the vault bounds how many there are.
const IN_FLIGHT: usize = 1024;
/// Calls in flight at once on one connection, watches included; more wait in the client.
const STREAMS_PER_CONNECTION: u32 = 1024;
/// Bytes of headers per request: a key, a deadline and some tracing.
const HEADER_BYTES: u32 = 16 * 1024;
/// How often a silent connection is asked whether it lives, and how long it may take to say so.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// What health is told about.
const SERVICES: [&str; 3] = ["", "tokenvault.v1.TokenVault", "tokenvault.v1.VaultAdmin"];

/// Why the API could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address can't be had.
    #[error("cannot listen on {0}: {1}")]
    Bind(SocketAddr, io::Error),
    /// An RPC without a row in the access table, or the other way round.
    #[error("{0}")]
    AccessTable(String),
    /// Server reflection can't be built from the descriptors.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The transport failed.
    #[error("gRPC: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Listens on `address`; port 0 picks a free one.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|error| ServeError::Bind(address, error))
}

/// Serves until `stop`, then lets the calls in flight end. The caller bounds how long that may take.
pub async fn serve(
    listener: TcpListener,
    vault: Arc<Vault>,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    access::check_table(v1::FILE_DESCRIPTOR_SET).map_err(ServeError::AccessTable)?;

    let tokens = TokenVaultServer::new(token_vault::TokenVaultService::new(vault.clone()))
        .max_decoding_message_size(LARGEST_REQUEST)
        .max_encoding_message_size(LARGEST_ANSWER);
    let admin = VaultAdminServer::new(vault_admin::VaultAdminService::new(vault.clone()))
        .max_decoding_message_size(LARGEST_REQUEST)
        .max_encoding_message_size(LARGEST_ANSWER);
    let (reporter, health) = tonic_health::server::health_reporter();
    let following = tokio::spawn(follow_health(reporter, vault.health(), stop.clone()));

    let layers = ServiceBuilder::new()
        .layer(around((), observe)) // first: whatever happens below has an id and is logged once
        .layer(around((), catch_panic)) // a bug ends one call, and is logged as its outcome
        .layer(around(Arc::new(Semaphore::new(IN_FLIGHT)), admit)) // full? refuse now: waiting would only pile up
        .layer(around((), deadline)) // bounds all that may wait below: authentication reads too
        .layer(around(vault.clone(), authenticate)) // before a byte of the body is decoded
        .layer(around(vault.clone(), audit)) // who is known: from here on, what is done is done on somebody's behalf
        .layer(around((), translate)) // next to the decoder, whose refusals it words
        .into_inner();

    let connections = TcpListenerStream::new(listener).then(|accepted| async {
        match &accepted {
            // Without it, a small answer waits for the peer's delayed acknowledgement: 40 ms.
            Ok(socket) => socket.set_nodelay(true)?,
            // Out of file descriptors, say: asking again at once would only burn the processor.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
        accepted
    });
    let stopping = async move {
        stop.cancelled_owned().await;
        // A watch has no end of its own, and the server would wait for it.
        vault.stop_watches();
    };
    let served = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .http2_max_header_list_size(HEADER_BYTES)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .layer(layers)
        .add_service(tokens)
        .add_service(admin)
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .serve_with_incoming_shutdown(connections, stopping)
        .await;
    following.abort();
    Ok(served?)
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
