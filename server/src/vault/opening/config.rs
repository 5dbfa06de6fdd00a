//! What the vault needs to open, and what its very first start leaves behind.

use std::path::PathBuf;

use crate::audit::AuditConfig;
use crate::crypto::{BreakGlassSealingKey, TransitConfig};
use crate::model::{CertificateRule, Policy, Secret};
use crate::oidc::OidcConfig;
use crate::vault::state::feed::WatchLimits;
use crate::vault::timetable::Timetable;

/// What the vault needs to open.
#[derive(Debug)]
pub struct VaultConfig {
    /// `sqlite:PATH` or `postgres://…`; may hold a password.
    pub database_url: Secret,
    /// Where a key file and the bootstrap key go on first start.
    pub data_dir: PathBuf,
    /// Master keys as text (`tvk1:<id>:<base64 of 32 bytes>` lines), from the environment.
    pub master_key: Option<Secret>,
    /// File with the same; default: data folder + `/master.key`.
    pub master_key_file: Option<PathBuf>,
    /// A key service that holds a master key.
    pub transit: Option<TransitConfig>,
    /// The public key that every key is encrypted to as well.
    pub break_glass: Option<BreakGlassSealingKey>,
    /// File with the bootstrap admin key to adopt at first start, in place of a generated one.
    pub bootstrap_key_file: Option<PathBuf>,
    /// Apply migrations at start.
    pub migrate_on_start: bool,
    /// What the operator decided.
    pub policy: Policy,
    /// When jobs run.
    pub timetable: Timetable,
    /// Where audit records go.
    pub audit: AuditConfig,
    /// Who calls, and how much of the vault is theirs.
    pub callers: CallerPolicy,
}

/// What the operator decided about callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerPolicy {
    /// Who comes with which certificate.
    pub certificates: Vec<CertificateRule>,
    /// Whose tokens are good.
    pub oidc: Option<OidcConfig>,
    /// How many may watch at once.
    pub watches: WatchLimits,
}

/// What first start left for the operator.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FirstStart {
    /// Written on this start: the bootstrap admin key's file.
    pub bootstrap_key_file: Option<PathBuf>,
    /// Written on this start: the master key's file.
    pub master_key_file: Option<PathBuf>,
}
