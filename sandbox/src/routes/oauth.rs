//! The token endpoint (codes, exchanges, app tokens), and revocation.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::auth::{self, Caller};
use crate::clock::DAY;
use crate::config::ExchangeMood;
use crate::dialog;
use crate::random::random_text;
use crate::state::State;
use crate::tokens::{LONG_LIFE, Token, TokenKind, TokenOrder};
use crate::wire::error::{self, GraphError};
use crate::wire::reply::Outcome;
use crate::wire::request::GraphRequest;

/// `/oauth/access_token`, by grant.
pub(crate) fn access_token(state: &mut State, request: &GraphRequest) -> Outcome {
    match request.param("grant_type") {
        None | Some("authorization_code") => from_code(state, request),
        Some("fb_exchange_token") => exchange(state, request),
        Some("client_credentials") => {
            let app = authenticated(state, request)?;
            let text = format!("{app}|{}", random_text(27));
            state.app_tokens.insert(text.clone(), app);
            Ok(json!({ "access_token": text, "token_type": "bearer" }).into())
        }
        Some("fb_attenuate_token") => {
            let app = authenticated(state, request)?;
            let input = input_token(state, request, "fb_exchange_token", &app)?;
            let order = TokenOrder { kind: Some(TokenKind::DebugOnly), ..TokenOrder::short().app(&app) };
            let token = state.mint(&input.owner, order);
            Ok(token_reply(&token.text, None).into())
        }
        Some(other) => {
            Err(error::parameter(format!("Invalid grant_type: {other}")).challenged("invalid_request"))
        }
    }
}

fn authenticated(state: &State, request: &GraphRequest) -> Result<String, GraphError> {
    state.authenticated_app(request.param("client_id"), request.param("client_secret")).map(|app| app.id)
}

fn token_reply(text: &str, expires_in: Option<i64>) -> Value {
    let mut body = json!({ "access_token": text, "token_type": "bearer" });
    if let (Some(body), Some(seconds)) = (body.as_object_mut(), expires_in) {
        body.insert("expires_in".into(), json!(seconds));
    }
    body
}

/// The valid token of this app in a parameter. App tokens do not count.
fn input_token(state: &State, request: &GraphRequest, name: &str, app_id: &str) -> Result<Token, GraphError> {
    let text = request.param(name).ok_or_else(|| error::missing(name))?;
    let token = state.tokens.get(text).ok_or_else(|| error::token(auth::unreadable(text)))?;
    if token.app_id != app_id {
        let text = "Error validating access token: The access token does not belong to this application.";
        return Err(error::token(text));
    }
    match token.refusal(&state.person(&token.owner), state.now()) {
        Some(refusal) => Err(refusal.error(&state.switches)),
        None => Ok(token.clone()),
    }
}

fn exchange(state: &mut State, request: &GraphRequest) -> Outcome {
    let app = authenticated(state, request)?;
    let input = match input_token(state, request, "fb_exchange_token", &app) {
        Err(error) if state.switches.dead_exchange_succeeds && error.code == 190 => {
            let text = request.param("fb_exchange_token").unwrap_or_default();
            return Ok(token_reply(text, Some(LONG_LIFE)).into());
        }
        input => input?,
    };
    let now = state.now();
    let left = |expires_at: i64| (expires_at != 0).then(|| expires_at.saturating_sub(now));
    if input.kind == TokenKind::SystemUser {
        let refreshed = request.param("set_token_expires_in_60_days") == Some("true");
        let expires_at = if refreshed { now.saturating_add(LONG_LIFE) } else { input.expires_at };
        let token = exchanged(state, &input, expires_at);
        return Ok(token_reply(&token.text, left(expires_at)).into());
    }
    let mood = state.switches.mood;
    if matches!(input.kind, TokenKind::Page(_)) || mood == ExchangeMood::SameString {
        return Ok(token_reply(&input.text, left(input.expires_at)).into());
    }
    let expires_at = new_expiry(mood, &input, now);
    let token = exchanged(state, &input, expires_at);
    let shown = if mood == ExchangeMood::NoExpiresIn { None } else { left(expires_at) };
    Ok(token_reply(&token.text, shown).into())
}

fn new_expiry(mood: ExchangeMood, input: &Token, now: i64) -> i64 {
    let fresh = now.saturating_add(LONG_LIFE);
    let today = now.saturating_sub(input.issued_at) < DAY;
    match mood {
        ExchangeMood::BecomesNever => 0,
        _ if input.expires_at == 0 => 0,
        _ if !input.long => fresh,
        ExchangeMood::SameExpiry => input.expires_at,
        ExchangeMood::Shortens => now.saturating_add(input.expires_at.saturating_sub(now) / 2),
        ExchangeMood::Extends => fresh,
        ExchangeMood::SameDay | ExchangeMood::NoExpiresIn | ExchangeMood::SameString => {
            if today {
                input.expires_at
            } else {
                fresh
            }
        }
    }
}

