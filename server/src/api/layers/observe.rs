//! The outermost layer: each call gets an id and one log line.

use std::sync::Arc;

use http::{Request, Response};
use tonic::body::Body;
use tracing::Instrument;

use super::{Inner, Outcome, code_of};
use crate::api::call::{Call, LogAtEnd};
use crate::api::listener::Peer;

/// Gives the call an id, returns it as metadata `call-id`, and logs the call when it is over.
pub(in crate::api) async fn observe<S: Inner>((): (), mut request: Request<Body>, mut inner: S) -> Outcome {
    let peer = request.extensions_mut().remove::<Arc<Peer>>().unwrap_or_default();
    let call = Arc::new(Call::over(peer, request.uri().path()));
    let mut log = LogAtEnd::new(call.clone());
    request.extensions_mut().insert(call.clone());
    let mut response: Response<Body> = inner.call(request).instrument(call.span()).await?;
    log.ended(code_of(&response));
    if let Some(id) = call.id_header() {
        response.headers_mut().insert("call-id", id);
    }
    Ok(response)
}
