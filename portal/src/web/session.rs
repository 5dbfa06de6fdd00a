//! The browser's session: a random number in a cookie, which ties forms and authorizations to this browser.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::cookies::{self, CookieJar};
use super::link::LinkId;

/// A session, as 64 hexadecimal digits.
pub(crate) struct Session(Zeroizing<String>);

impl Session {
    pub(crate) fn new() -> Self {
        Self(Zeroizing::new(hex::encode(rand::random::<[u8; 32]>())))
    }

    pub(crate) fn of(headers: &HeaderMap, jar: CookieJar) -> Option<Self> {
        let text = cookies::get(headers, &jar.session_name())?;
        let good = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        good.then(|| Self(Zeroizing::new(text.to_owned())))
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// What the vault keeps of the session, so that only this browser can complete what it began.
    pub(crate) fn binding(&self) -> String {
        sha256_hex(&self.0)
    }

    /// What a form about this link must carry. Only a page of the portal in this browser can know it.
    pub(crate) fn csrf(&self, id: &LinkId) -> String {
        self.mac(id).map(|mac| hex::encode(mac.finalize().into_bytes())).unwrap_or_default()
    }

    /// Whether a form carries it. The comparison takes the same time wherever they differ.
    pub(crate) fn is_csrf(&self, id: &LinkId, sent: &str) -> bool {
        let Ok(sent) = hex::decode(sent) else { return false };
        self.mac(id).is_some_and(|mac| mac.verify_slice(&sent).is_ok())
    }

    /// The request id of a pasted token: the same for the same token, link and connection. It tells nothing of the token.
    pub(crate) fn request_id(&self, id: &LinkId, connection: &str, token: &str) -> String {
        let mac = self.keyed("paste").map(|mac| {
            let parts = [id.as_str(), "\0", connection, "\0", token];
            parts.iter().fold(mac, |mac, part| mac.chain_update(part.as_bytes()))
        });
        mac.map(|mac| hex::encode(mac.finalize().into_bytes())).unwrap_or_default()
    }

    fn mac(&self, id: &LinkId) -> Option<Hmac<Sha256>> {
        self.keyed("csrf").map(|mac| mac.chain_update(id.as_str().as_bytes()))
    }

    fn keyed(&self, purpose: &str) -> Option<Hmac<Sha256>> {
        // HMAC takes keys of every length, so this is never `None`.
        let mac = Hmac::<Sha256>::new_from_slice(self.0.as_bytes()).ok()?;
        Some(mac.chain_update(purpose.as_bytes()))
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session(***)")
    }
}

pub(crate) fn sha256_hex(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_good_for_one_session_and_one_link() {
        let [one, other] = ["abcdefghijklmn27", "abcdefghijklmn22"].map(|id| LinkId::parse(id).unwrap());
        let session = Session::new();
        let csrf = session.csrf(&one);
        assert_eq!(csrf.len(), 64);
        assert!(session.is_csrf(&one, &csrf));
        assert!(!session.is_csrf(&other, &csrf));
        assert!(!Session::new().is_csrf(&one, &csrf));
        for wrong in ["", "00", &csrf[..62], "zz"] {
            assert!(!session.is_csrf(&one, wrong), "{wrong}");
        }
        assert!(!csrf.contains(session.expose()) && session.binding() != session.expose());
    }

    #[test]
    fn only_our_own_form_is_a_session() {
        let session = Session::new();
        let jar = CookieJar::new(true);
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(http::header::COOKIE, format!("__Host-session={value}").parse().unwrap());
            Session::of(&headers, jar)
        };
        assert_eq!(read(session.expose()).unwrap().expose(), session.expose());
        assert!(read("abc").is_none() && read(&"G".repeat(64)).is_none());
        assert!(!format!("{session:?}").contains(session.expose()));
    }
}
