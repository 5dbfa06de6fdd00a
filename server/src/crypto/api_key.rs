//! API keys as callers hold them: `tva_<id>_<secret>`, 256 random bits, of which only a hash is kept.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Generate, Key};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::model::{ApiKeyId, BadValue, Secret};

const PREFIX: &str = "tva_";
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A key that a caller presents: its id, and the hash of its secret part.
pub struct PresentedKey {
    pub id: ApiKeyId,
    hash: [u8; 32],
}

impl PresentedKey {
    /// Parses a key. The secret part has 256 random bits and can't be guessed, so a plain hash is enough.
    pub fn parse(key: &Secret) -> Result<Self, BadValue> {
        let malformed = || BadValue::new("must be a key of the form tva_<id>_<secret>");
        let rest = key.expose().strip_prefix(PREFIX).ok_or_else(malformed)?;
        let (id, secret) = rest.split_once('_').ok_or_else(malformed)?;
        if secret.len() != 43 {
            return Err(malformed());
        }
        Ok(Self { id: ApiKeyId::parse(id).map_err(|_| malformed())?, hash: hash(secret) })
    }

    /// Compares in constant time.
    pub fn matches(&self, hash: &[u8]) -> bool {
        self.hash.ct_eq(hash).into()
    }

    pub fn hash(&self) -> Vec<u8> {
        self.hash.to_vec()
    }
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

pub fn mint() -> Result<(Secret, PresentedKey), BadValue> {
    let id: [u8; 32] = Key::<Aes256Gcm>::generate().into();
    let id: String = id
        .iter()
        .take(16)
        .filter_map(|byte| ALPHABET.get(usize::from(byte & 31)).map(|letter| char::from(*letter)))
        .collect();
    let secret: Zeroizing<[u8; 32]> = Zeroizing::new(Key::<Aes256Gcm>::generate().into());
    let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(*secret));
    let key = Secret::new(format!("{PREFIX}{id}_{}", text.as_str()));
    let presented = PresentedKey::parse(&key)?;
    Ok((key, presented))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_key_reads_back_and_matches_only_itself() {
        let (key, minted) = mint().unwrap();
        let read = PresentedKey::parse(&key).unwrap();
        assert_eq!(read.id, minted.id);
        assert!(read.matches(&minted.hash()));
        let (_, other) = mint().unwrap();
        assert!(!read.matches(&other.hash()));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for bad in
            ["", "tva_", "tva_abc_def", "Bearer x", "tva_abcdefghijklmnop_short", "xxx_abcdefghijklmnop_"]
        {
            assert!(PresentedKey::parse(&Secret::new(bad.into())).is_err(), "{bad}");
        }
    }
}
