//! Recovery when the master key is lost: every key is also encrypted to a public key whose private half is kept
//! offline. HPKE (RFC 9180) with X25519, HKDF-SHA256 and AES-256-GCM, in its mode with a pre-shared key, so that an
//! attacker who can only write to the database can't plant a key that a recovery would accept as ours.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, PskBundle, Serializable};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{CorruptCiphertext, KeyBinding, RawKey};
use crate::model::{BadValue, Secret};

/// Prefixes of the two texts.
const SEALING: &str = "tvbg1-sealing:";
const OPENING: &str = "tvbg1-opening:";
/// First byte of every ciphertext: which layout follows. 1 is the encapsulated key (32 bytes) and the ciphertext.
const FORMAT: u8 = 1;
const ENCAPSULATED: usize = 32;
const PSK_ID: &[u8] = b"token-vault break-glass 1";

type PublicKey = <X25519HkdfSha256 as Kem>::PublicKey;
type PrivateKey = <X25519HkdfSha256 as Kem>::PrivateKey;
type Encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey;

/// The pre-shared key of both halves. It shows that a vault sealed a key.
type Shared = Zeroizing<[u8; 32]>;

fn bundle(shared: &Shared) -> Result<PskBundle<'_>, CorruptCiphertext> {
    PskBundle::new(shared.as_slice(), PSK_ID).map_err(|_| CorruptCiphertext)
}

/// The half that vaults hold: it encrypts keys and opens nothing. It is a secret nevertheless, because of the
/// pre-shared key.
#[derive(Clone)]
pub struct BreakGlassSealingKey {
    key: PublicKey,
    shared: Shared,
    id: String,
}

/// The half that opens sealed keys. Operators must keep it away from servers.
pub struct BreakGlassOpeningKey {
    key: PrivateKey,
    shared: Shared,
}

/// A half's own 32 bytes, and the 32 that both share.
fn decode(text: &Secret, prefix: &str) -> Result<(Zeroizing<[u8; 32]>, Shared), BadValue> {
    let rule = || BadValue::new(format!("must hold {prefix}<base64 of 64 bytes>"));
    let encoded = text.expose().trim().strip_prefix(prefix).ok_or_else(rule)?;
    let bytes = STANDARD.decode(encoded).map(Zeroizing::new).map_err(|_| rule())?;
    let (own, shared) = bytes.split_at_checked(32).ok_or_else(rule)?;
    let own = Zeroizing::new(<[u8; 32]>::try_from(own).map_err(|_| rule())?);
    Ok((own, Zeroizing::new(shared.try_into().map_err(|_| rule())?)))
}

fn encode(prefix: &str, own: &[u8], shared: &Shared) -> Secret {
    let bytes = Zeroizing::new([own, shared.as_slice()].concat());
    let encoded = Zeroizing::new(STANDARD.encode(&*bytes));
    Secret::new(format!("{prefix}{}", encoded.as_str()))
}

impl BreakGlassSealingKey {
    /// Reads `tvbg1-sealing:<base64 of 64 bytes>`.
    ///
    /// # Errors
    /// The text has another form. The error never repeats it.
    pub fn parse(text: &Secret) -> Result<Self, BadValue> {
        let (own, shared) = decode(text, SEALING)?;
        let rule = |_| BadValue::new(format!("must hold {SEALING}<base64 of 64 bytes>"));
        PublicKey::from_bytes(own.as_slice()).map(|key| Self::new(key, shared)).map_err(rule)
    }

    fn new(key: PublicKey, shared: Shared) -> Self {
        let digest = Sha256::new().chain_update(key.to_bytes()).chain_update(shared.as_slice()).finalize();
        let id = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self { key, shared, id }
    }

    /// Identifies the pair: the beginning of the SHA-256 of this half.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn seal(&self, binding: &KeyBinding<'_>, key: &RawKey) -> Result<Vec<u8>, CorruptCiphertext> {
        let mode = OpModeS::Psk(bundle(&self.shared)?);
        let (encapsulated, sealed) = hpke::single_shot_seal::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
            &mode,
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

impl BreakGlassOpeningKey {
    /// Makes a pair, as texts: the opening key and the sealing key.
    pub fn generate() -> (Secret, Secret) {
        let (private, public) = X25519HkdfSha256::gen_keypair();
        let private = Zeroizing::new(private.to_bytes().to_vec());
        let shared = Zeroizing::new(*RawKey::generate().as_bytes());
        (encode(OPENING, &private, &shared), encode(SEALING, &public.to_bytes(), &shared))
    }

