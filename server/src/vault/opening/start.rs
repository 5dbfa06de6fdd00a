//! Opening the vault: migrations, keys, and what the very first start has to found.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use uuid::Uuid;
use zeroize::Zeroize;

use crate::audit::{Audit, SinkConfig};
use crate::crypto::{
    MacKey, MasterKeys, PresentedKey, RawKey, Transit, create_key_file, create_secret_file, fresh_key_id,
    mint_api_key,
};
use crate::model::{Clock, Incarnation, Role, Secret, WorkspaceSet, exposure_of};
use crate::oidc::Issuer;
use crate::provider::Providers;
use crate::store::{
    Abort, ApiKeyFacts, ApiKeyRecord, Backend, MasterKeyRecord, Registration, Session, Store, StoreConfig,
    StoreError, VaultKeyPurpose, VaultRecord, migrate_only,
};
use crate::vault::access::callers;
use crate::vault::access::callers::{CreateApiKey, NewApiKey};
use crate::vault::audit::auditing::Relay;
use crate::vault::error::{OpenError, VaultError};
use crate::vault::keys::keyring::{KeySource, KeyUse, Keys, Ring, fresh_wrapped};
use crate::vault::opening::config::{FirstStart, VaultConfig};
use crate::vault::state::Vault;

/// How long a start waits for the key service.
const KEY_SERVICE_WAIT: Duration = Duration::from_secs(10);

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

impl From<Abort<VaultError>> for OpenError {
    fn from(abort: Abort<VaultError>) -> Self {
        match abort {
            Abort::Store(error) => error.into(),
            Abort::Refused(error) => Self(error.to_string()),
        }
    }
}

impl Vault {
    /// Opens the database (migrating it), checks the keys, does what a first start needs, and starts the
    /// background work.
    ///
    /// # Errors
    /// With a sentence for the operator: the database is away, in use, or was written under another key.
    pub async fn open(
        config: VaultConfig,
        providers: Providers,
        clock: Clock,
    ) -> Result<(Arc<Self>, FirstStart), OpenError> {
        let issuer = match config.callers.oidc.clone().map(Issuer::new).transpose() {
            Ok(issuer) => issuer.map(Arc::new),
            Err(why) => return Err(OpenError(format!("auth.oidc: {why}"))),
        };
        make_data_folder(&config)?;
        let source = key_source(&config)?;
        let incarnation = Incarnation::generate();
        let store = Store::open(StoreConfig {
            url: config.database_url.expose(),
            migrate: config.migrate_on_start,
            incarnation,
            audit: config.audit.sink != SinkConfig::Off,
            clock: clock.clone(),
        })
        .await?;

        let mut first = FirstStart::default();
        let mut session = store.read().await?;
        let known = session.vault().await.map_err(|error| match error {
            StoreError::Refused(text) => OpenError(format!(
                "the database has no vault tables ({text}); run `token-vault migrate` first"
            )),
            other => other.into(),
        })?;
        let wanted = known.as_ref().map(|record| record.active_master_key.clone());
        let local = source.read(known.is_none()).map_err(|error| match &wanted {
            Some(id) => OpenError(format!("{error}; this database needs the key with id {id}")),
            None => error,
        })?;
        if let Some(master) = &local {
            let needed = session.needed_master_keys().await.unwrap_or_default();
            find_key_service(master, &needed).await?;
        }
        let (master, record) = match known {
            Some(record) => (local.ok_or_else(|| no_key(&record))?, record),
            None => {
                let master = match local {
                    Some(master) => master,
                    None => create_master_key(&config, store.backend(), &mut first)?,
                };
                let record = found(&store, &config, &master, &clock, &mut first).await?;
                (master, record)
            }
        };
        check_master_keys(&master, &record, &mut session).await?;
        let keys = Keys::load(source, config.break_glass.clone(), master, record, &mut session).await?;
        drop(session);
        // The self-test of the log: a vault that can't record must not serve.
        let audit = Audit::open(&config.audit, keys.audit.clone(), clock.clone())
            .map_err(|error| OpenError(error.to_string()))?;
        let audit = Arc::new(audit);

        let name = format!("{}-{}", std::process::id(), incarnation);
        let ids = keys.ring().master.ids();
        let registration = Registration { name: name.clone(), master_keys: ids };
        store.register(registration, clock.now()).await?;
        let mut vault = Self::assemble(Arc::new(store), keys, providers, clock, config, name, audit);
        vault.issuer = issuer;
        // Another key may have become the active one just before this process was counted among the living.
        let (ring, mut session) = (vault.keys.ring(), vault.store.read().await?);
        check_master_keys(&ring.master, &vault.keys.vault, &mut session).await?;
        drop(session);
        if let Some(outgoing) = vault.store.take_outgoing().filter(|_| vault.audit.is_on()) {
            let relay = Relay {
                store: Arc::clone(&vault.store),
                audit: Arc::clone(&vault.audit),
                clock: vault.clock.clone(),
                stop: vault.relay_stop.clone(),
            };
            vault.relay.spawn(relay.run(outgoing));
        }
        vault.adopt_keys().await.map_err(|error| OpenError(error.to_string()))?;
        vault.keep_ledger().await;
        vault.settle_policy().await.map_err(|error| OpenError(error.to_string()))?;
        Ok((Arc::new(vault), first))
    }

    /// Applies migrations and says how many. For `token-vault migrate`.
    ///
    /// # Errors
    /// With a sentence for the operator.
    pub async fn migrate(config: &VaultConfig) -> Result<usize, OpenError> {
        make_data_folder(config)?;
        Ok(migrate_only(config.database_url.expose()).await?)
    }

