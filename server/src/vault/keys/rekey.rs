//! Changing keys while they are in use. A new master key wraps every other key anew; a new data key has its
//! workspace's secrets encrypted anew. What is left to do is always seen from the rows, so that a run goes on
//! wherever the one before ended; what an old key made stays readable until nothing of it is left.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::crypto::{self, BreakGlassSealingKey, WrapError};
use crate::model::{ConnectionId, Principal, RequestId, WorkspaceId};
use crate::store::{
    Abort, JobRun, KeyPlace, MasterKeyRecord, Needs, RunCause, SealedRow, StoredKey, Tx, WrappedKey,
};
use crate::vault::error::VaultError;
use crate::vault::jobs::schedule::{JobKind, Progress, RunFailed, StartedRun};
use crate::vault::keys::keyring::{KeyUse, Ring, TRIES, key_binding, key_service_failed, second_wrap};
use crate::vault::state::Vault;
use crate::vault::token::custody::binding_of;

/// Begins the rotation of a key.
#[derive(Debug, Clone)]
pub struct RotateKey {
    /// Idempotency key.
    pub request_id: Option<RequestId>,
    /// Which.
    pub key: KeyToRotate,
}

/// Which key to rotate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyToRotate {
    /// The newest master key becomes the active one.
    Master,
    /// A workspace gets a new data key.
    Workspace(WorkspaceId),
}

/// One master key that this process holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterKeyState {
    /// Names it.
    pub id: String,
    /// It wraps new keys.
    pub active: bool,
    /// How many keys it wraps now.
    pub keys: i64,
}

/// How often a run looks for keys that it missed.
const PASSES: u32 = 10;
/// Wrapped keys written in one transaction.
const REWRAPPED_AT_ONCE: i64 = 200;
/// Connections whose secrets are encrypted anew in one transaction.
const RESEALED_AT_ONCE: i64 = 200;
/// How often it is looked whether every replica is past the last change.
const LOOK: Duration = Duration::from_millis(200);
/// How often it is looked for keys without a break-glass wrap.
const BACK_FILL: Duration = Duration::from_secs(600);

