//! Authentication: which token a request has, whether its proof is right, and whether the token is valid now.

use subtle::ConstantTimeEq;

use crate::people::Person;
use crate::state::State;
use crate::tokens::{Refusal, Token, TokenKind};
use crate::wire::callbacks::{appsecret_proof, appsecret_proof_at};
use crate::wire::error::{self, GraphError};
use crate::wire::request::{Endpoint, GraphRequest};

/// How long a proof with a time is valid, in seconds.
const PROOF_WINDOW: i64 = 300;

/// The bearer of a valid token.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    App(String),
    Token(Token),
}

impl Caller {
    pub(crate) fn app_id(&self) -> &str {
        match self {
            Self::App(id) => id,
            Self::Token(token) => &token.app_id,
        }
    }

    /// The token. App tokens can't make calls that need it.
    pub(crate) fn token(&self) -> Result<&Token, GraphError> {
        match self {
            Self::Token(token) => Ok(token),
            Self::App(_) => Err(GraphError::new(
                400,
                2500,
                "An active access token must be used to query information about the current user.",
            )
            .challenged("invalid_request")),
        }
    }
}

/// Reads and checks the token of a request.
pub(crate) fn caller(state: &State, request: &GraphRequest) -> Result<Caller, GraphError> {
    let Some(text) = request.access_token() else { return Err(no_token(request)) };
    if let Some(app_id) = app_of_app_token(state, text)? {
        check_proof(state, &app_id, text, request)?;
        not_blocked(state, &app_id)?;
        return Ok(Caller::App(app_id));
    }
    valid_token(state, text, request).map_err(|error| {
        let hidden = state.switches.code_2_for_bad_tokens && request.endpoint != Endpoint::DebugToken;
        if hidden && error.code == 190 { error::unavailable() } else { error }
    })
}

fn not_blocked(state: &State, app_id: &str) -> Result<(), GraphError> {
    let block = state.app(app_id).and_then(|app| app.blocked);
    block.map_or(Ok(()), |block| Err(error::app_blocked(block)))
}

fn valid_token(state: &State, text: &str, request: &GraphRequest) -> Result<Caller, GraphError> {
    let Some(token) = state.tokens.get(text) else {
        let mut error = error::token(unreadable(text));
        error.http = state.switches.auth_status;
        return Err(error);
    };
    check_proof(state, &token.app_id, text, request)?;
    not_blocked(state, &token.app_id)?;
    if token.kind == TokenKind::DebugOnly {
        return Err(error::token("Invalid OAuth access token - Debug only access token"));
    }
    let owner = state.person(&token.owner);
    if let Some(refusal) = token.refusal(&owner, state.now()) {
        return Err(refusal.error(&state.switches));
    }
    let lapsed = owner.data_access_expires_at != 0 && owner.data_access_expires_at <= state.now();
    if state.switches.enforce_data_access && lapsed {
        return Err(Refusal::of(Some(493), &token.app_id).error(&state.switches));
    }
    Ok(Caller::Token(token.clone()))
}

fn no_token(request: &GraphRequest) -> GraphError {
    let me = request.segments.first().is_some_and(|first| first == "me");
    if me {
        let text = "An active access token must be used to query information about the current user.";
        return GraphError::new(400, 2500, text).challenged("invalid_request");
    }
    GraphError::new(400, 104, "An access token is required to request this resource.")
        .challenged("invalid_request")
}

/// The app of `APPID|SECRET` or of a `client_credentials` token; `None` if it is not an app token.
pub(crate) fn app_of_app_token(state: &State, text: &str) -> Result<Option<String>, GraphError> {
    if let Some(app) = state.app_tokens.get(text) {
        return Ok(Some(app.clone()));
    }
    let Some((id, secret)) = text.split_once('|') else { return Ok(None) };
    let app = state.app(id).ok_or_else(|| {
        error::token("Error validating application. Cannot get application info due to a system error.")
    })?;
    if app.secrets.iter().any(|known| known == secret) {
        return Ok(Some(app.id.clone()));
    }
    Err(error::token("Invalid OAuth access token signature."))
}

/// Meta's message about a token that was never issued.
pub(crate) fn unreadable(text: &str) -> String {
    let shaped = text.starts_with("EAA") && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !shaped {
        "Invalid OAuth access token - Cannot parse access token".to_owned()
    } else if text.len() < 40 {
        format!("Malformed access token {text}")
    } else {
        "The access token could not be decrypted".to_owned()
    }
}

fn check_proof(state: &State, app_id: &str, token: &str, request: &GraphRequest) -> Result<(), GraphError> {
    let Some(app) = state.app(app_id) else { return Ok(()) };
    let Some(given) = request.param("appsecret_proof") else {
        if app.require_proof {
            return Err(error::proof("API calls from the server require an appsecret_proof argument"));
        }
        return Ok(());
    };
    let time = request.param("appsecret_time").map(str::parse::<i64>);
    let right = app.secrets.iter().any(|secret| {
        let (proof, in_time) = match &time {
            None => (appsecret_proof(secret, token), true),
            Some(Ok(at)) => {
                let in_time = state.now().saturating_sub(*at).abs() <= PROOF_WINDOW;
                (appsecret_proof_at(secret, token, *at), in_time)
            }
            Some(Err(_)) => (String::new(), false),
        };
        in_time && bool::from(proof.as_bytes().ct_eq(given.as_bytes()))
    });
    if right { Ok(()) } else { Err(error::proof("Invalid appsecret_proof provided in the API argument")) }
}

/// The person that `me` or the id in the path means. A token sees only its owner.
pub(crate) fn subject(
    state: &State,
    caller: &Caller,
    id: &str,
    method: &str,
) -> Result<(String, Person), GraphError> {
    if let (Caller::App(_), false) = (caller, id == "me")
        && let Some(key) = state.key_by_id(id)
    {
        let person = state.person(&key);
        return Ok((key, person));
    }
    let token = caller.token()?;
    let person = state.person(&token.owner);
    if id == "me" || id == person.id {
        return Ok((token.owner.clone(), person));
    }
    Err(error::no_object(id, method))
}

/// Requires at least one of these scopes.
pub(crate) fn require_any(
    state: &State,
    token: &Token,
    scopes: &[&str],
    otherwise: &str,
) -> Result<(), GraphError> {
    let usable = token.usable_scopes(&state.person(&token.owner));
    if scopes.iter().any(|scope| usable.iter().any(|have| have == scope)) {
        return Ok(());
    }
    Err(error::permission(otherwise))
}
