//! The only place with SQL. Rows stay inside: what leaves are the model's types and sealed secrets.
//!
//! [`Store::read`] gives a session for reads; [`Store::write`] takes a unit of work. The text of each
//! statement stands in the function that is named after the question it answers. Start with `sql/db.rs`
//! (one text, two databases), then `engine/writer.rs` (group commit) and `engine/cache.rs` (the hot path).

mod access;
mod audit;
mod connections;
mod engine;
mod feed;
mod keys;
mod sql;
mod work;

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::watch;

pub use access::{ApiKeyFacts, ApiKeyRecord, Shredding, WorkspaceFacts};
pub use audit::{Audited, ChainState, Origin, Outgoing, open_for_reading};
pub use connections::{HeldToken, ListDrive, ListPosition, ListRange, NewSecret, StandingName};
pub use engine::{Abort, Feed, Live, Needs, Numbered, Recent, Tx};
pub use feed::{AnnouncedEvents, Bookmark, EventDrive, FeedState, Scope};
pub use keys::{
    BreakGlassWrap, KeyPlace, KeyPurpose, MasterKeyRecord, SealedRow, StoredKey, VaultKeyPurpose,
    VaultRecord, WorkspaceKeyRows, WrappedKey,
};
pub use sql::{Backend, Session, StoreError};
pub use work::{
    Claim, Claimed, JobRun, ProviderHealth, Registration, Replica, RequestOutcome, RunCause, RunState,
};

use audit::Outbox;
use engine::{Change, ClockGuard, Coherence, Flights, Writer};
use sql::{Address, Pool};
use work::Observer;

use crate::model::{ApiKeyId, Clock, ConnectionId, Incarnation, Timestamp, WorkspaceId};

/// What storage needs to open.
pub struct StoreConfig<'a> {
    /// `sqlite:PATH` or `postgres://…`; may hold a password.
    pub url: &'a str,
    /// Apply migrations now.
    pub migrate: bool,
    /// This life of this process.
    pub incarnation: Incarnation,
    /// Whether changes are recorded for the audit log.
    pub audit: bool,
    /// Domain time.
    pub clock: Clock,
}

/// The database.
pub struct Store {
    /// Lists, views, examinations.
    readers: Pool,
    /// Authentication and fetches: no list may stand in their way.
    hot: Pool,
    writer: Writer,
    coherence: Arc<Coherence>,
    feed: Arc<Feed>,
    clock_guard: Arc<ClockGuard>,
    token_flights: Flights<ConnectionId, Option<Arc<HeldToken>>>,
    key_flights: Flights<ApiKeyId, Option<Arc<ApiKeyRecord>>>,
    workspace_flights: Flights<WorkspaceId, Option<Arc<WorkspaceKeyRows>>>,
    healthy: watch::Receiver<bool>,
    stop: tokio_util::sync::CancellationToken,
    tasks: tokio_util::task::TaskTracker,
    incarnation: Incarnation,
    clock: Clock,
    observer: Arc<Observer>,
    registration: Arc<Mutex<Option<Registration>>>,
    /// What was committed for the audit log, until somebody takes it.
    outgoing: std::sync::Mutex<Option<tokio::sync::mpsc::UnboundedReceiver<Outgoing>>>,
    /// Held while SQLite is open: a second process refuses.
    _lock: Option<File>,
}

