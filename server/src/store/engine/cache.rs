//! Coherent caches of rows for the hot path: ciphertext and API keys, never plaintext.
//!
//! Every transaction that changes something cached appends a row to `changes`. Each replica polls that table, drops
//! what the rows name, and only then moves `fresh_until`. A hit counts only while the caches are fresh; otherwise the
//! read goes to the database: coherence wins over availability. moka stores the entries; this file keeps them coherent.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use moka::sync::Cache;
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::patience::Patience;
use crate::model::{ApiKeyId, ConnectionId, Timestamp, WorkspaceId};
use crate::store::access::ApiKeyRecord;
use crate::store::connections::HeldToken;
use crate::store::keys::WorkspaceKeyRows;
use crate::store::sql::{Change, Pool, Session, StoreError, Tx};

/// How often the table of changes is polled.
const POLL: Duration = Duration::from_millis(200);
/// How long after the start of a poll a hit counts.
const FRESH: Duration = Duration::from_millis(800);
/// How long changes are kept: far longer than a living replica can fall behind.
const KEPT: Duration = Duration::from_secs(3_600);
/// Most bytes of cached rows with ciphertext.
const CONNECTION_BYTES: u64 = 64 * 1024 * 1024;
const API_KEYS: u64 = 10_000;
const WORKSPACES: u64 = 100_000;

/// The caches, and what keeps them coherent.
pub(in crate::store) struct Coherence {
    connections: Cache<ConnectionId, Arc<HeldToken>>,
    api_keys: Cache<ApiKeyId, Arc<ApiKeyRecord>>,
    workspaces: Cache<WorkspaceId, Arc<WorkspaceKeyRows>>,
    /// Ids of all API keys that ever existed, so that a guessed one is refused without a query.
    key_ids: RwLock<HashSet<ApiKeyId>>,
    /// Inserting takes the read lock and dropping the write lock, so that a row loaded before a drop is not kept after
    /// it.
    drops: RwLock<()>,
    /// Counts drops.
    dropped: AtomicU64,
    erasures: AtomicU64,
    /// The last change that was applied.
    applied: RwLock<ChangeMark>,
    /// Until when hits count, in milliseconds since `born`.
    fresh_until: AtomicU64,
    born: Instant,
}

/// Roughly how many bytes a row takes.
fn weight(row: &Arc<HeldToken>) -> u32 {
    let sealed = row.sealed.as_ref().map_or(0, |sealed| sealed.bytes.len());
    u32::try_from(row.connection.about_bytes() + sealed).unwrap_or(u32::MAX)
}

/// Taken before a row is read: the row is cached only if nothing was dropped since.
#[derive(Clone, Copy)]
pub(in crate::store) struct LoadMark(u64);

