//! Webhooks: the check before one is subscribed, and the changes that it tells.

use std::collections::BTreeMap;
use std::sync::Once;

use subtle::ConstantTimeEq;

use super::{is_signed, only};
use crate::model::{Secret, Timestamp};
use crate::provider::meta::wire::{Json, Object};
use crate::provider::{CallbackFault, CallbackHint, CallbackMeaning, HintedAt, HttpAnswer, ProviderCallback};

const SIGNATURE: &str = "x-hub-signature-256";
/// The longest challenge. Meta's are numbers of some ten digits.
const LONGEST_CHALLENGE: usize = 256;

/// The answer to the check: the challenge, if the token is ours.
pub(super) fn subscribe(query: &str, ours: Option<&Secret>) -> Result<CallbackMeaning, CallbackFault> {
    let value = |name| only(query.as_bytes(), name).map(Secret::new);
    let (mode, token) = (value("hub.mode"), value("hub.verify_token"));
    let Some(ours) = ours else {
        // Anybody can ask, so it is said once.
        static SAID: Once = Once::new();
        SAID.call_once(|| {
            tracing::warn!("a webhook can't be subscribed: set providers.meta.webhook_verify_token_file");
        });
        return Ok(CallbackMeaning::Answer(HttpAnswer::text(403, "")));
    };
    let is_ours = token.is_some_and(|token| token.expose().as_bytes().ct_eq(ours.expose().as_bytes()).into());
    if !is_ours || mode.is_none_or(|mode| mode.expose() != "subscribe") {
        return Ok(CallbackMeaning::Answer(HttpAnswer::text(403, "")));
    }
    let challenge = only(query.as_bytes(), "hub.challenge").filter(|challenge| {
        (1..=LONGEST_CHALLENGE).contains(&challenge.len())
            && challenge.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
    });
    let rule = "must hold a hub.challenge of 1 to 256 printable ASCII characters";
    let challenge = challenge.ok_or(CallbackFault::Field { field: "query", rule })?;
    Ok(CallbackMeaning::Answer(HttpAnswer::text(200, challenge)))
}

/// Whom the changes are about.
pub(super) fn hints(
    callback: &ProviderCallback,
    secrets: &[Secret],
) -> Result<CallbackMeaning, CallbackFault> {
    let mut signatures = callback.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(SIGNATURE));
    let (signature, rest) = (signatures.next(), signatures.next());
    let signature = signature.filter(|_| rest.is_none()).and_then(|(_, value)| value.strip_prefix("sha256="));
    let signature = signature.and_then(|digits| hex::decode(digits).ok()).ok_or(CallbackFault::Signature)?;
    if !is_signed(secrets, &callback.body, &signature) {
        return Err(CallbackFault::Signature);
    }
    let rule = "must be a JSON object";
    let json = Json::parse(&callback.body);
    let fields = json.as_ref().and_then(|json| Object::of(json, "webhook", None));
    let fields = fields.ok_or(CallbackFault::Field { field: "body", rule })?;
    let object = fields.word("object").known().unwrap_or_default();
    let of_grants = object == "permissions";
    let about: fn(String) -> HintedAt = match object.as_str() {
        "permissions" | "user" | "page" => HintedAt::Subject,
        "ad_account" => |id| HintedAt::AdAccount(format!("act_{id}")),
        // Somebody subscribed to it, and it says nothing about tokens.
        _ => return Ok(CallbackMeaning::Hints(Vec::new())),
    };
    // Each once, with its latest change. An entry without an id is about nobody.
    let mut latest: BTreeMap<HintedAt, Option<Timestamp>> = BTreeMap::new();
    for entry in fields.objects("entry").known().unwrap_or_default() {
        let Some(id) = entry.id("id").known() else { continue };
        let at = entry.instant("time").known();
        latest
            .entry(about(id))
            .and_modify(|known| *known = known.zip(at).map(|(known, at)| known.max(at)))
            .or_insert(at);
    }
    let hints = latest.into_iter().map(|(about, at)| CallbackHint { about, of_grants, at });
    Ok(CallbackMeaning::Hints(hints.collect()))
}

#[cfg(fuzzing)]
pub(super) fn fuzz(data: &[u8]) {
    use crate::provider::CallbackKind;
    use hmac::{Hmac, KeyInit, Mac};

    let secrets = [Secret::new("0123456789abcdef0123456789abcdef".to_owned())];
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secrets[0].expose().as_bytes()).expect("any length");
    mac.update(data);
    let text = String::from_utf8_lossy(data);
    let callback = |signature: String| ProviderCallback {
        kind: CallbackKind::Webhook,
        method: "POST".into(),
        query: Secret::new(String::new()),
        headers: vec![(SIGNATURE.to_owned(), signature)],
        body: data.to_vec(),
    };
    let _ = subscribe(&text, Some(&secrets[0]));
    assert!(hints(&callback(text.into_owned()), &secrets).is_err(), "nobody signed it");
    let _ = hints(&callback(format!("sha256={}", hex::encode(mac.finalize().into_bytes()))), &secrets);
}