impl Store {
    /// Opens the database: locks it (SQLite), checks its settings (PostgreSQL), migrates it if asked,
    /// and starts the writer.
    pub async fn open(config: StoreConfig<'_>) -> Result<Self, StoreError> {
        let address = Address::parse(config.url)?;
        let lock = match &address {
            Address::Sqlite { path, .. } => Some(lock_file(path)?),
            Address::Postgres { .. } => None,
        };
        // SQLite has one writer; its connection is its own. Readers are few: a read is CPU, not waiting.
        let (readers, hot) = (Pool::new(&address, 4), Pool::new(&address, 2));
        let (writers, pulse, beat) = (Pool::new(&address, 1), Pool::new(&address, 1), Pool::new(&address, 1));
        // The feed's reader; on PostgreSQL also one connection that listens and one that notifies.
        let (tail, wake) = (Pool::new(&address, 1), Pool::new(&address, 2));
        migrate(&writers, config.migrate).await?;
        check_settings(&readers).await?;
        engine::check_wake(&wake).await?;

        let (coherence, feed) = (Arc::new(Coherence::new()), Arc::new(Feed::new()));
        let (outbox, outgoing) = Outbox::new(config.incarnation, config.audit);
        let (writer, drained) = Writer::start(
            writers.clone(),
            Arc::clone(&coherence),
            Arc::clone(&feed),
            outbox,
            config.clock.clone(),
        );
        let (health, healthy) = watch::channel(true);
        let stop = tokio_util::sync::CancellationToken::new();
        let tasks = tokio_util::task::TaskTracker::new();
        tasks.spawn(async move {
            let _ = drained.await;
            writers.close().await;
        });
        let store = Self {
            readers,
            hot,
            writer,
            coherence,
            feed,
            clock_guard: Arc::new(ClockGuard::new()),
            token_flights: Flights::default(),
            key_flights: Flights::default(),
            workspace_flights: Flights::default(),
            healthy,
            stop,
            tasks,
            incarnation: config.incarnation,
            clock: config.clock,
            observer: Arc::new(Observer::default()),
            registration: Arc::default(),
            outgoing: std::sync::Mutex::new(Some(outgoing)),
            _lock: lock,
        };
        store.coherence.start(&pulse).await?;
        store.clock_guard.look(&pulse).await?;
        store.feed.start_at(store.read().await?.feed_state().await?);
        let (feed, coherence, stop) =
            (Arc::clone(&store.feed), Arc::clone(&store.coherence), store.stop.clone());
        store.tasks.spawn(async move { feed.run(tail, coherence, stop).await });
        store.tasks.spawn(engine::run_wake(wake, Arc::clone(&store.feed), store.stop.clone()));
        store.watch_changes(pulse, health);
        store.keep_beating(beat);
        Ok(store)
    }

    /// Which database this is.
    pub fn backend(&self) -> Backend {
        self.readers.backend()
    }

    /// This life of this process.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// False while the database does not answer.
    pub fn health(&self) -> watch::Receiver<bool> {
        self.healthy.clone()
    }

    /// Whether this process's clock may be trusted with what rests on it: what time brings, slots, retention.
    pub fn trusts_clock(&self) -> bool {
        self.clock_guard.is_trusted()
    }

    /// The records for the audit log as they are committed, in order. Once: there is one relay.
    pub fn take_outgoing(&self) -> Option<tokio::sync::mpsc::UnboundedReceiver<Outgoing>> {
        self.outgoing.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }

    /// The feed's live end.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// A session for reads.
    pub async fn read(&self) -> Result<Session, StoreError> {
        self.readers.session().await
    }

