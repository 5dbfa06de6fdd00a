//! `/_sandbox`: lets people and other processes do what a test does with [`Sandbox`](crate::Sandbox).

mod callbacks;
mod people;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State as Axum;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::help;
use crate::config::{App, DEFAULT_APP_SECRET};
use crate::faults::Fault;
use crate::state::Shared;
use crate::usage::UsageScope;

type SharedState = Axum<Arc<Shared>>;

/// Why a body could not be read.
struct BadRequest(String);

impl IntoResponse for BadRequest {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.0, "help": "GET /_sandbox" });
        (StatusCode::BAD_REQUEST, Json(body)).into_response()
    }
}

type ControlReply = Result<Json<Value>, BadRequest>;

/// Reads JSON with any content type, so that plain `curl -d` works.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, BadRequest> {
    serde_json::from_slice(body).map_err(|error| BadRequest(error.to_string()))
}

fn done() -> ControlReply {
    Ok(Json(json!({ "done": true })))
}

pub(crate) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/", get(show_help))
        .route("/users", get(people::list_users).post(people::make_user))
        .route("/users/{name}/tokens", post(people::make_token))
        .route("/users/{name}/actions", post(people::act))
        .route("/tokens/kill", post(kill))
        .route("/tokens/expire", post(expire))
        .route("/tokens/revive", post(revive))
        .route("/apps", get(list_apps).post(set_app))
        .route("/consent", post(people::consent))
        .route("/callbacks", post(callbacks::call_back))
        .route("/signed_request", post(people::signed_request))
        .route("/faults", get(list_faults).post(add_fault).delete(clear_faults))
        .route("/requests", get(list_requests).delete(clear_requests))
        .route("/clock", get(show_clock).post(move_clock))
        .route("/usage", post(set_usage).delete(clear_usage))
        .route("/switches", get(show_switches).post(switch))
        .fallback(unknown)
}

async fn unknown() -> Response {
    (StatusCode::NOT_FOUND, Json(json!({ "error": "no such control", "help": "GET /_sandbox" })))
        .into_response()
}

async fn show_help(Axum(shared): SharedState) -> String {
    let app = shared.lock().default_app();
    let secret = app.secrets.first().map_or(DEFAULT_APP_SECRET, String::as_str);
    help::text(&shared.url, &app.id, secret)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfToken {
    token: String,
    subcode: Option<u32>,
    expires_at: Option<i64>,
}

async fn kill(Axum(shared): SharedState, body: Bytes) -> ControlReply {
    let of: OfToken = read(&body)?;
    shared.lock().kill(&of.token, of.subcode);
    done()
}

async fn expire(Axum(shared): SharedState, body: Bytes) -> ControlReply {
    let of: OfToken = read(&body)?;
    let mut state = shared.lock();
    let end = of.expires_at.unwrap_or_else(|| state.now().saturating_sub(1));
    if let Some(token) = state.tokens.get_mut(&of.token) {
        token.expires_at = end;
    }
    done()
}

async fn revive(Axum(shared): SharedState, body: Bytes) -> ControlReply {
    let of: OfToken = read(&body)?;
    if let Some(token) = shared.lock().tokens.get_mut(&of.token) {
        token.dead = None;
    }
    done()
}

async fn list_apps(Axum(shared): SharedState) -> Json<Value> {
    Json(json!({ "apps": shared.lock().apps }))
}

async fn set_app(Axum(shared): SharedState, body: Bytes) -> ControlReply {
    let app: App = read(&body)?;
    let mut state = shared.lock();
    state.apps.retain(|known| known.id != app.id);
    state.apps.push(app);
    done()
}

async fn list_faults(Axum(shared): SharedState) -> Json<Value> {
    Json(json!({ "faults": shared.lock().faults }))
}

async fn add_fault(Axum(shared): SharedState, body: Bytes) -> ControlReply {
    let fault: Fault = read(&body)?;
    shared.lock().faults.push(fault);
    done()
}

async fn clear_faults(Axum(shared): SharedState) -> ControlReply {
    shared.clear_faults();
    done()
}

async fn list_requests(Axum(shared): SharedState) -> Json<Value> {
    let state = shared.lock();
    let requests: Vec<Value> = state
        .requests
        .iter()
        .map(|one| {
            json!({ "method": one.method, "path": one.path, "query": one.query, "headers": one.headers,
                    "form": one.form, "endpoint": one.endpoint, "at": one.at })
        })
        .collect();
    Json(json!({ "requests": requests }))
}

async fn clear_requests(Axum(shared): SharedState) -> ControlReply {
    shared.lock().requests.clear();
    done()
}

async fn show_clock(Axum(shared): SharedState) -> Json<Value> {
    let (now_us, speed) = shared.clock.reading();
    Json(json!({ "now": now_us.div_euclid(1_000_000), "now_us": now_us, "speed": speed }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MoveClock {
    advance_seconds: Option<u64>,
    set: Option<i64>,
    #[serde(default)]
    reset: bool,
    #[serde(default)]
    freeze: bool,
    speed: Option<u32>,
}

async fn move_clock(Axum(shared): SharedState, body: Bytes) -> ControlReply {
    let to: MoveClock = read(&body)?;
    if to.reset {
        shared.clock.reset();
    }
    if let Some(at) = to.set {
        shared.clock.set(at);
    }
    if to.freeze {
        shared.clock.freeze();
    }
    if let Some(speed) = to.speed {
        shared.clock.run_at(speed);
    }
    shared.clock.advance(Duration::from_secs(to.advance_seconds.unwrap_or(0)));
    Ok(show_clock(Axum(shared)).await)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetUsage {
    scope: UsageScope,
    percent: Option<f64>,
    block_seconds: Option<i64>,
}

async fn set_usage(Axum(shared): SharedState, body: Bytes) -> ControlReply {
    let SetUsage { scope, percent, block_seconds } = read(&body)?;
    let mut state = shared.lock();
    let (now, tier) = (state.now(), state.switches.tier);
    if let Some(percent) = percent {
        state.usage.set(scope.clone(), percent, now, tier);
    }
    if let Some(seconds) = block_seconds {
        state.usage.block(scope, seconds, now);
    }
    done()
}

async fn clear_usage(Axum(shared): SharedState) -> ControlReply {
    shared.lock().usage.clear();
    done()
}

async fn show_switches(Axum(shared): SharedState) -> Json<Value> {
    Json(json!(shared.lock().switches))
}

/// Changes the switches in the body and keeps the others.
async fn switch(Axum(shared): SharedState, body: Bytes) -> ControlReply {
    let part: Value = read(&body)?;
    let mut state = shared.lock();
    let mut whole = json!(state.switches);
    if let (Value::Object(whole), Value::Object(part)) = (&mut whole, part) {
        whole.extend(part);
    }
    state.switches = serde_json::from_value(whole).map_err(|error| BadRequest(error.to_string()))?;
    done()
}
