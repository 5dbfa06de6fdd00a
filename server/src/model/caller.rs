//! Who calls: an authenticated principal, its role and the workspaces it may act in.

use std::collections::BTreeSet;

use super::{ApiKeyId, BadValue, WorkspaceId};

/// What a caller is for. The permission table (`api/access.rs`) says what each may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Brings tokens in: the web service.
    Connector,
    /// Uses tokens: the ingestion service.
    Ingestion,
    /// Watches tokens: the alerting service.
    Alerting,
    /// Reads metadata and status.
    Viewer,
    /// Everything.
    Admin,
}

impl Role {
    /// Every role, in the order in which people list them.
    pub const ALL: [Self; 5] = [Self::Connector, Self::Ingestion, Self::Alerting, Self::Viewer, Self::Admin];

    /// The name in the database, on the command line and in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connector => "connector",
            Self::Ingestion => "ingestion",
            Self::Alerting => "alerting",
            Self::Viewer => "viewer",
            Self::Admin => "admin",
        }
    }

    /// The role of that name.
    pub fn parse(name: &str) -> Result<Self, BadValue> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == name)
            .ok_or_else(|| BadValue::new("must be one of connector, ingestion, alerting, viewer, admin"))
    }
}

/// The workspaces that a principal may act in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkspaceSet {
    /// Every workspace, those to come included.
    All,
    /// These only. Never empty.
    Named(BTreeSet<WorkspaceId>),
}

impl WorkspaceSet {
    /// Whether `workspace` is among them.
    pub fn contains(&self, workspace: &WorkspaceId) -> bool {
        match self {
            Self::All => true,
            Self::Named(named) => named.contains(workspace),
        }
    }

    /// Whether everything in `other` is among them.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Named(_), Self::All) => false,
            (Self::Named(ours), Self::Named(theirs)) => theirs.is_subset(ours),
        }
    }
}

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Stable name, chosen by the operator; several keys may carry it (rotation with overlap).
    pub name: String,
    /// The key that it came with.
    pub key_id: ApiKeyId,
    /// What it is for.
    pub role: Role,
    /// Where it may act.
    pub workspaces: WorkspaceSet,
}
