//! What a provider sends to our app by itself, and what it asks of the vault.

use std::fmt;

use crate::model::{Secret, Timestamp};

/// Which callback it is, as the address says at which it was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallbackKind {
    /// A person removed the app.
    Deauthorize,
    /// A person asks for the deletion of their data.
    DataDeletion,
    Webhook,
}

/// The HTTP request that the provider sent.
pub struct ProviderCallback {
    pub kind: CallbackKind,
    pub method: String,
    /// Without the question mark.
    pub query: Secret,
    pub headers: Vec<(String, String)>,
    /// As received: its signature covers the bytes.
    pub body: Vec<u8>,
}

impl fmt::Debug for ProviderCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderCallback").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// What to answer over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAnswer {
    pub status: u16,
    pub content_type: &'static str,
    pub body: String,
}

impl HttpAnswer {
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }

    pub fn json(body: &serde_json::Value) -> Self {
        Self { status: 200, content_type: "application/json", body: body.to_string() }
    }
}

/// Whom a hint is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum HintedAt {
    /// The subject's id.
    Subject(String),
    AdAccount(String),
}

/// Something may have happened to a token. Only the provider's reply about the token says what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallbackHint {
    pub about: HintedAt,
    /// Whether it is about what the person granted. Anything else changes all the time.
    pub of_grants: bool,
    /// When, as far as the provider told.
    pub at: Option<Timestamp>,
}

/// What a callback asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallbackMeaning {
    /// Nothing but an answer.
    Answer(HttpAnswer),
    /// To look at what it names; maybe at nothing.
    Hints(Vec<CallbackHint>),
    /// To erase a person.
    Deletion {
        subject_id: String,
        /// When the provider signed it. With the subject, it tells this request from another one.
        issued_at: Timestamp,
    },
    /// To say what became of the request with this code.
    DeletionState { code: String },
}

/// Why a callback is not acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallbackFault {
    /// It does not carry the provider's signature.
    Signature,
    /// A field of the request breaks a rule, which never quotes it.
    Field { field: &'static str, rule: &'static str },
    /// It is not configured where people see what became of their request.
    NoDeletionPage {
        /// The configuration keys of which one is needed.
        keys: &'static str,
    },
}
