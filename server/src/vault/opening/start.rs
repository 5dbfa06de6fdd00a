//! The start of a process: opening the database, checking the keys, and starting the background work. Also the commands
//! that need no server.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::audit::{Audit, SinkConfig};
use crate::model::{Clock, Incarnation};
use crate::oidc::Issuer;
use crate::provider::Providers;
use crate::store::{Abort, Registration, Store, StoreConfig, StoreError, migrate_only};
use crate::vault::access::api_keys::{CreateApiKey, NewApiKey};
use crate::vault::audit::relay::Relay;
use crate::vault::error::{OpenError, VaultError};
use crate::vault::opening::config::{FirstStart, VaultConfig};
use crate::vault::opening::first_start::{create_master_key, set_up};
use crate::vault::opening::master_keys::{check_master_keys, find_key_service, key_source, no_key};
use crate::vault::opening::waiting::StartWait;
use crate::vault::state::Vault;
use crate::vault::state::access::{Access, KeyUses};
use crate::vault::state::audit::AuditTrail;
use crate::vault::state::feed::Feed;
use crate::vault::state::in_flight::InFlight;
use crate::vault::state::inspections::Inspections;
use crate::vault::state::jobs::Jobs;
use crate::vault::state::key_changes::KeyChanges;
use crate::vault::state::keyring::{KeySource, Keys};
use crate::vault::state::policy::PolicyInForce;
use crate::vault::state::work::Work;

/// How long a start that fails may take to close the database.
const CLOSE: Duration = Duration::from_secs(2);

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

impl From<Abort<VaultError>> for OpenError {
    fn from(abort: Abort<VaultError>) -> Self {
        match abort {
            Abort::Store(error) => error.into(),
            Abort::Work(error) => Self(error.to_string()),
        }
    }
}

impl Vault {
    /// Opens the database (migrating it), checks the keys, does what a first start needs, and starts the
    /// background work.
    ///
    /// # Errors
    /// A sentence for the operator: the database is unavailable, in use, or was written with another key.
    pub async fn open(
        config: VaultConfig,
        providers: Providers,
        clock: Clock,
        wait: &StartWait,
    ) -> Result<(Arc<Self>, FirstStart), OpenError> {
        let issuer = match config.callers.oidc.clone().map(Issuer::new).transpose() {
            Ok(issuer) => issuer.map(Arc::new),
            Err(why) => return Err(OpenError(format!("auth.oidc: {why}"))),
        };
        make_data_folder(&config)?;
        let source = key_source(&config)?;
        wait.for_room(config.database_url.expose()).await?;
        let incarnation = Incarnation::generate();
        let store = Store::open(StoreConfig {
            url: config.database_url.expose(),
            migrate: config.migrate_on_start,
            incarnation,
            audit: config.audit.sink != SinkConfig::Off,
            clock: clock.clone(),
        })
        .await?;
        let store = Arc::new(store);
        let opened = Self::open_on(Arc::clone(&store), config, source, issuer, providers, clock, wait).await;
        if opened.is_err() && tokio::time::timeout(CLOSE, store.close()).await.is_err() {
            tracing::warn!("the database did not close in time");
        }
        opened
    }

