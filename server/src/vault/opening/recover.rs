//! Recovery from a lost master key: opens every key with the break-glass opening key and wraps it with a new master
//! key. No vault process may run meanwhile.

use std::time::{Duration, Instant};

use crate::audit::SinkConfig;
use crate::crypto::{BreakGlassOpeningKey, RawKey, WrapError};
use crate::model::{Clock, Incarnation};
use crate::store::{Abort, KeyPosition, MasterKeyRecord, Origin, Store, StoreConfig, StoredKey, WrappedKey};
use crate::vault::error::{OpenError, VaultError};
use crate::vault::opening::config::VaultConfig;
use crate::vault::opening::master_keys::key_source;
use crate::vault::opening::start::make_data_folder;
use crate::vault::state::Vault;
use crate::vault::state::keyring::key_binding;

/// Keys written in one transaction.
const AT_ONCE: i64 = 200;
/// How long to wait until killed processes count as ended.
const ENDED: Duration = Duration::from_secs(8);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// How many keys were wrapped anew.
    pub keys: u64,
    /// The id of the master key that wraps them now.
    pub master_key: String,
}

impl Vault {
    /// Opens every key with the break-glass opening key and wraps it with the newest configured master key. Changes
    /// nothing unless every key opens. An interrupted recovery can be repeated.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub async fn recover_keys(
        config: VaultConfig,
        opening: &BreakGlassOpeningKey,
    ) -> Result<Recovered, OpenError> {
        make_data_folder(&config)?;
        let store = std::sync::Arc::new(
            Store::open(StoreConfig {
                url: config.database_url.expose(),
                migrate: config.migrate_on_start,
                incarnation: Incarnation::generate(),
                audit: config.audit.sink != SinkConfig::Off,
                clock: Clock::system(),
            })
            .await?,
        );
        let origin = std::sync::Arc::new(Origin::system("break-glass"));
        let outcome = origin.scope(recover(&store, &config, opening)).await;
        store.close().await;
        outcome
    }
}

async fn recover(
    store: &Store,
    config: &VaultConfig,
    opening: &BreakGlassOpeningKey,
) -> Result<Recovered, OpenError> {
    let record = store
        .read()
        .await?
        .vault()
        .await?
        .ok_or_else(|| OpenError("there is no vault in this database".into()))?;
    check_that_nobody_runs(store).await?;
    let master = key_source(config)?.read(false)?.ok_or_else(|| {
        OpenError("no master key is configured: make one with `token-vault keys generate` first".into())
    })?;
    let failed = |error: WrapError| OpenError(error.to_string());
    if master.has_transit() {
        master.look(true).await.map_err(failed)?;
    }
    let target = master.newest().ok_or_else(|| OpenError("there is no master key".into()))?;
    let known = store.read().await?.master_keys().await?.into_iter().find(|known| known.id == target);
    let check_value = match known {
        Some(known) => {
            if !master.passes_check(&target, record.vault_id, &known.check_value).await.map_err(failed)? {
                return Err(OpenError(format!(
                    "the configured master key {target} has the id of another one that this vault knows; give the new key \
                     an id of its own"
                )));
            }
            known.check_value
        }
        None => master.check_value(&target, record.vault_id).await.map_err(failed)?,
    };
    // Open all keys before writing the first one.
    let mut recovered = Vec::new();
    let (mut lacking, mut after) = (Vec::new(), KeyPosition::default());
    loop {
        let page = store.read().await?.keys_not_under(&target, &after, AT_ONCE).await?;
        let Some(last) = page.last() else { break };
        after = last.position.clone();
        for stored in page {
            match open(&stored, record.vault_id, opening) {
                Some(key) => {
                    let KeyPosition { workspace, purpose } = &stored.position;
                    let binding = key_binding(record.vault_id, purpose, workspace, &stored.key);
                    let wrapped = master.wrap(&target, &binding, &key).await.map_err(failed)?;
                    let after = WrappedKey { master_key: target.clone(), wrapped, ..stored.key.clone() };
                    recovered.push((stored, after));
                }
                None => lacking.push(match stored.position.workspace.as_str() {
                    "" => format!("the vault's {} key", stored.position.purpose),
                    workspace => format!("the {} key of workspace {workspace}", stored.position.purpose),
                }),
            }
        }
    }
    if let Some(first) = lacking.first() {
        return Err(OpenError(format!(
            "{} keys do not open with this opening key ({first}, …): they are encrypted to another break-glass key or to \
             none, or were altered; nothing was changed",
            lacking.len()
        )));
    }
    let (now, keys) = (Clock::system().now(), recovered.len());
    let (master_record, recovered) =
        (MasterKeyRecord { id: target.clone(), check_value }, std::sync::Arc::new(recovered));
    store
        .write(move |tx| {
            let (record, recovered) = (master_record.clone(), std::sync::Arc::clone(&recovered));
            Box::pin(async move {
                tx.activate_master_key(&record, now).await?;
                for (before, after) in &*recovered {
                    tx.rewrap(before, after).await?;
                }
                tx.retire_master_keys(now).await?;
                // The next process that serves writes this record to the log.
                tx.audit_object(format!("master_key:{}", record.id), now);
                Ok::<_, Abort<VaultError>>(())
            })
        })
        .await?;
    Ok(Recovered { keys: u64::try_from(keys).unwrap_or(u64::MAX), master_key: target })
}

fn open(stored: &StoredKey, vault: uuid::Uuid, opening: &BreakGlassOpeningKey) -> Option<RawKey> {
    let KeyPosition { workspace, purpose } = &stored.position;
    let sealed = &stored.key.break_glass.as_ref()?.sealed;
    opening.open(&key_binding(vault, purpose, workspace, &stored.key), sealed).ok()
}

/// A running vault would keep using the keys that it holds.
async fn check_that_nobody_runs(store: &Store) -> Result<(), OpenError> {
    if store.backend() == crate::store::Backend::Sqlite {
        // This process holds the lock of the database's file.
        return Ok(());
    }
    let began = Instant::now();
    loop {
        let living = store.read().await?.replicas().await?;
        if living.is_empty() {
            return Ok(());
        }
        if began.elapsed() > ENDED {
            let names: Vec<_> = living.into_iter().map(|replica| replica.name).collect();
            return Err(OpenError(format!("replicas still run ({}); stop them first", names.join(", "))));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