    /// Runs a unit of work in a transaction and answers once it is durable. It may run more than once,
    /// and must await nothing but its transaction.
    pub async fn write<F, T, E>(&self, work: F) -> Result<T, Abort<E>>
    where
        F: for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<T, Abort<E>>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        self.writer.write(work).await
    }

    /// The same, told what the unit needs; the answer also says how events were numbered.
    pub async fn write_with<F, T, E>(&self, needs: Needs, work: F) -> Result<(T, Numbered), Abort<E>>
    where
        F: for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<T, Abort<E>>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        self.writer.run(needs, work).await
    }

    /// A connection with its sealed secret, from the coherent cache or the database.
    pub async fn held_token(&self, id: ConnectionId) -> Result<Option<Arc<HeldToken>>, StoreError> {
        if let Some(hit) = self.coherence.connection(&id) {
            return Ok(Some(hit));
        }
        let load = async {
            let mark = self.coherence.mark();
            let Some(row) = self.hot.session().await?.held_token(id).await? else { return Ok(None) };
            let row = Arc::new(row);
            self.coherence.keep_connection(mark, &row);
            Ok(Some(row))
        };
        self.token_flights.join(&id, load).await
    }

    /// Whether there is an API key of this id, or was. Asks no database.
    pub fn knows_api_key(&self, id: &ApiKeyId) -> bool {
        self.coherence.knows_api_key(id)
    }

    /// An API key's row, from the coherent cache or the database.
    pub async fn api_key_record(&self, id: &ApiKeyId) -> Result<Option<Arc<ApiKeyRecord>>, StoreError> {
        if let Some(hit) = self.coherence.api_key(id) {
            return Ok(Some(hit));
        }
        let load = async {
            let mark = self.coherence.mark();
            let Some(row) = self.hot.session().await?.api_key(id).await? else { return Ok(None) };
            let row = Arc::new(row);
            self.coherence.keep_api_key(mark, &row);
            Ok(Some(row))
        };
        self.key_flights.join(id, load).await
    }

    /// Registers this process among the living, and keeps it so.
    pub async fn register(&self, registration: Registration, now: Timestamp) -> Result<(), StoreError> {
        let alone = self.backend() == Backend::Sqlite;
        work::register(&self.writer, self.incarnation, registration.clone(), alone, now).await?;
        *self.registration.lock().unwrap_or_else(PoisonError::into_inner) = Some(registration);
        Ok(())
    }

    /// Says which master keys this process holds now; every beat repeats it.
    pub async fn report_master_keys(&self, ids: Vec<String>) -> Result<(), StoreError> {
        if let Some(registration) = &mut *self.registration.lock().unwrap_or_else(PoisonError::into_inner) {
            registration.master_keys.clone_from(&ids);
        }
        work::report_master_keys(&self.writer, self.incarnation, ids).await
    }

    /// A workspace's wrapped keys, from the coherent cache or the database; `None` for one that is not there.
    pub async fn workspace_key_rows(
        &self,
        id: &WorkspaceId,
    ) -> Result<Option<Arc<WorkspaceKeyRows>>, StoreError> {
        if let Some(hit) = self.coherence.workspace(id) {
            return Ok(Some(hit));
        }
        let load = async {
            let mark = self.coherence.mark();
            let Some(rows) = self.hot.session().await?.workspace_key_rows(id).await? else { return Ok(None) };
            let rows = Arc::new(rows);
            self.coherence.keep_workspace(mark, &rows);
            Ok(Some(rows))
        };
        self.workspace_flights.join(id, load).await
    }

    /// Drops what is cached here of a connection and a workspace: what was read did not fit together.
    pub fn forget(&self, connection: ConnectionId, workspace: &WorkspaceId) {
        self.coherence.drop_changed(&[Change::Connection(connection), Change::Workspace(workspace.clone())]);
    }

    /// The same for a workspace alone.
    pub fn forget_workspace(&self, workspace: &WorkspaceId) {
        self.coherence.drop_changed(&[Change::Workspace(workspace.clone())]);
    }

    /// Empties the files beside the database of what was deleted from it. On SQLite the log is written back and
    /// cut to nothing; what is deleted is overwritten there anyway. PostgreSQL keeps its own house.
    pub async fn scrub(&self) -> Result<(), StoreError> {
        if self.backend() == Backend::Postgres {
            return Ok(());
        }
        for _ in 0..SCRUBS {
            if self.readers.session().await?.cut_log().await? {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(StoreError::Unavailable("the log could not be cut: the database is busy".into()))
    }

    /// Polls changes, on a connection of its own, until closed. Health follows.
    fn watch_changes(&self, pulse: Pool, health: watch::Sender<bool>) {
        let (coherence, stop) = (Arc::clone(&self.coherence), self.stop.clone());
        self.tasks.spawn(async move {
            let mut tick = tokio::time::interval(engine::POLL);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! { () = stop.cancelled() => break, _ = tick.tick() => {} }
                let answer = match tokio::time::timeout(Duration::from_secs(2), coherence.poll(&pulse)).await {
                    Ok(answer) => answer,
                    Err(_) => Err(StoreError::Unavailable("no answer within 2 s".into())),
                };
                let well = answer.is_ok();
                if let Err(error) = answer
                    && *health.borrow()
                {
                    tracing::error!(%error, "the database is away; calls that need it are refused until it is back");
                }
                if well && !*health.borrow() {
                    tracing::info!("the database is back");
                }
                health.send_if_modified(|was| std::mem::replace(was, well) != well);
            }
        });
    }

    /// Beats this replica's row every second, until closed. A task of its own: a beat goes through the writer, and one
    /// that waits there for a database that is away must not keep the poll from seeing that.
    fn keep_beating(&self, pool: Pool) {
        let (coherence, stop) = (Arc::clone(&self.coherence), self.stop.clone());
        let clock_guard = Arc::clone(&self.clock_guard);
        let (registration, clock) = (Arc::clone(&self.registration), self.clock.clone());
        let (writer, observer, incarnation) =
            (self.writer.clone(), Arc::clone(&self.observer), self.incarnation);
        let healthy = self.healthy.clone();
        self.tasks.spawn(async move {
            let mut tick = tokio::time::interval(BEAT);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut beats = 0_u64;
            loop {
                tokio::select! { () = stop.cancelled() => break, _ = tick.tick() => {} }
                if !*healthy.borrow() {
                    continue;
                }
                beats += 1;
                let looked = tokio::time::timeout(Duration::from_secs(2), clock_guard.look(&pool)).await;
                if let Ok(Err(error)) = looked {
                    tracing::debug!(%error, "the clocks could not be compared");
                }
                let registered = registration.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let state = work::Beat {
                    applied: coherence.applied(),
                    clock_offset: clock_guard.offset(),
                    master_keys: registered.as_ref().map(|registered| registered.master_keys.clone()),
                };
                let beat = work::beat(&writer, &pool, &observer, incarnation, state);
                let lives = tokio::time::timeout(Duration::from_secs(5), beat).await.unwrap_or(true);
                // One that is closing ended its row itself.
                if !lives
                    && !stop.is_cancelled()
                    && let Some(registration) = registered
                {
                    // The others thought us dead and took our claims over; what we cached may be old.
                    tracing::error!("this replica was taken for dead; it registers anew");
                    coherence.drop_all();
                    let again = work::register(&writer, incarnation, registration, false, clock.now());
                    if let Err(error) = again.await {
                        tracing::warn!(%error, "this replica could not register anew");
                    }
                }
                if beats.is_multiple_of(PRUNE) {
                    prune(&writer, clock.now()).await;
                }
            }
        });
    }

    /// Takes no more writes, answers those that wait, and closes the database.
    pub async fn close(self: Arc<Self>) {
        self.stop.cancel();
        let incarnation = self.incarnation;
        let _: Result<(), Abort<std::convert::Infallible>> =
            self.write(move |tx| Box::pin(async move { Ok(tx.end_replica(incarnation).await?) })).await;
        self.readers.close().await;
        self.hot.close().await;
    }
}

