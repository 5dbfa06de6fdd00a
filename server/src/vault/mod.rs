//! The verbs. Each file is one `impl Vault` block, and each folder is a wing:
//!
//! - `opening`: the start of a process, the very first start, and what is done to a vault that does not run.
//! - `access`: who calls, and the API keys that say so.
//! - `token`: storing, fetching, validating, exchanging, reporting, listing and revoking tokens.
//! - `feed`: following the events.
//! - `jobs`: work by the clock, a file per job.
//! - `keys`: the keys that everything is encrypted by, and their rotation.
//! - `workspace`: workspaces and their end.
//! - `once`: what makes a repeated or a concurrent request happen once.
//! - `audit`: what is written to the audit log, and when.
//!
//! The vault knows no wire type, no SQL and no HTTP. A caller's hang-up loses nothing: from its first side
//! effect on, an operation runs detached from its caller.

mod access;
mod audit;
mod command;
mod error;
mod feed;
#[cfg(fuzzing)]
pub mod fuzzing;
mod jobs;
mod keys;
mod once;
mod opening;
mod position;
mod provider_health;
mod shares;
mod token;
mod workspace;

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use crate::store::Origin;
pub use command::*;
pub use error::{FieldViolation, VaultError};
pub use feed::{permits::WatchLimits, watch::Watch};
pub use jobs::schedule::{JobKind, Timetable};
pub use opening::recover::Recovered;
pub use shares::Shares;
pub use token::view::TokenView;

use crate::audit::{Audit, AuditConfig};
pub use crate::crypto::{BreakGlassSealingKey, TransitConfig, TransitLogin};
use crate::model::{
    CertificateRule, Clock, Connection, EventKind, Misconfiguration, Policy, Principal, ProviderId, Secret,
};
use crate::oidc::{Issuer, OidcConfig};
use crate::provider::{Provider, Providers};
use crate::store::Store;
use access::callers::Uses;
use audit::auditing::{Refusals, both};
use feed::permits::Permits;
use jobs::deadlines::Lying;
use keys::keyring::Keys;
use keys::rekey::Told;
use once::claims::Working;
use once::idempotency::InProgress;
use token::report::Inquiries;

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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallerPolicy {
    /// Who comes with which certificate.
    pub certificates: Vec<CertificateRule>,
    /// Whose tokens are good.
    pub oidc: Option<OidcConfig>,
    /// How many may watch at once.
    pub watches: WatchLimits,
}

/// Why the vault does not open. The text names the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(pub String);

/// What first start left for the operator.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FirstStart {
    /// Written on this start: the bootstrap admin key's file.
    pub bootstrap_key_file: Option<PathBuf>,
    /// Written on this start: the master key's file.
    pub master_key_file: Option<PathBuf>,
}

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
    store: Arc<Store>,
    keys: Keys,
    providers: Providers,
    clock: Clock,
    policy: RwLock<Arc<Policy>>,
    /// Its revision, as far as this process knows.
    policy_revision: AtomicI64,
    timetable: Timetable,
    replica: String,
    uses: Uses,
    in_progress: InProgress,
    /// Room for detached work, and for lists: neither may crowd out the rest.
    room: Arc<Semaphore>,
    rooms: Shares,
    lists: Semaphore,
    lists_of: Shares,
    /// How many watchers may read history from the database at once.
    replays: Semaphore,
    inquiries: Inquiries,
    permits: Permits,
    /// Who comes with which certificate.
    certificates: Vec<CertificateRule>,
    /// Whose tokens are good.
    issuer: Option<Arc<Issuer>>,
    /// Exchanges, and runs of jobs, that this process works on.
    working: Working,
    runs: Working,
    /// Due work that lies.
    lying: Lying,
    /// Where the files beside the database go.
    data_dir: PathBuf,
    /// The master keys that the others were told of, and what is wrong with them.
    reported_keys: Mutex<Vec<String>>,
    adopting: tokio::sync::Mutex<()>,
    key_service_told: Told,
    key_file_told: Told,
    /// When it was looked last for keys without a break-glass wrap.
    back_fill: Mutex<Option<Instant>>,
    /// Ends every watch.
    stopping: CancellationToken,
    tasks: TaskTracker,
    audit: Arc<Audit>,
    refusals: Refusals,
    /// Ends the relay of audit records, which comes after all other work.
    relay_stop: CancellationToken,
    relay: TaskTracker,
    healthy: watch::Receiver<bool>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("replica", &self.replica).finish_non_exhaustive()
    }
}

