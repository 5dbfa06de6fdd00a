//! The job `data-key-rotation`: encrypts the secrets of a workspace with its new data key. The rows always show what is
//! left to do; the old key is kept until no secret needs it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::crypto::{self, Binding, DataKey};
use crate::model::{ConnectionId, WorkspaceId};
use crate::store::{Abort, JobRun, Needs, SealedRow, Tx};
use crate::vault::error::VaultError;
use crate::vault::jobs::run::{Progress, RunFailed};
use crate::vault::state::Vault;
use crate::vault::state::keyring::WorkspaceKeys;

/// Connections whose secrets are encrypted in one transaction.
const CONNECTIONS_AT_ONCE: i64 = 200;
/// How often to check whether every replica has applied the last change.
const REPLICA_CHECK: Duration = Duration::from_millis(200);

impl Vault {
    /// Encrypts the secrets of every workspace with two data keys with the newer key, and deletes the older one.
    pub(super) async fn reencrypt(&self, run: &mut JobRun, progress: &Progress<'_>) -> Result<(), RunFailed> {
        let mut stuck = BTreeSet::new();
        run.done -= std::mem::take(&mut run.failed);
        loop {
            let mut waiting = self.store.read().await?.workspaces_with_old_keys().await?.0;
            waiting.retain(|workspace| !stuck.contains(workspace));
            let Some(workspace) = waiting.first().cloned() else { return Ok(()) };
            self.store.forget_workspace(&workspace);
            let keys = match self.workspace_keys(&workspace).await {
                Ok(Some(keys)) => keys,
                Ok(None) | Err(VaultError::WorkspaceShredded(_) | VaultError::WorkspaceKeysCorrupt(_)) => {
                    run.failed += 1;
                    run.done += 1;
                    stuck.insert(workspace);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let Some(newest) = keys.newest().map(DataKey::version) else {
                stuck.insert(workspace);
                continue;
            };
            run.total = run.done + self.store.read().await?.count_old_secrets(&workspace, newest).await?;
            progress.note(run).await?;
            let mut after: Option<ConnectionId> = None;
            loop {
                let mut session = self.store.read().await?;
                let page = session
                    .connections_with_old_secrets(&workspace, newest, after, CONNECTIONS_AT_ONCE)
                    .await?;
                drop(session);
                let Some(last) = page.last().copied() else { break };
                after = Some(last);
                let (unit_keys, id) = (Arc::clone(&keys), workspace.clone());
                let needs = Needs { connections: page.clone(), alone: true };
                let resealed = self
                    .store
                    .write_with(needs, move |tx| {
                        let (keys, id, page) = (Arc::clone(&unit_keys), id.clone(), page.clone());
                        Box::pin(async move { reseal(tx, &id, &page, &keys).await })
                    })
                    .await
                    .map_err(VaultError::from);
                let (done, failed) = match resealed {
                    Ok((counts, _)) => counts,
                    // The workspace got yet another key, or lost its keys: start over with it.
                    Err(VaultError::KeysChanged(_)) => break,
                    Err(error) => return Err(error.into()),
                };
                run.done += done + failed;
                run.failed += failed;
                run.total = run.total.max(run.done);
                progress.note(run).await?;
            }
            self.wait_for_replicas().await?;
            let id = workspace.clone();
            let left = self
                .store
                .write_with(Needs { alone: true, ..Needs::default() }, move |tx| {
                    let id = id.clone();
                    Box::pin(async move {
                        Ok::<_, Abort<VaultError>>(tx.delete_old_data_keys(&id, newest).await?)
                    })
                })
                .await
                .map_err(VaultError::from)?
                .0;
            if left > 0 {
                // Another round seals secrets that were stored meanwhile. Secrets that do not open stay as they are.
                let behind = self.store.read().await?.count_old_secrets(&workspace, newest).await?;
                if behind <= run.failed {
                    tracing::error!(%workspace, behind, "secrets do not open and keep their old data key: the database was altered");
                    stuck.insert(workspace);
                }
            } else {
                tracing::info!(%workspace, version = newest, "every secret of the workspace is sealed by its new data key");
            }
        }
    }

    /// Waits until every living replica has applied all changes committed so far.
    async fn wait_for_replicas(&self) -> Result<(), RunFailed> {
        let target = self.store.read().await?.last_revision().await?;
        loop {
            let replicas = self.store.read().await?.replicas().await?;
            if replicas.iter().all(|replica| replica.applied_revision >= target) {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(REPLICA_CHECK) => {}
                () = self.work.stopping.cancelled() => return Err(RunFailed::Stopped),
            }
        }
    }
}

/// Seals connections' old secrets with the newest data key. Returns how many were sealed, and how many did not open.
async fn reseal(
    tx: &mut Tx,
    workspace: &WorkspaceId,
    connections: &[ConnectionId],
    keys: &WorkspaceKeys,
) -> Result<(i64, i64), Abort<VaultError>> {
    let Some(newest) = keys.newest() else {
        return Err(Abort::Work(VaultError::KeysChanged(workspace.clone())));
    };
    let (mut done, mut failed) = (Vec::new(), 0);
    for row in tx.old_secrets(connections, newest.version()).await? {
        let binding =
            Binding { workspace, connection: row.connection, provider: &row.provider, version: row.version };
        let opened = keys
            .of_version(row.sealed.data_key_version)
            .ok_or(crypto::CorruptCiphertext)
            .and_then(|key| crypto::open(key, &binding, &row.sealed))
            .and_then(|secret| crypto::seal(newest, &binding, &secret));
        match opened {
            Ok(sealed) => done.push(SealedRow { sealed, ..row }),
            Err(_) => {
                failed += 1;
                tracing::error!(connection = %row.connection, version = %row.version, "a stored secret does not open: the database was altered");
            }
        }
    }
    if !tx.put_resealed(workspace, newest.version(), &done).await? {
        return Err(Abort::Work(VaultError::KeysChanged(workspace.clone())));
    }
    Ok((i64::try_from(done.len()).unwrap_or(i64::MAX), failed))
}
