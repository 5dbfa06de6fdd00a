//! Answers calls before the vault is open.

use http::Request;
use tonic::body::Body;

use super::{Inner, Outcome, call_of, is_open};
use crate::api::status::deny;
use crate::vault::VaultError;

/// Denies every call but those of the health service, which says NOT_SERVING.
pub(in crate::api) async fn not_open<S: Inner>((): (), request: Request<Body>, mut inner: S) -> Outcome {
    if is_open(request.uri().path()) {
        return inner.call(request).await;
    }
    Ok(deny(VaultError::KeyServiceUnavailable, &call_of(&request)).into_http())
}