impl Vault {
    fn assemble(
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
            in_progress: InProgress::default(),
            room: Arc::new(Semaphore::new(ROOM)),
            rooms: Shares::new(ROOM_EACH),
            lists: Semaphore::new(LISTS),
            lists_of: Shares::new(LISTS_EACH),
            replays: Semaphore::new(REPLAYS),
            inquiries: Inquiries::default(),
            permits: Permits::new(config.callers.watches),
            certificates: config.callers.certificates,
            issuer: None,
            working: Working::default(),
            runs: Working::default(),
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
    pub(super) fn policy(&self) -> Arc<Policy> {
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

    /// What the vault says of itself.
    ///
    /// # Errors
    /// `StorageUnavailable`.
    pub async fn status(&self, caller: &Principal) -> Result<VaultStatus, VaultError> {
        // What is of the whole vault is not for a caller of some of its workspaces.
        let reaches_all = Self::must_reach_all(caller).is_ok();
        let master_keys = if reaches_all { self.master_key_states().await? } else { Vec::new() };
        let mut session = self.store.read().await?;
        let feed = session.feed_state().await?;
        let overdue_tokens =
            if reaches_all { session.count_open_incidents(EventKind::Overdue).await? } else { 0 };
        let own = self.store.incarnation();
        let replicas = if reaches_all { session.replicas().await? } else { Vec::new() };
        let replicas = replicas
            .into_iter()
            .map(|replica| ReplicaState {
                is_this_one: replica.incarnation == own,
                name: replica.name,
                version: replica.version,
                started_at: replica.started_at,
                clock_offset: replica.clock_offset,
            })
            .collect();
        drop(session);
        Ok(VaultStatus {
            version: env!("CARGO_PKG_VERSION"),
            server_time: self.clock.now(),
            backend: self.store.backend().as_str(),
            replica: if reaches_all { self.replica.clone() } else { String::new() },
            cursor: self.cursor(),
            head_sequence: feed.head.sequence,
            oldest_sequence: feed.oldest,
            overdue_tokens,
            providers: self.provider_states().await?,
            replicas,
            master_keys,
            tokens_by_status: self.count_by_status(caller).await?,
        })
    }

    /// Ends every watch, so that the server can.
    pub fn stop_watches(&self) {
        self.stopping.cancel();
    }

    /// Whether work is going on that no caller waits for: runs of jobs, looks at a dead token's siblings.
    pub fn is_busy(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Lets work that has begun come to its end, and closes the database.
    pub async fn close(&self) {
        self.stopping.cancel();
        self.tasks.close();
        if tokio::time::timeout(Duration::from_secs(25), self.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.tasks.len(), "work was still running when the vault closed");
        }
        self.relay_stop.cancel();
        self.relay.close();
        self.relay.wait().await;
        Arc::clone(&self.store).close().await;
    }

    /// A turn at a list or a count. Whoever asks for many waits for himself.
    async fn list_turn(
        &self,
        caller: &Principal,
    ) -> Result<(SemaphorePermit<'_>, OwnedSemaphorePermit), VaultError> {
        let own = self.lists_of.take(&caller.name).await.ok_or(VaultError::ShuttingDown)?;
        let turn = self.lists.acquire().await.map_err(|_| VaultError::ShuttingDown)?;
        Ok((turn, own))
    }

    /// Runs work that must not end with its caller. Such work is bounded in number, over all and for each
    /// principal, whatever its callers' deadlines are: beyond that, calls are refused at once.
    async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, VaultError>> + Send + 'static,
    ) -> Result<T, VaultError> {
        if self.tasks.is_closed() {
            return Err(VaultError::ShuttingDown);
        }
        let origin = Origin::current();
        let share = match origin.as_ref().and_then(|origin| origin.principal()) {
            Some(principal) => Some(self.rooms.try_take(&principal.name).ok_or(VaultError::Overloaded)?),
            None => None,
        };
        let permit = Arc::clone(&self.room).try_acquire_owned().map_err(|_| VaultError::Overloaded)?;
        let work = async move {
            let outcome = work.await;
            drop((permit, share));
            outcome
        };
        // Whose work it is stays known.
        let work = async move {
            match origin {
                Some(origin) => origin.scope(work).await,
                None => work.await,
            }
        };
        self.tasks.spawn(work).await.unwrap_or_else(|error| {
            tracing::error!(%error, "work ended without an answer");
            Err(VaultError::Internal)
        })
    }

    fn provider(&self, id: &ProviderId) -> Result<Arc<dyn Provider>, VaultError> {
        self.providers.get(id).cloned().ok_or_else(|| VaultError::ProviderUnknown {
            provider: id.to_string(),
            configured: self.providers.names(),
        })
    }

    /// The provider of a connection, as the app that its token was made for: with another app configured,
    /// every token would look foreign, and none of them would be at fault.
    fn provider_of(&self, connection: &Connection) -> Result<Arc<dyn Provider>, VaultError> {
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

    /// The connection that a caller names, if it may see it; one of another tenant is as one that does not exist.
    fn admit(caller: &Principal, target: &Target, connection: &Connection) -> Result<(), VaultError> {
        let named = target.workspace.as_ref().is_none_or(|workspace| *workspace == connection.workspace);
        if named && caller.workspaces.contains(&connection.workspace) {
            Ok(())
        } else {
            Err(VaultError::ConnectionNotFound(target.connection))
        }
    }

    /// The same after a commit, when there is no error any more: what can't be counted is told as none.
    async fn view_stored(&self, connection: Connection) -> TokenView {
        let shared = match self.store.read().await {
            Ok(mut session) => session.shared_with(&connection).await.unwrap_or(0),
            Err(_) => 0,
        };
        TokenView::new(connection, shared, self.clock.now(), &self.policy())
    }

    /// A connection as callers see it now.
    async fn view(&self, connection: Connection) -> Result<TokenView, VaultError> {
        let shared = self.store.read().await?.shared_with(&connection).await?;
        Ok(TokenView::new(connection, shared, self.clock.now(), &self.policy()))
    }
}
