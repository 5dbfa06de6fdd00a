//! Scripted faults: what goes wrong, where, for which token and how often.

pub(crate) mod apply;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::wire::error::GraphError;
use crate::wire::request::{Endpoint, GraphRequest};
use serde_json::Value;

/// A scripted fault, such as `Fault::on(Endpoint::Insights).times(2).with(FaultKind::EmptyBody)`.
/// A request gets the first fault that matches it, in the order in which they were added.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    pub on: Endpoint,
    /// How many more requests get it. `None` means all of them. The default in JSON is one.
    #[serde(default = "once")]
    pub times: Option<u32>,
    /// How many matching requests pass before it starts.
    #[serde(default)]
    pub skip: u32,
    /// Limits the fault to requests that carry this token, in any parameter.
    #[serde(default)]
    pub token: Option<String>,
    /// Limits the fault to requests whose path contains this text, for instance `act_1020304050`.
    #[serde(default)]
    pub path: Option<String>,
    /// What happens. All of it happens to the same request.
    #[serde(with = "one_or_many")]
    pub with: Vec<FaultKind>,
}

#[expect(clippy::unnecessary_wraps, reason = "serde needs the type of the field")]
fn once() -> Option<u32> {
    Some(1)
}

/// The token that a fault is limited to.
#[derive(Clone, Debug, Default)]
pub struct OnlyToken(Option<String>);

impl From<&str> for OnlyToken {
    fn from(token: &str) -> Self {
        Self(Some(token.to_owned()))
    }
}
impl From<&String> for OnlyToken {
    fn from(token: &String) -> Self {
        Self(Some(token.clone()))
    }
}
impl From<String> for OnlyToken {
    fn from(token: String) -> Self {
        Self(Some(token))
    }
}
impl<T: AsRef<str>> From<Option<T>> for OnlyToken {
    fn from(token: Option<T>) -> Self {
        Self(token.map(|token| token.as_ref().to_owned()))
    }
}

impl Fault {
    /// Makes a fault for the next request to `endpoint`.
    pub fn on(endpoint: Endpoint) -> Self {
        Self { on: endpoint, times: Some(1), skip: 0, token: None, path: None, with: Vec::new() }
    }

    /// Applies the fault to the next `n` requests.
    pub fn times(self, n: u32) -> Self {
        Self { times: Some(n), ..self }
    }

    /// Applies the fault to every request.
    pub fn always(self) -> Self {
        Self { times: None, ..self }
    }

    /// Lets the first `n` matching requests pass.
    pub fn after(self, n: u32) -> Self {
        Self { skip: n, ..self }
    }

    /// Limits the fault to requests that carry this token.
    pub fn token(self, token: impl Into<OnlyToken>) -> Self {
        Self { token: token.into().0, ..self }
    }

    /// Limits the fault to requests whose path contains this text.
    pub fn path(self, part: &str) -> Self {
        Self { path: Some(part.to_owned()), ..self }
    }

    /// Adds something that goes wrong.
    pub fn with(mut self, kind: FaultKind) -> Self {
        self.with.push(kind);
        self
    }

    fn matches(&self, request: &GraphRequest) -> bool {
        self.on.matches(request.endpoint)
            && self.token.as_ref().is_none_or(|token| request.carries(token))
            && self.path.as_ref().is_none_or(|part| request.path.contains(part))
    }
}

