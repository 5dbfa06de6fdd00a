//! Limits the calls that are not authenticated yet, and the streams that never are.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::Request;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;

use super::bodies::hold;
use super::{Inner, Outcome, call_of, is_open, semaphore};
use crate::api::call::Call;
use crate::api::denial::Denial;
use crate::api::limits::Limits;
use crate::api::listener::Peer;

/// Open streams of health and reflection per connection.
const OPEN_STREAMS_PER_CONNECTION: usize = 16;
/// The RPC that probes call.
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";

#[derive(Clone)]
pub(in crate::api) struct Admission {
    /// For calls that will authenticate.
    calls: Arc<Semaphore>,
    /// For streams of health and reflection.
    open_streams: Arc<Semaphore>,
}

impl Admission {
    pub(in crate::api) fn new(limits: &Limits) -> Self {
        Self { calls: semaphore(limits.max_calls), open_streams: semaphore(limits.max_open_streams) }
    }
}

/// A permit of [`Admission::calls`], in the request's extensions. Authentication gives it back.
pub(super) type AdmissionPermit = Arc<OwnedSemaphorePermit>;

/// Denies a call at once when too many calls are waiting for authentication. Health and reflection have permits of
/// their own, and `Health/Check` needs none: a probe always gets through.
pub(in crate::api) async fn admit<S: Inner>(
    admission: Admission,
    mut request: Request<Body>,
    mut inner: S,
) -> Outcome {
    let call = call_of(&request);
    let path = request.uri().path();
    if path == HEALTH_CHECK {
        return inner.call(request).await;
    }
    if is_open(path) {
        let Some(stream) = OpenStream::begin(&call, &admission.open_streams) else {
            return Ok(call.deny(Denial::too_many_open_streams()).into_http());
        };
        // Such a stream has no end of its own, so it keeps its permit until its response ends.
        return Ok(hold(inner.call(request).await?, stream));
    }
    let busy = call.peer().busy();
    match Arc::clone(&admission.calls).try_acquire_owned() {
        Ok(permit) => {
            request.extensions_mut().insert(AdmissionPermit::new(permit));
            Ok(hold(inner.call(request).await?, busy))
        }
        Err(_) => Ok(call.deny(Denial::overloaded()).into_http()),
    }
}

/// Counts one stream of health or reflection: in total, and on its connection.
struct OpenStream {
    peer: Arc<Peer>,
    _permit: OwnedSemaphorePermit,
}

impl OpenStream {
    fn begin(call: &Call, permits: &Arc<Semaphore>) -> Option<Self> {
        let permit = Arc::clone(permits).try_acquire_owned().ok()?;
        let before = call.peer().open_streams.fetch_add(1, Ordering::Relaxed);
        let stream = Self { peer: Arc::clone(call.peer()), _permit: permit };
        (before < OPEN_STREAMS_PER_CONNECTION).then_some(stream)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.peer.open_streams.fetch_sub(1, Ordering::Relaxed);
    }
}
