//! Control of people: creating them and their tokens, their actions and their consent.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, Query, State as Axum};
use axum::response::Json;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{BadRequest, ControlReply, SharedState, done, read};
use crate::dialog::{self, Decision};
use crate::people::{AdAccountSpec, BusinessSpec};
use crate::state::{Shared, person_key};
use crate::tokens::{TokenKind, TokenOrder};
use crate::user::User;
use crate::wire::callbacks;

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
    #[serde(default)]
    businesses: Vec<BusinessSpec>,
    empty_page: Option<usize>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Accounts {
    Count(usize),
    These(Vec<AdAccountSpec>),
}

pub(super) async fn make_user(Axum(shared): SharedState, body: Bytes) -> ControlReply {
    let new: NewUser = read(&body)?;
    let user = User::new(shared.clone(), &new.name, new.system).grants(&new.grants).declines(&new.declines);
    match new.ad_accounts {
        Some(Accounts::Count(n)) => _ = user.with_ad_accounts(n),
        Some(Accounts::These(specs)) => {
            _ = specs.into_iter().fold(user.with_ad_accounts(0), |user, spec| user.ad_account(spec));
        }
        None => {}
    }
    let user = new.businesses.into_iter().fold(user, |user, spec| user.in_business(spec));
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

pub(super) async fn list_users(Axum(shared): SharedState) -> Json<Value> {
    let state = shared.lock();
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
pub(super) struct WhichUser {
    #[serde(default)]
    system: bool,
}

fn known(shared: &Arc<Shared>, name: &str, which: &WhichUser) -> Result<User, BadRequest> {
    let known = shared.lock().people.contains_key(&person_key(name, which.system));
    if known {
        Ok(User::new(shared.clone(), name, which.system))
    } else {
        Err(BadRequest(format!("there is no user {name}: POST /_sandbox/users first")))
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

pub(super) async fn make_token(
    Axum(shared): SharedState,
    Path(name): Path<String>,
    Query(which): Query<WhichUser>,
    body: Bytes,
) -> ControlReply {
    let new: NewToken = if body.is_empty() { NewToken::default() } else { read(&body)? };
    let user = known(&shared, &name, &which)?;
    let mut order = match (new.kind.as_deref(), &new.page) {
        (_, Some(page)) => {
            let kind = Some(TokenKind::Page(user.page(page)));
            TokenOrder { kind, ..TokenOrder::never() }
        }
        (None | Some("short_lived"), _) => TokenOrder::short(),
        (Some("long_lived" | "60_days"), _) => TokenOrder::long(),
        (Some("never"), _) => TokenOrder::never(),
        (Some("debug_only"), _) => TokenOrder { kind: Some(TokenKind::DebugOnly), ..TokenOrder::short() },
        (Some(other), _) => return Err(BadRequest(format!("unknown kind of token: {other}"))),
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

pub(super) async fn act(
    Axum(shared): SharedState,
    Path(name): Path<String>,
    Query(which): Query<WhichUser>,
    body: Bytes,
) -> ControlReply {
    let act: Act = read(&body)?;
    let user = known(&shared, &name, &which)?;
    match act.action.as_str() {
        "changes_password" => user.changes_password(),
        "removes_app" => user.removes_app(),
        "logs_out" => user.logs_out(),
        "hits_checkpoint" => match act.seconds {
            Some(seconds) => user.hits_checkpoint_for(Duration::from_secs(seconds)),
            None => user.hits_checkpoint(),
        },
        "heals" => user.heals(),
        "inspector_says_valid" => user.inspector_says_valid(),
        "inspector_says_dead" => user.inspector_says_dead(act.subcode),
        "leaves_business" => act.names.iter().for_each(|id| _ = user.leaves_business(id)),
        "ticks" => _ = user.ticks(&act.names),
        "data_access_lapses" => user.data_access_lapses(),
        "falls_into" => user.falls_into(act.subcode.unwrap_or(459)),
        "grants" => _ = user.grants(&act.names),
        "declines" => _ = user.declines(&act.names),
        "lets_expire" => _ = user.lets_expire(&act.names),
        "forgets" => _ = user.forgets(&act.names),
        other => return Err(BadRequest(format!("unknown action: {other}"))),
    }
    done()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Consent {
    dialog_url: String,
    user: String,
    decision: Option<Decision>,
}

pub(super) async fn consent(Axum(shared): SharedState, body: Bytes) -> ControlReply {
    let Consent { dialog_url, user, decision } = read(&body)?;
    let decision = decision.unwrap_or(Decision::Allow);
    let location = dialog::consent(&shared, &dialog_url, &user, decision).map_err(BadRequest)?;
    Ok(Json(json!({ "location": location })))
}

#[derive(Deserialize)]
struct OfUser {
    user: String,
}

pub(super) async fn signed_request(Axum(shared): SharedState, body: Bytes) -> ControlReply {
    let of: OfUser = read(&body)?;
    let user = known(&shared, &of.user, &WhichUser::default())?;
    let secret = shared.lock().default_app().secrets.first().cloned().unwrap_or_default();
    let signed = callbacks::signed_request(&secret, &user.id(), shared.clock.now());
    Ok(Json(json!({ "signed_request": signed })))
}