/// A new token for the same person, app and scopes. The old one keeps its expiry, unless an exchange ends it.
fn exchanged(state: &mut State, input: &Token, expires_at: i64) -> Token {
    let order = TokenOrder {
        kind: Some(input.kind.clone()),
        app_id: Some(input.app_id.clone()),
        scopes: input.scopes.clone(),
        length: input.text.len(),
        ..TokenOrder::long()
    };
    let mut token = state.mint(&input.owner, order);
    token.expires_at = expires_at;
    state.tokens.insert(token.text.clone(), token.clone());
    if state.switches.exchange_ends_input {
        state.kill(&input.text, Some(466));
    }
    token
}

fn from_code(state: &mut State, request: &GraphRequest) -> Outcome {
    // A device exchanges its code (`/oauth/client_code`) without the secret.
    let device = request.param("machine_id").is_some() && request.param("client_secret").is_none();
    let app = if device {
        let id = request.param("client_id").ok_or_else(|| error::missing("client_id"))?;
        state.app(id).ok_or_else(error::bad_app)?.id.clone()
    } else {
        authenticated(state, request)?
    };
    let text = request
        .param("code")
        .ok_or_else(|| error::parameter("Missing authorization code").challenged("invalid_request"))?;
    let redirect_uri = request
        .param("redirect_uri")
        .ok_or_else(|| error::parameter("Missing redirect_uri parameter.").challenged("invalid_request"))?;
    let now = state.now();
    let Some(code) = state.codes.get_mut(text).filter(|code| code.app_id == app) else {
        return Err(error::code("Invalid verification code format.", Some(36_007)));
    };
    if code.used {
        return Err(error::code("This authorization code has been used.", Some(36_009)));
    }
    if code.expires_at <= now {
        return Err(error::code("This authorization code has expired.", None));
    }
    if code.redirect_uri != redirect_uri {
        let text = "Error validating verification code. Please make sure your redirect_uri is identical to the one \
                    you used in the OAuth dialog request";
        return Err(error::code(text, Some(36_008)));
    }
    if let (Some(challenge), Some(verifier)) = (&code.challenge, request.param("code_verifier"))
        && URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)) != *challenge
    {
        return Err(error::code("Invalid code verifier.", None));
    }
    code.used = true;
    let (owner, ordered) = (code.owner.clone(), code.order.clone());
    let lasting = device || state.switches.long_lived_codes;
    let usual = if lasting { TokenOrder::long() } else { TokenOrder::short() };
    let order = ordered.unwrap_or(usual);
    let life = (order.life_seconds != 0).then_some(order.life_seconds);
    let token = state.mint(&owner, order.app(&app));
    let mut body = token_reply(&token.text, life);
    if let (Some(machine), Some(body)) = (request.param("machine_id"), body.as_object_mut()) {
        body.insert("machine_id".into(), json!(machine));
    }
    Ok(body.into())
}

/// `/oauth/revoke`, whose `success` is a string.
pub(crate) fn revoke(state: &mut State, request: &GraphRequest) -> Outcome {
    let app = authenticated(state, request)?;
    let caller = auth::caller(state, request)?;
    if caller.app_id() != app {
        return Err(error::parameter("(#100) The App_id in the access token did not match client_id"));
    }
    let token = input_token(state, request, "revoke_token", &app)?;
    state.kill(&token.text, Some(466));
    Ok(json!({ "success": "true" }).into())
}

/// `/oauth/client_code`: a code that a device exchanges for its own token.
pub(crate) fn client_code(state: &mut State, request: &GraphRequest) -> Outcome {
    let app = authenticated(state, request)?;
    let token = input_token(state, request, "access_token", &app)?;
    let redirect_uri =
        request.param("redirect_uri").ok_or_else(|| error::missing("redirect_uri"))?.to_owned();
    let code = dialog::issue_code(state, &app, &token.owner, &redirect_uri);
    Ok(json!({ "code": code }).into())
}

/// `/{system-user}/access_tokens`: POST creates one, DELETE ends all.
pub(crate) fn system_user_tokens(
    state: &mut State,
    caller: &Caller,
    request: &GraphRequest,
    id: &str,
) -> Outcome {
    super::only(request, id, &[Method::POST, Method::DELETE])?;
    let (key, person) = super::subject(state, caller, request, id)?;
    if !person.system {
        return Err(error::no_object(id, request.method.as_str()));
    }
    if request.method == Method::DELETE {
        state.kill_all(&key, Some(caller.app_id()), 466);
        return Ok(json!({ "success": true }).into());
    }
    if request.param("appsecret_proof").is_none() {
        return Err(error::proof("API calls from the server require an appsecret_proof argument"));
    }
    let sixty = request.param("set_token_expires_in_60_days") == Some("true");
    let order = if sixty { TokenOrder::long() } else { TokenOrder::never() };
    let scopes =
        request.param("scope").map(|list| list.split(',').map(|one| one.trim().to_owned()).collect());
    let token = state.mint(&key, TokenOrder { scopes, ..order.app(caller.app_id()) });
    Ok(json!({ "access_token": token.text }).into())
}
