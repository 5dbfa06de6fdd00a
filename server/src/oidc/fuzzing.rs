//! Tokens and key sets of an issuer, as fuzzing makes them.

use jsonwebtoken::{dangerous, decode_header};

use super::claims::Claims;
use super::issuer_keys;

/// A bearer token, up to where its signature would be looked at.
pub fn token(text: &str) {
    let _ = decode_header(text);
    if let Ok(token) = dangerous::insecure_decode::<Claims>(text) {
        claims(&token.claims);
    }
    // Most of what fuzzing makes has no base64 around it.
    if let Ok(bare) = serde_json::from_str::<Claims>(text) {
        claims(&bare);
    }
}

fn claims(claims: &Claims) {
    for name in ["sub", "aud", "realm_access.roles", "exp"] {
        let _ = (claims.text(name), claims.texts(name));
        if let Some(Some(at)) = claims.time(name) {
            assert!(at.as_micros() >= 0, "a time before 1970 was believed");
        }
    }
}

/// What an issuer publishes.
pub fn published(text: &str) {
    issuer_keys::fuzz(text);
}