impl Coherence {
    pub(in crate::store) fn new() -> Self {
        Self {
            connections: Cache::builder()
                .max_capacity(CONNECTION_BYTES)
                .weigher(|_, row| weight(row))
                .build(),
            api_keys: Cache::new(API_KEYS),
            workspaces: Cache::new(WORKSPACES),
            key_ids: RwLock::default(),
            drops: RwLock::new(()),
            dropped: AtomicU64::new(0),
            erasures: AtomicU64::new(0),
            applied: RwLock::default(),
            fresh_until: AtomicU64::new(0),
            born: Instant::now(),
        }
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.born).as_millis()).unwrap_or(u64::MAX)
    }

    fn is_fresh(&self) -> bool {
        self.millis(Instant::now()) < self.fresh_until.load(Ordering::Acquire)
    }

    pub(in crate::store) fn connection(&self, id: &ConnectionId) -> Option<Arc<HeldToken>> {
        if self.is_fresh() { self.connections.get(id) } else { None }
    }

    pub(in crate::store) fn api_key(&self, id: &ApiKeyId) -> Option<Arc<ApiKeyRecord>> {
        if self.is_fresh() { self.api_keys.get(id) } else { None }
    }

    pub(in crate::store) fn knows_api_key(&self, id: &ApiKeyId) -> bool {
        self.key_ids.read().contains(id)
    }

    pub(in crate::store) fn workspace(&self, id: &WorkspaceId) -> Option<Arc<WorkspaceKeyRows>> {
        if self.is_fresh() { self.workspaces.get(id) } else { None }
    }

    pub(in crate::store) fn mark(&self) -> LoadMark {
        LoadMark(self.dropped.load(Ordering::Acquire))
    }

    pub(in crate::store) fn keep_connection(&self, mark: LoadMark, row: &Arc<HeldToken>) {
        self.keep(mark, || self.connections.insert(row.connection.id, Arc::clone(row)));
    }

    pub(in crate::store) fn keep_api_key(&self, mark: LoadMark, row: &Arc<ApiKeyRecord>) {
        self.keep(mark, || self.api_keys.insert(row.api_key.id.clone(), Arc::clone(row)));
    }

    pub(in crate::store) fn keep_workspace(&self, mark: LoadMark, rows: &Arc<WorkspaceKeyRows>) {
        self.keep(mark, || self.workspaces.insert(rows.workspace.clone(), Arc::clone(rows)));
    }

    fn keep(&self, mark: LoadMark, insert: impl FnOnce()) {
        let _reading = self.drops.read();
        if self.dropped.load(Ordering::Acquire) == mark.0 {
            insert();
        }
    }

    pub(in crate::store) fn drop_changed(&self, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        let _writing = self.drops.write();
        self.dropped.fetch_add(1, Ordering::AcqRel);
        for change in changes {
            match change {
                Change::Connection(id) => self.connections.invalidate(id),
                Change::ApiKey(id) => {
                    self.api_keys.invalidate(id);
                    self.key_ids.write().insert(id.clone());
                }
                Change::Workspace(id) => self.workspaces.invalidate(id),
                Change::Erasure => {
                    self.connections.invalidate_all();
                    self.erasures.fetch_add(1, Ordering::AcqRel);
                }
            }
        }
    }

    /// Counts erasures of people: what was read before the last one may still name them.
    pub(in crate::store) fn erasures(&self) -> u64 {
        self.erasures.load(Ordering::Acquire)
    }

    pub(in crate::store) fn drop_all(&self) {
        let _writing = self.drops.write();
        self.dropped.fetch_add(1, Ordering::AcqRel);
        self.erasures.fetch_add(1, Ordering::AcqRel);
        self.connections.invalidate_all();
        self.api_keys.invalidate_all();
        self.workspaces.invalidate_all();
    }

    /// The highest change that this replica has applied.
    pub(in crate::store) fn applied(&self) -> i64 {
        self.applied.read().revision
    }

    /// Starts at the last change: an empty cache has nothing to drop.
    pub(in crate::store) async fn start(&self, pool: &Pool) -> Result<(), StoreError> {
        let mut session = pool.session().await?;
        self.start_over(&mut session).await?;
        self.poll_on(&mut session).await
    }

    /// Drops everything, and continues from the last change.
    async fn start_over(&self, session: &mut Session) -> Result<(), StoreError> {
        let last = last_change(session).await?;
        // Read the ids after the last change: then a key made in between is among them, or among later changes.
        let ids = session.api_key_ids().await?;
        *self.key_ids.write() = ids;
        self.drop_all();
        self.apply_up_to(last);
        Ok(())
    }

    fn apply_up_to(&self, last: ChangeMark) {
        *self.applied.write() = last;
    }

    /// Applies what changed since the last poll, and only then lets hits count again.
    pub(in crate::store) async fn poll(&self, pool: &Pool) -> Result<(), StoreError> {
        self.poll_on(&mut pool.session().await?).await
    }

    async fn poll_on(&self, session: &mut Session) -> Result<(), StoreError> {
        let started = Instant::now();
        loop {
            let applied = *self.applied.read();
            let mut rows = changes_from(session, applied.revision).await?;
            // The change that was applied last is kept for an hour. If it is missing or differs, rows were deleted
            // before this replica saw them, or the database was replaced by an older copy.
            if applied.revision > 0 && rows.first().map(ChangeRow::mark) != Some(applied) {
                self.start_over(session).await?;
                break;
            }
            rows.retain(|row| row.revision > applied.revision);
            let Some(last) = rows.last().map(ChangeRow::mark) else { break };
            let changes: Vec<_> =
                rows.iter().filter_map(|row| Change::parse(&row.subject, &row.key)).collect();
            self.drop_changed(&changes);
            self.apply_up_to(last);
            if rows.len() + 1 < PAGE {
                break;
            }
        }
        self.fresh_until.store(self.millis(started + FRESH), Ordering::Release);
        Ok(())
    }
}

