//! Plays a history on real vaults and on the model, and compares what the feed holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use tempfile::TempDir;
use token_vault::audit::{AuditConfig, SinkConfig, SyncMode};
use token_vault::model::{
    self as vault_model, Clock, Connection, ConnectionId, Cron, Event, EventKind, Expiry, ListOrder, Policy,
    Principal, ProviderId, RenewalPolicy, Secret, SecretId, Timestamp, WorkspaceId,
};
use token_vault::provider::{Meta, MetaConfig, Provider, Providers, ReportedRefusal};
use token_vault::vault::{
    CallerPolicy, ExchangeSubject, ExchangeToken, FetchAccessToken, IntakeOptions, ListEvents, ListTokens,
    ReportTokenError, ReportedSecret, RevokeToken, RunJob, RunState, StoreToken, Target, Timetable,
    ValidateToken, Vault, VaultConfig, VaultError, WatchEvents, WatchItem, WatchLimits, WatchStart,
};
use token_vault_sandbox::{AdAccountSpec, Decision, ExchangeMood, Sandbox, SandboxConfig};
use token_vault_tests::{Backend, Database, SCOPES, eventually_async, master_key_line, shared_cluster};
use tokio::runtime::Runtime;

use super::model::{
    Claim, DAY, Detail, Kind, Model, Mood, PEOPLE, Person, REQUIRED, Said, Severity, Slot, Status,
};
use super::steps::{Act, Life, Outside, Step};

/// When every history begins.
const START: i64 = 1_800_000_000;
/// Events are kept so long.
const RETENTION: i64 = 90 * DAY;
/// How long a test waits for what must come; a failure costs as much.
const LIMIT: Duration = Duration::from_secs(15);
/// So many steps between two looks at what the watches have seen.
const WATCHED_EVERY: usize = 8;

const WORKSPACE_NAMES: [&str; super::model::WORKSPACES] = ["acme", "globex"];
const NAMES: [&str; PEOPLE] = ["ana", "ben", "eva"];

/// What one watch has seen, over all restarts of its replica.
#[derive(Debug, Default)]
struct Watched {
    events: Vec<Arc<Event>>,
    cursor: String,
    ended: Option<String>,
}

/// One process, as far as it can be played inside this one: a runtime of its own, which can be cut off.
struct Replica {
    running: Option<(Runtime, Arc<Vault>)>,
    watched: Arc<Mutex<Watched>>,
}

pub struct World {
    sandbox: Sandbox,
    clock: Clock,
    folder: TempDir,
    database: Database,
    master_key: Option<String>,
    caller: Option<Arc<Principal>>,
    replicas: Vec<Replica>,
    now: i64,
    played: usize,
    /// All that may have happened: more than one only after a process has died in the middle of something.
    models: Vec<Model>,
    /// Pasted tokens, by the model's numbers.
    texts: Vec<String>,
    pasted: BTreeMap<Slot, usize>,
    /// Connections as the database has them.
    known: BTreeMap<Slot, Connection>,
    /// The whole feed, also what retention has deleted since.
    log: Vec<Arc<Event>>,
    oldest: i64,
}

/// An act with all that it needs.
#[derive(Clone)]
struct Ready {
    act: Act,
    /// The token to be pasted.
    token: Option<(usize, String)>,
    target: Option<(ConnectionId, SecretId)>,
    now: i64,
}

impl Replica {
    fn vault(&self) -> Arc<Vault> {
        Arc::clone(&self.running.as_ref().expect("the replica runs").1)
    }

    /// Runs something inside the replica: its timers and sockets are those of its own runtime.
    async fn run<T, F>(&self, act: impl FnOnce(Arc<Vault>) -> F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (runtime, vault) = self.running.as_ref().expect("the replica runs");
        runtime.spawn(act(Arc::clone(vault))).await.expect("no panic inside the vault")
    }

    /// A power cut: every task stops where it stands.
    fn cut(&mut self) {
        let (runtime, vault) = self.running.take().expect("the replica runs");
        drop(vault);
        runtime.shutdown_background();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for replica in self.replicas.iter_mut().filter(|replica| replica.running.is_some()) {
            replica.cut();
        }
    }
}

fn lock(watched: &Mutex<Watched>) -> std::sync::MutexGuard<'_, Watched> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

fn scopes() -> BTreeSet<String> {
    SCOPES.iter().chain(&["public_profile"]).map(|scope| (*scope).to_owned()).collect()
}

fn account(person: usize, number: usize) -> String {
    format!("10{person}0000{number}")
}

