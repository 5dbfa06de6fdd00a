//! `/_sandbox`: everything a test can do in the process, for people and other processes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State as Axum};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::help;
use crate::callbacks;
use crate::config::{App, DEFAULT_APP_SECRET};
use crate::dialog::{self, Decision};
use crate::faults::Fault;
use crate::people::AdAccountSpec;
use crate::state::{Shared, person_key};
use crate::tokens::TokenOrder;
use crate::usage::UsageScope;
use crate::user::User;

type World = Axum<Arc<Shared>>;

/// A body that could not be read, with the reason.
struct BadRequest(String);

impl IntoResponse for BadRequest {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.0, "help": "GET /_sandbox" });
        (StatusCode::BAD_REQUEST, Json(body)).into_response()
    }
}

type Answered = Result<Json<Value>, BadRequest>;

/// JSON whatever the content type says, so that plain `curl -d` works.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, BadRequest> {
    serde_json::from_slice(body).map_err(|error| BadRequest(error.to_string()))
}

fn done() -> Answered {
    Ok(Json(json!({ "done": true })))
}

pub(crate) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/", get(show_help))
        .route("/users", get(list_users).post(make_user))
        .route("/users/{name}/tokens", post(make_token))
        .route("/users/{name}/actions", post(act))
        .route("/tokens/kill", post(kill))
        .route("/tokens/expire", post(expire))
        .route("/tokens/revive", post(revive))
        .route("/apps", get(list_apps).post(set_app))
        .route("/consent", post(consent))
        .route("/signed_request", post(signed_request))
        .route("/faults", get(list_faults).post(add_fault).delete(clear_faults))
        .route("/requests", get(list_requests).delete(clear_requests))
        .route("/clock", get(show_clock).post(move_clock))
        .route("/usage", post(set_usage).delete(clear_usage))
        .route("/switches", get(show_switches).post(switch))
}

