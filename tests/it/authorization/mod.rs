//! OAuth over gRPC: a person consents at the provider's dialog, and the vault keeps the token.

mod bad_input;
mod bound;
mod consent;
mod links;
mod once;

use std::time::Duration;

use pb::intake_result::Outcome;
use token_vault_sandbox::{Decision, User};
use token_vault_tests::prelude::*;
use token_vault_tests::request_id;

const CALLBACK: &str = "https://app.example/callback?from=meta";
const SESSION: &str = "hash-of-the-session-cookie";
const LIMIT: Duration = Duration::from_secs(60);

fn new() -> pb::BeginAuthorizationRequest {
    pb::BeginAuthorizationRequest {
        workspace_id: ACME.into(),
        provider: "meta".into(),
        redirect_uri: CALLBACK.into(),
        session_binding: SESSION.into(),
        request_id: request_id(),
        ..Default::default()
    }
}

fn reconnect(id: &str) -> pb::BeginAuthorizationRequest {
    pb::BeginAuthorizationRequest { connection_id: Some(id.into()), ..new() }
}

/// Begins an authorization, and lets a person decide. Returns where the browser is sent.
async fn consented(
    world: &World,
    caller: &Caller,
    request: pb::BeginAuthorizationRequest,
    person: &User,
    decision: Decision,
) -> String {
    let begun = caller.begin_authorization(request).await.expect("an authorization begins");
    world.know("state", &begun.state);
    world.sandbox.consent(&begun.authorization_url, &person.name(), decision).expect("the dialog is shown")
}

async fn complete(caller: &Caller, callback: &str) -> Result<pb::IntakeResult, Denial> {
    let request = pb::CompleteAuthorizationRequest {
        workspace_id: ACME.into(),
        callback_query: callback.into(),
        session_binding: SESSION.into(),
    };
    Ok(caller.complete_authorization(request).await?.result.expect("an answer has a result"))
}

fn is_over(no: &Denial) {
    no.is(Code::InvalidArgument, Reason::AuthorizationStateInvalid);
    assert!(no.facts().is_empty(), "a forger learns nothing: {no:?}");
}

/// How many codes were exchanged, or were to be.
fn codes(world: &World) -> usize {
    world.sandbox.requests().iter().filter(|request| request.param("code").is_some()).count()
}

fn param(url: &str, name: &str) -> Option<String> {
    let url = url::Url::parse(url).expect("a URL");
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}
