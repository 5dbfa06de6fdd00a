//! What Meta sends to the app: the callbacks for deauthorization and data deletion, and webhooks. Each is signed with an
//! app secret; while the secret is being changed, with either. Nobody else can make one, but whoever has seen one can send
//! it again: so it says only where to look, apart from the deletion of data, which is carried out once.

mod signed_request;
mod webhook;

use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};
use url::{Url, form_urlencoded};

use crate::model::{Secret, Timestamp};
use crate::provider::{
    CallbackFault, CallbackHint, CallbackKind, CallbackMeaning, HintedAt, HttpAnswer, ProviderCallback,
};

/// Where the pages of requests to delete data can be configured.
const DELETION_PAGE_KEYS: &str = "portal.url, providers.meta.data_deletion_url";

/// What is needed to verify and to answer callbacks.
pub(super) struct Callbacks {
    pub(super) secrets: Arc<[Secret]>,
    pub(super) verify_token: Option<Secret>,
    pub(super) deletion_page: Option<Url>,
}

impl Callbacks {
    /// # Errors
    /// Why it is not acted on.
    pub(super) fn read(
        &self,
        callback: &ProviderCallback,
        now: Timestamp,
    ) -> Result<CallbackMeaning, CallbackFault> {
        match (callback.kind, callback.method.as_str()) {
            (CallbackKind::Webhook, "GET") => {
                webhook::subscribe(callback.query.expose(), self.verify_token.as_ref())
            }
            (CallbackKind::Webhook, "POST") => webhook::hints(callback, &self.secrets),
            (CallbackKind::Deauthorize, "POST") => {
                let request = signed_request::read(&callback.body, &self.secrets, now)?;
                let about = HintedAt::Subject(request.user_id);
                Ok(CallbackMeaning::Hints(vec![CallbackHint {
                    about,
                    of_grants: true,
                    at: Some(request.issued_at),
                }]))
            }
            (CallbackKind::DataDeletion, "POST") => {
                let request = signed_request::read(&callback.body, &self.secrets, now)?;
                if self.deletion_page.is_none() {
                    return Err(CallbackFault::NoDeletionPage { keys: DELETION_PAGE_KEYS });
                }
                let (subject_id, issued_at) = (request.user_id, request.issued_at);
                Ok(CallbackMeaning::Deletion { subject_id, issued_at })
            }
            (CallbackKind::DataDeletion, "GET") => match only(callback.query.expose().as_bytes(), "code") {
                Some(code) => Ok(CallbackMeaning::DeletionState { code }),
                None => Ok(alive()),
            },
            // Meta looks now and then whether there is somebody.
            (CallbackKind::Deauthorize, "GET") | (_, "HEAD") => Ok(alive()),
            _ => Ok(CallbackMeaning::Answer(HttpAnswer::text(405, "This method is not taken here.\n"))),
        }
    }

    pub(super) fn deletion_answer(&self, code: &str) -> Option<HttpAnswer> {
        let mut url = self.deletion_page.clone()?;
        url.path_segments_mut().ok()?.pop_if_empty().push(code);
        Some(HttpAnswer::json(&json!({ "url": url.as_str(), "confirmation_code": code })))
    }
}

fn alive() -> CallbackMeaning {
    CallbackMeaning::Answer(HttpAnswer::text(200, ""))
}

/// The value of a name that occurs once.
fn only(pairs: &[u8], name: &str) -> Option<String> {
    let mut values = form_urlencoded::parse(pairs).filter(|(key, _)| key == name).map(|(_, value)| value);
    let value = values.next()?;
    values.next().is_none().then(|| value.into_owned())
}

/// Whether one of the app secrets signed the message. It takes as long whichever it is.
fn is_signed(secrets: &[Secret], message: &[u8], signature: &[u8]) -> bool {
    let mut good = Choice::from(0);
    for secret in secrets {
        // HMAC takes keys of any length; the error exists for other MACs.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()) else { continue };
        mac.update(message);
        good |= mac.finalize().into_bytes().as_slice().ct_eq(signature);
    }
    good.into()
}

/// Reads anything as each kind of callback, once as it is and once with a good signature.
#[cfg(fuzzing)]
pub(super) fn fuzz(data: &[u8], now: Timestamp) {
    signed_request::fuzz(data, now);
    webhook::fuzz(data);
}

#[cfg(test)]
mod tests;
