//! The audit log's view of a call: who acts, and how a call that changed nothing ended.

use std::sync::Arc;

use http::Request;
use tonic::Code;
use tonic::body::Body;

use super::{Inner, Outcome, call_of, code_name, code_of};
use crate::api::access::Permission;
use crate::api::status::deny;
use crate::vault::{Origin, Vault};

/// The reason of a denial that the audit log could not take.
const AUDIT_UNAVAILABLE: &str = "AUDIT_UNAVAILABLE";

/// A call that may be dropped before it has a response.
struct Abandoned<'a> {
    vault: &'a Arc<Vault>,
    origin: Option<Arc<Origin>>,
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if let Some(origin) = self.origin.take() {
            self.vault.record_abandoned(origin);
        }
    }
}

/// Sets the call's origin, denies a change that could not be recorded, and records how a call ended if it changed
/// nothing. The vault itself records changes and hand-outs where they happen.
pub(in crate::api) async fn audit<S: Inner>(
    vault: Arc<Vault>,
    request: Request<Body>,
    mut inner: S,
) -> Outcome {
    let call = call_of(&request);
    let Some(row) = call.row() else { return inner.call(request).await };
    let origin = call.origin();
    if row.changes
        && let Err(error) = vault.may_change()
    {
        return Ok(deny(error, &call).into_http());
    }
    let mut abandoned = Abandoned { vault: &vault, origin: row.changes.then(|| Arc::clone(&origin)) };
    let response = Arc::clone(&origin).scope(inner.call(request)).await?;
    abandoned.origin = None;
    let code = code_of(&response);
    // If the log became unwritable meanwhile, the denial that says so needs no record and could have none.
    if !row.changes || call.reason() == AUDIT_UNAVAILABLE {
        return Ok(response);
    }
    // Anybody on the internet can have a callback passed on.
    let is_free = row.permission == Permission::Callback;
    match vault.record_unchanged(&origin, code_name(code), call.reason(), is_free).await {
        Err(error) if code == Code::Ok => Ok(deny(error, &call).into_http()),
        _ => Ok(response),
    }
}
