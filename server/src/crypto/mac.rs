//! HMAC-SHA-256 with keys that each have one purpose.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::{RawKey, encode_parts};
use crate::model::{Fingerprint, ProviderId, Secret};

/// An authentication key. A MAC depends on its domain, so that a MAC for one use is never valid for another.
#[derive(Clone)]
pub struct MacKey(Hmac<Sha256>);

impl MacKey {
    pub fn new(key: &RawKey) -> Self {
        Self(<Hmac<Sha256> as KeyInit>::new(&(*key.as_bytes()).into_block()))
    }

    /// `mac[key](domain, parts)`: every part is preceded by its length.
    pub fn mac(&self, domain: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.0.clone();
        mac.update(&encode_parts(&[domain.as_bytes()]));
        mac.update(&encode_parts(parts));
        mac.finalize().into_bytes().into()
    }

    /// Whether `expected` is the MAC (or its leading half) of the parts. In constant time.
    pub fn verify(&self, domain: &str, parts: &[&[u8]], expected: &[u8]) -> bool {
        let mac = self.mac(domain, parts);
        let length = expected.len();
        length >= 16 && mac.get(..length).is_some_and(|mac| mac.ct_eq(expected).into())
    }

    /// Derives a key for another use.
    pub fn derive(&self, purpose: &str) -> RawKey {
        RawKey::from_bytes(self.mac("derived-key", &[purpose.as_bytes()]))
    }

    /// The first 128 bits of a secret's MAC: they show which secrets of a workspace are equal.
    pub fn fingerprint(&self, provider: &ProviderId, secret: &Secret) -> Fingerprint {
        let mac = self.mac("fingerprint", &[provider.as_str().as_bytes(), secret.expose().as_bytes()]);
        let mut first = [0; 16];
        first.iter_mut().zip(mac).for_each(|(to, from)| *to = from);
        Fingerprint(first)
    }
}

// HMAC's block is longer than the key: pad it with zeros, as HMAC does.
trait IntoBlock {
    fn into_block(self) -> hmac::digest::Key<Hmac<Sha256>>;
}

impl IntoBlock for [u8; 32] {
    fn into_block(self) -> hmac::digest::Key<Hmac<Sha256>> {
        let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
        block.iter_mut().zip(self).for_each(|(to, from)| *to = from);
        block
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_and_parts_are_kept_apart() {
        let key = MacKey::new(&RawKey::from_bytes([1; 32]));
        assert_ne!(key.mac("a", &[b"x"]), key.mac("b", &[b"x"]));
        assert_ne!(key.mac("a", &[b"xy"]), key.mac("a", &[b"x", b"y"]));
        assert!(key.verify("a", &[b"x"], &key.mac("a", &[b"x"])));
        assert!(!key.verify("a", &[b"x"], &key.mac("a", &[b"y"])));
        assert!(!key.verify("a", &[b"x"], &[]));
        assert!(!key.verify("a", &[b"x"], &key.mac("a", &[b"x"])[..8]));
    }

    /// RFC 4231, test case 2 has a short key; case 1's twenty bytes padded to 32 with zeros is the same key.
    #[test]
    fn it_is_hmac_sha_256() {
        let mut key = [0; 32];
        key[..20].copy_from_slice(&[0x0b; 20]);
        let mut mac = MacKey::new(&RawKey::from_bytes(key)).0;
        mac.update(b"Hi There");
        assert_eq!(
            hex::encode(mac.finalize().into_bytes()),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
    }
}
