//! The only place with keys in the clear. AES-256-GCM seals, HMAC-SHA-256 authenticates.
//!
//! Nothing here knows where keys or ciphertexts are kept: `vault` brings them together. Start with
//! [`seal`] and [`open`]; `master.rs` wraps the keys that they use.

mod break_glass;
mod error;
mod key;
mod mac;
mod master;
mod presented;
mod transit;

pub use break_glass::{BreakGlassOpeningKey, BreakGlassSealingKey};
pub use error::{CorruptCiphertext, WrapError};
pub use key::{DataKey, RawKey};
pub use mac::MacKey;
pub use master::{
    KeyBinding, MasterKeyError, MasterKeys, add_to_key_file, create_key_file, create_secret_file,
    fresh_key_id,
};
pub use presented::{PresentedKey, PresentedLink};
pub use transit::{Transit, TransitConfig, TransitLogin};

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead, Generate, Nonce, Payload};
use zeroize::Zeroizing;

use crate::model::{Connection, ConnectionId, ProviderId, Sealed, Secret, TokenVersion, WorkspaceId};

/// First byte of every ciphertext: its layout. 1 is nonce (12 bytes), ciphertext, tag (16 bytes).
const FORMAT: u8 = 1;
const NONCE: usize = 12;

/// What a ciphertext belongs to. With any other binding [`open`] fails, so that a row that was copied elsewhere, or
/// rolled back to an older version, does not decrypt.
#[derive(Debug, Clone, Copy)]
pub struct Binding<'a> {
    pub workspace: &'a WorkspaceId,
    pub connection: ConnectionId,
    pub provider: &'a ProviderId,
    pub version: TokenVersion,
}

impl<'a> Binding<'a> {
    /// The binding of the secret that a connection holds now.
    pub fn of(connection: &'a Connection) -> Self {
        Self {
            workspace: &connection.workspace,
            connection: connection.id,
            provider: &connection.provider,
            version: connection.version,
        }
    }

    fn encode(&self) -> Vec<u8> {
        encode_parts(&[
            b"tokenvault:connection-secret:1",
            self.workspace.as_str().as_bytes(),
            self.connection.as_uuid().as_bytes(),
            self.provider.as_str().as_bytes(),
            &self.version.get().to_be_bytes(),
        ])
    }
}

/// The parts, each preceded by its length in four bytes, which makes the encoding unambiguous.
fn encode_parts(parts: &[&[u8]]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(parts.iter().map(|part| part.len() + 4).sum());
    for part in parts {
        let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
        encoded.extend_from_slice(&length.to_be_bytes());
        encoded.extend_from_slice(part);
    }
    encoded
}

/// `seal[key](binding, secret)`: AES-256-GCM with a random 96-bit nonce and the binding as associated data.
/// A key belongs to one workspace, so it seals far fewer than 2^32 secrets.
pub fn seal(key: &DataKey, binding: &Binding<'_>, secret: &Secret) -> Result<Sealed, CorruptCiphertext> {
    let bytes = seal_bytes(key.cipher(), &binding.encode(), secret.expose().as_bytes())?;
    Ok(Sealed { data_key_version: key.version(), bytes })
}

/// Inverse of [`seal`].
pub fn open(key: &DataKey, binding: &Binding<'_>, sealed: &Sealed) -> Result<Secret, CorruptCiphertext> {
    if sealed.data_key_version != key.version() {
        return Err(CorruptCiphertext);
    }
    let bytes = open_bytes(key.cipher(), &binding.encode(), &sealed.bytes)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| CorruptCiphertext)?;
    Ok(Secret::new(text.to_owned()))
}

/// Seals a text that a caller receives and sends back, such as a page token: the caller can neither read nor change it.
pub fn seal_note(key: &DataKey, purpose: &str, note: &[u8]) -> Result<Vec<u8>, CorruptCiphertext> {
    seal_bytes(key.cipher(), &encode_parts(&[b"tokenvault:note:1", purpose.as_bytes()]), note)
}