fn workspace(slot: Slot) -> WorkspaceId {
    WorkspaceId::parse(WORKSPACE_NAMES[slot.0]).expect("a good name")
}

fn meta() -> ProviderId {
    ProviderId::parse("meta").expect("a good name")
}

impl World {
    pub async fn start(backend: Backend) -> Self {
        static TLS: Once = Once::new();
        TLS.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        let sandbox = Sandbox::start(SandboxConfig::default()).await.expect("the sandbox starts");
        let folder =
            tempfile::Builder::new().prefix("token-vault-history-").tempdir().expect("a temp folder");
        let (database, master_key, replicas) = match backend {
            Backend::Sqlite => (Database::sqlite(folder.path()), None, 1),
            Backend::Postgres => {
                (Database::postgres(shared_cluster()).await, Some(master_key_line("history")), 2)
            }
        };
        let mut world = Self {
            sandbox,
            clock: Clock::system(),
            folder,
            database,
            master_key,
            caller: None,
            replicas: Vec::new(),
            now: START,
            played: 0,
            models: Vec::new(),
            texts: Vec::new(),
            pasted: BTreeMap::new(),
            known: BTreeMap::new(),
            log: Vec::new(),
            oldest: 1,
        };
        world.sandbox.clock().freeze();
        world.set_time();
        let people = (0..PEOPLE).map(|person| world.enter(person)).collect();
        world.models.push(Model::new(START, people));
        for on in 0..replicas {
            world.replicas.push(Replica { running: None, watched: Arc::default() });
            world.open(on).await;
        }
        world
    }

    /// Makes a person who does everything right.
    fn enter(&self, person: usize) -> Person {
        let user = self.sandbox.user(NAMES[person]).grants(SCOPES);
        let accounts = [0, 1].map(|number| account(person, number));
        user.with_ad_accounts(0);
        for id in &accounts {
            user.ad_account(AdAccountSpec { id: Some(id.clone()), ..AdAccountSpec::default() });
        }
        let accounts = accounts.iter().map(|id| format!("act_{id}")).collect();
        Person { scopes: scopes(), accounts, trouble: None, access_end: START + 90 * DAY }
    }

