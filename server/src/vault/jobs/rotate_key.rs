//! RotateKey: makes another master key the active one, or gives a workspace a new data key. A job (`rewrap` or
//! `reencrypt`) then rewrites the keys and secrets that the old key protects.

use std::sync::Arc;

use crate::model::{Principal, RequestId, WorkspaceId};
use crate::store::{Abort, JobRun, MasterKeyRecord, Needs, RunCause};
use crate::vault::access::require_all_workspaces;
use crate::vault::error::VaultError;
use crate::vault::jobs::run::StartedRun;
use crate::vault::keys::workspace_keys::key_service_failed;
use crate::vault::state::Vault;
use crate::vault::state::keyring::{KeyUse, TRIES};
use crate::vault::timetable::JobKind;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyToRotate {
    /// The newest master key becomes the active one.
    Master,
    /// A workspace gets a new data key.
    Workspace(WorkspaceId),
}

#[derive(Debug, Clone)]
pub struct RotateKey {
    pub request_id: Option<RequestId>,
    pub key: KeyToRotate,
}

impl Vault {
    /// Begins the rotation of a key, or returns the run that is already rotating it.
    ///
    /// # Errors
    /// `MasterKeyNotReady`, `WorkspaceNotFound`, `WorkspaceShredded`, `KeyServiceUnavailable`.
    pub async fn rotate_key(
        self: &Arc<Self>,
        caller: &Principal,
        command: RotateKey,
    ) -> Result<JobRun, VaultError> {
        let named = match &command.key {
            KeyToRotate::Master => {
                require_all_workspaces(caller)?;
                ""
            }
            KeyToRotate::Workspace(id) if !caller.workspaces.contains(id) => {
                return Err(VaultError::WorkspaceNotFound(id.clone()));
            }
            KeyToRotate::Workspace(id) => id.as_str(),
        };
        let request = self.request("RotateKey", command.request_id.as_ref(), &[named.as_bytes()]);
        let work = async |claim| {
            let run = self.begin_rotation(&command.key).await?;
            self.finish_afterwards(claim, StartedRun { run: run.id }).await;
            tracing::warn!(job = run.job, run = %run.id, workspace = named, by = caller.name, "key rotation requested");
            Ok(run)
        };
        self.once(caller, request, work, async |started| self.started_run(started).await).await
    }

    /// Begins the rotation, or finds the run in progress.
    async fn begin_rotation(self: &Arc<Self>, key: &KeyToRotate) -> Result<JobRun, VaultError> {
        for _ in 0..TRIES {
            let job = match key {
                KeyToRotate::Master => JobKind::MasterKeyRotation,
                KeyToRotate::Workspace(_) => JobKind::DataKeyRotation,
            };
            let new = self.new_run(job, self.clock.now(), RunCause::Request);
            // The job is in flight before its run is written: a run without a task would look abandoned.
            let in_flight = self.jobs.runs.enter(job.as_str());
            let free = in_flight.is_some();
            let begun = match key {
                KeyToRotate::Master => self.activate_newest(new.clone(), free).await,
                KeyToRotate::Workspace(id) => self.begin_data_key(id, new.clone(), free).await,
            };
            match begun {
                Ok(true) => {
                    if let Some(in_flight) = in_flight {
                        self.spawn_run(job, new.clone(), in_flight);
                    }
                    return Ok(new);
                }
                Ok(false) => {
                    if let Some(run) = self.store.read().await?.running(job.as_str()).await? {
                        return Ok(run);
                    }
                }
                Err(VaultError::KeysChanged(_)) => self.adopt_keys().await?,
                Err(error) => return Err(error),
            }
        }
        Err(VaultError::Overloaded)
    }