impl Tx {
    /// Deletes changes older than an hour, except the last: numbers continue from it.
    pub(in crate::store) async fn forget_changes(&mut self, now: Timestamp) -> Result<(), StoreError> {
        self.query(
            "DELETE FROM changes WHERE changed_at < $1 AND revision < (SELECT max(revision) FROM changes)",
        )
        .bind((now - KEPT).as_micros())
        .execute()
        .await?;
        Ok(())
    }
}

const PAGE: usize = 1_000;

/// Identifies a change: its time distinguishes it from a change with the same number in another copy of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, sqlx::FromRow)]
struct ChangeMark {
    revision: i64,
    changed_at: i64,
}

#[derive(sqlx::FromRow)]
struct ChangeRow {
    revision: i64,
    subject: String,
    key: String,
    changed_at: i64,
}

impl ChangeRow {
    const fn mark(&self) -> ChangeMark {
        ChangeMark { revision: self.revision, changed_at: self.changed_at }
    }
}

async fn changes_from(session: &mut Session, revision: i64) -> Result<Vec<ChangeRow>, StoreError> {
    session
        .query(
            "SELECT revision, subject, key, changed_at FROM changes WHERE revision >= $1
              ORDER BY revision LIMIT 1000",
        )
        .bind(revision)
        .fetch_all()
        .await
}

async fn last_change(session: &mut Session) -> Result<ChangeMark, StoreError> {
    let last: Option<ChangeMark> = session
        .query("SELECT revision, changed_at FROM changes ORDER BY revision DESC LIMIT 1")
        .fetch_optional()
        .await?;
    Ok(last.unwrap_or_default())
}

/// Polls once. A connection on which no reply comes is of no more use.
async fn poll_once(coherence: &Coherence, pool: &Pool) -> Result<(), StoreError> {
    let silent = || StoreError::Unavailable(format!("{}: no reply in time", pool.address().name()));
    let mut patience = Patience::new();
    let mut session = patience.wait(pool.session()).await.ok_or_else(silent)??;
    if let Some(polled) = patience.wait(coherence.poll_on(&mut session)).await {
        return polled;
    }
    session.abandon();
    Err(silent())
}

/// Polls changes, on a connection of its own, until stopped. `health` follows: false while the database can't be
/// reached. The circuit before the database follows it.
pub(in crate::store) async fn watch_changes(
    coherence: Arc<Coherence>,
    pool: Pool,
    health: watch::Sender<bool>,
    stop: CancellationToken,
) {
    let mut tick = tokio::time::interval(POLL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! { () = stop.cancelled() => break, _ = tick.tick() => {} }
        let started = Instant::now();
        // A pool waits longer and longer between its attempts; one attempt shows sooner that the database is back.
        let back = *health.borrow() || pool.address().probe().await.is_ok();
        let polled = if back { poll_once(&coherence, &pool).await.err() } else { continue };
        let error = match polled {
            // A connection may break for a reason of its own.
            Some(_) if started.elapsed() < POLL => poll_once(&coherence, &pool).await.err(),
            polled => polled,
        };
        let well = error.is_none();
        let changed = health.send_if_modified(|was| std::mem::replace(was, well) != well);
        match error {
            None if changed => tracing::info!("the database is back"),
            Some(error) if changed => {
                // The pool doesn't say why it has no connection.
                let error = pool.address().probe().await.err().unwrap_or(error);
                tracing::error!(%error, "the database can't be reached: calls that need it are refused until it is back");
            }
            _ => {}
        }
    }
    pool.close().await;
}
