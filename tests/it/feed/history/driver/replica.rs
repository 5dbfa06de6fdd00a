//! One process of the vault, imitated inside this process.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use token_vault::audit::{AuditConfig, SinkConfig, SyncMode};
use token_vault::model::{Cron, Event, Policy, RenewalPolicy, Secret};
use token_vault::provider::{GUIDE, Meta, MetaConfig, Provider, Providers};
use token_vault::vault::{
    CallerPolicy, LinkConfig, Origin, StartWait, Timetable, Vault, VaultConfig, WatchEvents, WatchItem,
    WatchLimits, WatchStart,
};
use token_vault_tests::eventually_async;
use tokio::runtime::Runtime;

use super::super::model::REQUIRED;

use super::{LIMIT, World};

/// What one watch has seen, over all restarts of its replica.
#[derive(Debug, Default)]
pub(super) struct Watched {
    pub(super) events: Vec<Arc<Event>>,
    cursor: String,
    pub(super) ended: Option<String>,
}

/// One process of the vault, imitated inside this one: its own runtime, which the test can cut off.
pub(super) struct Replica {
    pub(super) running: Option<(Runtime, Arc<Vault>)>,
    pub(super) watched: Arc<Mutex<Watched>>,
}

/// The origin of every change in a history, because the vault refuses a change without one.
pub(super) fn origin() -> Arc<Origin> {
    Arc::new(Origin::system("history"))
}

impl Replica {
    pub(super) fn vault(&self) -> Arc<Vault> {
        Arc::clone(&self.running.as_ref().expect("the replica runs").1)
    }

    /// Runs something inside the replica, so that its timers and sockets belong to the replica's own runtime.
    pub(super) async fn run<T, F>(&self, act: impl FnOnce(Arc<Vault>) -> F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (runtime, vault) = self.running.as_ref().expect("the replica runs");
        runtime.spawn(origin().scope(act(Arc::clone(vault)))).await.expect("no panic inside the vault")
    }

    /// Imitates a power cut: every task stops where it is.
    pub(super) fn cut(&mut self) {
        let (runtime, vault) = self.running.take().expect("the replica runs");
        drop(vault);
        runtime.shutdown_background();
    }
}

pub(super) fn lock(watched: &Mutex<Watched>) -> std::sync::MutexGuard<'_, Watched> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    fn config(&self) -> VaultConfig {
        let cron = || Cron::parse("0 0 6 * * *").expect("a cron expression");
        let days = |days: u64| Duration::from_secs(days * 24 * 60 * 60);
        VaultConfig {
            database_url: Secret::new(self.database.url().to_owned()),
            data_dir: self.folder.path().to_owned(),
            master_key: self.master_key.clone().map(Secret::new),
            master_key_file: None,
            transit: None,
            break_glass: None,
            bootstrap_key_file: None,
            migrate_on_start: true,
            policy: Policy {
                required_scopes: REQUIRED.map(str::to_owned).to_vec(),
                optional_scopes: vec!["business_management".to_owned()],
                warning_window: days(7),
                thresholds: [7, 3, 1].map(days).to_vec(),
                renewal: RenewalPolicy { enabled: true, min_age: days(1), window: days(30) },
                event_retention: days(90),
                guide: GUIDE,
            },
            timetable: Timetable {
                meta_token_expiry: Some(cron()),
                rotation: Some(cron()),
                event_retention: Some(cron()),
                housekeeping: Some(cron()),
                overdue_after: Duration::from_secs(900),
                sweep_concurrency: 8,
            },
            links: LinkConfig::default(),
            callers: CallerPolicy {
                certificates: Vec::new(),
                oidc: None,
                watches: WatchLimits { total: 20_000, per_principal: 10_000 },
            },
            audit: AuditConfig {
                sink: SinkConfig::Folder(self.folder.path().to_owned()),
                sync: SyncMode::Soon,
                max_bytes: 1 << 30,
                keep: None,
            },
        }
    }

    fn providers(&self) -> Providers {
        let app = self.sandbox.app();
        let config = MetaConfig {
            app_id: app.id,
            app_secrets: app.secrets.into_iter().map(Secret::new).collect(),
            graph_url: self.sandbox.url().parse().expect("the sandbox has a URL"),
            dialog_url: self.sandbox.url().parse().expect("the sandbox has a URL"),
            login_config_id: None,
            api_version: "v26.0".into(),
            request_timeout: Duration::from_secs(10),
            operation_timeout: Duration::from_secs(20),
            required_scopes: REQUIRED.map(str::to_owned).to_vec(),
            optional_scopes: vec!["business_management".to_owned()],
            webhook_verify_token: None,
            deletion_page: None,
        };
        let meta = Meta::new(config, self.clock.clone()).expect("a good configuration");
        Providers::new([Arc::new(meta) as Arc<dyn Provider>])
    }

    pub(super) async fn open(&mut self, on: usize) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime starts");
        // After a power cut, it takes a moment until the file is free.
        let vault = eventually_async("the vault opens", LIMIT, async || {
            let (config, providers, clock) = (self.config(), self.providers(), self.clock.clone());
            let opened = runtime
                .spawn(async move { Vault::open(config, providers, clock, &StartWait::Briefly).await })
                .await
                .expect("no panic");
            match opened {
                Ok((vault, _)) => Some(vault),
                Err(error) if error.to_string().contains("in use") => None,
                Err(error) => panic!("the vault does not open: {error}"),
            }
        })
        .await;
        self.replicas[on].running = Some((runtime, vault));
        if self.caller.is_none() {
            let file: PathBuf = self.folder.path().join("bootstrap-admin.key");
            let key = std::fs::read_to_string(file).expect("the first start leaves a key");
            let key = Secret::new(key.trim().to_owned());
            let caller = self.replicas[on].run(|vault| async move { vault.authenticate(&key).await }).await;
            self.caller = Some(caller.expect("the bootstrap key is good"));
        }
        self.watch(on).await;
    }

    /// Follows the feed from the last position of this replica's watch, which at first is the beginning.
    pub(super) async fn watch(&self, on: usize) {
        let (caller, watched) = (self.caller(), Arc::clone(&self.replicas[on].watched));
        let start = match lock(&watched).cursor.as_str() {
            "" => WatchStart::Earliest,
            cursor => WatchStart::After(cursor.to_owned()),
        };
        let command = WatchEvents { start, heartbeat: Duration::from_secs(1), ..WatchEvents::default() };
        let watch = self.replicas[on].run(|vault| async move { vault.watch_events(caller, command).await });
        let mut watch = watch.await.expect("a watch begins");
        lock(&watched).ended = None;
        let (runtime, _) = self.replicas[on].running.as_ref().expect("the replica runs");
        runtime.spawn(async move {
            loop {
                let next = watch.next().await;
                let mut watched = lock(&watched);
                match next {
                    Ok(answer) => {
                        if let WatchItem::Events(events) = answer.item {
                            watched.events.extend(events.into_iter().map(|seen| seen.event));
                        }
                        watched.cursor = answer.cursor;
                    }
                    Err(error) => {
                        watched.ended = Some(format!("{error:?}"));
                        return;
                    }
                }
            }
        });
    }
}