    /// Makes an API key without a server. For `token-vault api-key create --offline`: the way back in when
    /// every admin key is lost. Needs the database and the master key.
    ///
    /// # Errors
    /// With a sentence for the operator.
    pub async fn create_api_key_offline(
        config: VaultConfig,
        command: CreateApiKey,
    ) -> Result<NewApiKey, OpenError> {
        let (vault, _) = Self::open(config, Providers::default(), Clock::system()).await?;
        let made = vault.as_system("offline", vault.new_api_key(&command)).await;
        let key = made.map_err(|error| OpenError(error.to_string()));
        vault.close().await;
        key
    }
}

pub(in crate::vault) fn no_key(record: &VaultRecord) -> OpenError {
    OpenError(format!(
        "this database was written under master key {0}, and no master key is configured: set TOKEN_VAULT_MASTER_KEY or \
         keys.master_key_file to the key with id {0}",
        record.active_master_key
    ))
}

/// Makes the data folder if it is not there.
pub(in crate::vault) fn make_data_folder(config: &VaultConfig) -> Result<(), OpenError> {
    std::fs::create_dir_all(&config.data_dir).map_err(|error| {
        OpenError(format!("cannot make the data folder {}: {error}", config.data_dir.display()))
    })
}

/// Where master keys come from: the environment, else the configured file, else the file in the data folder; and
/// the key service, if one is configured.
pub(in crate::vault) fn key_source(config: &VaultConfig) -> Result<KeySource, OpenError> {
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

/// Waits a little for the key service, if there is one. Where no key needs it yet, the vault starts without.
async fn find_key_service(master: &MasterKeys, needed: &[String]) -> Result<(), OpenError> {
    if !master.has_transit() {
        return Ok(());
    }
    let began = Instant::now();
    loop {
        let Err(error) = master.look(true).await else { return Ok(()) };
        let local = !needed.is_empty() && needed.iter().all(|id| master.holds(id));
        if local {
            tracing::error!(%error, "the key service of keys.transit can't be used yet; no key needs it so far");
            return Ok(());
        }
        if began.elapsed() > KEY_SERVICE_WAIT {
            return Err(OpenError(format!(
                "the key service of keys.transit, which holds the master key, can't be used: {error}; waited {} s for it",
                KEY_SERVICE_WAIT.as_secs()
            )));
        }
        tracing::warn!(%error, "waiting for the key service");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn default_key_file(config: &VaultConfig) -> PathBuf {
    config.data_dir.join("master.key")
}

fn read_secret(path: &Path) -> io::Result<Secret> {
    if let Some(warning) = exposure_of(path) {
        tracing::warn!("{warning}");
    }
    std::fs::read_to_string(path).map(Secret::new)
}

/// A master key is made only for a new SQLite database. On PostgreSQL replicas must share one, so it must be given.
fn create_master_key(
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
        OpenError(format!("cannot write the master key file {}: {error}", path.display()))
    })?;
    first.master_key_file = Some(path);
    MasterKeys::parse(&line).map_err(|error| OpenError(error.to_string()))
}

/// The first start is one transaction; files are durable before it commits.
async fn found(
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
    for purpose in VaultKeyPurpose::ALL {
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
    let mac = callers::row_mac(&authorization, &facts, &presented.hash());
    let admin = ApiKeyRecord { api_key: facts, hash: presented.hash(), mac: mac.to_vec() };

    let (unit_record, now) = (record.clone(), clock.now());
    let master_record = MasterKeyRecord { id: active, check_value };
    let won = store
        .write(move |tx| {
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
        })
        .await?;
    if won {
        first.bootstrap_key_file = written;
        return Ok(record);
    }
    // Another replica was first: its key counts, and ours must not lie around.
    if let Some(path) = written {
        let _ = std::fs::remove_file(path);
    }
    store.read().await?.vault().await?.ok_or_else(|| OpenError("the vault's row went away".into()))
}

async fn authorization_key(
    master: &MasterKeys,
    record: &VaultRecord,
    keys: &[(VaultKeyPurpose, crate::store::WrappedKey)],
) -> Result<MacKey, OpenError> {
    let (_, key) = keys
        .iter()
        .find(|(purpose, _)| *purpose == VaultKeyPurpose::Authorization)
        .ok_or_else(|| OpenError("no authorization key was made".into()))?;
    let binding = crate::crypto::KeyBinding {
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

/// The bootstrap admin key: the configured one, or a fresh one in a new file. A file that a start left which
/// died before its commit is taken up again.
fn bootstrap_key(config: &VaultConfig) -> Result<(Secret, Option<PathBuf>), OpenError> {
    let trimmed = |text: Secret| Secret::new(text.expose().trim().to_owned());
    if let Some(path) = &config.bootstrap_key_file {
        return read_secret(path).map(|text| (trimmed(text), None)).map_err(|error| {
            OpenError(format!("cannot read auth.bootstrap_key_file {}: {error}", path.display()))
        });
    }
    let path = config.data_dir.join("bootstrap-admin.key");
    let (key, _) = mint_api_key().map_err(|error| OpenError(error.to_string()))?;
    let mut line = format!("{}\n", key.expose());
    let outcome = create_secret_file(&path, &Secret::new(line.clone()));
    line.zeroize();
    match outcome {
        Ok(()) => Ok((key, Some(path))),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_secret(&path)
            .map(|text| (trimmed(text), None))
            .map_err(|error| OpenError(format!("cannot read {}: {error}", path.display()))),
        Err(error) => Err(OpenError(format!("cannot write {}: {error}", path.display()))),
    }
}

/// Never plaintext, never a guess: every key that the database needs is there and is the right one.
pub(in crate::vault) async fn check_master_keys(
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
