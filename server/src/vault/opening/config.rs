//! What the vault needs to open, and the files that its very first start writes.

use std::path::PathBuf;

use crate::audit::AuditConfig;
use crate::crypto::{BreakGlassSealingKey, TransitConfig};
use crate::model::{CertificateRule, Policy, Secret};
use crate::oidc::OidcConfig;
use crate::vault::state::access::LinkConfig;
use crate::vault::state::feed::WatchLimits;
use crate::vault::timetable::Timetable;

#[derive(Debug)]
pub struct VaultConfig {
    /// `sqlite:PATH` or `postgres://…`; may hold a password.
    pub database_url: Secret,
    /// The folder for files beside the database: key files, the bootstrap key, the shred ledger.
    pub data_dir: PathBuf,
    /// Master keys as text (`tvk1:<id>:<base64 of 32 bytes>` lines), from the environment.
    pub master_key: Option<Secret>,
    /// A file with the same text; default: `master.key` in the data folder.
    pub master_key_file: Option<PathBuf>,
    /// A key service that holds a master key.
    pub transit: Option<TransitConfig>,
    /// The public key that every key is also encrypted to, for recovery.
    pub break_glass: Option<BreakGlassSealingKey>,
    /// A file with the bootstrap admin key for the first start; by default one is generated.
    pub bootstrap_key_file: Option<PathBuf>,
    pub migrate_on_start: bool,
    pub policy: Policy,
    pub timetable: Timetable,
    pub audit: AuditConfig,
    pub links: LinkConfig,
    pub callers: CallerPolicy,
}

/// Who may call, and how many watches are allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerPolicy {
    /// Which principal each certificate belongs to.
    pub certificates: Vec<CertificateRule>,
    /// The issuer whose tokens are accepted.
    pub oidc: Option<OidcConfig>,
    pub watches: WatchLimits,
}

/// The files that a first start has written for the operator.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FirstStart {
    pub bootstrap_key_file: Option<PathBuf>,
    pub master_key_file: Option<PathBuf>,
}
