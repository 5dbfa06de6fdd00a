//! The stream of a watch. The transport pulls it: the vault is asked for the next answer when the caller can take
//! one, and nothing is read ahead.

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
use super::convert::answers;
use super::denial::Refused;
use super::status::refuse;
use crate::vault::Watch;

/// What a watch answers until it ends. The error that ends it is its last item.
pub(super) type Answers = BoxStream<'static, Result<pb::WatchExpiryEventsResponse, Status>>;

/// The stream of `watch`, which `call` began.
pub(super) fn follow(call: Arc<Call>, watch: Watch) -> Answers {
    let watching = Watching {
        call,
        watch,
        rest: VecDeque::new(),
        began: Instant::now(),
        events: 0,
        code: Code::Cancelled,
    };
    stream::unfold(Some(watching), |watching| async {
        let mut watching = watching?;
        let answer = watching.next().await;
        let goes_on = answer.is_ok();
        Some((answer, goes_on.then_some(watching)))
    })
    .boxed()
}

/// A watch under way. Logs how it went when it is over, also when its caller hangs up.
struct Watching {
    call: Arc<Call>,
    watch: Watch,
    /// Parts of an answer that was too large for one message.
    rest: VecDeque<pb::WatchExpiryEventsResponse>,
    began: Instant,
    events: usize,
    code: Code,
}

impl Watching {
    async fn next(&mut self) -> Result<pb::WatchExpiryEventsResponse, Status> {
        loop {
            // What was prepared is not for somebody whose permission has ended since.
            if let Err(error) = self.watch.check_permission() {
                let ended = refuse(error, &self.call);
                self.code = ended.code();
                return Err(ended);
            }
            if let Some(answer) = self.rest.pop_front() {
                if let Some(Item::Events(batch)) = &answer.item {
                    self.events += batch.events.len();
                }
                return Ok(answer);
            }
            // The layers see the headers only: from there on a bug must be caught here.
            let asked = AssertUnwindSafe(self.watch.next().instrument(self.call.span())).catch_unwind();
            let asked = tokio::select! {
                // Why the vault ends a watch says more than that its connection ends.
                biased;
                asked = asked => asked,
                () = self.call.peer().ending().cancelled() => {
                    let ended = Refused::connection_ends().into_status(&self.call);
                    self.code = ended.code();
                    return Err(ended);
                }
            };
            let ended = match asked {
                Ok(Ok(said)) => {
                    self.rest = answers(said);
                    continue;
                }
                Ok(Err(error)) => refuse(error, &self.call),
                Err(_) => self.call.bug(),
            };
            self.code = ended.code();
            return Err(ended);
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.call.log_watch(self.code, self.began.elapsed(), self.events);
    }
}
