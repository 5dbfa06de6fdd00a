//! Callers who come with a token (a JWT) that an OpenID Connect issuer signed: whether it is good, and who that is.
//!
//! `issuer_keys` holds the issuer's public keys, `claims` reads what a token says, `verify` checks signatures with the
//! workspace's one cryptography. Nothing in here knows what a role may do.

mod claims;
#[cfg(fuzzing)]
pub mod fuzzing;
mod issuer_keys;
mod verify;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, dangerous, decode_header};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::model::{Credential, Principal, Role, Secret, Timestamp, WorkspaceId, WorkspaceSet};
use claims::Claims;
use issuer_keys::IssuerKeys;

/// Stands before the name of every principal that comes with a token, and of no other.
pub const NAME_PREFIX: &str = "oidc:";
/// Longest token that is looked at.
const LONGEST_TOKEN: usize = 8 * 1024;

/// How a token may be signed. Nothing with a shared secret, and never nothing at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signing {
    /// RSA (PKCS #1 v1.5) with SHA-256; keys of 2048 to 8192 bits.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Signing {
    /// The one of that name.
    pub fn parse(name: &str) -> Result<Self, String> {
        match name {
            "RS256" => Ok(Self::Rs256),
            "ES256" => Ok(Self::Es256),
            "EdDSA" => Ok(Self::EdDsa),
            _ => Err("must be RS256, ES256 or EdDSA".to_owned()),
        }
    }

    fn of(algorithm: Algorithm) -> Option<Self> {
        match algorithm {
            Algorithm::RS256 => Some(Self::Rs256),
            Algorithm::ES256 => Some(Self::Es256),
            Algorithm::EdDSA => Some(Self::EdDsa),
            _ => None,
        }
    }
}

/// Who comes with which claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleRule {
    /// A value of the role claim.
    pub value: String,
    /// What it makes of its bearer.
    pub role: Role,
}

/// Where its bearer may act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceRule {
    /// A value of the workspace claim.
    pub value: String,
    /// Where that is.
    pub workspaces: WorkspaceSet,
}

/// How a token says where its bearer may act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Places {
    /// It does not: everybody may act everywhere.
    Everywhere,
    /// The values of this claim are the workspaces' ids.
    Claimed(String),
    /// The values of this claim stand for what the rules say; others say nothing.
    Mapped(String, Vec<WorkspaceRule>),
}

/// Which issuer's tokens are good, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcConfig {
    /// The issuer, exactly as tokens tell it in `iss`.
    pub issuer: String,
    /// What a token's `aud` must hold: this vault.
    pub audience: String,
    /// Where the keys are; `None`: the issuer's discovery document says.
    pub jwks_uri: Option<Url>,
    /// Certificates to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// How tokens may be signed.
    pub algorithms: BTreeSet<Signing>,
    /// How far the issuer's clock may be off.
    pub leeway: Duration,
    /// The claim with the principal's name.
    pub principal_claim: String,
    /// The claim with what it may be here; a dot leads into an object.
    pub role_claim: String,
    /// What that claim's values mean. A token has to mean exactly one role.
    pub roles: Vec<RoleRule>,
    /// Where it may act.
    pub places: Places,
    /// How often the keys are asked for.
    pub refresh: Duration,
    /// The least time between two questions, whatever tokens bring.
    pub refresh_at_most_every: Duration,
    /// How long keys are good for when the issuer does not answer.
    pub stale_for: Duration,
}

/// Why a token is not let in. The words are for the log: none of them is the token's own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// No token at all, or not of this issuer, or not signed by it, or for somebody else.
    #[error("{0}")]
    Invalid(&'static str),
    /// Genuine, and past its end.
    #[error("the token has expired")]
    Expired {
        /// Its end.
        at: Timestamp,
    },
    /// Genuine, and its claims give its bearer nothing here.
    #[error("{0}")]
    Unmapped(&'static str),
    /// Nobody knows: the issuer's keys are not at hand.
    #[error("the issuer's keys are not at hand")]
    Unavailable,
}

/// The issuer, as the vault knows it.
pub struct Issuer {
    config: OidcConfig,
    keys: IssuerKeys,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Issuer({})", self.config.issuer)
    }
}

impl Issuer {
    /// Sets it up; asks nothing yet.
    ///
    /// # Errors
    /// In words for the operator.
    pub fn new(config: OidcConfig) -> Result<Self, String> {
        verify::install();
        Ok(Self { keys: IssuerKeys::new(&config)?, config })
    }

