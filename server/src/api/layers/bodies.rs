//! Bodies that hold something while they last, and those that may not last for ever.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Response;
use tokio::task::AbortHandle;
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;

use crate::api::call::Call;
use crate::api::denial::Refused;

/// How long a request's message may take to come after its headers.
const LONGEST_ARRIVAL: Duration = Duration::from_secs(10);
/// How long an answer may lie unread.
const LONGEST_READING: Duration = Duration::from_secs(60);

/// The answer, which holds `guard` until its end.
pub(super) fn hold<G: Send + Unpin + 'static>(response: Response<Body>, guard: G) -> Response<Body> {
    if http_body::Body::is_end_stream(response.body()) {
        return response;
    }
    response.map(|body| Body::new(Held { body, _guard: guard }))
}

/// See [`hold`].
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

/// The answer, which keeps its place until it is read, and is thrown away when nobody reads it.
pub(super) fn until_read<G: Send + 'static>(response: Response<Body>, guard: G) -> Response<Body> {
    if http_body::Body::is_end_stream(response.body()) {
        return response;
    }
    response.map(|body| {
        let answer = Arc::new(Mutex::new(Some((body, Some(guard)))));
        let unread = Arc::downgrade(&answer);
        // The transport asks for no more of it while its reader does not read: nothing else would notice.
        let watch = tokio::spawn(async move {
            tokio::time::sleep(LONGEST_READING).await;
            if let Some(answer) = unread.upgrade() {
                answer.lock().unwrap_or_else(PoisonError::into_inner).take();
            }
        });
        Body::new(Answer { answer, watch: watch.abort_handle() })
    })
}

/// An answer and what it holds; nothing once it was thrown away.
type Kept<G> = Arc<Mutex<Option<(Body, Option<G>)>>>;

/// See [`until_read`].
struct Answer<G> {
    answer: Kept<G>,
    watch: AbortHandle,
}

impl<G> Drop for Answer<G> {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl<G> http_body::Body for Answer<G> {
    type Data = <Body as http_body::Body>::Data;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Status>>> {
        let mut answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((body, guard)) = answer.as_mut() else {
            return Poll::Ready(Some(Err(Status::cancelled("The answer was not read in time."))));
        };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if frame.as_ref().is_none_or(|frame| frame.as_ref().map_or(true, http_body::Frame::is_trailers)) {
            // Before its reader can know that it has all.
            guard.take();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        answer.as_ref().is_some_and(|(body, _)| body.is_end_stream())
    }
}

/// The request's message, which has to come soon: a place is not for waiting.
pub(super) struct Arriving {
    body: Body,
    call: Arc<Call>,
    /// Begins when the message is first waited for.
    late: Option<Pin<Box<Sleep>>>,
}

impl Arriving {
    pub(super) fn new(body: Body, call: Arc<Call>) -> Self {
        Self { body, call, late: None }
    }
}

impl http_body::Body for Arriving {
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
        Poll::Ready(Some(Err(Refused::too_slow(LONGEST_ARRIVAL).into_status(&self.call))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
