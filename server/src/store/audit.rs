//! Audit records within transactions: a change's record is written with the change, and goes to the log from the
//! outbox. Whose change it is comes with the task that asks for it: see [`Origin`].

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use sqlx::types::Json;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use super::sql::{Address, Backend, Pool};
use super::{ApiKeyFacts, Session, StoreError, Tx};
use crate::model::{
    AuditKind, AuditRecord, Connection, ConnectionId, Grants, Incarnation, Principal, RequestId, Timestamp,
    TokenVersion, WorkspaceId,
};

tokio::task_local! {
    static ORIGIN: Arc<Origin>;
}

/// On whose behalf something is done: a call, or a job of the vault's own.
#[derive(Debug)]
pub struct Origin {
    principal: Option<Arc<Principal>>,
    system: &'static str,
    rpc: String,
    call_id: String,
    peer: Option<SocketAddr>,
    request_id: OnceLock<RequestId>,
    subject: OnceLock<(WorkspaceId, ConnectionId, TokenVersion)>,
    /// What the log knows already: one record for each thing that a call changes.
    recorded: Mutex<BTreeSet<String>>,
    relayed: watch::Sender<bool>,
}

impl Origin {
    /// A call of `rpc`.
    pub fn call(principal: Option<Arc<Principal>>, rpc: &str, call_id: &str, peer: SocketAddr) -> Self {
        Self {
            rpc: rpc.to_owned(),
            call_id: call_id.to_owned(),
            peer: Some(peer),
            principal,
            ..Self::system("")
        }
    }

    /// Work that the vault does by itself.
    pub fn system(job: &'static str) -> Self {
        Self {
            principal: None,
            system: job,
            rpc: String::new(),
            call_id: String::new(),
            peer: None,
            request_id: OnceLock::new(),
            subject: OnceLock::new(),
            recorded: Mutex::default(),
            relayed: watch::channel(false).0,
        }
    }

    /// Does `work` on behalf of this origin.
    pub async fn scope<F: Future>(self: Arc<Self>, work: F) -> F::Output {
        ORIGIN.scope(self, work).await
    }

    /// On whose behalf this task works; `None` where nobody said.
    pub fn current() -> Option<Arc<Self>> {
        ORIGIN.try_with(Arc::clone).ok()
    }

    /// Remembers the caller's id of its request.
    pub fn note_request(request_id: Option<&RequestId>) {
        if let Some(id) = request_id {
            let _ = ORIGIN.try_with(|origin| origin.request_id.set(id.clone()));
        }
    }

    /// Remembers what the call turned out to be about.
    pub fn note_subject(connection: &Connection) {
        let _ = ORIGIN.try_with(|origin| {
            if origin.subject.get().is_none() {
                let subject = (connection.workspace.clone(), connection.id, connection.version);
                let _ = origin.subject.set(subject);
            }
        });
    }

    /// Whether the log, or the outbox, has a record of this.
    pub fn is_recorded(&self) -> bool {
        !self.recorded().is_empty()
    }

    /// Waits until the log has what the outbox had.
    pub async fn relayed(&self) {
        let mut relayed = self.relayed.subscribe();
        // The sender lives as long as this does.
        let _ = relayed.wait_for(|done| *done).await;
    }

    /// The log has it.
    pub fn mark_relayed(&self) {
        self.relayed.send_replace(true);
    }

    /// Who calls; `None` for work of the vault's own.
    pub fn principal(&self) -> Option<&Principal> {
        self.principal.as_deref()
    }

    fn is_call(&self) -> bool {
        self.system.is_empty()
    }

    fn recorded(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A record of this origin, about what the call is about.
    pub fn record(&self, kind: AuditKind, at: Timestamp) -> AuditRecord {
        let mut record = AuditRecord::new(kind, at);
        if self.is_call() {
            record.rpc.clone_from(&self.rpc);
            record.call_id.clone_from(&self.call_id);
            record.peer = self.peer.map(|peer| peer.to_string()).unwrap_or_default();
        } else {
            record.principal = format!("system:{}", self.system);
            record.rpc = self.system.to_owned();
        }
        if let Some(principal) = &self.principal {
            record.principal.clone_from(&principal.name);
            record.credential = principal.credential.to_string();
        }
        if let Some(id) = self.request_id.get() {
            record.request_id = id.to_string();
        }
        if let Some((workspace, connection, version)) = self.subject.get() {
            record.workspace = workspace.to_string();
            record.connection = connection.to_string();
            record.version = Some(version.get());
        }
        record
    }
}

/// A record on its way into a transaction.
#[derive(Debug, Clone)]
pub struct Audited {
    number: i64,
    id: Uuid,
    key: String,
    body: String,
    origin: Option<Arc<Origin>>,
}

/// What the writer tells the relay.
#[derive(Debug)]
pub enum Outgoing {
    /// Committed, in order.
    Records(Vec<(Uuid, String, Option<Arc<Origin>>)>),
    /// Committed or not, nobody knows: the outbox does.
    Doubtful(Vec<Uuid>),
}

/// The writer's side of the outbox.
pub(super) struct Outbox {
    incarnation: Incarnation,
    on: bool,
    next: AtomicI64,
    relay: mpsc::UnboundedSender<Outgoing>,
}

impl Outbox {
    pub(super) fn new(incarnation: Incarnation, on: bool) -> (Self, mpsc::UnboundedReceiver<Outgoing>) {
        // What waits here is bounded by the gate: while the sink fails, no change begins.
        let (relay, outgoing) = mpsc::unbounded_channel();
        (Self { incarnation, on, next: AtomicI64::new(1), relay }, outgoing)
    }

