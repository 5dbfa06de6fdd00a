//! The only place with SQL. Rows stay inside: the store returns only the model's types and sealed secrets.
//!
//! [`Store::read`] gives a session for reads; [`Store::write`] takes a unit of work. Each SQL statement is in a
//! function named after the question that it answers. Start with `sql/db.rs` (one text, two databases), then
//! `engine/writer.rs` (group commit) and `engine/cache.rs` (the hot path). The other folders hold the tables, by
//! subject; dependencies point downwards: `engine` → tables → `sql` → `origin`.

mod access;
mod audit;
mod connections;
mod engine;
mod feed;
mod keys;
#[cfg(test)]
mod names_tests;
mod origin;
mod sql;
#[cfg(test)]
mod tests;
mod work;

use std::fs::File;
use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use access::{
    ApiKeyFacts, ApiKeyRecord, AuthorizationScope, AuthorizationState, ConnectLinkRecord, DataDeletion,
    Shredding, WorkspaceFacts,
};
pub use audit::{ChainState, Outgoing};
pub use connections::{
    DueValidation, ExchangedToken, HeldToken, KnownAdAccount, ListDrive, ListPosition, ListRange, NewSecret,
    PendingSecret, StandingName,
};
pub use engine::{Abort, Batch, Feed, Live, Needs, Numbered, Recent};
pub use feed::{Bookmark, EventDrive, Scope};
pub use keys::{
    BreakGlassWrap, KeyPosition, KeyPurpose, MasterKeyRecord, SealedRow, StoredKey, VaultKeyPurpose,
    VaultRecord, WorkspaceKeyRows, WrappedKey,
};
pub use origin::Origin;
pub use sql::{Backend, Session, StoreError, Tx, full_disk, migrate_only, open_for_reading};
pub use work::{
    Claim, Claimed, JobRun, ProviderHealth, Registration, RequestOutcome, RunCause, RunState, Spread,
};

use audit::Outbox;
use engine::{Aftermath, Beats, ClockGuard, Coherence, Flights, Writer};
use sql::{Address, Change, Circuit, Pool};

use crate::model::{ApiKeyId, Clock, ConnectionId, Incarnation, Timestamp, WorkspaceId};

pub struct StoreConfig<'a> {
    /// `sqlite:PATH` or `postgres://…`; may hold a password.
    pub url: &'a str,
    /// Apply migrations when opening.
    pub migrate: bool,
    /// Identifies this run of this process.
    pub incarnation: Incarnation,
    /// Whether changes are recorded for the audit log.
    pub audit: bool,
    pub clock: Clock,
}

/// The database.
pub struct Store {
    /// For lists, views and examinations.
    readers: Pool,
    /// For authentication and fetches, so that no list delays them.
    hot: Pool,
    writer: Writer,
    coherence: Arc<Coherence>,
    feed: Arc<Feed>,
    clock_guard: Arc<ClockGuard>,
    address: Arc<Address>,
    token_flights: Flights<ConnectionId, Option<Arc<HeldToken>>>,
    key_flights: Flights<ApiKeyId, Option<Arc<ApiKeyRecord>>>,
    workspace_flights: Flights<WorkspaceId, Option<Arc<WorkspaceKeyRows>>>,
    healthy: watch::Receiver<bool>,
    writable: watch::Receiver<bool>,
    room: watch::Receiver<bool>,
    circuit: Circuit,
    stop: CancellationToken,
    tasks: TaskTracker,
    incarnation: Incarnation,
    beats: Arc<Beats>,
    /// The channel of committed audit records, until the relay takes it.
    outgoing: Mutex<Option<mpsc::UnboundedReceiver<Outgoing>>>,
    /// Held while SQLite is open, so that a second process refuses to open it.
    _lock: Option<File>,
}

