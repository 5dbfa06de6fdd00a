//! The vault's state: what one process holds, for all verbs.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::Audit;
use crate::model::{CertificateRule, Clock, Connection, Misconfiguration, Policy, ProviderId};
use crate::oidc::Issuer;
use crate::provider::{Provider, Providers};
use crate::store::Store;
use crate::vault::access::callers::Uses;
use crate::vault::audit::auditing::{Refusals, both};
use crate::vault::error::VaultError;
use crate::vault::feed::permits::Permits;
use crate::vault::jobs::deadlines::Lying;
use crate::vault::jobs::schedule::Timetable;
use crate::vault::keys::keyring::Keys;
use crate::vault::keys::rekey::Told;
use crate::vault::once::idempotency::RequestKey;
use crate::vault::once::in_flight::InFlight;
use crate::vault::opening::config::VaultConfig;
use crate::vault::shares::Shares;
use crate::vault::token::report::Inquiries;

/// Detached work at once, each with a provider call or a write of its own.
const ROOM: usize = 512;
/// A principal's share of it.
const ROOM_EACH: usize = ROOM / 4;
/// Lists and counts at once; more wait, and those of one principal for each other.
const LISTS: usize = 2;
const LISTS_EACH: usize = 1;
/// Watchers that read history from the database at once; more wait.
const REPLAYS: usize = 2;

/// The vault.
pub struct Vault {
    pub(super) store: Arc<Store>,
    pub(super) keys: Keys,
    pub(super) providers: Providers,
    pub(super) clock: Clock,
    pub(super) policy: RwLock<Arc<Policy>>,
    /// Its revision, as far as this process knows.
    pub(super) policy_revision: AtomicI64,
    pub(super) timetable: Timetable,
    pub(super) replica: String,
    pub(super) uses: Uses,
    pub(super) requests_in_flight: InFlight<RequestKey>,
    /// Room for detached work, and for lists: neither may crowd out the rest.
    pub(super) room: Arc<Semaphore>,
    pub(super) rooms: Shares,
    pub(super) lists: Semaphore,
    pub(super) lists_of: Shares,
    /// How many watchers may read history from the database at once.
    pub(super) replays: Semaphore,
    pub(super) inquiries: Inquiries,
    pub(super) permits: Permits,
    /// Who comes with which certificate.
    pub(super) certificates: Vec<CertificateRule>,
    /// Whose tokens are good.
    pub(super) issuer: Option<Arc<Issuer>>,
    /// Exchanges, and runs of jobs, that this process works on.
    pub(super) exchanges_in_flight: InFlight<String>,
    pub(super) runs: InFlight<String>,
    /// Due work that lies.
    pub(super) lying: Lying,
    /// Where the files beside the database go.
    pub(super) data_dir: PathBuf,
    /// The master keys that the others were told of, and what is wrong with them.
    pub(super) reported_keys: Mutex<Vec<String>>,
    pub(super) adopting: tokio::sync::Mutex<()>,
    pub(super) key_service_told: Told,
    pub(super) key_file_told: Told,
    /// When it was looked last for keys without a break-glass wrap.
    pub(super) back_fill: Mutex<Option<Instant>>,
    /// Ends every watch.
    pub(super) stopping: CancellationToken,
    pub(super) tasks: TaskTracker,
    pub(super) audit: Arc<Audit>,
    pub(super) refusals: Refusals,
    /// Ends the relay of audit records, which comes after all other work.
    pub(super) relay_stop: CancellationToken,
    pub(super) relay: TaskTracker,
    pub(super) healthy: watch::Receiver<bool>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("replica", &self.replica).finish_non_exhaustive()
    }
}

impl Vault {
    pub(in crate::vault) fn assemble(
        store: Arc<Store>,
        keys: Keys,
        providers: Providers,
        clock: Clock,
        config: VaultConfig,
        replica: String,
        audit: Arc<Audit>,
    ) -> Self {
        let healthy = both(store.health(), audit.health());
        Self {
            store,
            reported_keys: Mutex::new(keys.ring().master.ids()),
            keys,
            providers,
            clock,
            policy: RwLock::new(Arc::new(config.policy)),
            policy_revision: AtomicI64::new(0),
            timetable: config.timetable,
            data_dir: config.data_dir,
            adopting: tokio::sync::Mutex::default(),
            key_service_told: Told::default(),
            key_file_told: Told::default(),
            back_fill: Mutex::default(),
            replica,
            uses: Uses::default(),
            requests_in_flight: InFlight::default(),
            room: Arc::new(Semaphore::new(ROOM)),
            rooms: Shares::new(ROOM_EACH),
            lists: Semaphore::new(LISTS),
            lists_of: Shares::new(LISTS_EACH),
            replays: Semaphore::new(REPLAYS),
            inquiries: Inquiries::default(),
            permits: Permits::new(config.callers.watches),
            certificates: config.callers.certificates,
            issuer: None,
            exchanges_in_flight: InFlight::default(),
            runs: InFlight::default(),
            lying: Lying::default(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            audit,
            refusals: Refusals::default(),
            relay_stop: CancellationToken::new(),
            relay: TaskTracker::new(),
            healthy,
        }
    }

    /// What the operator decided, as it is in force now.
    pub(in crate::vault) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// When jobs run.
    pub fn timetable(&self) -> &Timetable {
        &self.timetable
    }

    /// False while the database does not answer, or the audit log can't be written.
    pub fn health(&self) -> watch::Receiver<bool> {
        self.healthy.clone()
    }

    pub(in crate::vault) fn provider(&self, id: &ProviderId) -> Result<Arc<dyn Provider>, VaultError> {
        self.providers.get(id).cloned().ok_or_else(|| VaultError::ProviderUnknown {
            provider: id.to_string(),
            configured: self.providers.names(),
        })
    }

    /// The provider of a connection, as the app that its token was made for: with another app configured,
    /// every token would look foreign, and none of them would be at fault.
    pub(in crate::vault) fn provider_of(
        &self,
        connection: &Connection,
    ) -> Result<Arc<dyn Provider>, VaultError> {
        let misconfigured = |problem| VaultError::ProviderMisconfigured {
            provider: connection.provider.clone(),
            problem,
            provider_code: String::new(),
        };
        match self.providers.get(&connection.provider) {
            None => Err(misconfigured(Misconfiguration::NotConfigured)),
            Some(provider) if provider.app_id() != connection.app_id => {
                tracing::error!(connection = %connection.id, app_id = connection.app_id, "the connection's token was made for another app than the one configured");
                Err(misconfigured(Misconfiguration::AppId))
            }
            Some(provider) => Ok(Arc::clone(provider)),
        }
    }
}
