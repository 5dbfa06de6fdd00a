//! The master keys at the start of a process: where they come from, and whether they fit the database.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use backon::{ConstantBuilder, Retryable};
use parking_lot::Mutex;

use crate::crypto::{MasterKeys, Transit, WrapError};
use crate::model::Secret;
use crate::store::{Session, VaultRecord};
use crate::vault::error::OpenError;
use crate::vault::opening::config::VaultConfig;
use crate::vault::opening::waiting::{Missing, StartWait};
use crate::vault::state::keyring::KeySource;

/// How long a start waits for a key service that does not let it in, and a command for one that is away.
const KEY_SERVICE_WAIT: Duration = Duration::from_secs(10);
/// A start that waits tries once a second, and says so once in this many tries.
const TRIES_PER_LINE: u32 = 30;

/// Checks that every master key which the database needs is configured, and is the right one.
pub async fn check_master_keys(
    master: &MasterKeys,
    record: &VaultRecord,
    session: &mut Session,
) -> Result<(), OpenError> {
    let missing: Vec<_> =
        session.needed_master_keys().await?.into_iter().filter(|id| !master.holds(id)).collect();
    if !missing.is_empty() {
        return Err(OpenError(format!(
            "this database needs the master key{} with id {}; configured: {}",
            if missing.len() == 1 { "" } else { "s" },
            missing.join(", "),
            master.ids().join(", ")
        )));
    }
    for known in session.master_keys().await? {
        if !master.holds(&known.id) {
            continue;
        }
        let passes = master.passes_check(&known.id, record.vault_id, &known.check_value).await;
        match passes {
            Ok(true) => {}
            Ok(false) => {
                return Err(OpenError(format!(
                    "the configured master key {} is not the one that this database was written under: same id, other bytes",
                    known.id
                )));
            }
            Err(error) => {
                return Err(OpenError(format!("the master key {} can't be checked: {error}", known.id)));
            }
        }
    }
    Ok(())
}

pub fn no_key(record: &VaultRecord) -> OpenError {
    OpenError(format!(
        "this database was written under master key {0}, and no master key is configured: set TOKEN_VAULT_MASTER_KEY or \
         keys.master_key_file to the key with id {0}",
        record.active_master_key
    ))
}

/// Where master keys come from: the environment, else the configured file, else the file in the data folder; and
/// the key service, if one is configured.
pub fn key_source(config: &VaultConfig) -> Result<KeySource, OpenError> {
    let transit = match &config.transit {
        Some(transit) => Some(Arc::new(
            Transit::new(transit.clone()).map_err(|why| OpenError(format!("keys.transit: {why}")))?,
        )),
        None => None,
    };
    Ok(KeySource {
        text: config.master_key.as_ref().map(|text| Secret::new(text.expose().to_owned())),
        file: config.master_key_file.clone().unwrap_or_else(|| default_key_file(config)),
        named: config.master_key_file.is_some(),
        transit,
        adopted: Mutex::default(),
    })
}

/// Waits for the key service, if one is configured. If no key needs the service, the vault starts without it.
pub async fn find_key_service(
    master: &MasterKeys,
    needed: &[String],
    wait: &StartWait,
) -> Result<(), OpenError> {
    if !master.has_transit() {
        return Ok(());
    }
    let (began, tries) = (Instant::now(), AtomicU32::new(0));
    let is_spare = || !needed.is_empty() && needed.iter().all(|id| master.holds(id));
    let found = (|| master.look(true))
        .retry(ConstantBuilder::default().with_delay(Duration::from_secs(1)).without_max_times())
        .when(|_| !is_spare())
        .notify(|error, _| {
            if tries.fetch_add(1, Ordering::Relaxed).is_multiple_of(TRIES_PER_LINE) {
                tracing::warn!(%error, "waiting for the key service");
            }
            wait.tell(Missing::KeyService);
        })
        .adjust(|error, pause| {
            let endless =
                matches!((wait, error), (StartWait::UntilItIsBack { .. }, WrapError::Unavailable(_)));
            pause.filter(|_| endless || began.elapsed() <= KEY_SERVICE_WAIT)
        });
    let found = wait.unless_given_up(async { Ok(found.await) }).await?;
    match found {
        Ok(_) => Ok(()),
        Err(error) if is_spare() => {
            tracing::error!(%error, "the key service of keys.transit can't be used yet; no key needs it so far");
            Ok(())
        }
        Err(error) => Err(OpenError(format!(
            "the key service of keys.transit, which holds the master key, can't be used: {error}; waited {} s for it",
            KEY_SERVICE_WAIT.as_secs()
        ))),
    }
}

pub fn default_key_file(config: &VaultConfig) -> PathBuf {
    config.data_dir.join("master.key")
}
