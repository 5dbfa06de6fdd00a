//! Reads what is left of a request that was answered before it was read, as a denial is. Otherwise HTTP/2 takes the
//! frames that still come for abuse, and after some hundred denied calls it ends the connection of a caller who did
//! nothing wrong.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use hyper::body::{Bytes, Incoming};
use tokio::runtime::Handle;
use tokio::time::timeout;

/// At most this many bytes are read, and for this long. What comes later ends the connection if it comes often.
const MOST: usize = 64 * 1024;
const LONGEST: Duration = Duration::from_secs(1);

/// The body of a request. When it is dropped, the rest is read in the background.
pub(super) struct Whole(Option<Incoming>);

impl Whole {
    pub(super) const fn new(body: Incoming) -> Self {
        Self(Some(body))
    }
}

impl Body for Whole {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.0 {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        if let (Some(body), Ok(runtime)) =
            (self.0.take().filter(|body| !body.is_end_stream()), Handle::try_current())
        {
            runtime.spawn(timeout(LONGEST, read_out(body)));
        }
    }
}

async fn read_out(mut body: Incoming) {
    let mut read = 0;
    while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > MOST {
            return;
        }
    }
}
