//! The very first start: the vault's identity, its keys, a master key and the bootstrap admin key.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use uuid::Uuid;
use zeroize::Zeroize;

use crate::crypto::{
    KeyBinding, MacKey, MasterKeys, PresentedKey, RawKey, create_key_file, create_secret_file, fresh_key_id,
};
use crate::model::{Clock, Role, Secret, WorkspaceSet, read_secret_file, shown_path};
use crate::store::{
    Abort, ApiKeyFacts, ApiKeyRecord, Backend, MasterKeyRecord, Origin, Store, VaultKeyPurpose, VaultRecord,
    WrappedKey,
};
use crate::vault::access::api_key_row::row_mac;
use crate::vault::error::{OpenError, VaultError};
use crate::vault::opening::config::{FirstStart, VaultConfig};
use crate::vault::opening::master_keys::default_key_file;
use crate::vault::state::keyring::{KeyUse, Ring, fresh_wrapped};

/// A master key is created only for a new SQLite database. On PostgreSQL, replicas must share one, so the operator
/// must configure it.
pub fn create_master_key(
    config: &VaultConfig,
    backend: Backend,
    first: &mut FirstStart,
) -> Result<MasterKeys, OpenError> {
    if backend == Backend::Postgres {
        return Err(OpenError(
            "no master key is configured: on PostgreSQL every replica needs the same one; set TOKEN_VAULT_MASTER_KEY or \
             keys.master_key_file to a line tvk1:<id>:<base64 of 32 random bytes>"
                .into(),
        ));
    }
    let path = config.master_key_file.clone().unwrap_or_else(|| default_key_file(config));
    let line = create_key_file(&path, &fresh_key_id()).map_err(|error| {
        OpenError(format!("cannot write the master key file {}: {error}", shown_path(&path)))
    })?;
    first.master_key_file = Some(path);
    MasterKeys::parse(&line).map_err(|error| OpenError(error.to_string()))
}

/// Sets up a new vault in one transaction. The files are durable before it commits.
pub async fn set_up(
    store: &Store,
    config: &VaultConfig,
    master: &MasterKeys,
    clock: &Clock,
    first: &mut FirstStart,
) -> Result<VaultRecord, OpenError> {
    let corrupt = |error| OpenError(format!("the master key can't wrap keys: {error}"));
    let active = master.newest().ok_or_else(|| OpenError("there is no master key".into()))?;
    let record = VaultRecord {
        vault_id: Uuid::new_v4(),
        feed_epoch: Uuid::new_v4(),
        active_master_key: active.clone(),
        created_at: clock.now(),
    };
    let check_value = master.check_value(&active, record.vault_id).await.map_err(corrupt)?;
    let ring = Ring { master: master.clone(), active: active.clone() };
    let mut keys = Vec::with_capacity(VaultKeyPurpose::ALL.len());
    for &purpose in VaultKeyPurpose::ALL {
        let key_use = KeyUse { purpose: purpose.as_str(), workspace: "", version: 1 };
        let fresh = fresh_wrapped(&ring, record.vault_id, config.break_glass.as_ref(), key_use).await;
        keys.push((purpose, fresh.map_err(corrupt)?));
    }
    let authorization = authorization_key(master, &record, &keys).await?;

    let (key, written) = bootstrap_key(config)?;
    let presented = PresentedKey::parse(&key)
        .map_err(|error| OpenError(format!("the bootstrap key: {error}; let the vault make one")))?;
    let facts = ApiKeyFacts {
        id: presented.id.clone(),
        principal: "bootstrap-admin".into(),
        role: Role::Admin,
        workspaces: WorkspaceSet::All,
        created_at: clock.now(),
        expires_at: None,
        last_used_at: None,
        revoked_at: None,
        replaced_by: None,
    };
    let mac = row_mac(&authorization, &facts, &presented.hash());
    let admin = ApiKeyRecord { api_key: facts, hash: presented.hash(), mac: mac.to_vec() };

    let (unit_record, now) = (record.clone(), clock.now());
    let master_record = MasterKeyRecord { id: active, check_value };
    let founding = store.write(move |tx| {
        let (record, master, keys, admin) =
            (unit_record.clone(), master_record.clone(), keys.clone(), admin.clone());
        Box::pin(async move {
            let won = tx.found_vault(&record, &master, &keys, now).await?;
            if won {
                tx.insert_api_key(&admin).await?;
                tx.audit_api_key(&admin.api_key, now);
            }
            Ok::<_, Abort<VaultError>>(won)
        })
    });
    let won = Arc::new(Origin::system("vault")).scope(founding).await?;
    if won {
        first.bootstrap_key_file = written;
        return Ok(record);
    }
    // Another replica was first, and its bootstrap key is the valid one: delete ours.
    if let Some(path) = written {
        let _ = std::fs::remove_file(path);
    }
    store.read().await?.vault().await?.ok_or_else(|| OpenError("the vault's row has disappeared".into()))
}

async fn authorization_key(
    master: &MasterKeys,
    record: &VaultRecord,
    keys: &[(VaultKeyPurpose, WrappedKey)],
) -> Result<MacKey, OpenError> {
    let (_, key) = keys
        .iter()
        .find(|(purpose, _)| *purpose == VaultKeyPurpose::Authorization)
        .ok_or_else(|| OpenError("no authorization key was made".into()))?;
    let binding = KeyBinding {
        vault: record.vault_id,
        purpose: VaultKeyPurpose::Authorization.as_str(),
        workspace: "",
        key_id: key.key_id,
        version: key.version,
    };
    let raw: RawKey = master
        .unwrap(&key.master_key, &binding, &key.wrapped)
        .await
        .map_err(|_| OpenError("the authorization key does not open".into()))?;
    Ok(MacKey::new(&raw))
}

/// The bootstrap admin key: the configured one, or a fresh one in a new file. If an earlier start died between file and
/// commit, its file is used.
fn bootstrap_key(config: &VaultConfig) -> Result<(Secret, Option<PathBuf>), OpenError> {
    let trimmed = |text: Secret| Secret::new(text.expose().trim().to_owned());
    if let Some(path) = &config.bootstrap_key_file {
        return read_secret_file(path).map(|text| (trimmed(text), None)).map_err(|error| {
            OpenError(format!(
                "cannot read auth.bootstrap_key_file, which names {}: {error}",
                shown_path(path)
            ))
        });
    }
    let path = config.data_dir.join("bootstrap-admin.key");
    let (key, _) = PresentedKey::mint().map_err(|error| OpenError(error.to_string()))?;
    let mut line = format!("{}\n", key.expose());
    let outcome = create_secret_file(&path, &Secret::new(line.clone()));
    line.zeroize();
    match outcome {
        Ok(()) => Ok((key, Some(path))),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_secret_file(&path)
            .map(|text| (trimmed(text), None))
            .map_err(|error| OpenError(format!("cannot read {}: {error}", path.display()))),
        Err(error) => Err(OpenError(format!("cannot write {}: {error}", path.display()))),
    }
}
