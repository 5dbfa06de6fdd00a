//! Which events a caller asks for, and which of them it may see.

use std::collections::BTreeSet;

use crate::model::{
    Connection, ConnectionId, Event, EventKind, EventWord, Principal, ProviderId, Severity, WorkspaceId,
};
use crate::vault::error::VaultError;

/// Which events pass: "or" within a field, "and" between fields. An empty field lets everything through.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Events of these workspaces. Events about a provider belong to no workspace and always pass.
    pub workspaces: BTreeSet<WorkspaceId>,
    pub providers: BTreeSet<ProviderId>,
    /// Events of these connections. Events about a provider belong to no connection and never pass.
    pub connections: BTreeSet<ConnectionId>,
    pub kinds: BTreeSet<EventKind>,
    /// This severity and worse.
    pub min_severity: Option<Severity>,
}

fn allows<T: Ord>(allowed: &BTreeSet<T>, value: Option<&T>) -> bool {
    allowed.is_empty() || value.is_none_or(|value| allowed.contains(value))
}

impl EventFilter {
    /// Whether an event passes. An event that closes another one passes if that one did, so that a watcher that saw a
    /// problem also sees its recovery.
    pub fn passes(&self, word: &EventWord) -> bool {
        let wanted = |kind: EventKind, severity: Severity| {
            (self.kinds.is_empty() || self.kinds.contains(&kind))
                && self.min_severity.is_none_or(|least| severity >= least)
        };
        allows(&self.workspaces, word.workspace.as_ref())
            && allows(&self.providers, Some(&word.provider))
            && (self.connections.is_empty()
                || word.connection.is_some_and(|connection| self.connections.contains(&connection)))
            && (wanted(word.kind, word.severity)
                || word.closes.iter().any(|closed| wanted(closed.kind, closed.severity)))
    }

    /// Whether a connection's events can pass.
    pub fn covers(&self, connection: &Connection) -> bool {
        allows(&self.workspaces, Some(&connection.workspace))
            && allows(&self.providers, Some(&connection.provider))
            && allows(&self.connections, Some(&connection.id))
    }

    /// Denies a filter that names a workspace that the caller may not see.
    pub(super) fn check_workspaces(&self, caller: &Principal) -> Result<(), VaultError> {
        match self.workspaces.iter().find(|workspace| !caller.workspaces.contains(workspace)) {
            Some(hidden) => Err(VaultError::WorkspaceNotFound(hidden.clone())),
            None => Ok(()),
        }
    }
}

/// Whether the caller may see an event. Everybody may see events about a provider.
pub(super) fn may_see(caller: &Principal, event: &Event) -> bool {
    event.word.workspace.as_ref().is_none_or(|workspace| caller.workspaces.contains(workspace))
}