    fn set_time(&self) {
        self.sandbox.clock().set(self.now);
        self.clock.run_from(Timestamp::from_unix_seconds(self.now), 0);
    }

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
            },
            timetable: Timetable {
                meta_token_expiry: cron(),
                rotation: cron(),
                event_retention: cron(),
                housekeeping: cron(),
                overdue_after: Duration::from_secs(900),
                sweep_concurrency: 8,
            },
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
            api_version: "v26.0".into(),
            request_timeout: Duration::from_secs(10),
            operation_timeout: Duration::from_secs(20),
            required_scopes: REQUIRED.map(str::to_owned).to_vec(),
            optional_scopes: vec!["business_management".to_owned()],
        };
        let meta = Meta::new(config, self.clock.clone()).expect("a good configuration");
        Providers::new([Arc::new(meta) as Arc<dyn Provider>])
    }

    async fn open(&mut self, on: usize) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime starts");
        // After a power cut the file is free a moment later.
        let vault = eventually_async("the vault opens", LIMIT, async || {
            let (config, providers, clock) = (self.config(), self.providers(), self.clock.clone());
            let opened = runtime.spawn(Vault::open(config, providers, clock)).await.expect("no panic");
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

    /// Follows the feed from where this replica's watch was, which at first is its beginning.
    async fn watch(&self, on: usize) {
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

    fn caller(&self) -> Arc<Principal> {
        Arc::clone(self.caller.as_ref().expect("there is a key"))
    }

    fn replica(&self, on: usize) -> &Replica {
        &self.replicas[on % self.replicas.len()]
    }

    /// Plays a step, and compares.
    pub async fn play(&mut self, step: &Step) -> Result<(), String> {
        // Every step has an instant of its own.
        self.now += 1;
        if let Step::Wait { seconds } = step {
            self.now += seconds;
        }
        self.set_time();
        self.sandbox.clear_usage();
        self.models.iter_mut().for_each(|model| model.now = self.now);
        self.perform(step).await?;
        self.check().await?;
        self.played += 1;
        if self.played.is_multiple_of(WATCHED_EVERY) { self.check_watches().await } else { Ok(()) }
    }

    /// The history is over: what is still due is announced, and everything is compared once more. Gives the kinds
    /// that there were.
    pub async fn end(mut self) -> Result<BTreeSet<Kind>, String> {
        self.play(&Step::AnnounceEverywhere).await?;
        self.check_watches().await?;
        for replica in &mut self.replicas {
            replica.run(|vault| async move { vault.close().await }).await;
        }
        Ok(self.log.iter().filter_map(|event| kind(event.word.kind)).collect())
    }

    async fn perform(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Wait { .. } => {}
            Step::Announce { on } => {
                self.announce(*on).await;
                self.models.iter_mut().for_each(Model::announce);
            }
            Step::AnnounceEverywhere => {
                futures::future::join_all((0..self.replicas.len()).map(|on| self.announce(on))).await;
                self.models.iter_mut().for_each(Model::announce);
            }
            Step::Ask { on, act } => self.ask_for(*on, act).await?,
            Step::Connect { on, slot, life } => {
                self.outside(slot.1, Outside::Heals);
                SCOPES.iter().for_each(|scope| self.outside(slot.1, Outside::GetsScope(scope)));
                self.ask_for(*on, &Act::Paste { slot: *slot, life: *life }).await?;
            }
            Step::Stumbles { on, slot } => {
                self.outside(slot.1, Outside::Checkpoint);
                let (slot, claim, success) = (*slot, Claim::Dead, None);
                self.ask_for(*on, &Act::Report { slot, claim, success }).await?;
            }
            Step::Recovers { on, slot } => {
                self.outside(slot.1, Outside::Heals);
                self.ask_for(*on, &Act::Validate { slot: *slot }).await?;
            }
            Step::Together { first, second } => self.together(first, second).await?,
            Step::ValidateTwice { slot } => {
                if let Some(ready) = self.prepare(&Act::Validate { slot: *slot }) {
                    tokio::join!(self.ask(0, &ready), self.ask(1, &ready));
                    self.models.iter_mut().for_each(|model| model.validate(*slot));
                }
            }
            Step::Die { on, act, after } => self.die(*on, act, *after).await,
            Step::Restart { on, cut } => {
                let on = on % self.replicas.len();
                if !cut {
                    self.replicas[on].run(|vault| async move { vault.close().await }).await;
                }
                self.replicas[on].cut();
                self.open(on).await;
            }
            Step::Sweep { everywhere } => {
                self.job("meta-token-expiry", *everywhere).await?;
                self.models.iter_mut().for_each(Model::sweep);
            }
            Step::Renew { everywhere } => {
                // Which are due is taken from the vault: `may_renew_at` has judged its dates.
                let now = Timestamp::from_unix_seconds(self.now);
                let due =
                    |connection: &Connection| connection.schedule.next_renewal_at.is_some_and(|at| at <= now);
                let due = self.known.iter().filter(|(_, connection)| due(connection)).map(|(slot, _)| *slot);
                let due: Vec<Slot> = due.collect();
                self.job("rotation", *everywhere).await?;
                for model in &mut self.models {
                    due.iter().for_each(|slot| model.renew(*slot));
                }
            }
            Step::Retention => {
                // A watch that is behind may lose its place.
                self.check_watches().await?;
                self.job("event-retention", false).await?;
                let before = Timestamp::from_unix_seconds(self.now - RETENTION);
                let kept = self.log.iter().find(|event| event.recorded_at >= before).or(self.log.last());
                self.oldest = kept.map_or(1, |event| event.sequence);
            }
            Step::Outside { person, event } => self.outside(*person, *event),
            Step::MoveEnd { slot, days } => {
                if self.models.iter().all(|model| model.is_usable(*slot)) {
                    let target = self.coherent(0, *slot).await;
                    let caller = self.caller();
                    let fetch = FetchAccessToken { target, min_ttl: Duration::ZERO };
                    let fetched = self
                        .replica(0)
                        .run(|vault| async move { vault.fetch_access_token(&caller, fetch).await });
                    let fetched = fetched
                        .await
                        .map_err(|error| format!("a usable token is not handed out: {error:?}"))?;
                    let end = self.now + days * DAY;
                    self.sandbox.expires_at(fetched.secret.expose(), end);
                    self.models.iter_mut().for_each(|model| model.move_end(*slot, end));
                }
            }
            Step::Mood(mood) => {
                self.sandbox.set_mood(match mood {
                    Mood::SameDay => ExchangeMood::SameDay,
                    Mood::SameExpiry => ExchangeMood::SameExpiry,
                    Mood::Extends => ExchangeMood::Extends,
                    Mood::SameString => ExchangeMood::SameString,
                    Mood::BecomesNever => ExchangeMood::BecomesNever,
                    Mood::Shortens => ExchangeMood::Shortens,
                });
                self.models.iter_mut().for_each(|model| model.mood = *mood);
            }
        }
        Ok(())
    }

    async fn announce(&self, on: usize) {
        let announced = self.replica(on).run(|vault| async move { vault.announce_due().await }).await;
        announced.expect("the deadlines are announced");
    }

    fn outside(&mut self, person: usize, event: Outside) {
        let user = self.sandbox.user(NAMES[person]);
        for model in &mut self.models {
            let now = model.now;
            let known = model.person(person);
            match event {
                Outside::Dies(subcode) => model.kill_all(person, subcode),
                Outside::Checkpoint => known.trouble = Some(459),
                Outside::Heals => known.trouble = None,
                Outside::LosesScope(scope) => drop(known.scopes.remove(scope)),
                Outside::GetsScope(scope) => drop(known.scopes.insert(scope.to_owned())),
                Outside::LosesAccount(number) => {
                    known.accounts.remove(&format!("act_{}", account(person, number)));
                }
                Outside::GetsAccount(number) => {
                    known.accounts.insert(format!("act_{}", account(person, number)));
                }
                Outside::AccessLapses => known.access_end = now - DAY,
                Outside::Returns => known.access_end = now + 90 * DAY,
            }
        }
        match event {
            Outside::Dies(458) => user.removes_app(),
            Outside::Dies(460) => user.changes_password(),
            Outside::Dies(_) => user.logs_out(),
            Outside::Checkpoint => user.hits_checkpoint(),
            Outside::Heals => user.heals(),
            Outside::LosesScope(scope) => drop(user.declines([scope])),
            Outside::GetsScope(scope) => drop(user.grants([scope])),
            Outside::LosesAccount(_) | Outside::GetsAccount(_) => {
                user.with_ad_accounts(0);
                for id in &self.models[0].person(person).accounts {
                    user.ad_account(AdAccountSpec { id: Some(id.clone()), ..AdAccountSpec::default() });
                }
            }
            Outside::AccessLapses => user.data_access_lapses(),
            Outside::Returns => {
                let dialog = format!(
                    "{}/dialog/oauth?client_id={}&redirect_uri=https%3A%2F%2Fa.example%2F&state=s",
                    self.sandbox.url(),
                    self.sandbox.app().id
                );
                self.sandbox
                    .consent(&dialog, NAMES[person], Decision::Allow)
                    .expect("the person may consent");
            }
        }
    }

    /// What an act needs; `None`: there is no connection that it could be about.
    fn prepare(&mut self, act: &Act) -> Option<Ready> {
        let slot = act.slot();
        let token = match act {
            Act::Paste { life, .. } => {
                let (number, user) = (self.texts.len(), self.sandbox.user(NAMES[slot.1]));
                let (text, long, seconds) = match life {
                    Life::Short => (user.short_lived_token(), false, 5_400),
                    Life::Long { hours } => {
                        let life = Duration::from_secs(hours.unsigned_abs() * 3_600);
                        (user.long_lived_token_with_life(life), true, hours * 3_600)
                    }
                };
                self.texts.push(text);
                self.pasted.insert(slot, number);
                self.models.iter_mut().for_each(|model| model.mint(number, slot.1, long, seconds));
                Some(number)
            }
            Act::PasteAgain { .. } => Some(*self.pasted.get(&slot)?),
            _ => None,
        };
        let target = self.known.get(&slot).map(|connection| (connection.id, connection.secret_id));
        if token.is_none() && target.is_none() {
            return None;
        }
        let token = token.map(|number| (number, self.texts[number].clone()));
        Some(Ready { act: act.clone(), token, target, now: self.now })
    }

    async fn ask_for(&mut self, on: usize, act: &Act) -> Result<(), String> {
        let Some(ready) = self.prepare(act) else { return Ok(()) };
        let outcome = self.ask(on, &ready).await;
        self.conclude(&ready, &outcome).await
    }

    /// Asks a vault, and gives its answer in a word.
    async fn ask(&self, on: usize, ready: &Ready) -> String {
        if let Act::Revoke { slot, at_provider: true } = ready.act {
            self.coherent(on, slot).await;
        }
        let (caller, ready) = (self.caller(), ready.clone());
        self.replica(on).run(|vault| perform(vault, caller, ready)).await
    }

    /// The models that would have answered the same.
    async fn conclude(&mut self, ready: &Ready, outcome: &str) -> Result<(), String> {
        let mut wanted = BTreeSet::new();
        self.models.retain_mut(|model| {
            let answer = apply(model, ready);
            wanted.insert(answer);
            answer == outcome
        });
        if self.models.is_empty() {
            return Err(format!("the vault answered {outcome}, and should have answered one of {wanted:?}"));
        }
        self.settle().await;
        Ok(())
    }

    async fn together(&mut self, first: &Act, second: &Act) -> Result<(), String> {
        if first.slot().1 == second.slot().1 {
            return Ok(());
        }
        let (Some(one), Some(other)) = (self.prepare(first), self.prepare(second)) else { return Ok(()) };
        let (answer, other_answer, ..) =
            tokio::join!(self.ask(0, &one), self.ask(1, &other), self.announce(0), self.announce(1));
        // What one of the two held locked while the deadlines were announced is announced by the next look.
        self.announce(0).await;
        self.models.iter_mut().for_each(Model::announce);
        self.conclude(&one, &answer).await?;
        self.conclude(&other, &other_answer).await?;
        Ok(())
    }

    /// A process dies while it works. What it had committed by then stands, and nothing else does.
    async fn die(&mut self, on: usize, act: &Act, after: u64) {
        // A claim on an exchange outlives its owner by 25 s of real time: too long for here.
        if matches!(act, Act::Lengthen { .. } | Act::Revoke { at_provider: true, .. }) {
            return;
        }
        let Some(ready) = self.prepare(act) else { return };
        let on = on % self.replicas.len();
        let (caller, vault) = (self.caller(), self.replicas[on].vault());
        let (runtime, _) = self.replicas[on].running.as_ref().expect("the replica runs");
        runtime.spawn(perform(vault, caller, ready.clone()));
        tokio::time::sleep(Duration::from_millis(after)).await;
        self.replicas[on].cut();
        // A COMMIT that was sent is carried out although nobody waits for it.
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.open(on).await;
        let mut possible = Vec::new();
        for model in self.models.drain(..) {
            let mut whole = model.clone();
            apply(&mut whole, &ready);
            let mut half = model.clone();
            match (&ready.act, &ready.token) {
                (Act::Paste { slot, .. } | Act::PasteAgain { slot }, Some((token, _))) => {
                    half.save(*slot, *token);
                }
                (Act::Report { slot, claim, success }, _) => {
                    half.report_only(*slot, *claim, success.map(|ago| ready.now - ago));
                }
                (Act::Validate { slot }, _) => half.validate_only(*slot),
                _ => {}
            }
            possible.extend([whole, half, model]);
        }
        self.models = possible;
    }

    /// A person's other connections are asked about in the background: waits until that is done.
    async fn settle(&self) {
        let replicas = 0..self.replicas.len();
        let idle = eventually_async("all work in the background is done", LIMIT, async || {
            let busy =
                replicas.clone().map(|on| self.replicas[on].run(|vault| async move { vault.is_busy() }));
            futures::future::join_all(busy).await.iter().all(|busy| !busy).then_some(())
        });
        idle.await;
    }

    /// Runs a job to its end, on all replicas at once or on one.
    async fn job(&self, job: &str, everywhere: bool) -> Result<(), String> {
        let on = if everywhere { self.replicas.len() } else { 1 };
        let runs = (0..on).map(|on| {
            let (caller, command) = (self.caller(), RunJob { request_id: None, job: job.to_owned() });
            self.replicas[on].run(|vault| async move { vault.run_job(&caller, command).await })
        });
        for run in futures::future::join_all(runs).await {
            let run = run.map_err(|error| format!("{job} does not run: {error:?}"))?;
            let ended = eventually_async("the job ends", LIMIT, async || {
                let (caller, query) =
                    (self.caller(), token_vault::vault::ListJobRuns { page_size: 10, ..Default::default() });
                let page =
                    self.replicas[0].run(|vault| async move { vault.list_job_runs(&caller, query).await });
                let runs = page.await.expect("runs are listed").runs;
                runs.into_iter().find(|known| known.id == run.id && known.state != RunState::Running)
            });
            let ended = ended.await;
            if ended.state != RunState::Succeeded {
                return Err(format!("{job} failed: {ended:?}"));
            }
        }
        self.settle().await;
        Ok(())
    }

    /// Connections as the database has them now.
    async fn connections(&self, on: usize) -> BTreeMap<Slot, Connection> {
        let (caller, mut known) = (self.caller(), BTreeMap::new());
        let query = ListTokens {
            statuses: vault_model::Status::ALL.to_vec(),
            order: ListOrder::CreatedFirst,
            page_size: 100,
            ..ListTokens::default()
        };
        let page = self.replica(on).run(|vault| async move { vault.list_tokens(&caller, query).await }).await;
        let ids: Vec<String> = NAMES.iter().map(|name| self.sandbox.user(name).id()).collect();
        for token in page.expect("tokens are listed").tokens {
            let connection = token.connection;
            let workspace = WORKSPACE_NAMES.iter().position(|name| *name == connection.workspace.as_str());
            let person = ids.iter().position(|id| *id == connection.subject.id);
            let slot = (workspace.expect("a known workspace"), person.expect("a known person"));
            // One that moves from one standing to another while they are listed may come twice, or not at all.
            let id = connection.id;
            let other = known.insert(slot, connection);
            assert!(other.is_none_or(|other| other.id == id), "two connections for {slot:?}");
        }
        known
    }

    /// Waits until a replica's cache has what the database has.
    async fn coherent(&self, on: usize, slot: Slot) -> Target {
        let (id, revision) = (self.known[&slot].id, self.known[&slot].revision);
        let target = || Target { connection: id, workspace: None };
        eventually_async("the cache follows", LIMIT, async || {
            let (caller, target) = (self.caller(), target());
            let token =
                self.replica(on).run(|vault| async move { vault.get_token(&caller, target).await }).await;
            (token.expect("the connection is there").0.connection.revision >= revision).then_some(())
        })
        .await;
        target()
    }

    /// A part of the feed, as a replica lists it.
    async fn listed(&self, on: usize, since: Option<Timestamp>) -> Vec<Arc<Event>> {
        let mut query = ListEvents { since, oldest_first: true, page_size: 1_000, ..ListEvents::default() };
        let mut events = Vec::new();
        loop {
            let (caller, asked) = (self.caller(), query.clone());
            let page =
                self.replica(on).run(|vault| async move { vault.list_events(&caller, asked).await }).await;
            let page = page.expect("events are listed");
            events.extend(page.events.into_iter().map(|seen| seen.event));
            if page.next_page_token.is_empty() {
                return events;
            }
            query.page_token = page.next_page_token;
        }
    }

    /// Compares the feed with the models, and the vault's next attempts to renew with what they may be.
    async fn check(&mut self) -> Result<(), String> {
        self.known = self.connections(self.played).await;
        let since = self.log.last().map(|event| event.recorded_at);
        let mut news: Option<Vec<Arc<Event>>> = None;
        for on in 0..self.replicas.len() {
            let listed = self.listed(on, since).await;
            let head = self.log.last().map_or(0, |event| event.sequence);
            let new: Vec<_> = listed.into_iter().filter(|event| event.sequence > head).collect();
            match &news {
                Some(other) if !same(other, &new) => {
                    return Err(format!("two replicas list {other:#?} and {new:#?}"));
                }
                _ => news = Some(new),
            }
        }
        let now = Timestamp::from_unix_seconds(self.now);
        for event in news.unwrap_or_default() {
            let next = self.log.last().map_or(1, |event| event.sequence + 1);
            if event.sequence != next || event.recorded_at != now {
                return Err(format!("expected number {next}, recorded at {now}, and not {event:#?}"));
            }
            self.log.push(event);
        }
        let real = self.as_said()?;
        let mut why = String::new();
        self.models.retain(|model| match differs(model, &real) {
            None => true,
            Some(difference) => {
                why = difference;
                false
            }
        });
        if self.models.is_empty() {
            return Err(why);
        }
        for (slot, connection) in &self.known {
            let at = connection.schedule.next_renewal_at.map(|at| at.as_micros().div_euclid(1_000_000));
            if !self.models.iter().any(|model| model.may_renew_at(*slot, at)) {
                return Err(format!("{slot:?} is to be renewed at {at:?}: {:#?}", self.models));
            }
        }
        self.models.dedup();
        Ok(())
    }

    /// Every watch has seen the whole feed, as it is listed, and nothing else.
    async fn check_watches(&self) -> Result<(), String> {
        for (on, replica) in self.replicas.iter().enumerate() {
            let kept = usize::try_from(self.oldest - 1).expect("a place in the log");
            if !same(&self.listed(on, None).await, &self.log[kept.min(self.log.len())..]) {
                return Err(format!("replica {on} lists another feed than before"));
            }
            let seen = eventually_async("the watch is at the head", LIMIT, async || {
                let watched = lock(&replica.watched);
                (watched.events.len() >= self.log.len() || watched.ended.is_some())
                    .then(|| (watched.events.clone(), watched.ended.clone()))
            });
            let (seen, ended) = seen.await;
            if !same(&seen, &self.log) || ended.is_some() {
                return Err(format!("a watch of replica {on} saw {seen:#?}, ended {ended:?}"));
            }
        }
        Ok(())
    }

    /// The feed in the model's words, by connection.
    fn as_said(&self) -> Result<BTreeMap<Slot, Vec<Said>>, String> {
        let slots: BTreeMap<ConnectionId, Slot> =
            self.known.iter().map(|(slot, connection)| (connection.id, *slot)).collect();
        let (mut said, mut places) = (BTreeMap::<Slot, Vec<Said>>::new(), BTreeMap::new());
        for event in &self.log {
            let slot = event.word.connection.and_then(|id| slots.get(&id));
            let slot = *slot.ok_or_else(|| format!("an event of no connection: {event:#?}"))?;
            let of = said.entry(slot).or_default();
            places.insert(event.sequence, (slot, of.len()));
            let place = |sequence: i64| match places.get(&sequence) {
                Some((whose, place)) if *whose == slot => Ok(*place),
                _ => Err(format!("it speaks of another connection's event: {event:#?}")),
            };
            place(event.word.incident)?;
            let closes =
                event.word.closes.iter().map(|closed| place(closed.sequence)).collect::<Result<_, _>>()?;
            of.push(in_words(event, closes).ok_or_else(|| format!("nothing known brings {event:#?}"))?);
        }
        Ok(said)
    }
}

/// Whether two stretches of the feed are the same events.
fn same(one: &[Arc<Event>], other: &[Arc<Event>]) -> bool {
    let key = |event: &Arc<Event>| (event.sequence, event.identity, event.recorded_at, event.word.clone());
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| key(one) == key(other))
}

