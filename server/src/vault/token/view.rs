//! What callers see of a connection: its facts and everything that follows from them now.

use crate::model::{Badge, Connection, Policy, Problem, Renewal, Status, Timestamp};

/// A connection as seen at an instant. No secret.
#[derive(Debug, Clone)]
pub struct TokenView {
    /// The facts.
    pub connection: Connection,
    /// Connections of the same subject and app in other workspaces.
    pub shared_connections: u32,
    /// What it is worth.
    pub status: Status,
    /// Whether FetchAccessToken would answer.
    pub usable: bool,
    /// What a person sees.
    pub badge: Badge,
    /// What is wrong, worst first.
    pub problems: Vec<Problem>,
    /// Whether rotation can be hoped for.
    pub renewal: Renewal,
    /// Required scopes that it lacks.
    pub missing_required_scopes: Vec<String>,
    /// Optional scopes that it lacks.
    pub missing_optional_scopes: Vec<String>,
    /// It is not kept: there is no connection of that id.
    pub is_new: bool,
    /// The instant of this view.
    pub as_of: Timestamp,
}

impl TokenView {
    /// Computes what follows from the facts at `now`.
    pub fn new(connection: Connection, shared_connections: u32, now: Timestamp, policy: &Policy) -> Self {
        let status = connection.status(now, policy);
        Self {
            status,
            usable: status.is_usable(),
            badge: connection.badge(now, policy),
            problems: connection.problems(now, policy),
            renewal: connection.renewal(),
            missing_required_scopes: policy.missing_required(&connection.facts.scopes),
            missing_optional_scopes: policy.missing_optional(&connection.facts.scopes),
            connection,
            shared_connections,
            is_new: false,
            as_of: now,
        }
    }
}
