//! What the audit log records, and when: a hand-out before the secret leaves, a change with its transaction, a denial
//! at once. While the log can't be written, the vault hands out no secret and begins no change.

use std::sync::Arc;
use std::time::Duration;

use crate::audit::AuditUnavailable;
use crate::model::{AuditKind, AuditRecord, Connection};
use crate::store::Origin;
use crate::vault::error::VaultError;
use crate::vault::state::Vault;

/// Longest wait for the relay before a key that is shown once is handed out.
const RELAY_WAIT: Duration = Duration::from_secs(3);
/// How often to check whether an abandoned call's work has ended.
const ABANDONED_CHECK: Duration = Duration::from_millis(100);

impl From<AuditUnavailable> for VaultError {
    fn from(_: AuditUnavailable) -> Self {
        Self::AuditUnavailable
    }
}

impl Vault {
    /// Call this before every change.
    ///
    /// # Errors
    /// `AuditUnavailable`: the log can't be written, so nothing may begin. `StorageUnavailable`: what begins now could not
    /// be saved.
    pub fn may_change(&self) -> Result<(), VaultError> {
        self.audit.log.check()?;
        Ok(self.store.check_reachable()?)
    }

    /// Records that a connection's secret is handed out. The secret may leave once this is `Ok`.
    pub(in crate::vault) async fn record_hand_out(&self, connection: &Connection) -> Result<(), VaultError> {
        if !self.audit.log.is_on() {
            return Ok(());
        }
        Origin::note_subject(connection);
        let Some(origin) = Origin::current() else {
            tracing::error!(
                "a secret is not handed out because the call does not say for whom: this is a bug"
            );
            return Err(VaultError::Internal);
        };
        let mut record = origin.record(AuditKind::HandedOut, self.clock.now());
        record.code = "OK".to_owned();
        self.audit.log.append(vec![body(&record)]).await?;
        Ok(())
    }

    /// Waits until the log holds what this call changed, before the call hands out a key that is shown once.
    pub(in crate::vault) async fn wait_until_recorded(&self) -> Result<(), VaultError> {
        let Some(origin) = Origin::current().filter(|_| self.audit.log.is_on()) else { return Ok(()) };
        tokio::time::timeout(RELAY_WAIT, origin.relayed()).await.map_err(|_| VaultError::AuditUnavailable)
    }

    /// Records how a call ended that could have changed something but did not. A change is recorded by its transaction.
    ///
    /// `is_free`: whether such a call costs whoever causes it nothing, so that its record counts against the budget of
    /// denials.
    ///
    /// # Errors
    /// `AuditUnavailable`.
    pub async fn record_unchanged(
        &self,
        origin: &Origin,
        code: &str,
        reason: &str,
        is_free: bool,
    ) -> Result<(), VaultError> {
        if origin.is_recorded() || !self.audit.log.is_on() {
            return Ok(());
        }
        let mut suppressed = 0;
        if is_free {
            let Some(count) = self.audit.denials.take() else { return Ok(()) };
            suppressed = count;
        }
        let mut record = origin.record(AuditKind::Unchanged, self.clock.now());
        (record.code, record.reason) = (code.to_owned(), reason.to_owned());
        record.suppressed = (suppressed > 0).then_some(suppressed);
        self.audit.log.append(vec![body(&record)]).await?;
        Ok(())
    }

    /// Records that a caller hung up, or ran out of time, on a call that could have changed something. The call's work
    /// may continue without its caller: this waits for its end, and writes the record if it changed nothing.
    pub fn record_abandoned(self: &Arc<Self>, origin: Arc<Origin>) {
        if !self.audit.log.is_on() {
            return;
        }
        let vault = Arc::clone(self);
        self.work.tasks.spawn(async move {
            while Arc::strong_count(&origin) > 1 && !vault.audit.stop_relay.is_cancelled() {
                tokio::time::sleep(ABANDONED_CHECK).await;
            }
            if origin.is_recorded() {
                return;
            }
            // Hanging up costs the caller nothing, so these records count against the same budget as denials.
            let Some(suppressed) = vault.audit.denials.take() else { return };
            let mut record = origin.record(AuditKind::Unchanged, vault.clock.now());
            (record.code, record.suppressed) =
                ("CANCELLED".to_owned(), (suppressed > 0).then_some(suppressed));
            let _ = vault.audit.log.append(vec![body(&record)]).await;
        });
    }

    /// Records that a caller was denied, unless there were too many of these lately. The caller is denied either way.
    pub async fn record_denial(&self, origin: &Origin, code: &str, reason: &str) {
        if !self.audit.log.is_on() {
            return;
        }
        let Some(suppressed) = self.audit.denials.take() else { return };
        let mut record = origin.record(AuditKind::Refused, self.clock.now());
        (record.code, record.reason) = (code.to_owned(), reason.to_owned());
        record.suppressed = (suppressed > 0).then_some(suppressed);
        let _ = self.audit.log.append(vec![body(&record)]).await;
    }

    /// Runs the vault's own work, which is recorded as `system:<job>`.
    pub(in crate::vault) async fn as_system<T>(
        &self,
        job: &'static str,
        work: impl Future<Output = Result<T, VaultError>>,
    ) -> Result<T, VaultError> {
        self.may_change()?;
        Arc::new(Origin::system(job)).scope(work).await
    }
}

fn body(record: &AuditRecord) -> String {
    serde_json::to_string(record).unwrap_or_default()
}
