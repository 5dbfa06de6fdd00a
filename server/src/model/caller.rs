//! Who calls: an authenticated principal, its role and the workspaces it may act in.

use std::collections::BTreeSet;
use std::fmt;

use super::{ApiKeyId, BadValue, Timestamp, WorkspaceId};

/// What a caller is for. The permission table (`api/access.rs`) says what each may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Brings tokens in: the web service.
    Connector,
    /// Uses tokens: the ingestion service.
    Ingestion,
    /// Watches tokens: the alerting service.
    Alerting,
    /// Reads metadata and status.
    Viewer,
    /// Everything.
    Admin,
}

impl Role {
    /// Every role, in the order in which people list them.
    pub const ALL: [Self; 5] = [Self::Connector, Self::Ingestion, Self::Alerting, Self::Viewer, Self::Admin];

    /// The name in the database, on the command line and in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connector => "connector",
            Self::Ingestion => "ingestion",
            Self::Alerting => "alerting",
            Self::Viewer => "viewer",
            Self::Admin => "admin",
        }
    }

    /// The role of that name.
    pub fn parse(name: &str) -> Result<Self, BadValue> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == name)
            .ok_or_else(|| BadValue::new("must be one of connector, ingestion, alerting, viewer, admin"))
    }
}

/// The workspaces that a principal may act in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkspaceSet {
    /// Every workspace, those to come included.
    All,
    /// These only. Never empty.
    Named(BTreeSet<WorkspaceId>),
}

impl WorkspaceSet {
    /// Whether `workspace` is among them.
    pub fn contains(&self, workspace: &WorkspaceId) -> bool {
        match self {
            Self::All => true,
            Self::Named(named) => named.contains(workspace),
        }
    }

    /// Whether everything in `other` is among them.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Named(_), Self::All) => false,
            (Self::Named(ours), Self::Named(theirs)) => theirs.is_subset(ours),
        }
    }
}

/// A name that a certificate can be issued to. Compared as a whole: no wildcards.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CertificateName {
    /// A URI, such as `spiffe://acme/ingestion`. Upper and lower case differ.
    Uri(String),
    /// A DNS name. Upper and lower case are one.
    Dns(String),
}

impl CertificateName {
    /// A DNS name as a certificate tells it.
    pub fn dns(name: &str) -> Self {
        Self::Dns(name.to_ascii_lowercase())
    }

    /// A name as people write it: a URI has `://`, all else is a DNS name.
    pub fn parse(text: &str) -> Result<Self, BadValue> {
        let rule = "must be a URI such as spiffe://acme/ingestion, or a DNS name without wildcards";
        let graphic = (1..=2_048).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        let is_dns = text.len() <= 253
            && text.split('.').all(|label| {
                (1..=63).contains(&label.len())
                    && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            });
        match text.split_once("://") {
            Some((scheme, rest)) if graphic && !scheme.is_empty() && !rest.is_empty() => {
                Ok(Self::Uri(text.to_owned()))
            }
            None if is_dns => Ok(Self::dns(text)),
            _ => Err(BadValue::new(rule)),
        }
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Uri(name) | Self::Dns(name) => name,
        }
    }
}

/// A client's certificate, whose chain the transport has verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Its subject alternative names.
    pub names: Vec<CertificateName>,
    /// Its end, by the system's clock.
    pub not_after: Timestamp,
}

/// Who comes with a certificate of this name, as the operator decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRule {
    /// The name that the certificate must carry.
    pub san: CertificateName,
    /// The principal's name.
    pub principal: String,
    /// What it is for.
    pub role: Role,
    /// Where it may act.
    pub workspaces: WorkspaceSet,
}

/// What a principal came with. Names it, and holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Credential {
    /// An API key.
    ApiKey(ApiKeyId),
    /// A certificate.
    Certificate {
        /// The name that made it this principal.
        san: CertificateName,
        /// The certificate's end.
        not_after: Timestamp,
    },
    /// A token that an OpenID Connect issuer signed.
    Token {
        /// The principal that it makes of its bearer.
        subject: String,
        /// SHA-256 of the token: which one of the principal's it is.
        digest: [u8; 32],
        /// The token's end.
        not_after: Timestamp,
    },
}

impl Credential {
    /// The key's id or the certificate's name, for logs and records.
    pub fn as_str(&self) -> &str {
        match self {
            Self::ApiKey(id) => id.as_str(),
            Self::Certificate { san, .. } => san.as_str(),
            Self::Token { subject, .. } => subject,
        }
    }
}

/// The kind and the name: `api_key:…`, `certificate:…`.
impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::ApiKey(_) => "api_key",
            Self::Certificate { .. } => "certificate",
            Self::Token { .. } => "token",
        };
        write!(f, "{kind}:{}", self.as_str())
    }
}

/// Whether `name` can be a principal's.
pub fn check_principal_name(name: &str) -> Result<(), BadValue> {
    let good = (1..=128).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:@/-".contains(&b));
    if good { Ok(()) } else { Err(BadValue::new("must be 1 to 128 characters of A-Z a-z 0-9 . _ : @ / -")) }
}

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Stable name, chosen by the operator; several keys and certificates may carry it (rotation with overlap).
    pub name: String,
    /// What it came with.
    pub credential: Credential,
    /// What it is for.
    pub role: Role,
    /// Where it may act.
    pub workspaces: WorkspaceSet,
}

impl Principal {
    /// Whether it may act in every workspace: what belongs to none, or to all of them, is only for such callers.
    pub fn reaches_all_workspaces(&self) -> bool {
        self.workspaces == WorkspaceSet::All
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificates_name_is_a_uri_or_a_dns_name_and_never_a_pattern() {
        assert_eq!(
            CertificateName::parse("spiffe://acme/Web"),
            Ok(CertificateName::Uri("spiffe://acme/Web".into()))
        );
        assert_eq!(
            CertificateName::parse("Ingestion.acme.example"),
            Ok(CertificateName::Dns("ingestion.acme.example".into()))
        );
        for bad in ["", "*.acme.example", "a..b", "spiffe://", "://x", "spiffe://a b", "a b", "ü.example"] {
            assert!(CertificateName::parse(bad).is_err(), "{bad:?}");
        }
    }
}