    /// Reads `tvbg1-opening:<base64 of 64 bytes>`.
    ///
    /// # Errors
    /// The text has another form. The error never repeats it.
    pub fn parse(text: &Secret) -> Result<Self, BadValue> {
        let (own, shared) = decode(text, OPENING)?;
        let rule = |_| BadValue::new(format!("must hold {OPENING}<base64 of 64 bytes>"));
        PrivateKey::from_bytes(own.as_slice()).map(|key| Self { key, shared }).map_err(rule)
    }

    /// The other half.
    pub fn sealing(&self) -> BreakGlassSealingKey {
        BreakGlassSealingKey::new(X25519HkdfSha256::sk_to_pk(&self.key), self.shared.clone())
    }

    /// Inverse of [`BreakGlassSealingKey::seal`].
    pub fn open(&self, binding: &KeyBinding<'_>, sealed: &[u8]) -> Result<RawKey, CorruptCiphertext> {
        let (format, rest) = sealed.split_first().ok_or(CorruptCiphertext)?;
        let (encapsulated, sealed) = rest.split_at_checked(ENCAPSULATED).ok_or(CorruptCiphertext)?;
        if *format != FORMAT {
            return Err(CorruptCiphertext);
        }
        let encapsulated = Encapsulated::from_bytes(encapsulated).map_err(|_| CorruptCiphertext)?;
        let mode = OpModeR::Psk(bundle(&self.shared)?);
        let plain = hpke::single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
            &mode,
            &self.key,
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

impl fmt::Debug for BreakGlassSealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BreakGlassSealingKey({})", self.id)
    }
}

impl fmt::Debug for BreakGlassOpeningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BreakGlassOpeningKey(***)")
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn binding(workspace: &str) -> KeyBinding<'_> {
        KeyBinding { vault: Uuid::nil(), purpose: "data", workspace, key_id: Uuid::nil(), version: 1 }
    }

    fn pair() -> (BreakGlassOpeningKey, BreakGlassSealingKey) {
        let (opening, sealing) = BreakGlassOpeningKey::generate();
        (BreakGlassOpeningKey::parse(&opening).unwrap(), BreakGlassSealingKey::parse(&sealing).unwrap())
    }

    #[test]
    fn only_the_opening_key_opens_and_only_what_is_bound_so() {
        let (opening, sealing) = pair();
        assert_eq!(opening.sealing().id(), sealing.id());
        let sealed = sealing.seal(&binding("acme"), &RawKey::from_bytes([7; 32])).unwrap();
        assert_eq!(opening.open(&binding("acme"), &sealed).unwrap().as_bytes(), &[7; 32]);
        assert!(opening.open(&binding("other"), &sealed).is_err());
        assert!(pair().0.open(&binding("acme"), &sealed).is_err());
        for at in 0..sealed.len() {
            let mut forged = sealed.clone();
            forged[at] ^= 1;
            assert!(opening.open(&binding("acme"), &forged).is_err(), "byte {at}");
            assert!(opening.open(&binding("acme"), &sealed[..at]).is_err(), "cut to {at}");
        }
    }

    #[test]
    fn who_has_only_the_public_part_seals_nothing_that_opens() {
        let (opening, sealing) = pair();
        let forger = BreakGlassSealingKey::new(sealing.key.clone(), pair().1.shared.clone());
        assert_ne!(forger.id(), sealing.id());
        let planted = forger.seal(&binding("acme"), &RawKey::from_bytes([7; 32])).unwrap();
        assert!(opening.open(&binding("acme"), &planted).is_err());
        let (encapsulated, sealed) = hpke::single_shot_seal::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
            &OpModeS::Base,
            &sealing.key,
            &binding("acme").encode(),
            &[7; 32],
            &[],
        )
        .unwrap();
        let planted = [&[FORMAT][..], &encapsulated.to_bytes(), &sealed].concat();
        assert!(opening.open(&binding("acme"), &planted).is_err());
    }

    #[test]
    fn texts_of_another_form_are_refused_without_repeating_them() {
        let short = format!("{SEALING}{}", STANDARD.encode([1; 32]));
        for bad in ["", "tvbg1-sealing:", "tvbg1-opening:", "tvbg1-opening:AAAA", "nonsense", &short] {
            let bad = Secret::new(bad.to_owned());
            let error = BreakGlassSealingKey::parse(&bad).unwrap_err().to_string();
            assert!(!error.contains("nonsense") && error.contains(SEALING), "{error}");
            assert!(BreakGlassOpeningKey::parse(&bad).is_err());
        }
        let (opening, sealing) = pair();
        assert_eq!(format!("{opening:?}"), "BreakGlassOpeningKey(***)");
        assert_eq!(format!("{sealing:?}"), format!("BreakGlassSealingKey({})", sealing.id()));
    }
}