/// How often cutting the log is tried.
const SCRUBS: u32 = 100;
/// How often this replica's row is beaten, and after how many beats there is a pruning.
const BEAT: Duration = Duration::from_secs(1);
const PRUNE: u64 = 60;

/// Forgets changes that every living replica has long applied, and outcomes that are no longer kept. The last
/// change stays: numbers go on from it.
async fn prune(writer: &Writer, now: Timestamp) {
    let pruned: Result<(), Abort<std::convert::Infallible>> = writer
        .write(move |tx| {
            Box::pin(async move {
                tx.forget_changes(now).await?;
                tx.forget_requests(now).await?;
                Ok(())
            })
        })
        .await;
    if let Err(Abort::Store(error)) = pruned {
        tracing::debug!(%error, "nothing was pruned this time");
    }
}

/// Applies migrations and says how many. For `token-vault migrate`.
pub async fn migrate_only(url: &str) -> Result<usize, StoreError> {
    let address = Address::parse(url)?;
    let _lock = match &address {
        Address::Sqlite { path, .. } => Some(lock_file(path)?),
        Address::Postgres { .. } => None,
    };
    let pool = Pool::new(&address, 1);
    let before = applied_migrations(&pool).await;
    migrate(&pool, true).await?;
    let after = applied_migrations(&pool).await;
    pool.close().await;
    Ok(after.saturating_sub(before))
}

