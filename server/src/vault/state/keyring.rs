//! The keys in use: the vault's own and each workspace's, unwrapped on first need and kept.
//!
//! Which wrapped keys a workspace has is read through the store's coherent cache; an unwrapped key is kept under the
//! key's id. So a rewrapped key need not be unwrapped again, and keys in use keep working while a key service is
//! unavailable.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use moka::sync::Cache;
use parking_lot::{Mutex, RwLock};
use uuid::Uuid;

use crate::crypto::{
    BreakGlassSealingKey, DataKey, KeyBinding, MacKey, MasterKeys, RawKey, Transit, WrapError,
};
use crate::model::{Secret, WorkspaceId, read_secret_file, shown_path};
use crate::store::{
    BreakGlassWrap, KeyPurpose, Session, VaultKeyPurpose, VaultRecord, WorkspaceKeyRows, WrappedKey,
};
use crate::vault::error::OpenError;

/// Keys of at most this many workspaces are kept unwrapped.
const WORKSPACES: u64 = 100_000;
/// How often work starts over because keys changed under it.
pub const TRIES: u32 = 3;

/// The master keys that this process holds, and the id of the one that wraps new keys.
#[derive(Debug)]
pub struct Ring {
    pub master: MasterKeys,
    pub active: String,
}

/// Where master keys come from. The file is read again while the vault runs.
pub struct KeySource {
    pub text: Option<Secret>,
    pub file: PathBuf,
    /// True if the operator configured the file; otherwise it is the one in the data folder.
    pub named: bool,
    pub transit: Option<Arc<Transit>>,
    /// The file's content when its keys were last taken.
    pub adopted: Mutex<Option<Secret>>,
}

pub struct Keys {
    ring: RwLock<Arc<Ring>>,
    pub source: KeySource,
    pub break_glass: Option<BreakGlassSealingKey>,
    /// Ask the ring, not this record, which master key is active: that changes.
    pub vault: VaultRecord,
    /// For the MACs of API keys' rows.
    pub authorization: MacKey,
    /// For the MACs of the audit log.
    pub audit: MacKey,
    /// For the hashes of requests and queries.
    pub index: MacKey,
    /// Seals page tokens.
    pub pages: DataKey,
    /// The unwrapped keys of those workspaces that needed them so far.
    pub workspaces: Cache<WorkspaceId, Arc<WorkspaceKeys>>,
}

pub struct WorkspaceKeys {
    /// The rows that the keys were unwrapped from.
    pub rows: Arc<WorkspaceKeyRows>,
    data: BTreeMap<i32, (Uuid, Arc<DataKey>)>,
    index_id: Uuid,
    /// Computes the fingerprints of its secrets.
    pub index: MacKey,
}

impl WorkspaceKeys {
    /// The key that seals new secrets.
    pub fn newest(&self) -> Option<&DataKey> {
        self.data.values().next_back().map(|(_, key)| &**key)
    }

    /// The key of a version that sealed something earlier.
    pub fn of_version(&self, version: i32) -> Option<&DataKey> {
        self.data.get(&version).map(|(_, key)| &**key)
    }
}

#[derive(Clone, Copy)]
pub struct KeyUse<'a> {
    pub purpose: &'a str,
    /// Empty for the vault's own keys.
    pub workspace: &'a str,
    pub version: i32,
}

/// A fresh key, wrapped with the active master key and sealed to the break-glass key, if there is one.
pub async fn fresh_wrapped(
    ring: &Ring,
    vault: Uuid,
    break_glass: Option<&BreakGlassSealingKey>,
    key_use: KeyUse<'_>,
) -> Result<WrappedKey, WrapError> {
    let KeyUse { purpose, workspace, version } = key_use;
    let (key_id, key) = (Uuid::new_v4(), RawKey::generate());
    let binding = KeyBinding { vault, purpose, workspace, key_id, version };
    let wrapped = ring.master.wrap(&ring.active, &binding, &key).await?;
    let break_glass = break_glass.map(|sealing| seal_to_break_glass(sealing, &binding, &key)).transpose()?;
    Ok(WrappedKey { version, key_id, master_key: ring.active.clone(), wrapped, break_glass })
}

/// Seals a key to the break-glass key.
pub fn seal_to_break_glass(
    sealing: &BreakGlassSealingKey,
    binding: &KeyBinding<'_>,
    key: &RawKey,
) -> Result<BreakGlassWrap, WrapError> {
    Ok(BreakGlassWrap { recipient: sealing.id().to_owned(), sealed: sealing.seal(binding, key)? })
}

/// What a wrapped key is bound to. With any other binding, it does not unwrap.
pub fn key_binding<'a>(
    vault: Uuid,
    purpose: &'a str,
    workspace: &'a str,
    key: &WrappedKey,
) -> KeyBinding<'a> {
    KeyBinding { vault, purpose, workspace, key_id: key.key_id, version: key.version }
}

impl KeySource {
    /// Reads the keys from the environment, else from the file, and adds those of the key service. `None`: no keys
    /// exist. With `first_start`, a configured file need not exist yet.
    pub fn read(&self, first_start: bool) -> Result<Option<MasterKeys>, OpenError> {
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
        match read_secret_file(&self.file) {
            Ok(text) => {
                let parsed = parse(&text, &self.file.display().to_string());
                if parsed.is_ok() {
                    *self.adopted.lock() = Some(text);
                }
                parsed
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && (!self.named || first_start) => {
                Ok(None)
            }
            Err(error) => {
                Err(OpenError(format!("cannot read the master key file {}: {error}", shown_path(&self.file))))
            }
        }
    }

    /// Whether the file has changed since its keys were last taken.
    pub fn has_changed(&self) -> bool {
        if self.text.is_some() {
            return false;
        }
        let Ok(text) = std::fs::read_to_string(&self.file).map(Secret::new) else { return false };
        let adopted = self.adopted.lock();
        adopted.as_ref().is_none_or(|adopted| adopted.expose() != text.expose())
    }

    /// Makes [`has_changed`](Self::has_changed) return true, so that the file is read again.
    pub fn read_again_later(&self) {
        *self.adopted.lock() = None;
    }
}

impl Keys {
    /// Unwraps the vault's own keys.
    pub async fn load(
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

    pub fn ring(&self) -> Arc<Ring> {
        Arc::clone(&self.ring.read())
    }

    pub fn set_ring(&self, ring: Ring) {
        *self.ring.write() = Arc::new(ring);
    }

    /// Unwraps a workspace's keys, except those that `known` holds under the same id.
    pub async fn open_workspace(
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
