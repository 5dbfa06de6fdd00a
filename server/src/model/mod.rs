//! The domain's vocabulary: ids, time, secrets, a token's facts and what follows from them.
//!
//! No I/O, no async, and no error but a bad value. Every other module uses these types, and this one uses none of
//! the others. Start with `token/health.rs`: `Connection::health` is the one function that decides how a token is now.

mod audit;
mod caller;
mod check;
mod cron;
mod event;
mod id;
#[cfg(test)]
mod names_tests;
mod policy;
mod refusal;
mod remedy;
mod secret;
mod time;
mod token;

pub use audit::{AuditKind, AuditRecord, Grants};
pub use caller::{
    CertificateName, CertificateRule, ClientCertificate, ConnectLink, ConnectLinkState, Credential,
    Principal, Role, WorkspaceSet, check_principal_name,
};
pub use check::{Check, CheckResult};
pub use cron::Cron;
pub use event::{
    AccountChange, Announced, Cause, Closed, DeadlineKind, Detail, Draft, Event, EventKind, EventWord,
    FeedPosition, Incident, IncidentKey, ProviderTrouble,
};
pub use id::{
    ApiKeyId, AuthorizationId, ConnectLinkId, ConnectionId, Incarnation, ProviderId, RequestId, SecretId,
    SubscriptionName, TokenVersion, WorkspaceId,
};
pub use policy::{Policy, RenewalPolicy};
pub use refusal::{Misconfiguration, Refusal, RefusalKind, RefusalReason};
pub use remedy::{Fixer, Guide, Matter, Refused, Remedy, Severity};
pub use secret::{Fingerprint, Sealed, Secret, exposure_of, read_secret_file, shown_path};
pub use time::{Clock, Timestamp};
#[cfg(test)]
pub(crate) use token::fixture;
pub use token::{
    AdAccount, AdAccountList, AdAccountOwner, AdAccountState, Badge, BadgeColor, Connection, DataRefusal,
    DataWord, Expiry, ExpirySource, Grant, GrantState, GranularScope, Harm, Health, ListOrder, Listing,
    Observations, Problem, ProblemReason, Renewal, RenewalFailure, Reports, Schedule, Standing, Standpoint,
    Status, Subject, SubjectType, TokenFacts, TokenKind, ToldFacts, ToldScopes, Unread, UnreadPart,
    VALIDATED_EVERY, why_withheld,
};

/// A value that is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}")]
pub struct BadValue {
    /// The broken rule, as it follows the name of the field: "must be …".
    pub rule: String,
}

impl BadValue {
    pub fn new(rule: impl Into<String>) -> Self {
        Self { rule: rule.into() }
    }
}
