//! The way back in when the master key is lost: every key is also encrypted to a public key, whose private half
//! is kept offline. HPKE (RFC 9180) with X25519, HKDF-SHA256 and AES-256-GCM.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{CorruptCiphertext, KeyBinding, RawKey};
use crate::model::{BadValue, Secret};

/// What a public key begins with, and a private one.
const PUBLIC: &str = "tvbg1-public:";
const PRIVATE: &str = "tvbg1-private:";
/// First byte of every ciphertext: which layout follows. 1 is the encapsulated key (32 bytes) and the ciphertext.
const FORMAT: u8 = 1;
const ENCAPSULATED: usize = 32;

type PublicKey = <X25519HkdfSha256 as Kem>::PublicKey;
type PrivateKey = <X25519HkdfSha256 as Kem>::PrivateKey;
type Encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey;

/// The public half: encrypts keys, opens nothing.
#[derive(Clone)]
pub struct BreakGlassPublic {
    key: PublicKey,
    id: String,
}

/// The private half. It has no place near a server.
pub struct BreakGlassPrivate(PrivateKey);

fn decode(text: &str, prefix: &str) -> Option<Zeroizing<Vec<u8>>> {
    STANDARD.decode(text.trim().strip_prefix(prefix)?).ok().map(Zeroizing::new)
}

impl BreakGlassPublic {
    /// Reads `tvbg1-public:<base64 of 32 bytes>`.
    ///
    /// # Errors
    /// It is of another form.
    pub fn parse(text: &str) -> Result<Self, BadValue> {
        let rule = || BadValue::new(format!("must be {PUBLIC}<base64 of 32 bytes>"));
        let bytes = decode(text, PUBLIC).ok_or_else(rule)?;
        PublicKey::from_bytes(&bytes).map(Self::new).map_err(|_| rule())
    }

    fn new(key: PublicKey) -> Self {
        let digest = Sha256::digest(key.to_bytes());
        let id = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self { key, id }
    }

    /// Names the key: the beginning of its SHA-256.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Encrypts a key, bound to what it belongs to.
    pub fn seal(&self, binding: &KeyBinding<'_>, key: &RawKey) -> Result<Vec<u8>, CorruptCiphertext> {
        let (encapsulated, sealed) = hpke::single_shot_seal::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
            &OpModeS::Base,
            &self.key,
            &binding.encode(),
            key.as_bytes(),
            &[],
        )
        .map_err(|_| CorruptCiphertext)?;
        let mut bytes = vec![FORMAT];
        bytes.extend_from_slice(&encapsulated.to_bytes());
        bytes.extend_from_slice(&sealed);
        Ok(bytes)
    }
}

impl BreakGlassPrivate {
    /// A fresh pair, as the two texts.
    pub fn generate() -> (Secret, String) {
        let (private, public) = X25519HkdfSha256::gen_keypair();
        let private = Zeroizing::new(private.to_bytes().to_vec());
        let encoded = Zeroizing::new(STANDARD.encode(&*private));
        (
            Secret::new(format!("{PRIVATE}{}", encoded.as_str())),
            format!("{PUBLIC}{}", STANDARD.encode(public.to_bytes())),
        )
    }

    /// Reads `tvbg1-private:<base64 of 32 bytes>`.
    ///
    /// # Errors
    /// It is of another form. Never repeats the text.
    pub fn parse(text: &Secret) -> Result<Self, BadValue> {
        let rule = || BadValue::new(format!("must hold {PRIVATE}<base64 of 32 bytes>"));
        let bytes = decode(text.expose(), PRIVATE).ok_or_else(rule)?;
        PrivateKey::from_bytes(&bytes).map(Self).map_err(|_| rule())
    }

    /// Its public half.
    pub fn public(&self) -> BreakGlassPublic {
        BreakGlassPublic::new(X25519HkdfSha256::sk_to_pk(&self.0))
    }

    /// Inverse of [`BreakGlassPublic::seal`].
    pub fn open(&self, binding: &KeyBinding<'_>, sealed: &[u8]) -> Result<RawKey, CorruptCiphertext> {
        let (format, rest) = sealed.split_first().ok_or(CorruptCiphertext)?;
        let (encapsulated, sealed) = rest.split_at_checked(ENCAPSULATED).ok_or(CorruptCiphertext)?;
        if *format != FORMAT {
            return Err(CorruptCiphertext);
        }
        let encapsulated = Encapsulated::from_bytes(encapsulated).map_err(|_| CorruptCiphertext)?;
        let plain = hpke::single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &self.0,
            &encapsulated,
            &binding.encode(),
            sealed,
            &[],
        )
        .map(Zeroizing::new)
        .map_err(|_| CorruptCiphertext)?;
        let bytes: [u8; 32] = plain.as_slice().try_into().map_err(|_| CorruptCiphertext)?;
        Ok(RawKey::from_bytes(bytes))
    }
}

impl fmt::Debug for BreakGlassPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BreakGlassPublic({})", self.id)
    }
}

impl fmt::Debug for BreakGlassPrivate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BreakGlassPrivate(***)")
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn binding(workspace: &str) -> KeyBinding<'_> {
        KeyBinding { vault: Uuid::nil(), purpose: "data", workspace, key_id: Uuid::nil(), version: 1 }
    }

    #[test]
    fn only_the_private_half_opens_and_only_what_is_bound_so() {
        let (private, public) = BreakGlassPrivate::generate();
        let (private, public) =
            (BreakGlassPrivate::parse(&private).unwrap(), BreakGlassPublic::parse(&public).unwrap());
        assert_eq!(private.public().id(), public.id());
        let sealed = public.seal(&binding("acme"), &RawKey::from_bytes([7; 32])).unwrap();
        assert_eq!(private.open(&binding("acme"), &sealed).unwrap().as_bytes(), &[7; 32]);
        assert!(private.open(&binding("other"), &sealed).is_err());
        let (stranger, _) = BreakGlassPrivate::generate();
        assert!(BreakGlassPrivate::parse(&stranger).unwrap().open(&binding("acme"), &sealed).is_err());
        for at in 0..sealed.len() {
            let mut forged = sealed.clone();
            forged[at] ^= 1;
            assert!(private.open(&binding("acme"), &forged).is_err(), "byte {at}");
            assert!(private.open(&binding("acme"), &sealed[..at]).is_err(), "cut to {at}");
        }
    }

    #[test]
    fn texts_of_another_form_are_refused_without_repeating_them() {
        for bad in ["", "tvbg1-public:", "tvbg1-public:AAAA", "tvbg1-private:AAAA", "nonsense"] {
            let told = BreakGlassPublic::parse(bad).unwrap_err().to_string();
            assert!(!told.contains("nonsense"), "{told}");
            assert!(BreakGlassPrivate::parse(&Secret::new(bad.to_owned())).is_err());
        }
    }
}