    async fn open_on(
        store: Arc<Store>,
        config: VaultConfig,
        source: KeySource,
        issuer: Option<Arc<Issuer>>,
        providers: Providers,
        clock: Clock,
        wait: &StartWait,
    ) -> Result<(Arc<Self>, FirstStart), OpenError> {
        let mut first = FirstStart::default();
        let mut session = store.read().await?;
        let known = session.vault().await.map_err(|error| match error {
            StoreError::Unexpected(text) => OpenError(format!(
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
            // The wait may be long, and meanwhile the database may restart.
            drop(session);
            find_key_service(master, &needed, wait).await?;
            session = store.read().await?;
        }
        let (master, record) = match known {
            Some(record) => (local.ok_or_else(|| no_key(&record))?, record),
            None => {
                let master = match local {
                    Some(master) => master,
                    None => create_master_key(&config, store.backend(), &mut first)?,
                };
                let record = set_up(&store, &config, &master, &clock, &mut first).await?;
                (master, record)
            }
        };
        check_master_keys(&master, &record, &mut session).await?;
        let keys = Keys::load(source, config.break_glass.clone(), master, record, &mut session).await?;
        drop(session);
        // Without room in its log the vault opens, and refuses what it would have to record until there is some.
        let audit = Audit::open(&config.audit, keys.audit.clone(), clock.clone())
            .map_err(|error| OpenError(error.to_string()))?;
        let audit = Arc::new(audit);

        let name = format!("{}-{}", std::process::id(), store.incarnation());
        let ids = keys.ring().master.ids();
        let registration = Registration { name: name.clone(), master_keys: ids };
        store.register(registration, clock.now()).await?;
        let vault = Self {
            healthy: both_healthy(
                both_healthy(store.health(), store.writes()),
                both_healthy(store.room(), audit.health()),
            ),
            key_changes: KeyChanges::new(keys.ring().master.ids()),
            policy: PolicyInForce::configured(config.policy),
            work: Work::default(),
            access: Access {
                key_uses: KeyUses::default(),
                certificates: config.callers.certificates,
                issuer,
                links: config.links,
            },
            feed: Feed::new(config.callers.watches),
            jobs: Jobs::new(config.timetable),
            audit: AuditTrail::new(audit),
            requests_in_flight: InFlight::default(),
            exchanges_in_flight: InFlight::default(),
            inspections: Inspections::default(),
            data_dir: config.data_dir,
            replica: name,
            store,
            keys,
            providers,
            clock,
        };
        // Another master key may have become active just before this process was registered.
        let (ring, mut session) = (vault.keys.ring(), vault.store.read().await?);
        check_master_keys(&ring.master, &vault.keys.vault, &mut session).await?;
        drop(session);
        if let Some(outgoing) = vault.store.take_outgoing().filter(|_| vault.audit.log.is_on()) {
            let relay = Relay {
                store: Arc::clone(&vault.store),
                audit: Arc::clone(&vault.audit.log),
                clock: vault.clock.clone(),
                stop: vault.audit.stop_relay.clone(),
            };
            vault.audit.relay.spawn(relay.run(outgoing));
        }
        vault.adopt_keys().await.map_err(|error| OpenError(error.to_string()))?;
        vault.update_shred_ledger().await;
        // A command that opens the vault for a moment may have been given another configuration than the replicas.
        if !matches!(wait, StartWait::Briefly) {
            vault.put_policy_in_force().await.map_err(|error| OpenError(error.to_string()))?;
        }
        Ok((Arc::new(vault), first))
    }

    /// Applies migrations and says how many. For `token-vault migrate`.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub async fn migrate(config: &VaultConfig) -> Result<usize, OpenError> {
        make_data_folder(config)?;
        Ok(migrate_only(config.database_url.expose()).await?)
    }

    /// Makes an API key without a server. For `token-vault api-key create --offline`: the way back in when
    /// every admin key is lost. Needs the database and the master key.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub async fn create_api_key_offline(
        config: VaultConfig,
        command: CreateApiKey,
    ) -> Result<NewApiKey, OpenError> {
        let (vault, _) =
            Self::open(config, Providers::default(), Clock::system(), &StartWait::Briefly).await?;
        let made = vault.as_system("offline", vault.create_api_key_for_operator(&command)).await;
        let key = made.map_err(|error| OpenError(error.to_string()));
        vault.finish_work().await;
        vault.close().await;
        key
    }
}

pub fn make_data_folder(config: &VaultConfig) -> Result<(), OpenError> {
    std::fs::create_dir_all(&config.data_dir).map_err(|error| {
        OpenError(format!("cannot make the data folder {}: {error}", config.data_dir.display()))
    })
}

/// True while both inputs are true.
fn both_healthy(mut one: watch::Receiver<bool>, mut other: watch::Receiver<bool>) -> watch::Receiver<bool> {
    let (sender, both) = watch::channel(*one.borrow() && *other.borrow());
    tokio::spawn(async move {
        loop {
            let healthy = *one.borrow_and_update() && *other.borrow_and_update();
            sender.send_if_modified(|was| std::mem::replace(was, healthy) != healthy);
            let changed =
                tokio::select! { changed = one.changed() => changed, changed = other.changed() => changed };
            if changed.is_err() || sender.is_closed() {
                return;
            }
        }
    });
    both
}