/// The first difference.
fn differs(model: &Model, real: &BTreeMap<Slot, Vec<Said>>) -> Option<String> {
    let slots: BTreeSet<Slot> = model.slots().into_iter().chain(real.keys().copied()).collect();
    slots.into_iter().find_map(|slot| {
        let (wanted, found) = (model.said(slot), real.get(&slot).map_or(&[][..], Vec::as_slice));
        let place =
            (0..wanted.len().max(found.len())).find(|place| wanted.get(*place) != found.get(*place))?;
        Some(format!(
            "{slot:?} at {}, event {place} of {:?}: wanted {:#?}, found {:#?}",
            model.now,
            found.iter().map(|said| said.kind).collect::<Vec<_>>(),
            wanted.get(place),
            found.get(place)
        ))
    })
}

/// Whole seconds; every instant of a history is one.
fn seconds(at: Timestamp) -> i64 {
    assert_eq!(at.as_micros() % 1_000_000, 0, "{at} is no instant of this history");
    at.as_micros() / 1_000_000
}

fn in_words(event: &Event, closes: BTreeSet<usize>) -> Option<Said> {
    let word = &event.word;
    let kind = kind(word.kind)?;
    let end = |expiry: Expiry| expiry.at().map(seconds);
    let detail = match &word.detail {
        vault_model::Detail::None => Detail::None,
        vault_model::Detail::Expiring { threshold, .. } => {
            Detail::Threshold(i64::try_from(threshold.as_secs()).expect("a threshold is short"))
        }
        vault_model::Detail::Died { last_known_good, first_known_bad } => {
            Detail::Died { last_good: last_known_good.map(seconds), first_bad: seconds(*first_known_bad) }
        }
        vault_model::Detail::Restored { gap_start, gap_end, cause } => {
            Detail::Gap { start: gap_start.map(seconds), end: seconds(*gap_end), cause: self::kind(*cause)? }
        }
        vault_model::Detail::Renewed { previous_expiry } => Detail::Before(end(*previous_expiry)),
        vault_model::Detail::RotationFailed { at_ceiling, .. } => Detail::AtCeiling(*at_ceiling),
        vault_model::Detail::Changed { added, removed } => {
            Detail::Changed { added: added.clone(), removed: removed.clone() }
        }
    };
    Some(Said {
        kind,
        version: word.version,
        at: seconds(word.occurred_at),
        severity: match word.severity {
            vault_model::Severity::Info => Severity::Info,
            vault_model::Severity::Warning => Severity::Warning,
            vault_model::Severity::Critical => Severity::Critical,
        },
        status: match word.status? {
            vault_model::Status::Active => Status::Active,
            vault_model::Status::Expiring => Status::Expiring,
            vault_model::Status::Expired => Status::Expired,
            vault_model::Status::Invalid => Status::Invalid,
            vault_model::Status::Revoked => Status::Revoked,
        },
        usable: word.usable(),
        end: end(word.expiry),
        reason: word.reason.map(vault_model::RefusalReason::as_str),
        closes,
        detail,
    })
}