impl Store {
    /// Opens the database: locks it (SQLite), checks its settings (PostgreSQL), migrates it if asked, and starts the
    /// writer.
    pub async fn open(config: StoreConfig<'_>) -> Result<Self, StoreError> {
        let address = Address::parse(config.url)?;
        let lock = address.lock()?;
        // SQLite has one writer, with a connection of its own. Few readers are enough: a read uses CPU and hardly
        // waits.
        let (health, healthy) = watch::channel(true);
        let circuit = Circuit::new(healthy.clone());
        let pool = |size| Pool::new(&address, size).behind(&circuit);
        let (readers, hot) = (pool(4), pool(2));
        let writers = Pool::new(&address.for_writes(), 1).behind(&circuit);
        let (pulse, beat) = (Pool::new(&address, 1), Pool::new(&address, 1));
        // The feed's reader; on PostgreSQL also one connection that listens and one that notifies.
        let (tail, wake) = (Pool::new(&address, 1), Pool::new(&address, 2));
        sql::reach(&writers).await?;
        sql::migrate(&readers, config.migrate).await?;
        sql::check_schema(&writers).await?;
        sql::check_settings(&readers).await?;
        engine::check_wake(&wake).await?;

        let coherence = Arc::new(Coherence::new());
        let feed = Arc::new(Feed::new(Arc::clone(&coherence)));
        let clock_guard = Arc::new(ClockGuard::new());
        let (outbox, outgoing) = Outbox::new(config.incarnation, config.audit);
        let (writing, writable) = watch::channel(true);
        let destroyed = Arc::new(Notify::new());
        let after = Aftermath {
            coherence: Arc::clone(&coherence),
            feed: Arc::clone(&feed),
            outbox,
            clock: config.clock.clone(),
            writable: writing,
            destroyed: Arc::clone(&destroyed),
        };
        let (writer, drained) = Writer::start(writers, after);
        let beats = Arc::new(Beats::new(
            writer.clone(),
            Arc::clone(&coherence),
            Arc::clone(&clock_guard),
            config.incarnation,
            config.clock,
        ));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(drained);
        if readers.backend() == Backend::Sqlite {
            tasks.spawn(engine::scrub_after(destroyed, writer.clone(), stop.clone()));
        }
        let (room, has_room) = watch::channel(true);
        match address.folder() {
            Some(folder) => drop(tasks.spawn(engine::watch_room(folder, room, stop.clone()))),
            // On another machine nobody looks. The sender stays, because its end would count as news.
            None => {
                let stop = stop.clone();
                tasks.spawn(async move {
                    stop.cancelled().await;
                    drop(room);
                });
            }
        }
        let store = Self {
            readers,
            hot,
            writer,
            coherence,
            feed,
            clock_guard,
            address,
            token_flights: Flights::default(),
            key_flights: Flights::default(),
            workspace_flights: Flights::default(),
            healthy,
            writable,
            room: has_room,
            circuit,
            stop,
            tasks,
            incarnation: config.incarnation,
            beats,
            outgoing: Mutex::new(Some(outgoing)),
            _lock: lock,
        };
        store.coherence.start(&pulse).await?;
        store.clock_guard.look(&pulse).await?;
        store.feed.start_at(store.read().await?.feed_state().await?);
        let (feed, stop) = (Arc::clone(&store.feed), store.stop.clone());
        store.tasks.spawn(async move { feed.run(tail, stop).await });
        store.tasks.spawn(engine::run_wake(wake, Arc::clone(&store.feed), store.stop.clone()));
        store.tasks.spawn(engine::watch_changes(
            Arc::clone(&store.coherence),
            pulse,
            health,
            store.stop.clone(),
        ));
        let (beats, healthy, stop) = (Arc::clone(&store.beats), store.healthy.clone(), store.stop.clone());
        store.tasks.spawn(async move { beats.run(beat, healthy, stop).await });
        Ok(store)
    }

    pub fn backend(&self) -> Backend {
        self.readers.backend()
    }

    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// False while the database can't be reached.
    pub fn health(&self) -> watch::Receiver<bool> {
        self.healthy.clone()
    }

    /// Fails while the database is known to be away. Costs nothing.
    pub fn check_reachable(&self) -> Result<(), StoreError> {
        self.circuit.check()
    }

