//! The origin: on whose behalf the running task works. It is task-local, so that no verb has to pass it on. A unit of
//! work that records a change without an origin fails: see [`Store::write`](super::Store::write).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use crate::model::{
    AuditKind, AuditRecord, Connection, ConnectionId, Principal, RequestId, Timestamp, TokenVersion,
    WorkspaceId,
};

tokio::task_local! {
    static ORIGIN: Arc<Origin>;
}

/// On whose behalf something is done: a caller's, or the vault's own (a job's).
#[derive(Debug)]
pub struct Origin {
    principal: Option<Arc<Principal>>,
    system: &'static str,
    rpc: String,
    call_id: String,
    peer: Option<SocketAddr>,
    request_id: OnceLock<RequestId>,
    subject: OnceLock<(WorkspaceId, ConnectionId, TokenVersion)>,
    /// The keys of things that already have a record in the log or the outbox.
    recorded: Mutex<BTreeSet<String>>,
    relayed: watch::Sender<bool>,
}

impl Origin {
    pub fn call(principal: Option<Arc<Principal>>, rpc: &str, call_id: &str, peer: SocketAddr) -> Self {
        Self {
            rpc: rpc.to_owned(),
            call_id: call_id.to_owned(),
            peer: Some(peer),
            principal,
            ..Self::system("")
        }
    }

    /// The origin of the vault's own work. Its records name `system:<job>`.
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

    /// On whose behalf this task works; `None` outside of every [`scope`](Self::scope).
    pub fn current() -> Option<Arc<Self>> {
        ORIGIN.try_with(Arc::clone).ok()
    }

    /// Remembers the caller's `request_id`.
    pub fn note_request(request_id: Option<&RequestId>) {
        if let Some(id) = request_id {
            let _ = ORIGIN.try_with(|origin| origin.request_id.set(id.clone()));
        }
    }

    /// Remembers which connection the call is about.
    pub fn note_subject(connection: &Connection) {
        let _ = ORIGIN.try_with(|origin| {
            if origin.subject.get().is_none() {
                let subject = (connection.workspace.clone(), connection.id, connection.version);
                let _ = origin.subject.set(subject);
            }
        });
    }

    /// Whether the log or the outbox has a record of this call.
    pub fn is_recorded(&self) -> bool {
        !self.recorded().is_empty()
    }

    /// Waits until the log holds the records that were in the outbox.
    pub async fn relayed(&self) {
        let mut relayed = self.relayed.subscribe();
        // The sender lives as long as `self`.
        let _ = relayed.wait_for(|done| *done).await;
    }

    pub fn mark_relayed(&self) {
        self.relayed.send_replace(true);
    }

    /// The caller; `None` for the vault's own work.
    pub fn principal(&self) -> Option<&Principal> {
        self.principal.as_deref()
    }

    pub(in crate::store) fn is_call(&self) -> bool {
        self.system.is_empty()
    }

    pub(in crate::store) fn has_recorded(&self, key: &str) -> bool {
        self.recorded().contains(key)
    }

    /// Remembers that the outbox has a record for `key`. Only a call remembers this: it gets one record for each thing.
    pub(in crate::store) fn note_recorded(&self, key: &str) {
        if self.is_call() {
            self.recorded().insert(key.to_owned());
        }
    }

    fn recorded(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.recorded.lock()
    }

    /// A record that names this origin, and the connection that the call is about.
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
            record.link = principal.link.as_ref().map(|link| link.id.to_string()).unwrap_or_default();
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
