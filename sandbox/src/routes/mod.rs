//! The Graph API: every request goes through [`graph`], and each area has its file.

mod ad_accounts;
mod businesses;
mod control;
mod debug_token;
mod dialog;
mod help;
mod insights;
mod oauth;
mod user;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State as Axum};
use axum::response::Response;
use http::{Method, header};
use serde_json::{Value, json};

use crate::auth::{self, Caller};
use crate::config::Switches;
use crate::faults::apply;
use crate::faults::{self, FaultKind};
use crate::people::Person;
use crate::random::random_text;
use crate::state::{Shared, State};
use crate::usage::Call;
use crate::wire::error::{self, GraphError};
use crate::wire::reply::{Content, Draft, Outcome};
use crate::wire::request::{Endpoint, GraphRequest};

/// Control under `/_sandbox`; everything else is the Graph API.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new().nest("/_sandbox", control::router()).fallback(graph).with_state(shared)
}

async fn graph(Axum(shared): Axum<Arc<Shared>>, request: Request) -> Response {
    let request = GraphRequest::read(request).await;
    let _unanswered = shared.note_unanswered(request.endpoint);
    let mut cleared = shared.faults_cleared();
    let (kinds, draft) = reply(&shared, &request);
    shared.flush_outbox();
    if kinds.iter().any(|kind| matches!(kind, FaultKind::Hang)) {
        // The sender lives as long as the sandbox.
        let _ = cleared.changed().await;
    }
    apply::send(&kinds, draft).await
}

/// Makes the whole reply while the state is locked, so that no request sees half of another's work.
fn reply(shared: &Shared, request: &GraphRequest) -> (Vec<FaultKind>, Draft) {
    let mut state = shared.lock();
    let now = state.now();
    let at = state.clock.now_micros();
    state.requests.push(request.record(at));
    let kinds = faults::take(&mut state.faults, request);
    let trace = random_text(22);
    let mut draft = Draft::new(&served_version(&state.switches, request), &trace);
    if kinds.iter().any(|kind| matches!(kind, FaultKind::Reset)) {
        return (kinds, draft);
    }
    let content_type = state.switches.content_type.clone();
    let instead = kinds.iter().any(|kind| apply::instead_of_work(kind, &mut draft, &trace, &content_type));
    if !instead {
        match route(&mut state, &shared.url, request) {
            Ok(Content::Json(body)) => draft.json(&with_debug(body, request), &content_type),
            Ok(Content::Html { status, text }) => draft.html(status, text),
            Ok(Content::Redirect(location)) => draft.redirect(&location),
            Err(error) => draft.error(&error, &trace, &content_type),
        }
    }
    if let Some(call) = usage_call(&state, request) {
        for (name, value) in state.usage.headers(&call, state.switches.tier, now) {
            draft.set(name, &value);
        }
    }
    change_body(&kinds, &mut draft);
    if !instead && request.method == Method::GET && draft.status == 200 {
        draft.tag(request.headers.get(header::IF_NONE_MATCH));
    }
    for kind in &kinds {
        apply::change_draft(kind, &mut draft);
        if let FaultKind::ThenKill(subcode) = kind {
            kill_carried(&mut state, request, *subcode);
        }
    }
    (kinds, draft)
}

/// Applies the faults to the body, if it is JSON.
fn change_body(kinds: &[FaultKind], draft: &mut Draft) {
    if kinds.is_empty() {
        return;
    }
    if let Ok(mut body) = serde_json::from_slice::<Value>(&draft.body) {
        kinds.iter().for_each(|kind| apply::change_json(kind, &mut body));
        draft.body = Bytes::from(apply::write_raw(kinds, body.to_string()));
    }
}

fn kill_carried(state: &mut State, request: &GraphRequest, subcode: Option<u32>) {
    let carried: Vec<String> = state.tokens.keys().filter(|text| request.carries(text)).cloned().collect();
    carried.iter().for_each(|text| state.kill(text, subcode));
}