    /// Keeps the issuer's keys fresh until `stop`.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        self.keys.follow(&self.config, stop).await;
    }

    /// Whether this could be a token: what has its form is no API key.
    pub fn could_be_token(text: &Secret) -> bool {
        text.expose().bytes().filter(|byte| *byte == b'.').count() == 2
    }

    /// Who bears this token at `now`.
    ///
    /// # Errors
    /// [`Rejected`]. That a token has expired, or means nothing here, is said only of one that is genuine.
    pub async fn identify(&self, token: &Secret, now: Timestamp) -> Result<Principal, Rejected> {
        let invalid = Rejected::Invalid;
        let text = token.expose();
        if text.len() > LONGEST_TOKEN {
            return Err(invalid("the token is too long"));
        }
        let header = decode_header(text)
            .map_err(|_| invalid("the token's header is not understood, or names no known algorithm"))?;
        let signing = Signing::of(header.alg).filter(|signing| self.config.algorithms.contains(signing));
        let Some(signing) = signing else { return Err(invalid("the token's algorithm is not allowed")) };
        if header.crit.is_some() {
            return Err(invalid("the token's header has critical extensions"));
        }
        // Not believed yet: what is not meant for this vault is not worth a question to the issuer.
        let claims = dangerous::insecure_decode::<Claims>(text)
            .map_err(|_| invalid("the token's claims are not understood"))?
            .claims;
        self.check_parties(&claims)?;
        let candidates = self.keys.candidates(&self.config, header.kid.as_deref(), signing).await?;
        // Only the signature is the library's to judge: times go by the vault's clock, and claims have words of their own.
        let (message, signature) = text.rsplit_once('.').ok_or(invalid("the token has no signature"))?;
        let signed = |key| {
            jsonwebtoken::crypto::verify(signature, message.as_bytes(), key, header.alg).unwrap_or(false)
        };
        if !candidates.iter().any(signed) {
            return Err(invalid("the token's signature is not its issuer's"));
        }
        let end = self.check_times(&claims, now)?;
        self.principal(&claims, text, end)
    }

    fn check_parties(&self, claims: &Claims) -> Result<(), Rejected> {
        if claims.text("iss") != Some(self.config.issuer.as_str()) {
            return Err(Rejected::Invalid("the token is of another issuer"));
        }
        if !claims.texts("aud").contains(&self.config.audience.as_str()) {
            return Err(Rejected::Invalid("the token is for another audience"));
        }
        Ok(())
    }

    /// When the token ends for good.
    fn check_times(&self, claims: &Claims, now: Timestamp) -> Result<Timestamp, Rejected> {
        let leeway = self.config.leeway;
        let exp = claims.time("exp").flatten().ok_or(Rejected::Invalid("the token has no end"))?;
        for (claim, why) in [("nbf", "the token is not valid yet"), ("iat", "the token was issued later")] {
            match claims.time(claim) {
                Some(None) => return Err(Rejected::Invalid("a time in the token is none")),
                Some(Some(from)) if from > now + leeway => return Err(Rejected::Invalid(why)),
                _ => {}
            }
        }
        let end = exp + leeway;
        if end <= now { Err(Rejected::Expired { at: exp }) } else { Ok(end) }
    }

    fn principal(&self, claims: &Claims, token: &str, end: Timestamp) -> Result<Principal, Rejected> {
        let unmapped = Rejected::Unmapped;
        let subject = claims.text(&self.config.principal_claim).ok_or(unmapped("it names no principal"))?;
        let name = format!("{NAME_PREFIX}{subject}");
        crate::model::check_principal_name(&name)
            .map_err(|_| unmapped("its principal can't be a name here"))?;
        let values = claims.texts(&self.config.role_claim);
        let roles = self.config.roles.iter().filter(|rule| values.contains(&rule.value.as_str()));
        let mut roles: Vec<Role> = roles.map(|rule| rule.role).collect();
        roles.dedup();
        let role = match roles.as_slice() {
            [first, others @ ..] if others.iter().all(|other| other == first) => *first,
            [] => return Err(unmapped("its claims give it no role")),
            _ => return Err(unmapped("its claims give it several roles")),
        };
        let workspaces = self.workspaces(claims)?;
        let digest = Sha256::digest(token.as_bytes()).into();
        Ok(Principal {
            credential: Credential::Token { subject: name.clone(), digest, not_after: end },
            name,
            role,
            workspaces,
        })
    }

    fn workspaces(&self, claims: &Claims) -> Result<WorkspaceSet, Rejected> {
        let named: Vec<WorkspaceSet> = match &self.config.places {
            Places::Everywhere => return Ok(WorkspaceSet::All),
            Places::Claimed(claim) => {
                let ids = claims.texts(claim).into_iter().map(|id| WorkspaceId::parse(id.to_owned()));
                let ids: Result<BTreeSet<_>, _> = ids.collect();
                let ids = ids.map_err(|_| Rejected::Unmapped("a workspace in it is none"))?;
                if ids.is_empty() { Vec::new() } else { vec![WorkspaceSet::Named(ids)] }
            }
            Places::Mapped(claim, rules) => {
                let values = claims.texts(claim);
                let rules = rules.iter().filter(|rule| values.contains(&rule.value.as_str()));
                rules.map(|rule| rule.workspaces.clone()).collect()
            }
        };
        let union = named.into_iter().reduce(|one, other| match (one, other) {
            (WorkspaceSet::Named(mut one), WorkspaceSet::Named(other)) => {
                one.extend(other);
                WorkspaceSet::Named(one)
            }
            _ => WorkspaceSet::All,
        });
        union.ok_or(Rejected::Unmapped("its claims give it no workspace"))
    }
}