    /// Makes the newest master key the active one, and begins the run that wraps all keys with it, if this process is
    /// `free` for a run. `false`: a run is already in progress.
    async fn activate_newest(&self, run: JobRun, free: bool) -> Result<bool, VaultError> {
        if let Err(error) = self.keys.ring().master.look(true).await {
            return Err(key_service_failed(&error));
        }
        self.adopt_keys().await?;
        let ring = self.keys.ring();
        let newest = ring.master.newest().ok_or(VaultError::Internal)?;
        let vault_id = self.keys.vault.vault_id;
        let not_ready = |replicas: Vec<String>, why: &'static str| VaultError::MasterKeyNotReady {
            key_id: newest.clone(),
            replicas,
            why,
        };
        let mut session = self.store.read().await?;
        if newest == ring.active {
            if session.count_keys_not_under(&newest).await? == 0 {
                return Err(not_ready(Vec::new(), "it is the active one already, and there is no newer one"));
            }
            drop(session);
            return Ok(free && self.begin_run_row(run, RunCause::Request).await?);
        }
        let known = session.master_keys().await?.into_iter().find(|known| known.id == newest);
        drop(session);
        let check_value = match known {
            Some(known) => {
                let passes = ring.master.passes_check(&newest, vault_id, &known.check_value).await;
                if !passes.map_err(|error| key_service_failed(&error))? {
                    return Err(not_ready(
                        Vec::new(),
                        "another key had this id before; give the new key an id of its own",
                    ));
                }
                known.check_value
            }
            None => ring
                .master
                .check_value(&newest, vault_id)
                .await
                .map_err(|error| key_service_failed(&error))?,
        };
        // The run's own start time, so that the run counts as having seen this change.
        let (record, now) = (MasterKeyRecord { id: newest.clone(), check_value }, run.started_at);
        let begun = self
            .store
            .write_with(Needs { alone: true, ..Needs::default() }, move |tx| {
                let (record, run) = (record.clone(), run.clone());
                Box::pin(async move {
                    let replicas = tx.replicas().await?;
                    let lacking: Vec<_> = replicas
                        .into_iter()
                        .filter(|replica| !replica.master_keys.contains(&record.id))
                        .map(|replica| replica.name)
                        .collect();
                    if !lacking.is_empty() {
                        return Err(Abort::Work(VaultError::MasterKeyNotReady {
                            key_id: record.id,
                            replicas: lacking,
                            why: "replicas that are alive do not hold it yet",
                        }));
                    }
                    tx.activate_master_key(&record, now).await?;
                    tx.audit_object(format!("master_key:{}", record.id), now);
                    Ok(free && tx.begin_run(&run, RunCause::Request).await?)
                })
            })
            .await?
            .0;
        tracing::warn!(key = newest, "a new master key is the active one");
        self.adopt_keys().await?;
        Ok(begun)
    }

    /// Gives a workspace a new data key, and begins the run that encrypts its secrets with it, if this process is
    /// `free` for a run. `false`: a run is already in progress, and covers this workspace too.
    async fn begin_data_key(
        &self,
        workspace: &WorkspaceId,
        run: JobRun,
        free: bool,
    ) -> Result<bool, VaultError> {
        self.store.forget_workspace(workspace);
        let keys = self
            .workspace_keys(workspace)
            .await?
            .ok_or_else(|| VaultError::WorkspaceNotFound(workspace.clone()))?;
        let newest = keys.newest().ok_or_else(|| VaultError::WorkspaceKeysCorrupt(workspace.clone()))?;
        let ring = self.keys.ring();
        let key_use = KeyUse {
            purpose: "data",
            workspace: workspace.as_str(),
            version: newest.version().saturating_add(1),
        };
        let (key, id, now) = (self.fresh_key(&ring, key_use).await?, workspace.clone(), run.started_at);
        Ok(self
            .store
            .write_with(Needs { alone: true, ..Needs::default() }, move |tx| {
                let (key, run, id) = (key.clone(), run.clone(), id.clone());
                Box::pin(async move {
                    match tx.lock_workspace(&id).await? {
                        Some(false) => {}
                        Some(true) => return Err(Abort::Work(VaultError::WorkspaceShredded(id))),
                        None => return Err(Abort::Work(VaultError::WorkspaceNotFound(id))),
                    }
                    // Let an unfinished rotation continue: a workspace never has more than two data keys.
                    let under_way = tx.workspaces_with_old_keys().await?.0.contains(&id);
                    if !under_way && !tx.add_data_key(&id, &key, now).await? {
                        return Err(Abort::Work(VaultError::KeysChanged(id)));
                    }
                    tx.audit_object(format!("data_key:{id}"), now);
                    Ok(free && tx.begin_run(&run, RunCause::Request).await?)
                })
            })
            .await?
            .0)
    }
}