fn route(state: &mut State, base_url: &str, request: &GraphRequest) -> Outcome {
    check_version(&state.switches, request)?;
    match request.endpoint {
        Endpoint::OauthAccessToken => return oauth::access_token(state, request),
        Endpoint::Revoke => return oauth::revoke(state, request),
        Endpoint::ClientCode => return oauth::client_code(state, request),
        Endpoint::Dialog => return dialog::oauth(state, request),
        _ => {}
    }
    let caller = auth::caller(state, request)?;
    if let Some(call) = usage_call(state, request) {
        let (tier, now, status) = (state.switches.tier, state.now(), state.switches.throttle_status);
        state.usage.count(&call, tier, now, status)?;
    }
    let path: Vec<&str> = request.segments.iter().map(String::as_str).collect();
    match (request.endpoint, path.as_slice()) {
        (Endpoint::DebugToken, _) => debug_token::inspect(state, &caller, request),
        (Endpoint::AdAccounts, [id, _]) => ad_accounts::list(state, &caller, request, base_url, id),
        (Endpoint::AdAccount, [id]) => ad_accounts::one(state, &caller, request, id),
        (Endpoint::Insights, [id, _]) => insights::report(state, &caller, request, id),
        (Endpoint::Accounts, [id, _]) => user::pages(state, &caller, request, base_url, id),
        (Endpoint::Permissions, [id, _, rest @ ..]) => {
            user::permissions(state, &caller, request, id, rest.first().copied())
        }
        (Endpoint::Me | Endpoint::Object, [id]) => user::object(state, &caller, request, id),
        (Endpoint::Businesses, [id, _]) => businesses::list(state, &caller, request, base_url, id),
        (Endpoint::BusinessAdAccounts, [id, edge]) => {
            businesses::ad_accounts(state, &caller, request, base_url, id, edge)
        }
        (_, [id, "access_tokens"]) => oauth::system_user_tokens(state, &caller, request, id),
        _ => Err(unknown_path(request)),
    }
}

fn unknown_path(request: &GraphRequest) -> GraphError {
    let path = request.segments.join("/");
    GraphError::new(400, 2500, format!("Unknown path components: /{path}")).challenged("invalid_request")
}

/// The call as the limits count it; `None` for endpoints without a limit.
fn usage_call(state: &State, request: &GraphRequest) -> Option<Call> {
    let write = request.method != Method::GET;
    match request.endpoint {
        Endpoint::Dialog | Endpoint::OauthAccessToken | Endpoint::Revoke | Endpoint::ClientCode => None,
        Endpoint::AdAccount | Endpoint::Insights => {
            let id = request.segments.first()?.trim_start_matches("act_").to_owned();
            let mut accounts = state.people.values().flat_map(Person::all_ad_accounts);
            let active_ads = accounts.find(|account| account.id == id).map_or(0, |one| one.spec.active_ads);
            let insights = request.endpoint == Endpoint::Insights;
            Some(Call { account: Some(id), insights, ads: true, write, active_ads })
        }
        _ => Some(Call { write, ..Call::default() }),
    }
}

fn number(version: &str) -> (u32, u32) {
    let (major, minor) = version.trim_start_matches('v').split_once('.').unwrap_or((version, "0"));
    (major.parse().unwrap_or(0), minor.parse().unwrap_or(0))
}

/// The version that serves a request: the requested one if it is still served, otherwise the oldest.
fn served_version(switches: &Switches, request: &GraphRequest) -> String {
    match &request.version {
        Some(version) if number(version) >= number(&switches.oldest_version) => version.clone(),
        _ => switches.oldest_version.clone(),
    }
}

fn check_version(switches: &Switches, request: &GraphRequest) -> Result<(), GraphError> {
    let Some(version) = &request.version else { return Ok(()) };
    if number(version) > number(&switches.newest_version) {
        let path = request.segments.join("/");
        let text = format!("Unknown path components: /{version}/{path}");
        return Err(GraphError::new(400, 2500, text).challenged("invalid_request"));
    }
    let ads = matches!(
        request.endpoint,
        Endpoint::AdAccounts | Endpoint::BusinessAdAccounts | Endpoint::AdAccount | Endpoint::Insights
    );
    if ads && switches.retired_versions.contains(version) {
        return Err(GraphError::new(
            400,
            2635,
            format!(
                "(#2635) You are calling a deprecated version of the Ads API. Please update to the latest version: {}.",
                switches.newest_version
            ),
        ));
    }
    Ok(())
}

fn with_debug(mut body: Value, request: &GraphRequest) -> Value {
    if let (Some("all"), Value::Object(body)) = (request.param("debug"), &mut body) {
        body.insert(
            "__debug__".into(),
            json!({ "messages": [{
                "link": "https://developers.facebook.com/docs/apps/versions/",
                "message": "This is the sandbox: nothing here is Meta's.",
                "type": "warning",
            }]}),
        );
    }
    body
}

/// Refuses methods other than these.
pub(crate) fn only(request: &GraphRequest, id: &str, methods: &[Method]) -> Result<(), GraphError> {
    if methods.contains(&request.method) {
        return Ok(());
    }
    Err(error::no_object(id, request.method.as_str()))
}

/// The key and data of the person in the path.
pub(crate) fn subject(
    state: &State,
    caller: &Caller,
    request: &GraphRequest,
    id: &str,
) -> Result<(String, Person), GraphError> {
    auth::subject(state, caller, id, request.method.as_str())
}
