//! A transaction in which a unit of work runs, and what the unit leaves for the commit: cache entries to drop, events
//! to number, records for the audit log.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use uuid::Uuid;

use super::Session;
use crate::model::{ApiKeyId, ConnectionId, EventKind, EventWord, WorkspaceId};
use crate::store::origin::Origin;

/// A cached row that changed: every replica drops it once the transaction commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) enum Change {
    Connection(ConnectionId),
    ApiKey(ApiKeyId),
    /// A workspace's keys, or that it was shredded.
    Workspace(WorkspaceId),
    /// People were erased: whatever holds names is dropped.
    Erasure,
}

impl Change {
    pub(in crate::store) const fn subject(&self) -> &'static str {
        match self {
            Self::Connection(_) => "connection",
            Self::ApiKey(_) => "api_key",
            Self::Workspace(_) => "workspace",
            Self::Erasure => "erasure",
        }
    }

    pub(in crate::store) fn key(&self) -> String {
        match self {
            Self::Connection(id) => id.to_string(),
            Self::ApiKey(id) => id.to_string(),
            Self::Workspace(id) => id.to_string(),
            Self::Erasure => String::new(),
        }
    }

    pub(in crate::store) fn parse(subject: &str, key: &str) -> Option<Self> {
        match subject {
            "connection" => ConnectionId::parse(key).ok().map(Self::Connection),
            "api_key" => ApiKeyId::parse(key).ok().map(Self::ApiKey),
            "workspace" => WorkspaceId::parse(key).ok().map(Self::Workspace),
            "erasure" => Some(Self::Erasure),
            _ => None,
        }
    }
}

/// An audit record that is written with the transaction's changes.
#[derive(Debug, Clone)]
pub(in crate::store) struct Audited {
    pub(in crate::store) id: Uuid,
    /// What it is about: a call gets one record for each thing that it changes.
    pub(in crate::store) key: String,
    pub(in crate::store) body: String,
    pub(in crate::store) origin: Arc<Origin>,
}

/// What units of work leave for the commit.
#[derive(Debug, Default)]
pub(in crate::store) struct Pending {
    pub(in crate::store) changes: Vec<Change>,
    pub(in crate::store) events: Vec<EventWord>,
    pub(in crate::store) audited: Vec<Audited>,
    /// Whether something secret was deleted or overwritten, which a log of the database may still hold.
    pub(in crate::store) destroyed: bool,
}

/// How much was pending when a unit of work began.
pub(in crate::store) struct Mark {
    changes: usize,
    events: usize,
    audited: usize,
}

impl Pending {
    pub(in crate::store) fn mark(&self) -> Mark {
        Mark { changes: self.changes.len(), events: self.events.len(), audited: self.audited.len() }
    }

    /// Drops what units of work have left since `mark`.
    pub(in crate::store) fn truncate(&mut self, mark: &Mark) {
        self.changes.truncate(mark.changes);
        self.events.truncate(mark.events);
        self.audited.truncate(mark.audited);
    }
}

/// A transaction in which a unit of work runs: reads (it derefs to a session) and writes.
pub struct Tx {
    session: Session,
    pending: Pending,
    origin: Option<Arc<Origin>>,
    unattributed: bool,
}

impl Tx {
    pub(in crate::store) fn new(session: Session) -> Self {
        Self { session, pending: Pending::default(), origin: None, unattributed: false }
    }

    /// Sets the origin of the next unit of work.
    pub(in crate::store) fn begin_unit(&mut self, origin: Option<Arc<Origin>>) {
        self.origin = origin;
        self.unattributed = false;
    }

    /// The running unit's origin. A unit that needs an origin and has none does not commit.
    pub(in crate::store) fn require_origin(&mut self) -> Option<Arc<Origin>> {
        self.unattributed |= self.origin.is_none();
        self.origin.clone()
    }

    /// Whether the running unit needed an origin and had none.
    pub(in crate::store) fn is_unattributed(&self) -> bool {
        self.unattributed
    }

    pub(in crate::store) fn origin(&self) -> Option<&Arc<Origin>> {
        self.origin.as_ref()
    }

    pub(in crate::store) fn changed(&mut self, change: Change) {
        self.pending.changes.push(change);
    }

    /// Notes that something secret was deleted or overwritten.
    pub(in crate::store) fn destroyed(&mut self) {
        self.pending.destroyed = true;
    }

    /// Adds an event; it gets its number when the transaction ends.
    pub(in crate::store) fn push_event(&mut self, word: EventWord) {
        self.pending.events.push(word);
    }

    pub(in crate::store) fn pending(&self) -> &Pending {
        &self.pending
    }

    pub(in crate::store) fn pending_mut(&mut self) -> &mut Pending {
        &mut self.pending
    }

    /// The connections of which an event so far announces that the token died before its expiry.
    pub(in crate::store) fn deaths_so_far(&self) -> impl Iterator<Item = ConnectionId> {
        let deaths = self.pending.events.iter().filter(|word| word.kind == EventKind::Invalidated);
        deaths.filter_map(|word| word.connection)
    }

    pub(in crate::store) fn into_parts(self) -> (Session, Pending) {
        (self.session, self.pending)
    }
}

impl Deref for Tx {
    type Target = Session;
    fn deref(&self) -> &Session {
        &self.session
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.session
    }
}