/// Inverse of [`seal_note`].
pub fn open_note(
    key: &DataKey,
    purpose: &str,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, CorruptCiphertext> {
    open_bytes(key.cipher(), &encode_parts(&[b"tokenvault:note:1", purpose.as_bytes()]), sealed)
}

fn seal_bytes(cipher: &Aes256Gcm, aad: &[u8], plain: &[u8]) -> Result<Vec<u8>, CorruptCiphertext> {
    let nonce = Nonce::<Aes256Gcm>::generate();
    let sealed = cipher.encrypt(&nonce, Payload { msg: plain, aad }).map_err(|_| CorruptCiphertext)?;
    let mut bytes = Vec::with_capacity(1 + NONCE + sealed.len());
    bytes.push(FORMAT);
    bytes.extend_from_slice(&nonce);
    bytes.extend_from_slice(&sealed);
    Ok(bytes)
}

fn open_bytes(cipher: &Aes256Gcm, aad: &[u8], bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, CorruptCiphertext> {
    let (format, rest) = bytes.split_first().ok_or(CorruptCiphertext)?;
    let (nonce, sealed) = rest.split_first_chunk::<NONCE>().ok_or(CorruptCiphertext)?;
    if *format != FORMAT {
        return Err(CorruptCiphertext);
    }
    let nonce = Nonce::<Aes256Gcm>::from(*nonce);
    cipher.decrypt(&nonce, Payload { msg: sealed, aad }).map(Zeroizing::new).map_err(|_| CorruptCiphertext)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    fn binding<'a>(
        workspace: &'a WorkspaceId,
        provider: &'a ProviderId,
        connection: ConnectionId,
    ) -> Binding<'a> {
        Binding { workspace, connection, provider, version: TokenVersion::FIRST }
    }

    #[test]
    fn every_flipped_bit_and_every_other_binding_is_refused() {
        let key = DataKey::new(1, &RawKey::generate());
        let (acme, other) = (WorkspaceId::parse("acme").unwrap(), WorkspaceId::parse("other").unwrap());
        let (meta, google) = (ProviderId::parse("meta").unwrap(), ProviderId::parse("google_ads").unwrap());
        let connection = ConnectionId::generate(Timestamp::EPOCH);
        let bound = binding(&acme, &meta, connection);
        let sealed = seal(&key, &bound, &Secret::new("EAABsecret".into())).unwrap();
        assert_eq!(open(&key, &bound, &sealed).unwrap().expose(), "EAABsecret");

        for index in 0..sealed.bytes.len() {
            for bit in 0..8 {
                let mut forged = sealed.clone();
                forged.bytes[index] ^= 1 << bit;
                assert!(open(&key, &bound, &forged).is_err(), "byte {index} bit {bit}");
            }
        }
        for length in 0..sealed.bytes.len() {
            let forged = Sealed { bytes: sealed.bytes[..length].to_vec(), ..sealed.clone() };
            assert!(open(&key, &bound, &forged).is_err(), "cut to {length}");
        }
        for wrong in [
            binding(&other, &meta, connection),
            binding(&acme, &google, connection),
            binding(&acme, &meta, ConnectionId::generate(Timestamp::EPOCH)),
            Binding { version: TokenVersion::FIRST.next(), ..bound },
        ] {
            assert!(open(&key, &wrong, &sealed).is_err(), "{wrong:?}");
        }
        assert!(open(&DataKey::new(1, &RawKey::generate()), &bound, &sealed).is_err());
    }

    #[test]
    fn the_same_secret_never_seals_to_the_same_bytes() {
        let key = DataKey::new(1, &RawKey::generate());
        let (acme, meta) = (WorkspaceId::parse("acme").unwrap(), ProviderId::parse("meta").unwrap());
        let bound = binding(&acme, &meta, ConnectionId::generate(Timestamp::EPOCH));
        let secret = Secret::new("EAAB".into());
        assert_ne!(seal(&key, &bound, &secret).unwrap(), seal(&key, &bound, &secret).unwrap());
    }

    /// A secret that was sealed in this format once: every later release must still open it.
    #[test]
    fn format_one_opens_as_it_always_did() {
        let key = DataKey::new(7, &RawKey::from_bytes([0x42; 32]));
        let (acme, meta) = (WorkspaceId::parse("acme").unwrap(), ProviderId::parse("meta").unwrap());
        let connection = ConnectionId::parse("01890000-0000-7000-8000-000000000001").unwrap();
        let sealed = Sealed {
            data_key_version: 7,
            bytes: hex::decode(include_str!("known_answer.hex").trim()).unwrap(),
        };
        assert_eq!(
            open(&key, &binding(&acme, &meta, connection), &sealed).unwrap().expose(),
            "EAABknownanswer"
        );
    }

    #[test]
    fn parts_are_unambiguous() {
        assert_ne!(encode_parts(&[b"ab", b"c"]), encode_parts(&[b"a", b"bc"]));
        assert_ne!(encode_parts(&[b""]), encode_parts(&[]));
    }
}
