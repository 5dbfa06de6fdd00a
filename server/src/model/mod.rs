//! The words of the domain: ids, time, secrets, a token's facts and what follows from them.
//!
//! No I/O, no async, and no failure but a bad value. Everything else in this crate speaks these
//! words; this module knows nothing of the rest. Start with [`token`]: `status` there is the one
//! function that decides what a token is worth now.

mod audit;
mod caller;
mod cron;
mod event;
mod id;
mod list;
mod refusal;
mod remedy;
mod secret;
mod time;
mod token;

pub use audit::{AuditKind, AuditRecord, Grants};
pub use caller::{
    CertificateName, CertificateRule, ClientCertificate, Credential, Principal, Role, WorkspaceSet,
    check_principal_name,
};
pub use cron::Cron;
pub use event::{
    AccountChange, Announced, Cause, Closed, DeadlineKind, Detail, Draft, Event, EventKind, EventWord,
    FeedPosition, Incident, IncidentKey, ProviderTrouble,
};
pub use id::{
    ApiKeyId, ConnectionId, Incarnation, ProviderId, RequestId, SecretId, SubscriptionName, TokenVersion,
    WorkspaceId,
};
pub use list::ListOrder;
pub use refusal::{Misconfiguration, Refusal, RefusalKind, RefusalReason};
pub use remedy::{Check, CheckResult, Fixer, Problem, ProblemReason, Remedy, Severity};
pub use secret::{Fingerprint, Sealed, Secret, exposure_of};
pub use time::{Clock, Timestamp};
pub use token::{
    AdAccount, AdAccountState, Badge, BadgeColor, Connection, Expiry, ExpirySource, Grant, GrantState,
    GranularScope, Observations, Policy, Renewal, RenewalPolicy, Schedule, Standing, Status, Subject,
    SubjectType, TokenFacts, TokenKind,
};

/// A value that is not acceptable, and the rule that it breaks: "must be …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}")]
pub struct BadValue {
    /// The rule in words, for the caller.
    pub rule: String,
}

impl BadValue {
    /// A broken rule, told as the sentence that follows the field's name.
    pub fn new(rule: impl Into<String>) -> Self {
        Self { rule: rule.into() }
    }
}
