//! The response stream of a watch. The transport pulls it: the vault is asked for the next response when the caller
//! can take one, and nothing is read ahead.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use token_vault_proto::v1 as pb;
use token_vault_proto::v1::watch_expiry_events_response::Item;
use tonic::{Code, Status};
use tracing::Instrument;

use super::call::Call;
use super::convert::responses;
use super::denial::Denial;
use super::status::deny;
use crate::vault::Watch;

/// The responses of a watch. The error that ends it is the last item.
pub(super) type Responses = BoxStream<'static, Result<pb::WatchExpiryEventsResponse, Status>>;

/// The stream of `watch`, which `call` started.
pub(super) fn follow(call: Arc<Call>, watch: Watch) -> Responses {
    let watching = Watching {
        call,
        watch,
        prepared: VecDeque::new(),
        started: Instant::now(),
        events: 0,
        code: Code::Cancelled,
    };
    stream::unfold(Some(watching), |watching| async {
        let mut watching = watching?;
        let response = watching.next().await;
        let continues = response.is_ok();
        Some((response, continues.then_some(watching)))
    })
    .boxed()
}

/// A running watch. Logs its end when dropped, so that one whose caller hangs up is logged too.
struct Watching {
    call: Arc<Call>,
    watch: Watch,
    /// Responses made together and not sent yet: their items were too large for one message.
    prepared: VecDeque<pb::WatchExpiryEventsResponse>,
    started: Instant,
    events: usize,
    code: Code,
}

impl Watching {
    async fn next(&mut self) -> Result<pb::WatchExpiryEventsResponse, Status> {
        loop {
            // Send nothing more, not even prepared responses, to a caller whose permission has ended.
            if let Err(error) = self.watch.check_permission() {
                return Err(self.end(deny(error, &self.call)));
            }
            if let Some(response) = self.prepared.pop_front() {
                if let Some(Item::Events(batch)) = &response.item {
                    self.events += batch.events.len();
                }
                return Ok(response);
            }
            // The layers have seen the headers and are done, so panics must be caught here.
            let next = AssertUnwindSafe(self.watch.next().instrument(self.call.span())).catch_unwind();
            let next = tokio::select! {
                // Prefer the vault's reason for ending a watch to the news that the connection ends.
                biased;
                next = next => next,
                () = self.call.peer().ending().cancelled() => {
                    let status = self.call.deny(Denial::connection_ends());
                    return Err(self.end(status));
                }
            };
            let status = match next {
                Ok(Ok(watched)) => {
                    self.prepared = responses(watched);
                    continue;
                }
                Ok(Err(error)) => deny(error, &self.call),
                Err(_) => self.call.bug(),
            };
            return Err(self.end(status));
        }
    }

    fn end(&mut self, status: Status) -> Status {
        self.code = status.code();
        status
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.call.log_watch(self.code, self.started.elapsed(), self.events);
    }
}
