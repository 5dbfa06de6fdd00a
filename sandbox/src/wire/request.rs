//! A request: its version, path, parameters (from query and body) and token.

use axum::body::{Bytes, to_bytes};
use axum::extract::Request;
use http::{HeaderMap, Method, header};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::form_urlencoded;

/// The part of the Graph API that a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// Matches every request.
    Any,
    /// `/oauth/access_token`: code, exchange, client credentials.
    OauthAccessToken,
    /// `/debug_token`.
    DebugToken,
    /// `/me`.
    Me,
    /// `/me/permissions`, and its DELETE.
    Permissions,
    /// `/me/adaccounts` and the like.
    AdAccounts,
    /// `/me/businesses` and the like.
    Businesses,
    /// `/{business}/owned_ad_accounts` and `/{business}/client_ad_accounts`.
    BusinessAdAccounts,
    /// `/act_1`.
    AdAccount,
    /// `/act_1/insights`.
    Insights,
    /// `/me/accounts`.
    Accounts,
    /// `/oauth/revoke`.
    Revoke,
    /// `/oauth/client_code`.
    ClientCode,
    /// `/dialog/oauth`.
    Dialog,
    /// `/{id}`.
    Object,
    /// Everything else.
    Other,
}

impl Endpoint {
    fn of(path: &[&str]) -> Self {
        match path {
            ["oauth", "access_token"] => Self::OauthAccessToken,
            ["oauth", "revoke"] => Self::Revoke,
            ["oauth", "client_code"] => Self::ClientCode,
            ["dialog", "oauth", ..] => Self::Dialog,
            ["debug_token"] => Self::DebugToken,
            ["me"] => Self::Me,
            [_, "permissions", ..] => Self::Permissions,
            [_, "adaccounts"] => Self::AdAccounts,
            [_, "businesses"] => Self::Businesses,
            [_, "owned_ad_accounts" | "client_ad_accounts"] => Self::BusinessAdAccounts,
            [_, "insights"] => Self::Insights,
            [_, "accounts"] => Self::Accounts,
            [id] if id.starts_with("act_") => Self::AdAccount,
            [_] => Self::Object,
            _ => Self::Other,
        }
    }

    pub(crate) fn matches(self, other: Self) -> bool {
        self == Self::Any || self == other
    }
}

/// What a client sent, including tokens in the clear.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    pub method: String,
    /// Path with its version, as sent.
    pub path: String,
    /// Query pairs, decoded, in order.
    pub query: Vec<(String, String)>,
    /// Header pairs, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body pairs of a form or a JSON object.
    pub form: Vec<(String, String)>,
    pub endpoint: Endpoint,
    /// When it came, in unix seconds on the sandbox's clock.
    pub at: i64,
    /// When it came, in unix microseconds.
    pub at_micros: i64,
}

impl RecordedRequest {
    /// A parameter from the query or the body.
    pub fn param(&self, name: &str) -> Option<&str> {
        find(&self.query, name).or_else(|| find(&self.form, name))
    }

    /// A header by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

fn find<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

#[derive(Clone, Debug)]
pub(crate) struct GraphRequest {
    pub(crate) method: Method,
    pub(crate) path: String,
    /// `v26.0`, when the path has one.
    pub(crate) version: Option<String>,
    pub(crate) segments: Vec<String>,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) form: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) endpoint: Endpoint,
}

impl GraphRequest {
    /// A body that cannot be read counts as empty.
    pub(crate) async fn read(request: Request) -> Self {
        let (head, body) = request.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap_or_default();
        let path = head.uri.path().to_owned();
        let decoded: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(decode).collect();
        let version = decoded.first().filter(|part| is_version(part)).cloned();
        let segments: Vec<String> = decoded.into_iter().skip(usize::from(version.is_some())).collect();
        let endpoint = Endpoint::of(&segments.iter().map(String::as_str).collect::<Vec<_>>());
        Self {
            method: head.method,
            path,
            version,
            segments,
            query: pairs(head.uri.query().unwrap_or_default().as_bytes()),
            form: read_form(&head.headers, &body),
            headers: head.headers,
            endpoint,
        }
    }

    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        find(&self.query, name).or_else(|| find(&self.form, name)).filter(|value| !value.is_empty())
    }

    /// Takes the token from the parameters, otherwise from `Authorization: Bearer` (or `OAuth`).
    pub(crate) fn access_token(&self) -> Option<&str> {
        self.param("access_token").or_else(|| {
            let value = self.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
            let (scheme, token) = value.split_once(' ')?;
            let known = scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("oauth");
            known.then(|| token.trim())
        })
    }

    /// Whether any token parameter has this value.
    pub(crate) fn carries(&self, token: &str) -> bool {
        let named = ["input_token", "fb_exchange_token", "revoke_token"];
        self.access_token() == Some(token) || named.iter().any(|name| self.param(name) == Some(token))
    }

    pub(crate) fn record(&self, at_micros: i64) -> RecordedRequest {
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        RecordedRequest {
            method: self.method.to_string(),
            path: self.path.clone(),
            query: self.query.clone(),
            headers: self.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
            form: self.form.clone(),
            endpoint: self.endpoint,
            at: at_micros.div_euclid(1_000_000),
            at_micros,
        }
    }
}

fn is_version(part: &str) -> bool {
    let Some((major, minor)) = part.strip_prefix('v').and_then(|number| number.split_once('.')) else {
        return false;
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits(major) && digits(minor)
}

fn decode(part: &str) -> String {
    let quoted = part.replace('+', "%2B");
    form_urlencoded::parse(quoted.as_bytes()).next().map(|(key, _)| key.into_owned()).unwrap_or_default()
}

fn pairs(text: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(text).into_owned().collect()
}

fn read_form(headers: &HeaderMap, body: &Bytes) -> Vec<(String, String)> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("application/json") {
        return pairs(body);
    }
    let Ok(Value::Object(object)) = serde_json::from_slice(body) else { return Vec::new() };
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    object.into_iter().map(|(key, value)| (key, text(value))).collect()
}
