//! Requests to the key service, and its replies.

use std::path::Path;
use std::time::Duration;

use reqwest::header::HeaderValue;
use reqwest::{Client, Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use url::Url;
use zeroize::{Zeroize, Zeroizing};

use crate::crypto::WrapError;
use crate::http_client::{BodyError, ClientConfig, read_body};
use crate::model::Secret;

const CONNECT: Duration = Duration::from_secs(2);
const REQUEST: Duration = Duration::from_secs(5);
/// The longest reply that is read. The replies that we ask for are much shorter.
const LONGEST_REPLY: usize = 64 * 1024;

/// The part of a reply that we asked for.
#[derive(Deserialize)]
pub(super) struct Reply<T> {
    pub(super) data: T,
}

/// Why a request failed. The texts hold the service's words about itself, never what was sent.
pub(super) enum Failed {
    /// The service can't be reached, or has trouble of its own.
    Unavailable(String),
    /// The token was not accepted.
    Token(String),
    /// The service did not accept the request.
    Request(String),
}

impl Failed {
    pub(super) fn into_wrap(self) -> WrapError {
        match self {
            Self::Unavailable(detail) => WrapError::Unavailable(detail),
            Self::Token(detail) | Self::Request(detail) => WrapError::Denied(detail),
        }
    }
}

pub(super) struct Wire {
    client: Client,
    address: Url,
    namespace: String,
}

impl Wire {
    pub(super) fn new(address: Url, namespace: String, ca_file: Option<&Path>) -> Result<Self, String> {
        let client =
            ClientConfig { connect_timeout: CONNECT, timeout: REQUEST, ca_file, proxy: false, gzip: false };
        Ok(Self { client: client.build()?, address, namespace })
    }

    /// Sends one request to `/v1/{path}` and returns the body of its reply.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        token: Option<&Secret>,
    ) -> Result<Zeroizing<Vec<u8>>, Failed> {
        let unavailable = |what: &str| Failed::Unavailable(what.to_owned());
        let mut url = self.address.clone();
        url.set_path(&format!("{}/v1/{path}", self.address.path().trim_end_matches('/')));
        let mut request = self.client.request(method, url).header("X-Vault-Request", "true");
        if !self.namespace.is_empty() {
            request = request.header("X-Vault-Namespace", &self.namespace);
        }
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(token.expose())
                .map_err(|_| Failed::Token("the token holds characters that no token has".into()))?;
            value.set_sensitive(true);
            request = request.header("X-Vault-Token", value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| {
            unavailable(if error.is_timeout() {
                "the key service did not answer in time"
            } else {
                "the key service can't be reached"
            })
        })?;
        let status = response.status();
        let reply = read_body(response, LONGEST_REPLY).await.map_err(|error| {
            unavailable(match error {
                BodyError::TooLong => "the key service's answer is too long",
                BodyError::Broken(_) => "the key service's answer was cut off",
            })
        })?;
        if status.is_success() {
            return Ok(reply);
        }
        let detail = format!("the key service answers {}: {}", status.as_u16(), errors_in(&reply));
        Err(match status {
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Failed::Token(detail),
            StatusCode::BAD_REQUEST => Failed::Request(detail),
            _ => Failed::Unavailable(detail),
        })
    }
}

/// What the service says is wrong.
fn errors_in(reply: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<String>,
    }
    let errors =
        serde_json::from_slice::<Errors>(reply).map(|reply| reply.errors.join("; ")).unwrap_or_default();
    let printable = errors.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(300).collect()
}

/// Wipes the texts of a body.
pub(super) fn wipe(body: &mut Value) {
    match body {
        Value::String(text) => text.zeroize(),
        Value::Object(fields) => fields.values_mut().for_each(wipe),
        _ => {}
    }
}