async fn show_help(Axum(world): World) -> String {
    let app = world.lock().default_app();
    let secret = app.secrets.first().map_or(DEFAULT_APP_SECRET, String::as_str);
    help::text(&world.url, &app.id, secret)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewUser {
    name: String,
    #[serde(default)]
    system: bool,
    #[serde(default)]
    grants: Vec<String>,
    #[serde(default)]
    declines: Vec<String>,
    ad_accounts: Option<Accounts>,
    #[serde(default)]
    pages: Vec<String>,
    empty_page: Option<usize>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Accounts {
    Count(usize),
    These(Vec<AdAccountSpec>),
}

async fn make_user(Axum(world): World, body: Bytes) -> Answered {
    let new: NewUser = read(&body)?;
    let user = User::new(world.clone(), &new.name, new.system).grants(&new.grants).declines(&new.declines);
    match new.ad_accounts {
        Some(Accounts::Count(n)) => _ = user.with_ad_accounts(n),
        Some(Accounts::These(specs)) => {
            _ = specs.into_iter().fold(user.with_ad_accounts(0), |user, spec| user.ad_account(spec));
        }
        None => {}
    }
    let pages: Vec<Value> =
        new.pages.iter().map(|name| json!({ "name": name, "id": user.page(name) })).collect();
    if let Some(number) = new.empty_page {
        user.empty_page(number);
    }
    let tokens = if new.system {
        json!({ "never": user.token_never(), "60_days": user.token_60_days() })
    } else {
        json!({ "short_lived": user.short_lived_token(), "long_lived": user.long_lived_token() })
    };
    Ok(Json(
        json!({ "name": user.name(), "id": user.id(), "ad_accounts": user.ad_account_ids(), "pages": pages,
        "tokens": tokens }),
    ))
}

async fn list_users(Axum(world): World) -> Json<Value> {
    let state = world.lock();
    let people: Vec<Value> = state
        .people
        .values()
        .map(|person| {
            let permissions: Vec<Value> =
                person.permissions.iter().map(|(name, status)| json!([name, status.word()])).collect();
            let accounts: Vec<&String> = person.ad_accounts.iter().map(|account| &account.id).collect();
            json!({ "name": person.name, "id": person.id, "system": person.system, "permissions": permissions,
                    "ad_accounts": accounts })
        })
        .collect();
    Json(json!({ "users": people }))
}

#[derive(Default, Deserialize)]
struct WhichUser {
    #[serde(default)]
    system: bool,
}

fn known(world: &Arc<Shared>, name: &str, which: &WhichUser) -> Result<User, BadRequest> {
    let known = world.lock().people.contains_key(&person_key(name, which.system));
    if known {
        Ok(User::new(world.clone(), name, which.system))
    } else {
        Err(BadRequest(format!("nobody is called {name}: POST /_sandbox/users first")))
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct NewToken {
    kind: Option<String>,
    page: Option<String>,
    life_seconds: Option<i64>,
    app_id: Option<String>,
    scopes: Option<Vec<String>>,
    length: Option<usize>,
}

async fn make_token(
    Axum(world): World,
    Path(name): Path<String>,
    Query(which): Query<WhichUser>,
    body: Bytes,
) -> Answered {
    let new: NewToken = if body.is_empty() { NewToken::default() } else { read(&body)? };
    let user = known(&world, &name, &which)?;
    let mut order = match (new.kind.as_deref(), &new.page) {
        (_, Some(page)) => {
            let kind = Some(crate::tokens::TokenKind::Page(user.page(page)));
            TokenOrder { kind, ..TokenOrder::never() }
        }
        (None | Some("short_lived"), _) => TokenOrder::short(),
        (Some("long_lived" | "60_days"), _) => TokenOrder::long(),
        (Some("never"), _) => TokenOrder::never(),
        (Some("debug_only"), _) => {
            TokenOrder { kind: Some(crate::tokens::TokenKind::DebugOnly), ..TokenOrder::short() }
        }
        (Some(other), _) => return Err(BadRequest(format!("{other} is no kind of token"))),
    };
    order.life_seconds = new.life_seconds.unwrap_or(order.life_seconds);
    order.length = new.length.unwrap_or(order.length);
    order.app_id = new.app_id;
    order.scopes = new.scopes;
    Ok(Json(json!({ "token": user.order(order) })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Act {
    action: String,
    #[serde(default)]
    names: Vec<String>,
    seconds: Option<u64>,
    subcode: Option<u32>,
}

async fn act(
    Axum(world): World,
    Path(name): Path<String>,
    Query(which): Query<WhichUser>,
    body: Bytes,
) -> Answered {
    let act: Act = read(&body)?;
    let user = known(&world, &name, &which)?;
    match act.action.as_str() {
        "changes_password" => user.changes_password(),
        "removes_app" => user.removes_app(),
        "logs_out" => user.logs_out(),
        "hits_checkpoint" => match act.seconds {
            Some(seconds) => user.hits_checkpoint_for(Duration::from_secs(seconds)),
            None => user.hits_checkpoint(),
        },
        "heals" => user.heals(),
        "data_access_lapses" => user.data_access_lapses(),
        "falls_into" => user.falls_into(act.subcode.unwrap_or(459)),
        "grants" => _ = user.grants(&act.names),
        "declines" => _ = user.declines(&act.names),
        "lets_expire" => _ = user.lets_expire(&act.names),
        "forgets" => _ = user.forgets(&act.names),
        other => return Err(BadRequest(format!("nobody can do {other}"))),
    }
    done()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfToken {
    token: String,
    subcode: Option<u32>,
    expires_at: Option<i64>,
}

async fn kill(Axum(world): World, body: Bytes) -> Answered {
    let of: OfToken = read(&body)?;
    world.lock().kill(&of.token, of.subcode);
    done()
}

async fn expire(Axum(world): World, body: Bytes) -> Answered {
    let of: OfToken = read(&body)?;
    let mut state = world.lock();
    let end = of.expires_at.unwrap_or_else(|| state.now().saturating_sub(1));
    if let Some(token) = state.tokens.get_mut(&of.token) {
        token.expires_at = end;
    }
    done()
}

async fn revive(Axum(world): World, body: Bytes) -> Answered {
    let of: OfToken = read(&body)?;
    if let Some(token) = world.lock().tokens.get_mut(&of.token) {
        token.dead = None;
    }
    done()
}

async fn list_apps(Axum(world): World) -> Json<Value> {
    Json(json!({ "apps": world.lock().apps }))
}

async fn set_app(Axum(world): World, body: Bytes) -> Answered {
    let app: App = read(&body)?;
    let mut state = world.lock();
    state.apps.retain(|known| known.id != app.id);
    state.apps.push(app);
    done()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Consent {
    dialog_url: String,
    user: String,
    decision: Option<Decision>,
}

async fn consent(Axum(world): World, body: Bytes) -> Answered {
    let Consent { dialog_url, user, decision } = read(&body)?;
    let decision = decision.unwrap_or(Decision::Allow);
    let location = dialog::consent(&world, &dialog_url, &user, decision).map_err(BadRequest)?;
    Ok(Json(json!({ "location": location })))
}

#[derive(Deserialize)]
struct OfUser {
    user: String,
}

async fn signed_request(Axum(world): World, body: Bytes) -> Answered {
    let of: OfUser = read(&body)?;
    let user = known(&world, &of.user, &WhichUser::default())?;
    let secret = world.lock().default_app().secrets.first().cloned().unwrap_or_default();
    let signed = callbacks::signed_request(&secret, &user.id(), world.clock.now());
    Ok(Json(json!({ "signed_request": signed })))
}

async fn list_faults(Axum(world): World) -> Json<Value> {
    Json(json!({ "faults": world.lock().faults }))
}

async fn add_fault(Axum(world): World, body: Bytes) -> Answered {
    let fault: Fault = read(&body)?;
    world.lock().faults.push(fault);
    done()
}

async fn clear_faults(Axum(world): World) -> Answered {
    world.lock().faults.clear();
    done()
}

async fn list_requests(Axum(world): World) -> Json<Value> {
    let state = world.lock();
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

async fn clear_requests(Axum(world): World) -> Answered {
    world.lock().requests.clear();
    done()
}

async fn show_clock(Axum(world): World) -> Json<Value> {
    Json(json!({ "now": world.clock.now() }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MoveClock {
    advance_seconds: Option<u64>,
    set: Option<i64>,
    #[serde(default)]
    reset: bool,
}

async fn move_clock(Axum(world): World, body: Bytes) -> Answered {
    let to: MoveClock = read(&body)?;
    if to.reset {
        world.clock.reset();
    }
    if let Some(at) = to.set {
        world.clock.set(at);
    }
    world.clock.advance(Duration::from_secs(to.advance_seconds.unwrap_or(0)));
    Ok(show_clock(Axum(world)).await)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetUsage {
    scope: UsageScope,
    percent: Option<f64>,
    block_seconds: Option<i64>,
}

async fn set_usage(Axum(world): World, body: Bytes) -> Answered {
    let SetUsage { scope, percent, block_seconds } = read(&body)?;
    let mut state = world.lock();
    let (now, tier) = (state.now(), state.switches.tier);
    if let Some(percent) = percent {
        state.usage.set(scope.clone(), percent, now, tier);
    }
    if let Some(seconds) = block_seconds {
        state.usage.block(scope, seconds, now);
    }
    done()
}

async fn clear_usage(Axum(world): World) -> Answered {
    world.lock().usage.clear();
    done()
}

async fn show_switches(Axum(world): World) -> Json<Value> {
    Json(json!(world.lock().switches))
}

/// Takes a part; the rest stays as it is.
async fn switch(Axum(world): World, body: Bytes) -> Answered {
    let part: Value = read(&body)?;
    let mut state = world.lock();
    let mut whole = json!(state.switches);
    if let (Value::Object(whole), Value::Object(part)) = (&mut whole, part) {
        whole.extend(part);
    }
    state.switches = serde_json::from_value(whole).map_err(|error| BadRequest(error.to_string()))?;
    done()
}