    /// Writes a batch's records, numbered in their order.
    pub(super) async fn write(&self, tx: &mut Tx) -> Result<(), StoreError> {
        if !self.on {
            tx.audited().clear();
        }
        if tx.audited().is_empty() {
            return Ok(());
        }
        for record in tx.audited().iter_mut() {
            record.number = self.next.fetch_add(1, Ordering::Relaxed);
        }
        let own = self.incarnation.as_uuid();
        let hex = tx.backend() == Backend::Sqlite;
        let rows: Vec<(String, i64, String)> = tx
            .audited()
            .iter()
            .map(|record| {
                let id = if hex { record.id.simple().to_string() } else { record.id.to_string() };
                (id, record.number, record.body.clone())
            })
            .collect();
        tx.query_for(
            "INSERT INTO audit_outbox (record_id, incarnation, number, body)
             SELECT unhex(value->>0), $2, value->>1, value->>2 FROM json_each($1)",
            "INSERT INTO audit_outbox (record_id, incarnation, number, body)
             SELECT (r->>0)::uuid, $2, (r->>1)::bigint, r->>2 FROM jsonb_array_elements($1) AS rows (r)",
        )
        .bind(Json(rows))
        .bind(own)
        .execute()
        .await?;
        Ok(())
    }

    pub(super) fn committed(&self, audited: Vec<Audited>) {
        if audited.is_empty() {
            return;
        }
        for record in &audited {
            if let Some(origin) = record.origin.as_ref().filter(|origin| origin.is_call()) {
                origin.recorded().insert(record.key.clone());
            }
        }
        let records = audited.into_iter().map(|record| (record.id, record.body, record.origin)).collect();
        let _ = self.relay.send(Outgoing::Records(records));
    }

    pub(super) fn doubtful(&self, audited: Vec<Audited>) {
        if !audited.is_empty() {
            let _ =
                self.relay.send(Outgoing::Doubtful(audited.into_iter().map(|record| record.id).collect()));
        }
    }
}

impl Tx {
    /// Records that a connection changed.
    pub fn audit_connection(&mut self, connection: &Connection, now: Timestamp) {
        self.audit(connection.id.to_string(), now, |record| {
            record.workspace = connection.workspace.to_string();
            record.connection = connection.id.to_string();
            record.version = Some(connection.version.get());
        });
    }

    /// Records that something else changed, named by its kind and id: `api_key:…`.
    pub fn audit_object(&mut self, object: String, now: Timestamp) {
        self.audit(object.clone(), now, |record| record.object = object);
    }

    /// Records that an API key changed, and what it lets its holder do.
    pub fn audit_api_key(&mut self, key: &ApiKeyFacts, now: Timestamp) {
        let object = format!("api_key:{}", key.id);
        self.audit(object.clone(), now, |record| {
            record.object = object;
            record.grants = Some(Grants {
                replaced_by: key.replaced_by.as_ref().map(ToString::to_string),
                ..Grants::new(&key.principal, key.role, &key.workspaces, key.expires_at)
            });
        });
    }

    /// Whether a job of the vault's own is at work.
    pub fn is_system(&self) -> bool {
        self.origin().is_none_or(|origin| !origin.is_call())
    }

    /// One record for each thing that a call changes, however often; one for each change that the vault makes by
    /// itself.
    fn audit(&mut self, key: String, now: Timestamp, about: impl FnOnce(&mut AuditRecord)) {
        let origin = self.origin().cloned();
        if let Some(origin) = origin.as_ref().filter(|origin| origin.is_call()) {
            let same = |known: &Audited| {
                known.key == key && known.origin.as_ref().is_some_and(|of| Arc::ptr_eq(of, origin))
            };
            if origin.recorded().contains(&key) || self.audited().iter().any(same) {
                return;
            }
        }
        let mut record = match &origin {
            Some(origin) => origin.record(AuditKind::Changed, now),
            None => Origin::system("vault").record(AuditKind::Changed, now),
        };
        record.code = "OK".to_owned();
        about(&mut record);
        let body = serde_json::to_string(&record).unwrap_or_default();
        self.audited().push(Audited { number: 0, id: record.id, key, body, origin });
    }

