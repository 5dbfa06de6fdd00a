//! Authenticates callers by tokens (JWTs) that an OpenID Connect issuer signed.
//!
//! `signing` lists the algorithms, `issuer_keys` holds the issuer's public keys, `claims` reads a token's claims, and
//! `verify` checks signatures with ring, which TLS uses too. Nothing here knows what a role may do.

mod claims;
#[cfg(fuzzing)]
pub mod fuzzing;
mod issuer_keys;
mod signing;
mod verify;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{dangerous, decode_header};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::model::{Credential, Principal, Role, Secret, Timestamp, WorkspaceId, WorkspaceSet};
use claims::Claims;
use issuer_keys::IssuerKeys;
pub use signing::Signing;

/// The prefix of the names of all principals with a token, and of no others.
pub const NAME_PREFIX: &str = "oidc:";
/// Longest token that is parsed.
const LONGEST_TOKEN: usize = 8 * 1024;

/// Which role a claim's value gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleRule {
    /// A value of the role claim.
    pub value: String,
    pub role: Role,
}

/// Which workspaces a claim's value gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceRule {
    /// A value of the workspace claim.
    pub value: String,
    pub workspaces: WorkspaceSet,
}

/// How a token's claims give workspaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkspaceMapping {
    /// The claims do not matter: every token may act in all workspaces.
    Everywhere,
    /// The values of this claim are ids of workspaces.
    Claimed(String),
    /// The rules map the values of this claim; other values give nothing.
    Mapped(String, Vec<WorkspaceRule>),
}

/// Which issuer's tokens are accepted, and what they give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcConfig {
    /// The issuer, exactly as in the tokens' `iss`.
    pub issuer: String,
    /// What a token's `aud` must contain.
    pub audience: String,
    /// The address of the keys; `None`: the issuer's discovery document names it.
    pub jwks_uri: Option<Url>,
    /// Certificates to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
    pub algorithms: BTreeSet<Signing>,
    /// How far the issuer's clock may be off.
    pub leeway: Duration,
    /// The claim with the principal's name.
    pub principal_claim: String,
    /// The claim that gives the role; a dot leads into an object.
    pub role_claim: String,
    /// What that claim's values give. A token must give exactly one role.
    pub roles: Vec<RoleRule>,
    pub workspaces: WorkspaceMapping,
    /// How often the keys are fetched.
    pub refresh: Duration,
    /// The least time between two fetches, whatever tokens ask for.
    pub refresh_at_most_every: Duration,
    /// How long keys are used while the issuer does not answer.
    pub stale_for: Duration,
}

/// Why a token is not accepted. The texts are for the log: they quote nothing from the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It is no token, not of this issuer, not signed by it, or not for this vault.
    #[error("{0}")]
    Invalid(&'static str),
    /// It is genuine and has expired.
    #[error("the token has expired")]
    Expired { at: Timestamp },
    /// It is genuine, and its claims give nothing here.
    #[error("{0}")]
    Unmapped(&'static str),
    /// The issuer's keys could not be fetched, so it can't be checked.
    #[error("the issuer's keys could not be fetched")]
    Unavailable,
}

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
    /// Sets up the client, without asking the issuer anything yet.
    ///
    /// # Errors
    /// A text for the operator.
    pub fn new(config: OidcConfig) -> Result<Self, String> {
        verify::install();
        Ok(Self { keys: IssuerKeys::new(&config)?, config })
    }

    /// Keeps the issuer's keys fresh until `stop`.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        self.keys.follow(&self.config, stop).await;
    }

    /// Whether this has the form of a token. No API key has it.
    pub fn could_be_token(text: &Secret) -> bool {
        text.expose().bytes().filter(|byte| *byte == b'.').count() == 2
    }

    /// The principal of this token at `now`.
    ///
    /// # Errors
    /// [`Rejected`]. Only a genuine token is reported as expired or unmapped.
    pub async fn identify(&self, token: &Secret, now: Timestamp) -> Result<Principal, Rejected> {
        let invalid = Rejected::Invalid;
        let text = token.expose();
        if text.len() > LONGEST_TOKEN {
            return Err(invalid("the token is too long"));
        }
        let header = decode_header(text)
            .map_err(|_| invalid("the token's header can't be parsed, or names no known algorithm"))?;
        let signing = Signing::of(header.alg).filter(|signing| self.config.algorithms.contains(signing));
        let Some(signing) = signing else { return Err(invalid("the token's algorithm is not allowed")) };
        if header.crit.is_some() {
            return Err(invalid("the token's header has critical extensions"));
        }
        // Nothing is verified yet, but a token that is meant for another audience is not worth a request to the issuer.
        let claims = dangerous::insecure_decode::<Claims>(text)
            .map_err(|_| invalid("the token's claims can't be parsed"))?
            .claims;
        self.check_parties(&claims)?;
        let candidates = self.keys.candidates(&self.config, header.kid.as_deref(), signing).await?;
        // The library checks the signature only: times go by the vault's clock, and claims have error texts of their
        // own.
        let (message, signature) = text.rsplit_once('.').ok_or(invalid("the token has no signature"))?;
        let signed = |key| {
            jsonwebtoken::crypto::verify(signature, message.as_bytes(), key, header.alg).unwrap_or(false)
        };
        if !candidates.iter().any(signed) {
            return Err(invalid("the token's signature is not valid"));
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

    /// When the token ends, including the leeway.
    fn check_times(&self, claims: &Claims, now: Timestamp) -> Result<Timestamp, Rejected> {
        let leeway = self.config.leeway;
        let exp = claims.time("exp").flatten().ok_or(Rejected::Invalid("the token has no valid exp"))?;
        for (claim, why) in
            [("nbf", "the token is not valid yet (nbf)"), ("iat", "the token was issued in the future (iat)")]
        {
            match claims.time(claim) {
                Some(None) => return Err(Rejected::Invalid("the token's nbf or iat is not a time")),
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
            .map_err(|_| unmapped("its principal is not a valid name"))?;
        let values = claims.texts(&self.config.role_claim);
        let roles = self.config.roles.iter().filter(|rule| values.contains(&rule.value.as_str()));
        let mut roles: Vec<Role> = roles.map(|rule| rule.role).collect();
        roles.dedup();
        let role = match roles.as_slice() {
            [first, others @ ..] if others.iter().all(|other| other == first) => *first,
            [] => return Err(unmapped("its claims give no role")),
            _ => return Err(unmapped("its claims give several roles")),
        };
        let workspaces = self.workspaces(claims)?;
        let digest = Sha256::digest(token.as_bytes()).into();
        Ok(Principal {
            credential: Credential::Token { subject: name.clone(), digest, not_after: end },
            name,
            role,
            workspaces,
            link: None,
        })
    }

    fn workspaces(&self, claims: &Claims) -> Result<WorkspaceSet, Rejected> {
        let named: Vec<WorkspaceSet> = match &self.config.workspaces {
            WorkspaceMapping::Everywhere => return Ok(WorkspaceSet::All),
            WorkspaceMapping::Claimed(claim) => {
                let ids = claims.texts(claim).into_iter().map(|id| WorkspaceId::parse(id.to_owned()));
                let ids: Result<BTreeSet<_>, _> = ids.collect();
                let ids =
                    ids.map_err(|_| Rejected::Unmapped("its claims name a workspace that is no valid id"))?;
                if ids.is_empty() { Vec::new() } else { vec![WorkspaceSet::Named(ids)] }
            }
            WorkspaceMapping::Mapped(claim, rules) => {
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
        union.ok_or(Rejected::Unmapped("its claims give no workspace"))
    }
}
