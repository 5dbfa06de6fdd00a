use http::Request;
use tonic::Code;
use tonic::body::Body;

use super::{Inner, Outcome, call_of, code_of};
use crate::api::denial::Denial;

/// Replaces the errors that the transport makes by itself with denials: its codes would mislead the caller.
pub(in crate::api) async fn translate<S: Inner>(
    max_request_bytes: usize,
    request: Request<Body>,
    mut inner: S,
) -> Outcome {
    let call = call_of(&request);
    let response = inner.call(request).await?;
    let by_transport = call.row().is_some() && !call.is_denied();
    Ok(match code_of(&response) {
        Code::OutOfRange if by_transport => {
            call.deny(Denial::message_too_large(max_request_bytes)).into_http()
        }
        Code::Internal if by_transport => call.deny(Denial::message_malformed()).into_http(),
        _ => response,
    })
}