    /// Forgets records that the log has.
    pub async fn forget_relayed(&mut self, records: &[Uuid]) -> Result<(), StoreError> {
        if records.is_empty() {
            return Ok(());
        }
        let hex: Vec<String> = records.iter().map(|id| id.simple().to_string()).collect();
        self.query_for(
            "DELETE FROM audit_outbox WHERE record_id IN (SELECT unhex(value) FROM json_each($1))",
            "DELETE FROM audit_outbox
              WHERE record_id IN (SELECT r::uuid FROM jsonb_array_elements_text($1) AS ids (r))",
        )
        .bind(Json(hex))
        .execute()
        .await?;
        Ok(())
    }

    /// Takes over these records, but for those that somebody else took meanwhile.
    pub async fn adopt_outbox(
        &mut self,
        own: Incarnation,
        left: &[Uuid],
    ) -> Result<Vec<(Uuid, String)>, StoreError> {
        let mut adopted = Vec::with_capacity(left.len());
        for id in left {
            let row: Option<Row> = self
                .query(
                    "UPDATE audit_outbox SET incarnation = $2
                      WHERE record_id = $1 AND incarnation NOT IN (SELECT incarnation FROM replicas)
                     RETURNING record_id, body",
                )
                .bind(*id)
                .bind(own.as_uuid())
                .fetch_optional()
                .await?;
            adopted.extend(row.map(|row| (row.record_id, row.body)));
        }
        Ok(adopted)
    }

    /// Notes how far a chain has come.
    pub async fn anchor_chain(&mut self, chain: &ChainState, now: Timestamp) -> Result<(), StoreError> {
        self.query(
            "INSERT INTO audit_chains (chain_id, place, number, mac, anchored_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (chain_id) DO UPDATE SET number = excluded.number, mac = excluded.mac,
                                                  anchored_at = excluded.anchored_at",
        )
        .bind(chain.chain)
        .bind(chain.place.clone())
        .bind(chain.number)
        .bind(chain.mac.clone())
        .bind(now.as_micros())
        .execute()
        .await?;
        Ok(())
    }

    /// Notes that records of a chain up to this one, that one included, go with an old file.
    pub async fn drop_chain_to(&mut self, chain: &ChainState, now: Timestamp) -> Result<(), StoreError> {
        // A chain may be too short to have been noted before.
        self.query(
            "INSERT INTO audit_chains (chain_id, place, number, mac, anchored_at, dropped_to)
                  VALUES ($1, $2, $3, $4, $5, $3)
             ON CONFLICT (chain_id) DO UPDATE SET dropped_to = excluded.dropped_to
                   WHERE audit_chains.dropped_to < excluded.dropped_to",
        )
        .bind(chain.chain)
        .bind(chain.place.clone())
        .bind(chain.number)
        .bind(chain.mac.clone())
        .bind(now.as_micros())
        .execute()
        .await?;
        Ok(())
    }
}

/// How far a chain had come.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ChainState {
    /// Which chain.
    #[sqlx(rename = "chain_id")]
    pub chain: Uuid,
    /// Which log it is in.
    pub place: String,
    /// Number of its last record.
    pub number: i64,
    /// That record's MAC.
    pub mac: Vec<u8>,
    /// Records up to this one went with old files.
    pub dropped_to: i64,
}

#[derive(sqlx::FromRow)]
struct Row {
    record_id: Uuid,
    body: String,
}

impl Session {
    /// Of these records, those that are in the outbox.
    pub async fn outbox(&mut self, records: &[Uuid]) -> Result<Vec<(Uuid, String)>, StoreError> {
        let mut found = Vec::new();
        for id in records {
            let row: Option<Row> = self
                .query("SELECT record_id, body FROM audit_outbox WHERE record_id = $1")
                .bind(*id)
                .fetch_optional()
                .await?;
            found.extend(row.map(|row| (row.record_id, row.body)));
        }
        Ok(found)
    }

    /// What processes left that live no more, each one's in its order; so many at most.
    pub async fn left_in_outbox(&mut self, own: Incarnation) -> Result<Vec<Uuid>, StoreError> {
        #[derive(sqlx::FromRow)]
        struct Left {
            record_id: Uuid,
        }
        let rows: Vec<Left> = self
            .query(
                "SELECT record_id FROM audit_outbox
                  WHERE incarnation <> $1 AND incarnation NOT IN (SELECT incarnation FROM replicas)
                  ORDER BY incarnation, number LIMIT 500",
            )
            .bind(own.as_uuid())
            .fetch_all()
            .await?;
        Ok(rows.into_iter().map(|row| row.record_id).collect())
    }

    /// Every chain that there was.
    pub async fn audit_chains(&mut self) -> Result<Vec<ChainState>, StoreError> {
        self.query("SELECT chain_id, place, number, mac, dropped_to FROM audit_chains ORDER BY anchored_at")
            .fetch_all()
            .await
    }
}

/// A session for reads beside a vault that may be running, without what opening the store does.
pub async fn open_for_reading(url: &str) -> Result<Session, StoreError> {
    let address = Address::parse(url)?;
    if let Address::Sqlite { path, .. } = &address
        && !Path::new(path).exists()
    {
        return Err(StoreError::Config(format!("there is no database {}", path.display())));
    }
    Pool::new(&address, 1).session().await
}
