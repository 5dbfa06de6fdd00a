//! What can be wrong, and what an event or a token's problem is about.

use std::collections::BTreeMap;

use prost_types::Timestamp;

use crate::v1::expiry_event::Kind;
use crate::v1::{ErrorReason, ExpiryEvent, Remedy, Severity};

/// What an incident concerns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// One connection, by its id.
    Connection(String),
    /// A provider as a whole, or the vault's app there, by the provider's name.
    Provider(String),
}

/// Why there is an incident. Several events in a row may share one cause: a token that expires soon, and then has
/// expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The token ends soon, or has ended.
    Expiry,
    /// The provider refuses the token.
    Refusal,
    /// The vault could not renew the token.
    Renewal,
    /// Scopes are missing.
    Scopes,
    /// Ad accounts are unreachable.
    AdAccounts,
    /// The data access ends soon, or has ended.
    DataAccess,
    /// The vault delays calls, because the provider throttles them.
    Throttling,
    /// The vault has not validated the token in time.
    Overdue,
    /// The provider, or the vault's app there, does not work.
    Provider,
    /// A cause that only a newer vault knows, by the number of its kind of event or its reason. Use severity and
    /// remedy.
    Other(i32),
}

/// Something that is wrong. At most one is open for each scope and cause.
#[derive(Debug, Clone, PartialEq)]
pub struct Incident {
    /// Sequence of the event that opened it, which pagers can use as a key. `None`: only a snapshot showed the
    /// incident.
    pub id: Option<i64>,
    /// What it concerns.
    pub scope: Scope,
    /// Why it is open.
    pub cause: Cause,
    /// The worst severity of its open events.
    pub severity: Severity,
    /// The workspace of the connection. Empty for providers.
    pub workspace_id: String,
    /// The ad platform.
    pub provider: String,
    /// When it began, as far as known.
    pub since: Option<Timestamp>,
    /// What is wrong and what to do, in words, as the latest event says.
    pub remedy: Option<Remedy>,
    /// The sequences of its open events, with the severity of each.
    pub events: BTreeMap<i64, Severity>,
    /// The snapshot that showed it covers the connection's events up to this sequence. 0: no snapshot showed it.
    pub seen_up_to: i64,
}

/// What happened to an incident, with its present or last state.
#[derive(Debug, Clone, PartialEq)]
pub enum Alert {
    /// It is new: notify people.
    Opened(Incident),
    /// It became worse or better, or there is more information.
    Updated(Incident),
    /// It is over.
    Resolved(Incident),
}

impl Incident {
    pub(super) fn is_of(&self, opened_by: i64) -> bool {
        self.id == Some(opened_by) || self.events.contains_key(&opened_by)
    }
}

pub(super) fn worst(incident: &Incident) -> Option<Severity> {
    incident.events.values().copied().max()
}

pub(super) fn scope(event: &ExpiryEvent) -> Scope {
    if event.connection_id.is_empty() {
        Scope::Provider(event.provider.clone())
    } else {
        Scope::Connection(event.connection_id.clone())
    }
}

pub(super) fn cause(event: &ExpiryEvent) -> Cause {
    match event.kind() {
        Kind::Expiring | Kind::Expired | Kind::DeadlinesChanged => Cause::Expiry,
        Kind::Invalidated => Cause::Refusal,
        Kind::RotationFailed => Cause::Renewal,
        Kind::ScopesChanged => Cause::Scopes,
        Kind::AdAccountsChanged => Cause::AdAccounts,
        Kind::DataAccessExpiring | Kind::DataAccessExpired => Cause::DataAccess,
        Kind::Throttled => Cause::Throttling,
        Kind::Overdue => Cause::Overdue,
        Kind::ProviderAlarm | Kind::ProviderRecovered => Cause::Provider,
        Kind::Unspecified
        | Kind::Connected
        | Kind::Replaced
        | Kind::Restored
        | Kind::Rotated
        | Kind::Revoked => Cause::Other(event.kind),
    }
}

/// Whether events of this kind close everything that was open for their connection.
pub(super) fn settles_all(kind: Kind) -> bool {
    matches!(kind, Kind::Replaced | Kind::Restored | Kind::Rotated | Kind::Revoked)
}

/// `None`: the problem is not an incident of the connection itself.
pub(super) fn cause_of_problem(reason: i32) -> Option<Cause> {
    Some(match ErrorReason::try_from(reason) {
        Ok(ErrorReason::TokenExpired | ErrorReason::ExpiringSoon) => Cause::Expiry,
        Ok(ErrorReason::TokenInvalid) => Cause::Refusal,
        Ok(ErrorReason::AtCeiling | ErrorReason::ReauthorizationRequired) => Cause::Renewal,
        Ok(ErrorReason::ScopesMissing | ErrorReason::OptionalScopesMissing) => Cause::Scopes,
        Ok(ErrorReason::AdAccountsUnreachable | ErrorReason::NoAdAccounts) => Cause::AdAccounts,
        Ok(ErrorReason::DataAccessEnding) => Cause::DataAccess,
        Ok(ErrorReason::Overdue) => Cause::Overdue,
        Ok(ErrorReason::ProviderThrottled | ErrorReason::CallBudgetExhausted) => Cause::Throttling,
        // The provider's own alarm covers this problem, so connections get no incident of their own for it.
        Ok(ErrorReason::ProviderUnavailable | ErrorReason::ProviderMisconfigured) => return None,
        Ok(ErrorReason::TokenRevoked) => return None,
        // No event says when it is over.
        Ok(ErrorReason::AdAccountsUnread) => return None,
        _ => Cause::Other(reason),
    })
}
