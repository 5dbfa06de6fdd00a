//! Plays a history on real vaults and on the model, and compares what the feed holds.

mod acts;
mod compare;
mod replica;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Once};
use std::time::Duration;

use tempfile::TempDir;
use token_vault::model::{
    self as vault_model, Clock, Connection, Event, ListOrder, Principal, ProviderId, Timestamp, WorkspaceId,
};
use token_vault::vault::{FetchAccessToken, ListEvents, ListTokens, RunJob, RunState, Target};
use token_vault_sandbox::{AdAccountSpec, Decision, ExchangeMood, Sandbox, SandboxConfig};
use token_vault_tests::{Backend, Database, SCOPES, eventually_async, master_key_line, shared_cluster};

use super::model::{Claim, DAY, Kind, Model, Mood, PEOPLE, Person, Slot};
use super::steps::{Act, Outside, Step};
use compare::kind;
use replica::Replica;

/// All elements of one page of a list, and what the list tells beside them.
macro_rules! page {
    ($vault:ident.$list:ident($caller:ident, $query:ident)) => {{
        let mut elements = Vec::new();
        let take = |element| {
            elements.push(element);
            true
        };
        let rest = $vault.$list(&$caller, $query, take).await;
        rest.map(|rest| (elements, rest))
    }};
}

/// The time at which every history begins.
const START: i64 = 1_800_000_000;
/// How long events are kept.
const RETENTION: i64 = 90 * DAY;
/// How long a test waits for a condition. A failure takes this long to be noticed.
const LIMIT: Duration = Duration::from_secs(60);
/// How many steps pass between two checks of what the watches have seen.
const WATCHED_EVERY: usize = 8;

const WORKSPACE_NAMES: [&str; super::model::WORKSPACES] = ["acme", "globex"];
const NAMES: [&str; PEOPLE] = ["ana", "ben", "eva"];

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
    /// All states that are possible. There are several only after a process died in the middle of something.
    models: Vec<Model>,
    /// Pasted tokens, by the model's numbers.
    texts: Vec<String>,
    pasted: BTreeMap<Slot, usize>,
    /// Connections as the database has them.
    known: BTreeMap<Slot, Connection>,
    /// The whole feed, including the events that retention has deleted since.
    log: Vec<Arc<Event>>,
    oldest: i64,
}

impl Drop for World {
    fn drop(&mut self) {
        for replica in self.replicas.iter_mut().filter(|replica| replica.running.is_some()) {
            replica.cut();
        }
    }
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

    /// Makes a person whose account, scopes and ad accounts are in order.
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

    fn caller(&self) -> Arc<Principal> {
        Arc::clone(self.caller.as_ref().expect("there is a key"))
    }

    fn replica(&self, on: usize) -> &Replica {
        &self.replicas[on % self.replicas.len()]
    }

    /// Plays a step, and compares the result with the models.
    pub async fn play(&mut self, step: &Step) -> Result<(), String> {
        // Every step has its own time.
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

    /// Ends the history: announces what is still due, and compares everything once more. Returns the kinds of events
    /// that occurred.
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
                // The vault says which are due, because `may_renew_at` has already checked its dates.
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
                // A watch that is behind may lose its position.
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

    /// Waits until the vault has asked about a person's other connections, which it does in the background.
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
                    self.replicas[0].run(|vault| async move { page!(vault.list_job_runs(caller, query)) });
                let (runs, _) = page.await.expect("runs are listed");
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

    /// The connections that the database has now.
    async fn connections(&self, on: usize) -> BTreeMap<Slot, Connection> {
        let (caller, mut known) = (self.caller(), BTreeMap::new());
        let query = ListTokens {
            statuses: vault_model::Status::ALL.to_vec(),
            order: ListOrder::CreatedFirst,
            page_size: 100,
            ..ListTokens::default()
        };
        let page = self.replica(on).run(|vault| async move { page!(vault.list_tokens(caller, query)) }).await;
        let ids: Vec<String> = NAMES.iter().map(|name| self.sandbox.user(name).id()).collect();
        for token in page.expect("tokens are listed").0 {
            let connection = token.connection;
            let workspace = WORKSPACE_NAMES.iter().position(|name| *name == connection.workspace.as_str());
            let person = ids.iter().position(|id| *id == connection.subject.id);
            let slot = (workspace.expect("a known workspace"), person.expect("a known person"));
            // A connection whose status changes while the pages are read may come twice, or not at all.
            let id = connection.id;
            let other = known.insert(slot, connection);
            assert!(other.is_none_or(|other| other.id == id), "two connections for {slot:?}");
        }
        known
    }

    /// Waits until a replica's cache agrees with the database.
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

    /// Part of the feed, as a replica lists it.
    async fn listed(&self, on: usize, since: Option<Timestamp>) -> Vec<Arc<Event>> {
        let mut query = ListEvents { since, oldest_first: true, page_size: 1_000, ..ListEvents::default() };
        let mut events = Vec::new();
        loop {
            let (caller, asked) = (self.caller(), query.clone());
            let page =
                self.replica(on).run(|vault| async move { page!(vault.list_events(caller, asked)) }).await;
            let (seen, page) = page.expect("events are listed");
            events.extend(seen.into_iter().map(|seen| seen.event));
            if page.next_page_token.is_empty() {
                return events;
            }
            query.page_token = page.next_page_token;
        }
    }
}
