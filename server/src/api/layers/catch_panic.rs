use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use http::Request;
use tonic::body::Body;

use super::{Inner, Outcome, call_of};

/// A bug ends one call, not the process.
pub(in crate::api) async fn catch_panic<S: Inner>((): (), request: Request<Body>, mut inner: S) -> Outcome {
    let call = call_of(&request);
    match AssertUnwindSafe(inner.call(request)).catch_unwind().await {
        Ok(outcome) => outcome,
        Err(_) => Ok(call.bug().into_http()),
    }
}
