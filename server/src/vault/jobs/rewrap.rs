//! The jobs `master-key-rotation`, which wraps every key with the active master key, and `break-glass`, which seals
//! every key to the break-glass key. The rows always show what is left to do.

use std::sync::Arc;

use crate::crypto::{BreakGlassSealingKey, KeyBinding, WrapError};
use crate::store::{Abort, JobRun, KeyPosition, Needs, StoredKey, WrappedKey};
use crate::vault::error::VaultError;
use crate::vault::jobs::run::{Progress, RunFailed};
use crate::vault::keys::workspace_keys::key_service_failed;
use crate::vault::state::Vault;
use crate::vault::state::keyring::{Ring, key_binding, seal_to_break_glass};

/// How often a run looks again for keys that it missed.
const PASSES: u32 = 10;
/// Keys written in one transaction.
const KEYS_AT_ONCE: i64 = 200;

impl Vault {
    /// Wraps every key with the active master key.
    pub(super) async fn rewrap_keys(
        &self,
        run: &mut JobRun,
        progress: &Progress<'_>,
    ) -> Result<(), RunFailed> {
        self.adopt_keys().await?;
        let mut active = String::new();
        for _ in 0..PASSES {
            let ring = self.keys.ring();
            active.clone_from(&ring.active);
            run.done -= std::mem::take(&mut run.failed);
            run.total = run.done + self.store.read().await?.count_keys_not_under(&active).await?;
            progress.note(run).await?;
            let mut after = KeyPosition::default();
            while self.keys.ring().active == active {
                let page = self.store.read().await?.keys_not_under(&active, &after, KEYS_AT_ONCE).await?;
                let Some(last) = page.last() else { break };
                after = last.position.clone();
                let wrapping = Wrapping::Master(Arc::clone(&ring));
                self.write_keys(run, progress, page, &wrapping).await?;
            }
            // Another pass wraps the keys that were written meanwhile, or all keys if the active master key has changed
            // again.
            let left = self.store.read().await?.count_keys_not_under(&active).await?;
            if self.keys.ring().active == active && left <= run.failed {
                break;
            }
        }
        let now = self.clock.now();
        let retired = self
            .store
            .write(move |tx| {
                Box::pin(async move { Ok::<_, Abort<VaultError>>(tx.retire_master_keys(now).await?) })
            })
            .await
            .map_err(VaultError::from)?;
        tracing::warn!(
            key = active,
            done = run.done,
            failed = run.failed,
            retired,
            "every key is wrapped by the active master key"
        );
        Ok(())
    }

    /// Seals to the break-glass key every key that lacks that seal.
    pub(super) async fn seal_to_break_glass(
        &self,
        run: &mut JobRun,
        progress: &Progress<'_>,
    ) -> Result<(), RunFailed> {
        let Some(sealing) = &self.keys.break_glass else { return Ok(()) };
        let mut after = KeyPosition::default();
        run.done -= std::mem::take(&mut run.failed);
        run.total = run.done + self.store.read().await?.count_keys_not_for(sealing.id()).await?;
        loop {
            let page = self.store.read().await?.keys_not_for(sealing.id(), &after, KEYS_AT_ONCE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.position.clone();
            self.write_keys(run, progress, page, &Wrapping::BreakGlass(sealing.clone())).await?;
        }
    }

    fn binding_at<'a>(&self, stored: &'a StoredKey) -> KeyBinding<'a> {
        let KeyPosition { workspace, purpose } = &stored.position;
        key_binding(self.keys.vault.vault_id, purpose, workspace, &stored.key)
    }

    /// Unwraps a page of keys, wraps or seals each of them anew, and writes them.
    async fn write_keys(
        &self,
        run: &mut JobRun,
        progress: &Progress<'_>,
        page: Vec<StoredKey>,
        wrapping: &Wrapping,
    ) -> Result<(), RunFailed> {
        let ring = self.keys.ring();
        let mut written = Vec::with_capacity(page.len());
        for stored in page {
            let binding = self.binding_at(&stored);
            let wrapped = wrapping.wrap(&ring, &binding, &stored.key).await;
            run.done += 1;
            match wrapped {
                Ok(after) => written.push((stored, after)),
                Err(WrapError::Corrupt) => {
                    run.failed += 1;
                    tracing::error!(
                        workspace = stored.position.workspace, purpose = stored.position.purpose, key = %stored.key.key_id,
                        master_key = stored.key.master_key, "a key does not open under its master key: the database was altered"
                    );
                }
                Err(error) => return Err(key_service_failed(&error).into()),
            }
        }
        let written = Arc::new(written);
        let active = match wrapping {
            Wrapping::Master(ring) => Some(ring.active.clone()),
            Wrapping::BreakGlass(_) => None,
        };
        let still_active = self
            .store
            .write_with(Needs { alone: true, ..Needs::default() }, move |tx| {
                let (written, active) = (Arc::clone(&written), active.clone());
                Box::pin(async move {
                    // Never wrap with a key that is no longer the active one.
                    if let Some(active) = &active
                        && !tx.is_active_master_key(active).await?
                    {
                        return Ok(false);
                    }
                    for (before, after) in &*written {
                        tx.rewrap(before, after).await?;
                    }
                    Ok::<_, Abort<VaultError>>(true)
                })
            })
            .await
            .map_err(VaultError::from)?
            .0;
        if !still_active {
            self.adopt_keys().await?;
        }
        progress.note(run).await
    }
}

/// What a run does to each key.
enum Wrapping {
    /// Wrap it with the active master key of a ring.
    Master(Arc<Ring>),
    /// Seal it to the break-glass key.
    BreakGlass(BreakGlassSealingKey),
}

impl Wrapping {
    async fn wrap(
        &self,
        ring: &Ring,
        binding: &KeyBinding<'_>,
        before: &WrappedKey,
    ) -> Result<WrappedKey, WrapError> {
        let key = ring.master.unwrap(&before.master_key, binding, &before.wrapped).await?;
        match self {
            Self::Master(ring) => {
                let wrapped = ring.master.wrap(&ring.active, binding, &key).await?;
                Ok(WrappedKey { master_key: ring.active.clone(), wrapped, ..before.clone() })
            }
            Self::BreakGlass(sealing) => {
                let sealed = seal_to_break_glass(sealing, binding, &key)?;
                Ok(WrappedKey { break_glass: Some(sealed), ..before.clone() })
            }
        }
    }
}
