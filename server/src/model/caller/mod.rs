//! The caller: an authenticated principal, with its role and the workspaces in which it may act.

mod connect_link;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

pub use connect_link::{ConnectLink, ConnectLinkState};

use super::{ApiKeyId, BadValue, Connection, Timestamp, WorkspaceId};

/// What a caller does here. The permission table (`api/access.rs`) says what each role may do.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    strum::IntoStaticStr,
    strum::EnumString,
    strum::VariantNames,
    strum::VariantArray,
)]
#[strum(const_into_str, serialize_all = "lowercase")]
pub enum Role {
    /// Stores tokens: the web service.
    Connector,
    /// Uses tokens: the ingestion service.
    Ingestion,
    /// Watches tokens: the alerting service.
    Alerting,
    /// Reads metadata and status.
    Viewer,
    /// May do everything.
    Admin,
    /// Acts for the connect link that it presents: the portal.
    Portal,
}

impl Role {
    pub const ALL: &[Self] = <Self as strum::VariantArray>::VARIANTS;

    /// The name in the database, on the command line and in logs.
    pub const fn as_str(self) -> &'static str {
        self.into_str()
    }

    pub fn parse(name: &str) -> Result<Self, BadValue> {
        name.parse().map_err(|_| {
            BadValue::new(format!("must be one of {}", <Self as strum::VariantNames>::VARIANTS.join(", ")))
        })
    }
}

/// The workspaces that a principal may act in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkspaceSet {
    /// Every workspace, also those that do not exist yet.
    All,
    /// Never empty.
    Named(BTreeSet<WorkspaceId>),
}

impl WorkspaceSet {
    pub fn contains(&self, workspace: &WorkspaceId) -> bool {
        match self {
            Self::All => true,
            Self::Named(named) => named.contains(workspace),
        }
    }

    /// Whether every workspace of `other` is in this set.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Named(_), Self::All) => false,
            (Self::Named(ours), Self::Named(theirs)) => theirs.is_subset(ours),
        }
    }
}

/// A subject alternative name of a certificate. It is compared as a whole: there are no wildcards.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CertificateName {
    /// Such as `spiffe://acme/ingestion`; case matters.
    Uri(String),
    /// In lower case, since case does not matter.
    Dns(String),
}

impl CertificateName {
    pub fn dns(name: &str) -> Self {
        Self::Dns(name.to_ascii_lowercase())
    }

    /// Reads a name as people write it: one with `://` is a URI, any other a DNS name.
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

    pub fn as_str(&self) -> &str {
        match self {
            Self::Uri(name) | Self::Dns(name) => name,
        }
    }
}

/// A client's certificate whose chain is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    pub names: Vec<CertificateName>,
    /// Compared with the system's clock.
    pub not_after: Timestamp,
}

/// Which principal the holder of a certificate with this name is, as the operator configured it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRule {
    pub san: CertificateName,
    pub principal: String,
    pub role: Role,
    pub workspaces: WorkspaceSet,
}

/// What a caller authenticated with. It holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Credential {
    ApiKey(ApiKeyId),
    Certificate {
        /// The name in the certificate by which it was recognised.
        san: CertificateName,
        not_after: Timestamp,
    },
    /// A token that an OpenID Connect issuer signed.
    Token {
        /// The principal's name.
        subject: String,
        /// SHA-256 of the token, to tell the principal's tokens apart.
        digest: [u8; 32],
        not_after: Timestamp,
    },
}

impl Credential {
    /// The key's id, the certificate's name or the token's principal, for logs and records.
    pub fn as_str(&self) -> &str {
        match self {
            Self::ApiKey(id) => id.as_str(),
            Self::Certificate { san, .. } => san.as_str(),
            Self::Token { subject, .. } => subject,
        }
    }
}

/// Shown with its kind: `api_key:…`, `certificate:…`.
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

pub fn check_principal_name(name: &str) -> Result<(), BadValue> {
    let good = (1..=128).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:@/-".contains(&b));
    if good { Ok(()) } else { Err(BadValue::new("must be 1 to 128 characters of A-Z a-z 0-9 . _ : @ / -")) }
}

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Chosen by the operator. Several keys and certificates may have the same principal, as during a key rotation.
    pub name: String,
    pub credential: Credential,
    pub role: Role,
    pub workspaces: WorkspaceSet,
    /// The connect link that it acts for. It then reaches nothing that the link does not.
    pub link: Option<Arc<ConnectLink>>,
}

impl Principal {
    /// Whether it may act on a connection.
    pub fn reaches(&self, connection: &Connection) -> bool {
        let linked = |link: &Arc<ConnectLink>| link.reaches(&connection.provider, connection.id);
        self.workspaces.contains(&connection.workspace) && self.link.as_ref().is_none_or(linked)
    }

    /// Whose share of calls and places a call takes: the caller's, and for a link that of its workspace, since one portal acts
    /// for the people of all workspaces.
    pub fn share(&self) -> Cow<'_, str> {
        match &self.link {
            None => Cow::Borrowed(&self.name),
            Some(link) => Cow::Owned(format!("{} for {}", self.name, link.workspace)),
        }
    }

    /// The same caller, acting for a link.
    pub fn acting_for(&self, link: ConnectLink) -> Self {
        let workspaces = WorkspaceSet::Named(BTreeSet::from([link.workspace.clone()]));
        Self { workspaces, link: Some(Arc::new(link)), ..self.clone() }
    }

    /// Whether it may act in every workspace. Only such callers may see or change what belongs to no workspace or to
    /// all of them.
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
