//! Keys in use: the vault's own, and each workspace's, unwrapped on first need and kept while they are needed.
//!
//! Which wrapped keys a workspace has is read through the coherent cache; what was unwrapped is kept by the key's id.
//! So a key that is wrapped anew is not unwrapped again, and a key service that is away harms nobody whose keys
//! are in use.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use moka::sync::Cache;
use uuid::Uuid;

use crate::crypto::{
    BreakGlassSealingKey, DataKey, KeyBinding, MacKey, MasterKeys, RawKey, Transit, WrapError,
};
use crate::model::{Secret, WorkspaceId, exposure_of};
use crate::store::{
    Abort, BreakGlassWrap, KeyPurpose, Session, VaultKeyPurpose, VaultRecord, WorkspaceKeyRows, WrappedKey,
};
use crate::vault::error::{OpenError, VaultError};
use crate::vault::state::Vault;

/// Workspaces whose keys are kept at most.
const WORKSPACES: u64 = 100_000;
/// How often work is begun anew because keys changed under it.
pub(in crate::vault) const TRIES: u32 = 3;

/// The master keys at hand, and which of them wraps new keys.
#[derive(Debug)]
pub(in crate::vault) struct Ring {
    pub(in crate::vault) master: MasterKeys,
    pub(in crate::vault) active: String,
}

/// Where master keys come from. The file is read again while the vault runs.
pub(in crate::vault) struct KeySource {
    pub(in crate::vault) text: Option<Secret>,
    pub(in crate::vault) file: PathBuf,
    /// The operator named the file.
    pub(in crate::vault) named: bool,
    pub(in crate::vault) transit: Option<Arc<Transit>>,
    /// What the file held when it was last adopted.
    pub(in crate::vault) adopted: Mutex<Option<Secret>>,
}

/// The keys in use.
pub(in crate::vault) struct Keys {
    ring: RwLock<Arc<Ring>>,
    pub(in crate::vault) source: KeySource,
    pub(in crate::vault) break_glass: Option<BreakGlassSealingKey>,
    /// What this vault is. Which master key is active stands in the ring: it changes.
    pub(in crate::vault) vault: VaultRecord,
    /// MACs rows of API keys.
    pub(in crate::vault) authorization: MacKey,
    /// MACs the audit log.
    pub(in crate::vault) audit: MacKey,
    /// Hashes requests and queries.
    pub(in crate::vault) index: MacKey,
    /// Seals page tokens.
    pub(in crate::vault) pages: DataKey,
    workspaces: Cache<WorkspaceId, Arc<WorkspaceKeys>>,
}

/// One workspace's keys.
pub(in crate::vault) struct WorkspaceKeys {
    /// The rows that they were unwrapped from.
    rows: Arc<WorkspaceKeyRows>,
    data: BTreeMap<i32, (Uuid, Arc<DataKey>)>,
    index_id: Uuid,
    /// Fingerprints its secrets.
    pub(in crate::vault) index: MacKey,
}

impl WorkspaceKeys {
    /// The key that seals now.
    pub(in crate::vault) fn newest(&self) -> Option<&DataKey> {
        self.data.values().next_back().map(|(_, key)| &**key)
    }

    /// The key of a version that sealed something earlier.
    pub(in crate::vault) fn of_version(&self, version: i32) -> Option<&DataKey> {
        self.data.get(&version).map(|(_, key)| &**key)
    }
}

/// What a new key is for.
#[derive(Clone, Copy)]
pub(in crate::vault) struct KeyUse<'a> {
    pub(in crate::vault) purpose: &'a str,
    /// Whose; empty for the vault's own.
    pub(in crate::vault) workspace: &'a str,
    pub(in crate::vault) version: i32,
}

/// A fresh key, wrapped by the active master key, and for the day when that is lost.
pub(in crate::vault) async fn fresh_wrapped(
    ring: &Ring,
    vault: Uuid,
    break_glass: Option<&BreakGlassSealingKey>,
    key_use: KeyUse<'_>,
) -> Result<WrappedKey, WrapError> {
    let KeyUse { purpose, workspace, version } = key_use;
    let (key_id, key) = (Uuid::new_v4(), RawKey::generate());
    let binding = KeyBinding { vault, purpose, workspace, key_id, version };
    let wrapped = ring.master.wrap(&ring.active, &binding, &key).await?;
    let break_glass = break_glass.map(|sealing| second_wrap(sealing, &binding, &key)).transpose()?;
    Ok(WrappedKey { version, key_id, master_key: ring.active.clone(), wrapped, break_glass })
}

/// A key encrypted to the break-glass key.
pub(in crate::vault) fn second_wrap(
    sealing: &BreakGlassSealingKey,
    binding: &KeyBinding<'_>,
    key: &RawKey,
) -> Result<BreakGlassWrap, WrapError> {
    Ok(BreakGlassWrap { recipient: sealing.id().to_owned(), sealed: sealing.seal(binding, key)? })
}

