//! The signature algorithms that an issuer's tokens may use. `verify` checks them, `issuer_keys` reads their keys.

use jsonwebtoken::Algorithm;

/// How a token may be signed: by a public key only. A shared secret, or no signature at all, is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signing {
    /// RSA (PKCS #1 v1.5) with SHA-256; keys of 2048 to 8192 bits.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    EdDsa,
}

impl Signing {
    pub fn parse(name: &str) -> Result<Self, String> {
        match name {
            "RS256" => Ok(Self::Rs256),
            "ES256" => Ok(Self::Es256),
            "EdDSA" => Ok(Self::EdDsa),
            _ => Err("must be RS256, ES256 or EdDSA".to_owned()),
        }
    }

    pub(super) fn of(algorithm: Algorithm) -> Option<Self> {
        match algorithm {
            Algorithm::RS256 => Some(Self::Rs256),
            Algorithm::ES256 => Some(Self::Es256),
            Algorithm::EdDSA => Some(Self::EdDsa),
            _ => None,
        }
    }
}