impl Vault {
    /// Takes up what changed about master keys: another one is active, or the key file or the key service has
    /// others. Called every second.
    ///
    /// # Errors
    /// `StorageUnavailable`.
    pub async fn adopt_keys(&self) -> Result<(), VaultError> {
        // One at a time: what was read later must not be followed by what was read earlier.
        let _one = self.adopting.lock().await;
        let ring = self.keys.ring();
        ring.master.keep_alive().await;
        let before = ring.master.ids();
        let mut master = ring.master.clone();
        match master.look(false).await {
            Ok(_) => self.key_service_told.clear(),
            Err(error) => self.key_service_told.tell(&error.to_string()),
        }
        if self.keys.source.has_changed() {
            match self.read_keys_again().await? {
                Ok(fresh) => {
                    self.key_file_told.clear();
                    master = fresh;
                }
                Err(why) => {
                    // Looked at again next time: what it lacks may not be needed any more by then.
                    self.keys.source.forget();
                    self.key_file_told.tell(&why);
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
            tracing::info!(keys = ?ids, "master keys at hand");
        }
        self.keys.take_ring(Ring { master, active });
        if ids != *self.reported_keys.lock().unwrap_or_else(PoisonError::into_inner) {
            self.store.report_master_keys(ids.clone()).await?;
            *self.reported_keys.lock().unwrap_or_else(PoisonError::into_inner) = ids;
        }
        Ok(())
    }

    /// The keys as the file has them now; `Err` with words when they can't be taken.
    async fn read_keys_again(&self) -> Result<Result<crypto::MasterKeys, String>, VaultError> {
        let fresh = match self.keys.source.read(false) {
            Ok(Some(fresh)) => fresh,
            Ok(None) => return Ok(Err("there is no master key any more; the ones at hand stay".into())),
            Err(error) => return Ok(Err(format!("{error}; the keys at hand stay"))),
        };
        let mut session = self.store.read().await?;
        let needed = session.needed_master_keys().await?;
        let missing: Vec<_> = needed.into_iter().filter(|id| !fresh.holds(id)).collect();
        if !missing.is_empty() {
            return Ok(Err(format!(
                "the key file lacks {}, which keys are still wrapped by; the keys at hand stay",
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
                    "the key file has other bytes under the id {}; the keys at hand stay",
                    known.id
                )));
            }
        }
        Ok(Ok(fresh))
    }

    /// The master keys at hand, the active one first, and how many keys each wraps.
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

    /// Begins the rotation of a key, or answers with the run that is at it.
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
                Self::must_reach_all(caller)?;
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
            tracing::warn!(job = run.job, run = %run.id, workspace = named, by = caller.name, "key rotation asked for");
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
            // In flight first: a run that is in the table and has no task would seem to have been abandoned.
            let in_flight = self.runs.enter(job.as_str());
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

    /// Makes the newest master key the active one, and begins the run that wraps all keys by it. `false`: a run is
    /// at it already.
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
            return self.begin_unless_running(run, free).await;
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
        // The run's own beginning: it has seen whatever was begun with it.
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
                        return Err(Abort::Refused(VaultError::MasterKeyNotReady {
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

    async fn begin_unless_running(&self, run: JobRun, free: bool) -> Result<bool, VaultError> {
        Ok(self
            .store
            .write(move |tx| {
                let run = run.clone();
                Box::pin(async move {
                    let begun = free && tx.begin_run(&run, RunCause::Request).await?;
                    if begun {
                        tx.audit_object(format!("job_run:{}", run.id), run.started_at);
                    }
                    Ok::<_, Abort<VaultError>>(begun)
                })
            })
            .await?)
    }

    /// Gives a workspace a new data key, and begins the run that encrypts its secrets by it, where this process is
    /// `free` for one. `false`: a run is at work already, and does it too.
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
                        Some(true) => return Err(Abort::Refused(VaultError::WorkspaceShredded(id))),
                        None => return Err(Abort::Refused(VaultError::WorkspaceNotFound(id))),
                    }
                    // One that is not done yet is gone on with: a workspace never has more than two data keys.
                    let under_way = tx.workspaces_with_old_keys().await?.0.contains(&id);
                    if !under_way && !tx.add_data_key(&id, &key, now).await? {
                        return Err(Abort::Refused(VaultError::KeysChanged(id)));
                    }
                    tx.audit_object(format!("data_key:{id}"), now);
                    Ok(free && tx.begin_run(&run, RunCause::Request).await?)
                })
            })
            .await?
            .0)
    }

    /// Whether there is work for a job that only a change begins, and that its latest run can't have seen.
    pub(in crate::vault) async fn key_work_waits(&self, job: JobKind) -> Result<bool, VaultError> {
        let mut session = self.store.read().await?;
        let last = session.last_run(job.as_str()).await?.map(|run| run.started_at);
        Ok(match job {
            JobKind::MasterKeyRotation => {
                let since = session.active_since().await?;
                last.is_none_or(|last| last < since)
                    && session.count_keys_not_under(&self.keys.ring().active).await? > 0
            }
            JobKind::DataKeyRotation => {
                let (workspaces, since) = session.workspaces_with_old_keys().await?;
                !workspaces.is_empty() && last.is_none_or(|last| last < since)
            }
            JobKind::BreakGlass => {
                let Some(sealing) = &self.keys.break_glass else { return Ok(false) };
                self.is_time_to_back_fill() && session.count_keys_not_for(sealing.id()).await? > 0
            }
            JobKind::Shredding => !session.workspaces_to_bury().await?.is_empty(),
            _ => false,
        })
    }

    fn is_time_to_back_fill(&self) -> bool {
        let mut looked = self.back_fill.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.is_some_and(|at| at.elapsed() < BACK_FILL) {
            return false;
        }
        *looked = Some(Instant::now());
        true
    }

    /// Wraps every key by the active master key.
    pub(in crate::vault) async fn rewrap_keys(
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
            let mut after = KeyPlace::default();
            while self.keys.ring().active == active {
                let page =
                    self.store.read().await?.keys_not_under(&active, &after, REWRAPPED_AT_ONCE).await?;
                let Some(last) = page.last() else { break };
                after = last.place.clone();
                let wrapping = Wrapping::Master(Arc::clone(&ring));
                self.write_keys(run, progress, page, &wrapping).await?;
            }
            // What somebody else wrote at the same time is done in another pass, and so is all if yet another master
            // key has become the active one.
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

    /// Encrypts every key to the break-glass key that lacks it.
    pub(in crate::vault) async fn back_fill(
        &self,
        run: &mut JobRun,
        progress: &Progress<'_>,
    ) -> Result<(), RunFailed> {
        let Some(sealing) = &self.keys.break_glass else { return Ok(()) };
        let mut after = KeyPlace::default();
        run.done -= std::mem::take(&mut run.failed);
        run.total = run.done + self.store.read().await?.count_keys_not_for(sealing.id()).await?;
        loop {
            let page = self.store.read().await?.keys_not_for(sealing.id(), &after, REWRAPPED_AT_ONCE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.place.clone();
            self.write_keys(run, progress, page, &Wrapping::BreakGlass(sealing.clone())).await?;
        }
    }

    fn binding_at<'a>(&self, stored: &'a StoredKey) -> crypto::KeyBinding<'a> {
        let KeyPlace { workspace, purpose } = &stored.place;
        key_binding(self.keys.vault.vault_id, purpose, workspace, &stored.key)
    }

    /// Unwraps a page of keys, has each wrapped otherwise, and writes them.
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
                        workspace = stored.place.workspace, purpose = stored.place.purpose, key = %stored.key.key_id,
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
                    // Never back under a key that is not the active one any more.
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

    /// Encrypts the secrets of every workspace that has a newer data key by that, and deletes the older ones.
    pub(in crate::vault) async fn reencrypt(
        &self,
        run: &mut JobRun,
        progress: &Progress<'_>,
    ) -> Result<(), RunFailed> {
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
            let Some(newest) = keys.newest().map(crypto::DataKey::version) else {
                stuck.insert(workspace);
                continue;
            };
            run.total = run.done + self.store.read().await?.count_old_secrets(&workspace, newest).await?;
            progress.note(run).await?;
            let mut after: Option<ConnectionId> = None;
            loop {
                let mut session = self.store.read().await?;
                let page =
                    session.connections_with_old_secrets(&workspace, newest, after, RESEALED_AT_ONCE).await?;
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
                    // A newer key still, or none any more: looked at again from the top.
                    Err(VaultError::KeysChanged(_)) => break,
                    Err(error) => return Err(error.into()),
                };
                run.done += done + failed;
                run.failed += failed;
                run.total = run.total.max(run.done);
                progress.note(run).await?;
            }
            self.everyone_is_past_now().await?;
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
                // What was sealed while we waited is done in another round; what does not open stays.
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

    /// Waits until every living replica has applied what is committed now.
    async fn everyone_is_past_now(&self) -> Result<(), RunFailed> {
        let target = self.store.read().await?.last_revision().await?;
        loop {
            let replicas = self.store.read().await?.replicas().await?;
            if replicas.iter().all(|replica| replica.applied_revision >= target) {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.stopping.cancelled() => return Err(RunFailed::Stopped),
            }
        }
    }

    /// Unwraps the keys of every workspace, so that none is wanting when the key service is away. For the start of
    /// a process with a key service; ends early when the service does not answer.
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
                if self.stopping.is_cancelled() {
                    return;
                }
                if let Err(VaultError::KeyServiceUnavailable) = self.workspace_keys(&workspace.id).await {
                    return;
                }
                warmed += 1;
            }
        }
        tracing::info!(workspaces = warmed, "keys are unwrapped");
    }
}

