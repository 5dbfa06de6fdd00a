//! What Meta signs and sends to the app: the deauthorize and data-deletion callbacks and the `permissions` webhook.
//! `order` says what a caller can have sent, and `send` sends it.

mod order;
mod send;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

pub use order::{Callback, CallbackKind, Sign};
pub use send::{Answer, Delivered};
pub(crate) use send::{Outgoing, send};

/// HMAC-SHA256. It accepts keys of any length, so this cannot fail.
pub(crate) fn hmac_sha256(secret: &str, message: &[u8]) -> Vec<u8> {
    Hmac::<Sha256>::new_from_slice(secret.as_bytes())
        .map(|mut mac| {
            mac.update(message);
            mac.finalize().into_bytes().to_vec()
        })
        .unwrap_or_default()
}

/// The `appsecret_proof` of a token: lower-case hex of HMAC-SHA256(secret, token).
pub fn appsecret_proof(secret: &str, access_token: &str) -> String {
    hex::encode(hmac_sha256(secret, access_token.as_bytes()))
}

/// The proof with a time, sent together with `appsecret_time`.
pub fn appsecret_proof_at(secret: &str, access_token: &str, unix_seconds: i64) -> String {
    hex::encode(hmac_sha256(secret, format!("{access_token}|{unix_seconds}").as_bytes()))
}

/// The `signed_request` of a deauthorize or data-deletion callback.
pub fn signed_request(secret: &str, user_id: &str, issued_at: i64) -> String {
    let payload = json!({ "user_id": user_id, "algorithm": "HMAC-SHA256", "issued_at": issued_at });
    sign_payload(secret, &payload.to_string())
}

/// A `signed_request` with any payload.
pub fn sign_payload(secret: &str, payload: &str) -> String {
    let payload = URL_SAFE_NO_PAD.encode(payload);
    let signature = URL_SAFE_NO_PAD.encode(hmac_sha256(secret, payload.as_bytes()));
    format!("{signature}.{payload}")
}

/// The `X-Hub-Signature-256` of a webhook body.
pub fn hub_signature(secret: &str, body: &str) -> String {
    format!("sha256={}", hex::encode(hmac_sha256(secret, body.as_bytes())))
}

/// The body of the `permissions` webhook about a person who removed the app.
pub fn permissions_webhook(user_id: &str, at: i64) -> Value {
    json!({ "object": "permissions", "entry": [
        { "id": user_id, "time": at, "changed_fields": ["connected"] }
    ]})
}
