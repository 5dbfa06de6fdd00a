//! Table `audit_outbox`: a change's audit record is written in the change's own transaction, and goes to the log from
//! here once that is committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use sqlx::types::Json;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::model::{AuditKind, AuditRecord, ConnectLink, Connection, Grants, Incarnation, Timestamp};
use crate::store::access::ApiKeyFacts;
use crate::store::origin::Origin;
use crate::store::sql::{Audited, Backend, Session, StoreError, Tx};

/// What the writer hands to the relay, which writes it into the log.
#[derive(Debug)]
pub enum Outgoing {
    /// Committed, in order.
    Records(Vec<(Uuid, String, Option<Arc<Origin>>)>),
    /// It is unknown whether these were committed; the outbox's rows show it.
    Doubtful(Vec<Uuid>),
}

/// The writer's side of the outbox.
pub(in crate::store) struct Outbox {
    incarnation: Incarnation,
    on: bool,
    next: AtomicI64,
    relay: mpsc::UnboundedSender<Outgoing>,
}

impl Outbox {
    pub(in crate::store) fn new(
        incarnation: Incarnation,
        on: bool,
    ) -> (Self, mpsc::UnboundedReceiver<Outgoing>) {
        // The number of waiting records is bounded, because no change begins while the sink fails.
        let (relay, outgoing) = mpsc::unbounded_channel();
        (Self { incarnation, on, next: AtomicI64::new(1), relay }, outgoing)
    }

    /// Writes a batch's records, numbered in their order.
    pub(in crate::store) async fn write(&self, tx: &mut Tx) -> Result<(), StoreError> {
        if !self.on {
            tx.pending_mut().audited.clear();
        }
        if tx.pending().audited.is_empty() {
            return Ok(());
        }
        let hex = tx.backend() == Backend::Sqlite;
        let rows: Vec<(String, i64, String)> = tx
            .pending()
            .audited
            .iter()
            .map(|record| {
                let id = if hex { record.id.simple().to_string() } else { record.id.to_string() };
                (id, self.next.fetch_add(1, Ordering::Relaxed), record.body.clone())
            })
            .collect();
        tx.query_for(
            "INSERT INTO audit_outbox (record_id, incarnation, number, body)
             SELECT unhex(value->>0), $2, value->>1, value->>2 FROM json_each($1)",
            "INSERT INTO audit_outbox (record_id, incarnation, number, body)
             SELECT (r->>0)::uuid, $2, (r->>1)::bigint, r->>2 FROM jsonb_array_elements($1) AS rows (r)",
        )
        .bind(Json(rows))
        .bind(self.incarnation.as_uuid())
        .execute()
        .await?;
        Ok(())
    }

    pub(in crate::store) fn committed(&self, audited: Vec<Audited>) {
        if audited.is_empty() {
            return;
        }
        for record in &audited {
            record.origin.note_recorded(&record.key);
        }
        let records =
            audited.into_iter().map(|record| (record.id, record.body, Some(record.origin))).collect();
        let _ = self.relay.send(Outgoing::Records(records));
    }

    pub(in crate::store) fn doubtful(&self, audited: Vec<Audited>) {
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

    /// Records that a connect link changed, and where it leads.
    pub fn audit_connect_link(&mut self, link: &ConnectLink, now: Timestamp) {
        let object = format!("connect_link:{}", link.id);
        self.audit(object.clone(), now, |record| {
            record.object = object;
            record.workspace = link.workspace.to_string();
            record.connection = link.connection.map(|id| id.to_string()).unwrap_or_default();
        });
    }

    /// Whether the vault itself makes this change, not a caller.
    pub fn is_system(&self) -> bool {
        self.origin().is_none_or(|origin| !origin.is_call())
    }

    /// Adds an audit record. A call gets one record for each thing that it changes, however often it changes that
    /// thing; the vault's own work gets one for each change.
    fn audit(&mut self, key: String, now: Timestamp, about: impl FnOnce(&mut AuditRecord)) {
        let Some(origin) = self.require_origin() else { return };
        if origin.is_call() {
            let same = |known: &Audited| known.key == key && Arc::ptr_eq(&known.origin, &origin);
            if origin.has_recorded(&key) || self.pending().audited.iter().any(same) {
                return;
            }
        }
        let mut record = origin.record(AuditKind::Changed, now);
        record.code = "OK".to_owned();
        about(&mut record);
        let body = serde_json::to_string(&record).unwrap_or_default();
        self.pending_mut().audited.push(Audited { id: record.id, key, body, origin });
    }

    /// Deletes records that the log holds.
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

    /// Takes over these records, except those that another process took meanwhile.
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
}

#[derive(sqlx::FromRow)]
struct Row {
    record_id: Uuid,
    body: String,
}

impl Session {
    /// Those of `records` that are in the outbox and belong to `own`, in order.
    pub async fn outbox(
        &mut self,
        own: Incarnation,
        records: &[Uuid],
    ) -> Result<Vec<(Uuid, String)>, StoreError> {
        let hex: Vec<String> = records.iter().map(|id| id.simple().to_string()).collect();
        let rows: Vec<Row> = self
            .query_for(
                "SELECT record_id, body FROM audit_outbox
                  WHERE incarnation = $2 AND record_id IN (SELECT unhex(value) FROM json_each($1))
                  ORDER BY number",
                "SELECT record_id, body FROM audit_outbox
                  WHERE incarnation = $2
                    AND record_id IN (SELECT r::uuid FROM jsonb_array_elements_text($1) AS ids (r))
                  ORDER BY number",
            )
            .bind(Json(hex))
            .bind(own.as_uuid())
            .fetch_all()
            .await?;
        Ok(rows.into_iter().map(|row| (row.record_id, row.body)).collect())
    }

    /// Up to 500 records of processes that have ended, in the order in which each process wrote them.
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
}