fn kind(kind: EventKind) -> Option<Kind> {
    Some(match kind {
        EventKind::Connected => Kind::Connected,
        EventKind::Replaced => Kind::Replaced,
        EventKind::Expiring => Kind::Expiring,
        EventKind::Expired => Kind::Expired,
        EventKind::Invalidated => Kind::Invalidated,
        EventKind::Restored => Kind::Restored,
        EventKind::Rotated => Kind::Rotated,
        EventKind::RotationFailed => Kind::RotationFailed,
        EventKind::ScopesChanged => Kind::ScopesChanged,
        EventKind::AdAccountsChanged => Kind::AdAccountsChanged,
        EventKind::DataAccessExpiring => Kind::DataAccessExpiring,
        EventKind::DataAccessExpired => Kind::DataAccessExpired,
        EventKind::Revoked => Kind::Revoked,
        EventKind::DeadlinesChanged => Kind::DeadlinesChanged,
        // No history brings a provider's outage, a throttled token or overdue work.
        _ => return None,
    })
}

/// The model does what the vault was asked for.
fn apply(model: &mut Model, ready: &Ready) -> &'static str {
    match &ready.act {
        Act::Paste { slot, .. } | Act::PasteAgain { slot } => {
            model.store(*slot, ready.token.as_ref().expect("there is a token to paste").0)
        }
        Act::Validate { slot } => {
            model.validate(*slot);
            "Done"
        }
        Act::Report { slot, claim, success } => {
            model.report(*slot, *claim, success.map(|ago| ready.now - ago))
        }
        Act::Lengthen { slot } => model.lengthen(*slot),
        Act::Revoke { slot, at_provider } => {
            model.revoke(*slot, *at_provider);
            "Done"
        }
    }
}

