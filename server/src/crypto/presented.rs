//! Secrets that callers hold and present: API keys (`tva_<id>_<secret>`) and the tokens of connect links
//! (`tvl_<id>_<secret>`). Each has 256 random bits, of which only a hash is kept.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Generate, Key};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::model::{ApiKeyId, BadValue, ConnectLinkId, Secret};

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The id in a secret that is presented.
pub trait PresentedId: Sized {
    /// What the secret begins with.
    const PREFIX: &'static str;
    const FORM: &'static str;

    fn read(text: &str) -> Result<Self, BadValue>;
}

impl PresentedId for ApiKeyId {
    const PREFIX: &'static str = "tva_";
    const FORM: &'static str = "must be a key of the form tva_<id>_<secret>";

    fn read(text: &str) -> Result<Self, BadValue> {
        Self::parse(text)
    }
}

impl PresentedId for ConnectLinkId {
    const PREFIX: &'static str = "tvl_";
    const FORM: &'static str = "must be the token of a link, of the form tvl_<id>_<secret>";

    fn read(text: &str) -> Result<Self, BadValue> {
        Self::parse(text)
    }
}

/// What a caller presents: its id, and the hash of its secret part.
pub struct Presented<I> {
    pub id: I,
    hash: [u8; 32],
}

pub type PresentedKey = Presented<ApiKeyId>;
pub type PresentedLink = Presented<ConnectLinkId>;

impl<I: PresentedId> Presented<I> {
    /// Parses what a caller presents. The secret part has 256 random bits and can't be guessed, so a plain hash is enough.
    pub fn parse(presented: &Secret) -> Result<Self, BadValue> {
        let malformed = || BadValue::new(I::FORM);
        let rest = presented.expose().strip_prefix(I::PREFIX).ok_or_else(malformed)?;
        let (id, secret) = rest.split_once('_').ok_or_else(malformed)?;
        if secret.len() != 43 {
            return Err(malformed());
        }
        Ok(Self { id: I::read(id).map_err(|_| malformed())?, hash: hash(secret) })
    }

    /// Compares in constant time.
    pub fn matches(&self, hash: &[u8]) -> bool {
        self.hash.ct_eq(hash).into()
    }

    pub fn hash(&self) -> Vec<u8> {
        self.hash.to_vec()
    }

    /// Makes a new secret.
    pub fn mint() -> Result<(Secret, Self), BadValue> {
        let id: [u8; 32] = Key::<Aes256Gcm>::generate().into();
        let id: String = id
            .iter()
            .take(16)
            .filter_map(|byte| ALPHABET.get(usize::from(byte & 31)).map(|letter| char::from(*letter)))
            .collect();
        let secret: Zeroizing<[u8; 32]> = Zeroizing::new(Key::<Aes256Gcm>::generate().into());
        let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(*secret));
        let minted = Secret::new(format!("{}{id}_{}", I::PREFIX, text.as_str()));
        let presented = Self::parse(&minted)?;
        Ok((minted, presented))
    }
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_secret_reads_back_and_matches_only_itself() {
        let (key, minted) = PresentedKey::mint().unwrap();
        let read = PresentedKey::parse(&key).unwrap();
        assert_eq!(read.id, minted.id);
        assert!(read.matches(&minted.hash()));
        let (_, other) = PresentedKey::mint().unwrap();
        assert!(!read.matches(&other.hash()));
        let (link, _) = PresentedLink::mint().unwrap();
        assert!(PresentedLink::parse(&link).is_ok());
        assert!(PresentedKey::parse(&link).is_err() && PresentedLink::parse(&key).is_err());
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
