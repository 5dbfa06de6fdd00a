//! `/debug_token`: HTTP 200 even if the inspected token is not valid, 400 for a wrong caller.

use serde_json::{Map, Value, json};

use crate::auth::{self, Caller};
use crate::people::Inspector;
use crate::state::State;
use crate::tokens::{Refusal, Token, TokenKind};
use crate::wire::error;
use crate::wire::reply::Outcome;
use crate::wire::request::GraphRequest;

pub(crate) fn inspect(state: &State, caller: &Caller, request: &GraphRequest) -> Outcome {
    let input = request.param("input_token").ok_or_else(|| error::missing("input_token"))?;
    if let Caller::Token(token) = caller
        && token.text != input
    {
        return Err(error::parameter(
            "(#100) You must provide an app access token, or a user access token that is an owner or developer of \
             the app",
        ));
    }
    let foreign = || error::parameter("(#100) The App_id in the input_token did not match the Viewing App");
    let data = match state.tokens.get(input) {
        Some(token) if token.app_id != caller.app_id() => return Err(foreign()),
        Some(token) => describe(state, token),
        None => match auth::app_of_app_token(state, input) {
            Ok(Some(app)) if app != caller.app_id() => return Err(foreign()),
            Ok(Some(app)) => {
                let name = state.app(&app).map(|app| app.name.clone()).unwrap_or_default();
                json!({ "app_id": app, "type": "APP", "application": name, "is_valid": true, "scopes": [] })
            }
            Ok(None) => unparsable(&auth::unreadable(input)),
            Err(error) => unparsable(&error.message),
        },
    };
    Ok(json!({ "data": data }).into())
}

fn unparsable(message: &str) -> Value {
    json!({ "error": { "code": 190, "message": message }, "is_valid": false, "scopes": [] })
}

fn describe(state: &State, token: &Token) -> Value {
    let owner = state.person(&token.owner);
    let refusal = match owner.inspector {
        Inspector::Right => token.refusal(&owner, state.now()),
        Inspector::SaysValid => None,
        Inspector::SaysDead(subcode) => Some(Refusal::of(subcode, &token.app_id)),
    };
    let subcode = refusal.as_ref().and_then(|refusal| refusal.subcode);
    let scopes = match subcode {
        Some(458 | 466) => Vec::new(),
        _ => token.usable_scopes(&owner),
    };
    let granular: Vec<Value> = scopes
        .iter()
        .filter(|scope| *scope != "public_profile")
        .map(|scope| {
            let limited = owner.targets.iter().find(|(name, _)| name == scope).map(|(_, ids)| ids.as_slice());
            let ticked = scope.starts_with("ads_").then(|| owner.ticks_of(&token.app_id)).flatten();
            match limited.or(ticked) {
                Some(ids) => json!({ "scope": scope, "target_ids": ids }),
                None => json!({ "scope": scope }),
            }
        })
        .collect();
    let expires_at = if subcode == Some(460) { 0 } else { token.expires_at };
    let application = state.app(&token.app_id).map(|app| app.name.clone()).unwrap_or_default();
    let mut data = Map::new();
    data.insert("app_id".into(), json!(token.app_id));
    data.insert("type".into(), json!(token.kind.word()));
    data.insert("application".into(), json!(application));
    data.insert("data_access_expires_at".into(), json!(owner.data_access_expires_at));
    if let Some(refusal) = &refusal {
        data.insert("error".into(), refusal.debug(state.switches.hide_subcodes));
    }
    data.insert("expires_at".into(), json!(expires_at));
    data.insert("is_valid".into(), json!(refusal.is_none()));
    if token.long {
        data.insert("issued_at".into(), json!(token.issued_at));
    }
    if token.kind == TokenKind::User {
        data.insert("metadata".into(), json!({ "auth_type": "rerequest" }));
    }
    data.insert("scopes".into(), json!(scopes));
    data.insert("granular_scopes".into(), json!(granular));
    if let TokenKind::Page(page) = &token.kind {
        data.insert("profile_id".into(), json!(page));
    }
    data.insert("user_id".into(), json!(owner.id));
    Value::Object(data)
}
