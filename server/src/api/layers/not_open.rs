//! Answers calls before the vault is open.

use http::Request;
use tokio::sync::watch;
use tonic::body::Body;

use super::{Inner, Outcome, call_of, is_open};
use crate::api::status::deny;
use crate::vault::{Missing, VaultError};

/// Denies every call but those of the health service, which says NOT_SERVING.
pub(in crate::api) async fn not_open<S: Inner>(
    missing: watch::Receiver<Option<Missing>>,
    request: Request<Body>,
    mut inner: S,
) -> Outcome {
    if is_open(request.uri().path()) {
        return inner.call(request).await;
    }
    let error = match *missing.borrow() {
        Some(Missing::KeyService) => VaultError::KeyServiceUnavailable,
        Some(Missing::Room) | None => VaultError::StorageUnavailable,
    };
    Ok(deny(error, &call_of(&request)).into_http())
}