/// What goes wrong. In JSON: `{"graph_error":{"http":400,"code":190,"subcode":463}}`, `"empty_body"`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// An error reply instead of the work.
    GraphError {
        http: u16,
        /// `error.code`.
        code: i64,
        /// `error.error_subcode`.
        #[serde(default)]
        subcode: Option<u32>,
        /// `error.is_transient`.
        #[serde(default)]
        transient: Option<bool>,
        /// `error.message`; if unset, the usual text of the code.
        #[serde(default)]
        message: Option<String>,
        /// `error.type`; if unset, `OAuthException`.
        #[serde(default)]
        kind: Option<String>,
    },
    /// An error reply with all fields, `error_data` and texts for people included.
    Error(GraphError),
    /// An HTML page instead of the work.
    Html {
        /// HTTP status. Meta sends HTML with 200 and 400 too.
        status: u16,
    },
    /// Plain text instead of the work.
    Text {
        /// HTTP status.
        status: u16,
        /// The body.
        text: String,
    },
    /// 200 with an empty body.
    EmptyBody,
    /// 200 with `false`.
    BodyFalse,
    /// 200 with `true`.
    BodyTrue,
    /// 400 with `{"error":"…"}`.
    ErrorAsString,
    /// Half of the JSON, with a matching length.
    Truncated,
    /// The connection is reset before the work.
    Reset,
    /// The work is done; then the connection is reset and the reply is lost.
    ResetAfter,
    /// The work is done; half of the body is sent, then the connection is reset.
    ResetMidBody,
    /// The reply begins this much later, in real time. The work is done before.
    StallFirstByte(#[serde(with = "seconds")] Duration),
    /// No reply until the faults are cleared. The work is done before.
    Hang,
    /// Half of the body, then nothing for this long, then the rest.
    StallBody(#[serde(with = "seconds")] Duration),
    /// The body byte by byte, over this long.
    SlowBody(#[serde(with = "seconds")] Duration),
    /// Valid JSON as `text/javascript; charset=UTF-8`.
    WrongContentType,
    /// No `Content-Type`.
    NoContentType,
    /// A JSON body of at least this many bytes.
    OversizedBody(usize),
    /// 302 to this URL instead of the work.
    Redirect(String),
    /// Replaces headers. A name that is listed twice is sent twice.
    Headers(Vec<(String, String)>),
    /// Leaves a header out.
    WithoutHeader(String),
    /// `expires_in` of a token reply becomes this JSON value; `null` leaves it out.
    ExpiresInJson(Value),
    /// `expires_in` of a token reply in seconds; `None` leaves it out.
    ExpiresIn(Option<i64>),
    /// A token reply in the form of a query string, as before v2.3.
    QueryStringToken,
    /// `debug_token`: `data.expires_at`.
    ExpiresAt(i64),
    /// `debug_token`: `data.user_id`; `None` leaves it out.
    Subject(Option<String>),
    /// `debug_token`: `data.app_id`; `None` leaves it out.
    AppId(Option<String>),
    /// `debug_token`: `data.scopes`.
    Scopes(Vec<String>),
    /// `debug_token`: `data.is_valid`.
    IsValid(bool),
    /// Sets the value at a JSON pointer of any reply; `null` removes it.
    Set(String, Value),
    /// Writes this text, unchanged, as the value at a JSON pointer of any reply: what no JSON library writes, such as an
    /// integer past 64 bits or a lone surrogate. `1,"code":2` writes the key `code` twice.
    SetRaw(String, String),
    /// The body is compressed.
    Gzip,
    /// Unknown keys in the body and in its lists.
    UnknownKeys,
    /// The token of the request ends (with this subcode) right after the reply.
    ThenKill(Option<u32>),
}

impl FaultKind {
    /// Returns a Graph error with this status and code, and the usual text.
    pub fn error(http: u16, code: i64) -> Self {
        Self::GraphError { http, code, subcode: None, transient: None, message: None, kind: None }
    }

    /// Returns a Graph error with a subcode.
    pub fn error_with_subcode(http: u16, code: i64, subcode: u32) -> Self {
        Self::GraphError { http, code, subcode: Some(subcode), transient: None, message: None, kind: None }
    }

    /// Returns the error that this fault replies with.
    pub(crate) fn graph_error(&self) -> Option<GraphError> {
        match self {
            Self::Error(error) => Some(error.clone()),
            Self::GraphError { http, code, subcode, transient, message, kind } => {
                let text = message.clone().unwrap_or_else(|| usual_text(*code, *subcode));
                let auth = matches!(code, 190 | 102 | 2500);
                Some(GraphError {
                    subcode: *subcode,
                    transient: *transient,
                    kind: kind.clone().unwrap_or_else(|| "OAuthException".to_owned()),
                    challenge: auth.then(|| "invalid_token".to_owned()),
                    ..GraphError::new(*http, *code, text)
                })
            }
            _ => None,
        }
    }
}

fn usual_text(code: i64, subcode: Option<u32>) -> String {
    let text = match code {
        1 => "An unknown error occurred",
        2 => "Service temporarily unavailable",
        4 => "(#4) Application request limit reached",
        10 => "(#10) Application does not have permission for this action",
        17 => "(#17) User request limit reached",
        32 => "(#32) Page request limit reached",
        102 => "Session key invalid or no longer valid",
        190 => return crate::wire::error::session_message(subcode, crate::config::DEFAULT_APP_ID),
        200 => "(#200) Ad account owner has NOT grant ads_management or ads_read permission",
        368 => "(#368) The action attempted has been deemed abusive or is otherwise disallowed",
        613 => "(#613) Calls to this api have exceeded the rate limit.",
        2500 => "An active access token must be used to query information about the current user.",
        2635 => {
            "(#2635) You are calling a deprecated version of the Ads API. Please update to the latest version: v26.0."
        }
        80_000..=80_014 => {
            return format!(
                "(#{code}) There have been too many calls from this ad-account. Wait a bit and try again."
            );
        }
        _ => return format!("(#{code}) Sandbox error {code}"),
    };
    text.to_owned()
}

/// Finds the first matching fault, counts it as used once, and returns what it does.
pub(crate) fn take(faults: &mut Vec<Fault>, request: &GraphRequest) -> Vec<FaultKind> {
    for fault in faults.iter_mut().filter(|fault| fault.matches(request)) {
        if fault.skip > 0 {
            fault.skip -= 1;
            continue;
        }
        if let Some(left) = &mut fault.times {
            if *left == 0 {
                continue;
            }
            *left -= 1;
        }
        let kinds = fault.with.clone();
        faults.retain(|fault| fault.times != Some(0));
        return kinds;
    }
    Vec::new()
}

mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(duration.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(from)?;
        Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)
    }
}

mod one_or_many {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::FaultKind;

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        Many(Vec<FaultKind>),
        One(FaultKind),
    }

    pub(super) fn serialize<S: Serializer>(kinds: &[FaultKind], to: S) -> Result<S::Ok, S::Error> {
        kinds.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<FaultKind>, D::Error> {
        Ok(match OneOrMany::deserialize(from)? {
            OneOrMany::Many(kinds) => kinds,
            OneOrMany::One(kind) => vec![kind],
        })
    }
}