/// A second process on one SQLite file would have its own cache and its own writer: refuse.
fn lock_file(database: &Path) -> Result<File, StoreError> {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    let path = Path::new(&path);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|error| StoreError::Config(format!("cannot open {}: {error}", path.display())))?;
    file.try_lock().map_err(|_| {
        StoreError::Config(format!(
            "{} is in use by another token-vault process; stop it, or talk to it through gRPC",
            database.display()
        ))
    })?;
    Ok(file)
}

static SQLITE: sqlx::migrate::Migrator = sqlx::migrate!("../migrations/sqlite");
static POSTGRES: sqlx::migrate::Migrator = sqlx::migrate!("../migrations/postgres");

/// Migrations that a newer release applied are accepted: release N runs on N+1's schema.
async fn migrate(pool: &Pool, apply: bool) -> Result<(), StoreError> {
    if !apply {
        // Told here, before a statement stumbles over what is not there.
        drop(pool.session().await?);
        let known = match pool {
            Pool::Sqlite(_) => SQLITE.iter().count(),
            Pool::Postgres(_) => POSTGRES.iter().count(),
        };
        let missing = known.saturating_sub(applied_migrations(pool).await);
        if missing > 0 {
            return Err(StoreError::Config(format!(
                "the database lacks {missing} migrations of this version, and storage.migrate_on_start is off; \
                 run `token-vault migrate`"
            )));
        }
        return Ok(());
    }
    let outcome = match pool {
        Pool::Sqlite(pool) => {
            sqlx::migrate::Migrator { ignore_missing: true, ..SQLITE.clone_parts() }.run(pool).await
        }
        Pool::Postgres(pool) => {
            sqlx::migrate::Migrator { ignore_missing: true, ..POSTGRES.clone_parts() }.run(pool).await
        }
    };
    outcome.map_err(|error| match error {
        sqlx::migrate::MigrateError::Execute(error) => StoreError::from(error),
        other => StoreError::Config(format!("migration failed: {other}")),
    })
}

/// The embedded migrations are statics; a run wants its own copy with our settings.
trait CloneParts {
    fn clone_parts(&self) -> sqlx::migrate::Migrator;
}

impl CloneParts for sqlx::migrate::Migrator {
    fn clone_parts(&self) -> sqlx::migrate::Migrator {
        sqlx::migrate::Migrator { migrations: self.migrations.clone(), ..sqlx::migrate::Migrator::DEFAULT }
    }
}

async fn applied_migrations(pool: &Pool) -> usize {
    #[derive(sqlx::FromRow)]
    struct Row {
        n: i64,
    }
    let Ok(mut session) = pool.session().await else { return 0 };
    let row: Result<Row, _> = session.query("SELECT count(*) AS n FROM _sqlx_migrations").fetch_one().await;
    row.ok().and_then(|row| usize::try_from(row.n).ok()).unwrap_or(0)
}

/// PostgreSQL must be durable: an acknowledged write survives power loss.
async fn check_settings(pool: &Pool) -> Result<(), StoreError> {
    #[derive(sqlx::FromRow)]
    struct Row {
        fsync: String,
        synchronous_commit: String,
    }
    if pool.backend() == Backend::Sqlite {
        return Ok(());
    }
    let row: Row = pool
        .session()
        .await?
        .query(
            "SELECT current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS synchronous_commit",
        )
        .fetch_one()
        .await?;
    if row.fsync == "off" || row.synchronous_commit == "off" {
        return Err(StoreError::Config(
            "PostgreSQL runs with fsync=off or synchronous_commit=off: an acknowledged token could be lost; turn both on"
                .into(),
        ));
    }
    Ok(())
}
