//! Replies as Meta sends them: the headers that every reply has, and the kinds of body.

use axum::body::{Body, Bytes};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::random::random_text;
use crate::wire::error::GraphError;

/// What a route puts into its reply.
pub(crate) enum Content {
    Json(Value),
    Html { status: u16, text: String },
    Redirect(String),
}

impl From<Value> for Content {
    fn from(value: Value) -> Self {
        Self::Json(value)
    }
}

pub(crate) type Outcome = Result<Content, GraphError>;

/// Marks a response that is not sent: the server resets the connection instead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CutConnection;

/// A reply before it is sent; faults still change it.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Draft {
    /// An empty reply with the headers that every reply has.
    pub(crate) fn new(version: &str, trace: &str) -> Self {
        let mut draft = Self { status: 200, headers: HeaderMap::new(), body: Bytes::new() };
        let debug = STANDARD.encode(random_text(66));
        for (name, value) in [
            ("facebook-api-version", version),
            ("x-fb-request-id", trace),
            ("x-fb-trace-id", &random_text(11)),
            ("x-fb-rev", "1004567890"),
            ("x-fb-debug", &debug),
            ("x-fb-rlafr", "0"),
            ("cache-control", "private, no-cache, no-store, must-revalidate"),
            ("pragma", "no-cache"),
            ("expires", "Sat, 01 Jan 2000 00:00:00 GMT"),
            ("strict-transport-security", "max-age=15552000; preload"),
            ("access-control-allow-origin", "*"),
            ("vary", "Accept-Encoding"),
            ("alt-svc", "h3=\":443\"; ma=86400"),
        ] {
            draft.set(name, value);
        }
        draft
    }

    /// Replaces a header. A name or value that HTTP does not allow is dropped.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        if let Some((name, value)) = header_pair(name, value) {
            self.headers.insert(name, value);
        }
    }

    /// Adds a header and keeps those of the same name.
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        if let Some((name, value)) = header_pair(name, value) {
            self.headers.append(name, value);
        }
    }

    pub(crate) fn json(&mut self, value: &Value, content_type: &str) {
        self.body = Bytes::from(value.to_string());
        self.set("content-type", content_type);
    }

    pub(crate) fn html(&mut self, status: u16, text: impl Into<Bytes>) {
        self.status = status;
        self.body = text.into();
        self.set("content-type", "text/html; charset=utf-8");
    }

    pub(crate) fn error(&mut self, error: &GraphError, trace: &str, content_type: &str) {
        self.status = error.http;
        self.json(&error.body(trace), content_type);
        self.set("cache-control", "no-store");
        if let Some(word) = &error.challenge {
            let challenge = format!("OAuth \"Facebook Platform\" \"{word}\" \"{}\"", error.message);
            self.set("www-authenticate", &challenge);
        }
    }

    pub(crate) fn redirect(&mut self, location: &str) {
        self.status = 302;
        self.body = Bytes::new();
        self.headers.remove(header::CONTENT_TYPE);
        self.set("location", location);
    }

    /// Sets the `ETag` of the body. The reply becomes a 304 when the client already has this body.
    pub(crate) fn tag(&mut self, known: Option<&HeaderValue>) {
        let digest: String = hex::encode(Sha256::digest(&self.body)).chars().take(40).collect();
        let tag = format!("\"{digest}\"");
        if known.is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
            self.status = 304;
            self.body = Bytes::new();
        }
        self.set("etag", &tag);
    }

    pub(crate) fn send(self, body: Body) -> Response {
        let mut response = Response::new(body);
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *response.headers_mut() = self.headers;
        response
    }
}

fn header_pair(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    let name = HeaderName::from_bytes(name.to_lowercase().as_bytes()).ok()?;
    Some((name, HeaderValue::from_bytes(value.as_bytes()).ok()?))
}
