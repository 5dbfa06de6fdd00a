//! The error object of the Graph API, and the errors of the sandbox.
//! The texts are Meta's, as far as they are public; a client must not depend on them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::config::AppBlock;

/// An error reply. `Default` is the transient "unknown error".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GraphError {
    pub http: u16,
    /// `error.code`.
    pub code: i64,
    /// `error.error_subcode`; left out when unset.
    pub subcode: Option<u32>,
    /// `error.message`.
    pub message: String,
    /// `error.type`.
    pub kind: String,
    /// `error.is_transient`; left out when unset.
    pub transient: Option<bool>,
    /// `error.error_user_title` and `error.error_user_msg`.
    pub user_text: Option<Box<UserText>>,
    /// `error.error_data`: an object, or a JSON string.
    pub data: Option<Box<Value>>,
    /// The error name in `WWW-Authenticate`; if unset, there is no such header.
    pub challenge: Option<String>,
}

/// What an error tells a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserText {
    /// The heading.
    pub title: String,
    /// A sentence or two.
    pub message: String,
}

impl Default for GraphError {
    fn default() -> Self {
        Self {
            http: 500,
            code: 1,
            subcode: None,
            message: "An unknown error occurred".to_owned(),
            kind: "OAuthException".to_owned(),
            transient: None,
            user_text: None,
            data: None,
            challenge: None,
        }
    }
}

impl GraphError {
    /// Makes an `OAuthException`.
    pub fn new(http: u16, code: i64, message: impl Into<String>) -> Self {
        Self { http, code, message: message.into(), ..Self::default() }
    }

    /// Sets `error_subcode`.
    pub fn subcode(self, subcode: impl Into<Option<u32>>) -> Self {
        Self { subcode: subcode.into(), ..self }
    }

    /// Sets `is_transient`.
    pub fn transient(self, transient: bool) -> Self {
        Self { transient: Some(transient), ..self }
    }

    /// Sets another `type`.
    pub fn of_kind(self, kind: &str) -> Self {
        Self { kind: kind.to_owned(), ..self }
    }

    /// Adds texts for people.
    pub fn for_people(self, title: &str, message: &str) -> Self {
        let text = UserText { title: title.to_owned(), message: message.to_owned() };
        Self { user_text: Some(Box::new(text)), ..self }
    }

    /// Adds a `WWW-Authenticate` header.
    pub fn challenged(self, word: &str) -> Self {
        Self { challenge: Some(word.to_owned()), ..self }
    }

    /// Returns the body of the reply. `trace` is also in `x-fb-request-id`.
    pub fn body(&self, trace: &str) -> Value {
        let mut error = Map::new();
        error.insert("message".into(), json!(self.message));
        error.insert("type".into(), json!(self.kind));
        if let Some(transient) = self.transient {
            error.insert("is_transient".into(), json!(transient));
        }
        error.insert("code".into(), json!(self.code));
        if let Some(subcode) = self.subcode {
            error.insert("error_subcode".into(), json!(subcode));
        }
        if let Some(text) = &self.user_text {
            error.insert("error_user_title".into(), json!(text.title));
            error.insert("error_user_msg".into(), json!(text.message));
        }
        if let Some(data) = &self.data {
            error.insert("error_data".into(), *data.clone());
        }
        error.insert("fbtrace_id".into(), json!(trace));
        json!({ "error": error })
    }
}

/// 190: the token is not valid.
pub(crate) fn token(message: impl Into<String>) -> GraphError {
    GraphError::new(400, 190, message).challenged("invalid_token")
}

/// 100: a bad parameter.
pub(crate) fn parameter(message: impl Into<String>) -> GraphError {
    GraphError::new(400, 100, message)
}

/// 100: a required parameter is missing.
pub(crate) fn missing(name: &str) -> GraphError {
    parameter(format!("(#100) The parameter {name} is required")).challenged("invalid_request")
}

/// 100/33: no such object, or this token may not see it.
pub(crate) fn no_object(id: &str, method: &str) -> GraphError {
    parameter(format!(
        "Unsupported {} request. Object with ID '{id}' does not exist, cannot be loaded due to missing \
         permissions, or does not support this operation. Please read the Graph API documentation at \
         https://developers.facebook.com/docs/graph-api",
        method.to_lowercase()
    ))
    .of_kind("GraphMethodException")
    .subcode(33)
}

/// 100: `appsecret_proof` is missing or wrong, which says nothing about the token.
pub(crate) fn proof(message: &str) -> GraphError {
    parameter(message).of_kind("GraphMethodException")
}

/// 1 on the token endpoint: the app secret is wrong.
pub(crate) fn bad_secret() -> GraphError {
    GraphError::new(400, 1, "Error validating client secret.").challenged("invalid_request")
}

/// 101: no such app.
pub(crate) fn bad_app() -> GraphError {
    GraphError::new(
        400,
        101,
        "Error validating application. Cannot get application info due to a system error.",
    )
    .challenged("invalid_request")
}

/// 100 on the code exchange.
pub(crate) fn code(message: &str, subcode: Option<u32>) -> GraphError {
    parameter(message).subcode(subcode).challenged("invalid_code")
}

/// 200: a permission is missing.
pub(crate) fn permission(message: &str) -> GraphError {
    GraphError::new(400, 200, message)
}

/// 200 for every call of an app that Meta has blocked.
pub(crate) fn app_blocked(block: AppBlock) -> GraphError {
    permission(block.message())
}

/// 1 with HTTP 500: the reply would be too large. The same request never works.
pub(crate) fn too_much_data() -> GraphError {
    GraphError::new(500, 1, "Please reduce the amount of data you're asking for, then retry your request")
}

/// 2 with HTTP 503: Meta says that it is away.
pub(crate) fn unavailable() -> GraphError {
    GraphError::new(503, 2, "Service temporarily unavailable").transient(true)
}

/// Meta's text for a session that ended for the reason of `subcode`.
pub fn session_message(subcode: Option<u32>, app_id: &str) -> String {
    let text = match subcode {
        Some(452) => "Session key invalid or no longer valid.",
        Some(456) => "Error validating access token: The session is malformed.",
        Some(457) => "Error validating access token: The session has an invalid origin.",
        Some(458) => {
            return format!(
                "Error validating access token: The user has not authorized application {app_id}."
            );
        }
        Some(459) => {
            "You cannot access the app till you log in to www.facebook.com and follow the instructions given."
        }
        Some(460) => {
            "Error validating access token: The session has been invalidated because the user changed their \
             password or Facebook has changed the session for security reasons."
        }
        Some(461) => {
            "Error validating access token: The application was reinstalled since the session was issued."
        }
        Some(462) => "Error validating access token: The session has a stale version.",
        Some(463) => "Error validating access token: Session has expired.",
        Some(464) => "Sessions for the user are not allowed because the user is not a confirmed user.",
        Some(465) => "Error validating access token: The user is invalid.",
        Some(466) => {
            "Error validating access token: The session was invalidated explicitly using an API call."
        }
        Some(467) => "Error validating access token: The session is invalid because the user logged out.",
        Some(468) => "Error validating access token: The session has not been used for too long.",
        Some(490) => "The user is enrolled in a blocking, logged-in checkpoint",
        Some(492) => {
            "Error validating access token: Session does not match current stored session. The user no \
                      longer has a role on the Page."
        }
        Some(493) => {
            "The access token is invalid since the user hasn't engaged the app in longer than 90 days."
        }
        _ => "Invalid OAuth access token.",
    };
    text.to_owned()
}