    /// False while writes fail or stall, for instance because the disk is full. Each beat is a write, so this follows
    /// within a few seconds.
    pub fn writes(&self) -> watch::Receiver<bool> {
        self.writable.clone()
    }

    /// False while the disk below SQLite's file is full.
    pub fn room(&self) -> watch::Receiver<bool> {
        self.room.clone()
    }

    /// Whether this process's clock may be trusted with deadlines, slots and retention.
    pub fn trusts_clock(&self) -> bool {
        self.clock_guard.is_trusted()
    }

    /// The audit records in the order of their commits. `Some` only for the first call: there is one relay.
    pub fn take_outgoing(&self) -> Option<mpsc::UnboundedReceiver<Outgoing>> {
        self.outgoing.lock().take()
    }

    /// The feed's live end.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// A session for reads.
    pub async fn read(&self) -> Result<Session, StoreError> {
        self.readers.session().await
    }

    /// Runs a unit of work in a transaction and returns once it is durable. It may run more than once, and must await
    /// nothing but its transaction. A unit that records a change for the audit log must run within [`Origin::scope`];
    /// otherwise it fails and nothing changes.
    pub async fn write<F, T, E>(&self, work: F) -> Result<T, Abort<E>>
    where
        F: for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<T, Abort<E>>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        self.writer.write(work).await
    }

    /// [`Self::write`] for a unit with needs of its own; also returns how the unit's events were numbered.
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
        Box::pin(self.token_flights.join(&id, load)).await
    }

    /// Whether there is, or was, an API key with this id. Never queries the database.
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
        Box::pin(self.key_flights.join(id, load)).await
    }

    /// Registers this process as a replica that is alive.
    pub async fn register(&self, registration: Registration, now: Timestamp) -> Result<(), StoreError> {
        self.beats.register(registration, self.backend() == Backend::Sqlite, now).await
    }

    /// Notes which master keys this process holds now; every beat repeats it.
    pub async fn report_master_keys(&self, ids: Vec<String>) -> Result<(), StoreError> {
        self.beats.report_master_keys(ids).await
    }

    /// A workspace's wrapped keys, from the coherent cache or the database; `None` if there is no such workspace.
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
        Box::pin(self.workspace_flights.join(id, load)).await
    }

    /// Drops this process's cache entries for a connection and a workspace, because the two did not fit together.
    pub fn forget(&self, connection: ConnectionId, workspace: &WorkspaceId) {
        self.coherence.drop_changed(&[Change::Connection(connection), Change::Workspace(workspace.clone())]);
    }

    /// [`Self::forget`] for a workspace alone.
    pub fn forget_workspace(&self, workspace: &WorkspaceId) {
        self.coherence.drop_changed(&[Change::Workspace(workspace.clone())]);
    }

    /// Removes what was deleted from the files beside the database; see [`engine::scrub`].
    pub async fn scrub(&self) -> Result<(), StoreError> {
        match self.backend() {
            Backend::Postgres => Ok(()),
            Backend::Sqlite => engine::scrub(&self.writer).await,
        }
    }

    /// Accepts no more writes, finishes those that wait, and closes the database. Afterwards SQLite's file alone is the
    /// whole database, unless another process reads it just then.
    pub async fn close(self: Arc<Self>) {
        self.stop.cancel();
        let incarnation = self.incarnation;
        let _: Result<(), Abort<std::convert::Infallible>> =
            self.write(move |tx| Box::pin(async move { Ok(tx.end_replica(incarnation).await?) })).await;
        self.writer.close();
        self.readers.close().await;
        self.hot.close().await;
        self.tasks.close();
        if self.backend() == Backend::Postgres {
            return;
        }
        self.tasks.wait().await;
        // SQLite writes its log back and removes it when the last connection closes, and this is the last.
        let last = Pool::new(&self.address, 1);
        let truncated = async { last.session().await?.truncate_log().await };
        if !matches!(truncated.await, Ok(true)) {
            tracing::warn!(
                "SQLite's log stays beside the database, because another process reads it or the disk is full: a copy needs both files"
            );
        }
        last.close().await;
    }
}
