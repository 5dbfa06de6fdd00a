//! What one process remembers between calls: `Vault`, with a file for the state of each wing. Every verb is a method of
//! `Vault`; nothing in this folder calls a verb.

pub(super) mod access;
pub(super) mod attendance;
pub(super) mod audit;
pub(super) mod feed;
pub(super) mod in_flight;
pub(super) mod inspections;
pub(super) mod jobs;
pub(super) mod key_changes;
pub(super) mod keyring;
pub(super) mod policy;
pub(super) mod shares;
pub(super) mod work;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::model::{Clock, Connection, Misconfiguration, Policy, ProviderId};
use crate::provider::{Provider, Providers};
use crate::store::Store;
use crate::vault::error::VaultError;
use crate::vault::timetable::Timetable;
use access::Access;
use audit::AuditTrail;
use feed::Feed;
use in_flight::{InFlight, RequestKey};
use inspections::Inspections;
use jobs::Jobs;
use key_changes::KeyChanges;
use keyring::Keys;
use policy::PolicyInForce;
use work::{Work, patience};

/// How long the audit log may take to end when the vault closes: the database must still have time to close.
const AUDIT_WAIT: Duration = Duration::from_secs(1);

pub struct Vault {
    pub(super) store: Arc<Store>,
    pub(super) providers: Providers,
    pub(super) clock: Clock,
    /// This process's name among the replicas.
    pub(super) replica: String,
    pub(super) data_dir: PathBuf,
    pub(super) policy: PolicyInForce,
    pub(super) work: Work,
    pub(super) keys: Keys,
    pub(super) key_changes: KeyChanges,
    pub(super) access: Access,
    pub(super) requests_in_flight: InFlight<RequestKey>,
    pub(super) exchanges_in_flight: InFlight<String>,
    pub(super) inspections: Inspections,
    pub(super) feed: Feed,
    pub(super) jobs: Jobs,
    pub(super) audit: AuditTrail,
    pub(super) healthy: watch::Receiver<bool>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("replica", &self.replica).finish_non_exhaustive()
    }
}

impl Vault {
    /// The policy in force now.
    pub(in crate::vault) fn policy(&self) -> Arc<Policy> {
        self.policy.current()
    }

    pub fn timetable(&self) -> &Timetable {
        &self.jobs.timetable
    }

    /// False while the database does not answer, or the audit log can't be written.
    pub fn health(&self) -> watch::Receiver<bool> {
        self.healthy.clone()
    }

    /// Ends every watch, so that the server can stop.
    pub fn stop_watches(&self) {
        self.work.stopping.cancel();
    }

    /// Whether work is under way that no caller waits for: runs of jobs, checks of a dead token's siblings.
    pub fn is_busy(&self) -> bool {
        !self.work.tasks.is_empty()
    }

    /// Accepts no more work, and waits until the work in progress has ended.
    pub async fn finish_work(&self) {
        self.work.stopping.cancel();
        self.work.tasks.close();
        self.work.tasks.wait().await;
    }

    /// Closes the audit log and the database. Work that still runs is lost like that of a killed process: another one
    /// continues it.
    pub async fn close(&self) {
        let left = self.work.tasks.len();
        if left > 0 {
            tracing::warn!(left, "work was still running when the vault closed");
        }
        self.audit.stop_relay.cancel();
        self.audit.relay.close();
        if tokio::time::timeout(AUDIT_WAIT, self.audit.relay.wait()).await.is_err() {
            tracing::warn!("the audit log did not end in time: its last records follow at the next start");
        }
        Arc::clone(&self.store).close().await;
    }

    /// A provider, for one operation. Its calls end when the callers of the running task stop waiting for it.
    pub(in crate::vault) fn provider(&self, id: &ProviderId) -> Result<Arc<dyn Provider>, VaultError> {
        self.providers.within(id, patience()).ok_or_else(|| VaultError::ProviderUnknown {
            provider: id.to_string(),
            configured: self.providers.names(),
        })
    }

    /// The provider of a connection, if it is configured with the app that the connection's token was issued to. With
    /// another app, the provider would refuse every token, although nothing is wrong with the tokens.
    pub(in crate::vault) fn provider_of(
        &self,
        connection: &Connection,
    ) -> Result<Arc<dyn Provider>, VaultError> {
        let misconfigured = |problem| VaultError::ProviderMisconfigured {
            provider: connection.provider.clone(),
            problem,
            provider_code: String::new(),
        };
        match self.providers.within(&connection.provider, patience()) {
            None => Err(misconfigured(Misconfiguration::NotConfigured)),
            Some(provider) if provider.app_id() != connection.app_id => {
                tracing::error!(connection = %connection.id, app_id = connection.app_id, "the connection's token was issued to another app than the one configured");
                Err(misconfigured(Misconfiguration::AppId))
            }
            Some(provider) => Ok(provider),
        }
    }
}
