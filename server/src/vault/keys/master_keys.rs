//! The master keys of a running vault: changes are adopted without a restart.

use crate::crypto;
use crate::vault::error::VaultError;
use crate::vault::state::Vault;
use crate::vault::state::keyring::Ring;

/// One master key that this process holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterKeyState {
    pub id: String,
    /// Whether it wraps new keys.
    pub active: bool,
    /// How many keys it wraps now.
    pub keys: i64,
}

impl Vault {
    /// Adopts changes of the master keys: another key is active, or the key file or the key service holds other keys.
    /// Called every second.
    ///
    /// # Errors
    /// `StorageUnavailable`.
    pub async fn adopt_keys(&self) -> Result<(), VaultError> {
        let _one_at_a_time = self.key_changes.adopting.lock().await;
        let ring = self.keys.ring();
        ring.master.keep_alive().await;
        let before = ring.master.ids();
        let mut master = ring.master.clone();
        match master.look(false).await {
            Ok(_) => self.key_changes.key_service.clear(),
            Err(error) => self.key_changes.key_service.log(&error.to_string()),
        }
        if self.keys.source.has_changed() {
            match self.read_keys_again().await? {
                Ok(fresh) => {
                    self.key_changes.key_file.clear();
                    master = fresh;
                }
                Err(why) => {
                    // Try again next time: the key that the file lacks may no longer be needed by then.
                    self.keys.source.read_again_later();
                    self.key_changes.key_file.log(&why);
                }
            }
        }
        let active = self
            .store
            .read()
            .await?
            .vault()
            .await?
            .map_or_else(|| ring.active.clone(), |vault| vault.active_master_key);
        let ids = master.ids();
        if active != ring.active {
            tracing::warn!(key = active, "another master key is the active one");
        }
        if ids != before {
            tracing::info!(keys = ?ids, "the master keys have changed");
        }
        self.keys.set_ring(Ring { master, active });
        if ids != *self.key_changes.reported.lock() {
            self.store.report_master_keys(ids.clone()).await?;
            *self.key_changes.reported.lock() = ids;
        }
        Ok(())
    }

    /// The keys that the file has now; the inner error says why they can't be used.
    async fn read_keys_again(&self) -> Result<Result<crypto::MasterKeys, String>, VaultError> {
        let fresh = match self.keys.source.read(false) {
            Ok(Some(fresh)) => fresh,
            Ok(None) => {
                return Ok(Err("there is no master key any more; the vault keeps the ones it has".into()));
            }
            Err(error) => return Ok(Err(format!("{error}; the vault keeps the keys it has"))),
        };
        let mut session = self.store.read().await?;
        let needed = session.needed_master_keys().await?;
        let missing: Vec<_> = needed.into_iter().filter(|id| !fresh.holds(id)).collect();
        if !missing.is_empty() {
            return Ok(Err(format!(
                "the key file lacks {}, which keys are still wrapped by; the vault keeps the keys it has",
                missing.join(", ")
            )));
        }
        for known in session.master_keys().await? {
            if fresh.holds(&known.id)
                && matches!(
                    fresh.passes_check(&known.id, self.keys.vault.vault_id, &known.check_value).await,
                    Ok(false)
                )
            {
                return Ok(Err(format!(
                    "the key file has other bytes under the id {}; the vault keeps the keys it has",
                    known.id
                )));
            }
        }
        Ok(Ok(fresh))
    }

    /// The master keys that this process holds, the active one first, and how many keys each wraps.
    pub(in crate::vault) async fn master_key_states(&self) -> Result<Vec<MasterKeyState>, VaultError> {
        let ring = self.keys.ring();
        let counts = self.store.read().await?.count_keys_by_master().await?;
        let state = |id: String| MasterKeyState {
            active: id == ring.active,
            keys: counts.iter().find(|(of, _)| *of == id).map_or(0, |(_, count)| *count),
            id,
        };
        let mut states: Vec<_> = ring.master.ids().into_iter().map(state).collect();
        states.sort_by_key(|state| !state.active);
        Ok(states)
    }

    /// Unwraps the keys of every workspace at the start of a process, so that they are usable while the key service is
    /// unavailable. Does nothing without a key service, and ends early when the service does not answer.
    pub async fn warm_keys(&self) {
        if !self.keys.ring().master.has_transit() {
            return;
        }
        let mut after = String::new();
        let mut warmed = 0_u64;
        loop {
            let page = match self.store.read().await {
                Ok(mut session) => session.workspaces_after(&after, 200).await,
                Err(error) => Err(error),
            };
            let Ok(page) = page else { return };
            let Some(last) = page.last() else { break };
            after = last.id.to_string();
            for workspace in page.iter().filter(|workspace| workspace.shredded_at.is_none()) {
                if self.work.stopping.is_cancelled() {
                    return;
                }
                if let Err(VaultError::KeyServiceUnavailable) = self.workspace_keys(&workspace.id).await {
                    return;
                }
                warmed += 1;
            }
        }
        tracing::info!(workspaces = warmed, "the workspaces' keys are unwrapped");
    }
}
