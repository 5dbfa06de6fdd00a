//! A `signed_request`: the field of a form with a signature and the encoded payload that it covers.

use std::time::Duration;

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::{is_signed, only};
use crate::model::{Secret, Timestamp};
use crate::provider::CallbackFault;
use crate::provider::meta::wire::{Json, Object};

/// How old a request may be. Meta tries for up to 36 hours, and an outage of ours may last a weekend.
const OLDEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How far Meta's clock may be ahead of ours.
const AHEAD: Duration = Duration::from_secs(5 * 60);
/// The longest field. Meta's have some 200 bytes.
const LONGEST: usize = 16 * 1024;
/// What Meta writes into the signed requests of a login, a page tab or a canvas, which any person's browser gets: they carry
/// the same signature as callbacks and ask for nothing.
const OF_A_LOGIN: [&str; 4] = ["code", "oauth_token", "page", "app_data"];
/// Base64 as Meta writes it, which leaves out the padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What was signed. `expires`, which the payload may have, is about an access token and not about the request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SignedRequest {
    pub(super) user_id: String,
    pub(super) issued_at: Timestamp,
}

const fn bad(rule: &'static str) -> CallbackFault {
    CallbackFault::Field { field: "body", rule }
}

/// Verifies the signature over the part as it was received, and only then looks into it.
pub(super) fn read(body: &[u8], secrets: &[Secret], now: Timestamp) -> Result<SignedRequest, CallbackFault> {
    let field = only(body, "signed_request")
        .filter(|field| field.len() <= LONGEST)
        .ok_or(bad("must be a form with one signed_request of at most 16 KiB"))?;
    let (signature, payload) = field
        .split_once('.')
        .filter(|(_, payload)| !payload.is_empty() && !payload.contains('.'))
        .ok_or(bad("must hold a signed_request of two parts with a dot in between"))?;
    let signature = BASE64.decode(signature).map_err(|_| CallbackFault::Signature)?;
    if !is_signed(secrets, payload.as_bytes(), &signature) {
        return Err(CallbackFault::Signature);
    }
    let payload = BASE64.decode(payload).map_err(|_| bad("must hold a signed_request of base64url"))?;
    let json = Json::parse(&payload);
    let fields = json.as_ref().and_then(|json| Object::of(json, "signed_request", None));
    let fields = fields.ok_or(bad("must hold a signed_request of a JSON object"))?;
    // Whoever names another algorithm means another signature.
    let algorithm = fields.word("algorithm").known().unwrap_or_default();
    if !algorithm.eq_ignore_ascii_case("HMAC-SHA256") {
        return Err(CallbackFault::Signature);
    }
    if OF_A_LOGIN.iter().any(|field| fields.has(field)) {
        return Err(bad("must hold a signed_request of a callback: this one is of a login"));
    }
    let user_id = fields.id("user_id").known().ok_or(bad("must hold a signed_request with a user_id"))?;
    let issued_at = fields
        .instant("issued_at")
        .known()
        .ok_or(bad("must hold a signed_request with the time issued_at"))?;
    if issued_at > now + AHEAD {
        return Err(bad("must hold a signed_request that was issued by now, within 5 minutes"));
    }
    if now.since(issued_at) > OLDEST {
        return Err(bad("must hold a signed_request that was issued at most 7 days ago"));
    }
    Ok(SignedRequest { user_id, issued_at })
}

#[cfg(fuzzing)]
pub(super) fn fuzz(data: &[u8], now: Timestamp) {
    use hmac::{Hmac, KeyInit, Mac};

    let secrets = [Secret::new("0123456789abcdef0123456789abcdef".to_owned())];
    let form = |field: &str| {
        url::form_urlencoded::Serializer::new(String::new()).append_pair("signed_request", field).finish()
    };
    assert!(read(data, &secrets, now).is_err(), "nobody signed it");
    let payload = BASE64.encode(data);
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secrets[0].expose().as_bytes()).expect("any length");
    mac.update(payload.as_bytes());
    let signature = BASE64.encode(mac.finalize().into_bytes());
    let _ = read(form(&format!("{signature}.{payload}")).as_bytes(), &secrets, now);
}