/// What a wrapped key is bound to.
pub(in crate::vault) fn key_binding<'a>(
    vault: Uuid,
    purpose: &'a str,
    workspace: &'a str,
    key: &WrappedKey,
) -> KeyBinding<'a> {
    KeyBinding { vault, purpose, workspace, key_id: key.key_id, version: key.version }
}

impl KeySource {
    /// Reads the keys: from the environment, else the file; those of the key service come with them. `None`: there
    /// are none at all. `first_start`: a file that was named need not be there yet.
    pub(in crate::vault) fn read(&self, first_start: bool) -> Result<Option<MasterKeys>, OpenError> {
        let local = self.local(first_start)?;
        if local.is_none() && self.transit.is_none() {
            return Ok(None);
        }
        Ok(Some(local.unwrap_or_default().with_transit(self.transit.clone())))
    }

    fn local(&self, first_start: bool) -> Result<Option<MasterKeys>, OpenError> {
        let parse = |text: &Secret, source: &str| {
            MasterKeys::parse(text)
                .map(Some)
                .map_err(|error| OpenError(format!("the master key in {source}: {error}")))
        };
        if let Some(text) = &self.text {
            return parse(text, "TOKEN_VAULT_MASTER_KEY");
        }
        match std::fs::read_to_string(&self.file).map(Secret::new) {
            Ok(text) => {
                let parsed = parse(&text, &self.file.display().to_string());
                if parsed.is_ok() {
                    if let Some(warning) = exposure_of(&self.file) {
                        tracing::warn!("{warning}");
                    }
                    *self.adopted.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
                }
                parsed
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && (!self.named || first_start) => {
                Ok(None)
            }
            Err(error) => {
                Err(OpenError(format!("cannot read the master key file {}: {error}", self.file.display())))
            }
        }
    }

    /// Whether the file holds something else than what was adopted.
    pub(in crate::vault) fn has_changed(&self) -> bool {
        if self.text.is_some() {
            return false;
        }
        let Ok(text) = std::fs::read_to_string(&self.file).map(Secret::new) else { return false };
        let adopted = self.adopted.lock().unwrap_or_else(PoisonError::into_inner);
        adopted.as_ref().is_none_or(|adopted| adopted.expose() != text.expose())
    }

    /// Forgets what was adopted, so that the file is read again.
    pub(in crate::vault) fn forget(&self) {
        *self.adopted.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Keys {
    /// Unwraps the vault's own keys.
    pub(in crate::vault) async fn load(
        source: KeySource,
        break_glass: Option<BreakGlassSealingKey>,
        master: MasterKeys,
        vault: VaultRecord,
        session: &mut Session,
    ) -> Result<Self, OpenError> {
        let wrapped = session.vault_keys().await.map_err(|error| OpenError(error.to_string()))?;
        let newest = async |purpose: VaultKeyPurpose| {
            let name = purpose.as_str();
            let (_, key) = wrapped
                .iter()
                .rfind(|(of, _)| *of == purpose)
                .ok_or_else(|| OpenError(format!("the vault's {name} key is gone from the database")))?;
            let binding = key_binding(vault.vault_id, name, "", key);
            let raw = master.unwrap(&key.master_key, &binding, &key.wrapped).await;
            raw.map(|raw| MacKey::new(&raw)).map_err(|error| match error {
                WrapError::Corrupt => OpenError(format!(
                    "the vault's {name} key does not open under master key {}: the database was altered",
                    key.master_key
                )),
                other => OpenError(format!("the vault's {name} key can't be unwrapped: {other}")),
            })
        };
        let authorization = newest(VaultKeyPurpose::Authorization).await?;
        let audit = newest(VaultKeyPurpose::Audit).await?;
        let index = newest(VaultKeyPurpose::Index).await?;
        let pages = DataKey::new(1, &index.derive("page-tokens"));
        let ring = Ring { master, active: vault.active_master_key.clone() };
        Ok(Self {
            ring: RwLock::new(Arc::new(ring)),
            source,
            break_glass,
            authorization,
            audit,
            index,
            pages,
            vault,
            workspaces: Cache::new(WORKSPACES),
        })
    }

    /// The master keys at hand now.
    pub(in crate::vault) fn ring(&self) -> Arc<Ring> {
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes other ones.
    pub(in crate::vault) fn take_ring(&self, ring: Ring) {
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
    }

    /// Unwraps a workspace's keys; those that are known already, by their ids, are not unwrapped again.
    async fn open_workspace(
        &self,
        rows: Arc<WorkspaceKeyRows>,
        known: Option<&WorkspaceKeys>,
    ) -> Result<WorkspaceKeys, WrapError> {
        let ring = self.ring();
        let unwrap = async |purpose: KeyPurpose, key: &WrappedKey| {
            let binding = key_binding(self.vault.vault_id, purpose.as_str(), rows.workspace.as_str(), key);
            ring.master.unwrap(&key.master_key, &binding, &key.wrapped).await
        };
        let mut data = BTreeMap::new();
        for key in &rows.data {
            let kept =
                known.and_then(|known| known.data.get(&key.version)).filter(|(id, _)| *id == key.key_id);
            let opened = match kept {
                Some((_, opened)) => Arc::clone(opened),
                None => Arc::new(DataKey::new(key.version, &unwrap(KeyPurpose::Data, key).await?)),
            };
            data.insert(key.version, (key.key_id, opened));
        }
        let index = rows.index.first().ok_or(WrapError::Corrupt)?;
        let index_id = index.key_id;
        let index = match known.filter(|known| known.index_id == index_id) {
            Some(known) => known.index.clone(),
            None => MacKey::new(&unwrap(KeyPurpose::Index, index).await?),
        };
        Ok(WorkspaceKeys { rows, data, index_id, index })
    }
}

impl Vault {
    /// A workspace's keys; `None` when it has none yet.
    ///
    /// # Errors
    /// `WorkspaceShredded`, `WorkspaceKeysCorrupt`, `KeyServiceUnavailable`.
    pub(in crate::vault) async fn workspace_keys(
        &self,
        workspace: &WorkspaceId,
    ) -> Result<Option<Arc<WorkspaceKeys>>, VaultError> {
        let Some(rows) = self.store.workspace_key_rows(workspace).await? else { return Ok(None) };
        if rows.shredded {
            self.keys.workspaces.invalidate(workspace);
            return Err(VaultError::WorkspaceShredded(workspace.clone()));
        }
        let known = self.keys.workspaces.get(workspace);
        if let Some(known) = &known
            && Arc::ptr_eq(&known.rows, &rows)
        {
            return Ok(Some(Arc::clone(known)));
        }
        let keys = match self.keys.open_workspace(rows, known.as_deref()).await {
            Ok(keys) => Arc::new(keys),
            Err(error) => return Err(wrap_failed(&error, workspace)),
        };
        self.keys.workspaces.insert(workspace.clone(), Arc::clone(&keys));
        Ok(Some(keys))
    }

    /// A workspace's keys, made now if it is new.
    pub(in crate::vault) async fn workspace_keys_or_new(
        &self,
        workspace: &WorkspaceId,
    ) -> Result<Arc<WorkspaceKeys>, VaultError> {
        for _ in 0..TRIES {
            if let Some(keys) = self.workspace_keys(workspace).await? {
                return Ok(keys);
            }
            let ring = self.keys.ring();
            let (id, now) = (workspace.clone(), self.clock.now());
            let mut keys = Vec::new();
            for purpose in [KeyPurpose::Data, KeyPurpose::Index] {
                let key_use = KeyUse { purpose: purpose.as_str(), workspace: workspace.as_str(), version: 1 };
                keys.push((purpose, self.fresh_key(&ring, key_use).await?));
            }
            let added = self
                .store
                .write(move |tx| {
                    let (id, keys) = (id.clone(), keys.clone());
                    Box::pin(
                        async move { Ok::<_, Abort<VaultError>>(tx.add_workspace(&id, &keys, now).await?) },
                    )
                })
                .await?;
            if !added {
                // Another master key is the active one by now.
                self.adopt_keys().await?;
            }
        }
        self.workspace_keys(workspace).await?.ok_or(VaultError::Overloaded)
    }

    /// A fresh key under the active master key.
    pub(in crate::vault) async fn fresh_key(
        &self,
        ring: &Ring,
        key_use: KeyUse<'_>,
    ) -> Result<WrappedKey, VaultError> {
        fresh_wrapped(ring, self.keys.vault.vault_id, self.keys.break_glass.as_ref(), key_use)
            .await
            .map_err(|error| key_service_failed(&error))
    }
}

/// Why a workspace's keys can't be used.
fn wrap_failed(error: &WrapError, workspace: &WorkspaceId) -> VaultError {
    match error {
        WrapError::Corrupt => {
            tracing::error!(%workspace, "a workspace's keys do not open: the database was altered");
            VaultError::WorkspaceKeysCorrupt(workspace.clone())
        }
        other => key_service_failed(other),
    }
}

/// Why a key can't be wrapped or unwrapped now.
pub(in crate::vault) fn key_service_failed(error: &WrapError) -> VaultError {
    tracing::warn!(%error, "a key can't be wrapped or unwrapped now");
    VaultError::KeyServiceUnavailable
}
