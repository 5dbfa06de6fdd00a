//! Bodies that hold a guard until they end, and bodies with a time limit.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Response;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;

use crate::api::call::Call;
use crate::api::denial::Denial;

/// How long a request's message may take to come after its headers.
const LONGEST_ARRIVAL: Duration = Duration::from_secs(10);
/// How long a response may stay unread.
const LONGEST_READING: Duration = Duration::from_secs(60);

/// Makes the response hold `guard` until it ends.
pub(super) fn hold<G: Send + Unpin + 'static>(response: Response<Body>, guard: G) -> Response<Body> {
    if http_body::Body::is_end_stream(response.body()) {
        return response;
    }
    response.map(|body| Body::new(Held { body, _guard: guard }))
}

struct Held<G> {
    body: Body,
    _guard: G,
}

impl<G: Unpin> http_body::Body for Held<G> {
    type Data = <Body as http_body::Body>::Data;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// Makes the response hold `guard` until it is read, and drops it if the client does not read it in time.
pub(super) fn until_read<G: Send + 'static>(response: Response<Body>, guard: G) -> Response<Body> {
    if http_body::Body::is_end_stream(response.body()) {
        return response;
    }
    response.map(|body| {
        let unread = Arc::new(Mutex::new(Some((body, Some(guard)))));
        let weak = Arc::downgrade(&unread);
        // While the reader does not read, the transport does not poll the body, so a timer must drop it.
        let timer = tokio::spawn(async move {
            tokio::time::sleep(LONGEST_READING).await;
            if let Some(unread) = weak.upgrade() {
                unread.lock().take();
            }
        });
        Body::new(UntilRead { unread, timer: timer.abort_handle() })
    })
}

/// A body and its guard; `None` once they were dropped for being late.
type Unread<G> = Arc<Mutex<Option<(Body, Option<G>)>>>;

struct UntilRead<G> {
    unread: Unread<G>,
    timer: AbortHandle,
}

impl<G> Drop for UntilRead<G> {
    fn drop(&mut self) {
        self.timer.abort();
    }
}

impl<G> http_body::Body for UntilRead<G> {
    type Data = <Body as http_body::Body>::Data;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Status>>> {
        let mut unread = self.unread.lock();
        let Some((body, guard)) = unread.as_mut() else {
            return Poll::Ready(Some(Err(Status::cancelled("The response was not read in time."))));
        };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if frame.as_ref().is_none_or(|frame| frame.as_ref().map_or(true, http_body::Frame::is_trailers)) {
            // Release it before the reader can know that the response is complete.
            guard.take();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let unread = self.unread.lock();
        unread.as_ref().is_some_and(|(body, _)| body.is_end_stream())
    }
}

/// The request's message, which must arrive soon: a call must not hold its permit while it waits for the client.
pub(super) struct ArrivingBody {
    body: Body,
    call: Arc<Call>,
    /// The timer, started when the message is first waited for.
    late: Option<Pin<Box<Sleep>>>,
}

impl ArrivingBody {
    pub(super) fn new(body: Body, call: Arc<Call>) -> Self {
        Self { body, call, late: None }
    }
}

impl http_body::Body for ArrivingBody {
    type Data = <Body as http_body::Body>::Data;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        let late = self.late.get_or_insert_with(|| Box::pin(tokio::time::sleep(LONGEST_ARRIVAL)));
        ready!(late.as_mut().poll(cx));
        Poll::Ready(Some(Err(self.call.deny(Denial::message_too_slow(LONGEST_ARRIVAL)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
