//! Entry points for fuzzing: tokens and key sets of an issuer.

use jsonwebtoken::{dangerous, decode_header};

use super::claims::Claims;
use super::issuer_keys;

/// A bearer token, up to where its signature would be checked.
pub fn token(text: &str) {
    let _ = decode_header(text);
    if let Ok(token) = dangerous::insecure_decode::<Claims>(text) {
        claims(&token.claims);
    }
    // Most fuzzed input is not in base64.
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

/// A key set or a discovery document.
pub fn published(text: &str) {
    issuer_keys::fuzz(text);
}
