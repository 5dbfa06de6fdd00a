//! Two judges of a token: the provider's inspector, and a data call of the vault's own.

mod app_wide;
mod due;
mod examples;
mod no_pause_without_end;
mod second_call;
mod table;

use std::time::Duration;

use serde_json::json;
use token_vault_proto::v1::report_token_error_response::{Advice, Verdict};
use token_vault_tests::eventually_async;
use token_vault_tests::prelude::*;

/// A little more than the time between two data calls that condemn a token.
const APART: Duration = Duration::from_secs(11);
const LIMIT: Duration = Duration::from_secs(60);

/// A Graph error, as the provider sends it and as a caller reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct GraphError {
    code: i64,
    subcode: Option<u32>,
    message: &'static str,
}

const fn error(code: i64, subcode: Option<u32>, message: &'static str) -> GraphError {
    GraphError { code, subcode, message }
}

impl GraphError {
    fn body(self) -> String {
        let mut error = json!({ "message": self.message, "type": "OAuthException", "code": self.code });
        if let Some(subcode) = self.subcode {
            error["error_subcode"] = json!(subcode);
        }
        json!({ "error": error }).to_string()
    }

    fn fault(self) -> FaultKind {
        FaultKind::GraphError {
            http: if self.code == 1 || self.code == 2 { 503 } else { 400 },
            code: self.code,
            subcode: self.subcode,
            transient: None,
            message: Some(self.message.to_owned()),
            kind: None,
        }
    }
}

/// Stops time an hour after a daily slot, whose pass is over then. So the vault makes no call that the test does not
/// expect, and makes the expected ones only when the test moves time.
async fn stand_still(world: &World) {
    const DAY: i64 = 86_400;
    let clock = world.sandbox.clock();
    clock.freeze();
    clock.set((clock.now() / DAY + 1) * DAY + 7 * 3_600);
    world.time_is_here().await;
    eventually_async("the daily pass is over", LIMIT, async || {
        let passes = world.admin().runs("meta-token-expiry").await;
        passes.first().is_some_and(|pass| pass.ended_at.is_some()).then_some(())
    })
    .await;
}

/// Refuses every data call with this token; the inspector goes on calling it valid.
fn refuse_data(world: &World, secret: &str, error: GraphError) {
    for endpoint in [Endpoint::AdAccounts, Endpoint::Me, Endpoint::Insights] {
        world.sandbox.fault(Fault::on(endpoint).token(secret).always().with(error.fault()));
    }
}

async fn report(caller: &Caller, id: &str, error: GraphError) -> pb::ReportTokenErrorResponse {
    caller.report(id, 1, 400, &error.body()).await.unwrap()
}

fn said(response: &pb::ReportTokenErrorResponse) -> (Verdict, Advice, bool) {
    let waits = response.retry_after.is_some_and(|wait| wait.seconds > 0 || wait.nanos > 0);
    (response.verdict(), response.advice(), waits)
}

/// Every event about a connection so far, in order.
async fn kinds(world: &World, id: &str) -> Vec<Kind> {
    let filter = pb::EventFilter { connection_ids: vec![id.to_owned()], ..Default::default() };
    let request =
        pb::ListExpiryEventsRequest { filter: Some(filter), oldest_first: true, ..Default::default() };
    let events = world.admin().list_expiry_events(request).await.unwrap().events;
    events.iter().map(|event| event.kind()).collect()
}

async fn waits_for(world: &World, id: &str, kind: Kind) {
    eventually_async(&format!("{kind:?} of {id}"), LIMIT, async || {
        kinds(world, id).await.contains(&kind).then_some(())
    })
    .await;
}