/// A refusal that says something of the token, in a word; any other is told as it is.
fn refused(error: &VaultError) -> String {
    match error {
        VaultError::ProviderRefusedToken { .. }
        | VaultError::ScopesMissing { .. }
        | VaultError::ScopesShrunk { .. }
        | VaultError::ExchangeNotPossible { .. }
        | VaultError::TokenExpired { .. }
        | VaultError::TokenInvalid { .. }
        | VaultError::TokenRevoked { .. } => "Refused".to_owned(),
        other => format!("{other:?}"),
    }
}

async fn perform(vault: Arc<Vault>, caller: Arc<Principal>, ready: Ready) -> String {
    let target = || {
        let (connection, _) = ready.target.expect("there is a connection");
        Target { connection, workspace: None }
    };
    let answer = match &ready.act {
        Act::Paste { slot, .. } | Act::PasteAgain { slot } => {
            let (_, text) = ready.token.clone().expect("there is a token to paste");
            let command = StoreToken {
                request_id: None,
                if_version: None,
                workspace: workspace(*slot),
                provider: meta(),
                connection: None,
                access_token: Secret::new(text),
                options: IntakeOptions::default(),
                validate_only: false,
            };
            vault.store_token(&caller, command).await.map(|intake| format!("{:?}", intake.outcome))
        }
        Act::Validate { .. } => {
            let command = ValidateToken { target: target(), checks: BTreeSet::new(), ad_account_id: None };
            vault.validate_token(&caller, command).await.map(|_| "Done".to_owned())
        }
        Act::Report { claim, success, .. } => {
            let current = ready.target.expect("there is a connection").1;
            let (secret, code) = match claim {
                Claim::Dead => (current, "190"),
                Claim::DeadBefore => (SecretId::generate(), "190"),
                Claim::Throttled => (current, "4"),
            };
            let command = ReportTokenError {
                target: target(),
                secret: ReportedSecret::Id(secret),
                refusal: ReportedRefusal { http_status: 400, code: code.into(), ..Default::default() },
                observed_at: None,
                last_success_at: success.map(|ago| Timestamp::from_unix_seconds(ready.now - ago)),
            };
            vault.report_token_error(&caller, command).await.map(|told| format!("{:?}", told.verdict))
        }
        Act::Lengthen { .. } => {
            let subject = ExchangeSubject::Stored(target());
            let command = ExchangeToken { request_id: None, if_version: None, subject };
            vault.exchange_token(&caller, command).await.map(|exchange| format!("{:?}", exchange.outcome))
        }
        Act::Revoke { at_provider, .. } => {
            let command = RevokeToken {
                request_id: None,
                if_version: None,
                target: target(),
                revoke_at_provider: *at_provider,
                allow_shared: true,
                erase_subject: false,
            };
            vault.revoke_token(&caller, command).await.map(|_| "Done".to_owned())
        }
    };
    answer.unwrap_or_else(|error| refused(&error))
}