/// How a key is to be wrapped beside, or in place of, how it is.
enum Wrapping {
    /// By the active master key of a ring.
    Master(Arc<Ring>),
    /// For the day when master keys are lost.
    BreakGlass(BreakGlassSealingKey),
}

impl Wrapping {
    async fn wrap(
        &self,
        ring: &Ring,
        binding: &crypto::KeyBinding<'_>,
        before: &WrappedKey,
    ) -> Result<WrappedKey, WrapError> {
        let key = ring.master.unwrap(&before.master_key, binding, &before.wrapped).await?;
        match self {
            Self::Master(ring) => {
                let wrapped = ring.master.wrap(&ring.active, binding, &key).await?;
                Ok(WrappedKey { master_key: ring.active.clone(), wrapped, ..before.clone() })
            }
            Self::BreakGlass(sealing) => {
                let wrap = second_wrap(sealing, binding, &key)?;
                Ok(WrappedKey { break_glass: Some(wrap), ..before.clone() })
            }
        }
    }
}

/// Seals the old secrets of connections anew, inside a unit of work. Says how many, and how many did not open.
async fn reseal(
    tx: &mut Tx,
    workspace: &WorkspaceId,
    connections: &[ConnectionId],
    keys: &crate::vault::keys::keyring::WorkspaceKeys,
) -> Result<(i64, i64), Abort<VaultError>> {
    let Some(newest) = keys.newest() else {
        return Err(Abort::Refused(VaultError::KeysChanged(workspace.clone())));
    };
    let (mut done, mut failed) = (Vec::new(), 0);
    for row in tx.old_secrets(connections, newest.version()).await? {
        let binding = binding_of(workspace, &row);
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
        return Err(Abort::Refused(VaultError::KeysChanged(workspace.clone())));
    }
    Ok((i64::try_from(done.len()).unwrap_or(i64::MAX), failed))
}

/// Tells trouble once, and that it is over.
#[derive(Default)]
pub(in crate::vault) struct Told(Mutex<Option<String>>);

impl Told {
    fn tell(&self, what: &str) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.as_deref() != Some(what) {
            tracing::error!("master keys: {what}");
            *told = Some(what.to_owned());
        }
    }

    fn clear(&self) {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            tracing::info!("master keys: the trouble is over");
        }
    }
}
