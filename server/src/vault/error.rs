//! Everything that can go wrong, one variant per thing that a caller can act on.

use std::time::Duration;

use crate::model::{
    ApiKeyId, ConnectionId, Misconfiguration, Refusal, RefusalKind, RefusalReason, Role, Timestamp,
    TokenVersion, WorkspaceId,
};
use crate::store::{Abort, StoreError};

/// A field that breaks its rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Path of the field in the request: `options.allow_missing_scopes`.
    pub field: String,
    /// The rule, as a sentence after the field's name: "must be …". Never the value.
    pub rule: String,
}

impl FieldViolation {
    /// `field` breaks `rule`.
    pub fn new(field: impl Into<String>, rule: impl ToString) -> Self {
        Self { field: field.into(), rule: rule.to_string() }
    }
}

/// What a verb of the vault answers when it does not do it. Carries facts, never a secret.
/// `api/status.rs` gives each its code, reason and remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// Fields that break their rules; all of them.
    #[error("invalid request")]
    Fields(Vec<FieldViolation>),
    /// The pasted secret can't be a token; `advice` says what it looks like and what to paste.
    #[error("the token is malformed: {advice}")]
    TokenMalformed {
        /// The request's field.
        field: &'static str,
        /// What to do.
        advice: String,
    },
    /// No such provider.
    #[error("unknown provider {provider:?}")]
    ProviderUnknown {
        /// What was asked for.
        provider: String,
        /// What there is.
        configured: Vec<String>,
    },
    /// Not a page token of ours, or broken.
    #[error("the page token is not one of this vault's")]
    PageTokenInvalid,
    /// A page token of another query.
    #[error("the page token belongs to another query")]
    PageTokenMismatch,
    /// The same request id came with another request.
    #[error("the request id was used for another request")]
    RequestIdReused,
    /// The same request is being worked on.
    #[error("the same request is being worked on")]
    RequestInProgress,
    /// The provider refuses the token that was brought.
    #[error("the provider refuses the token: {}", reason.as_str())]
    ProviderRefusedToken {
        /// Why.
        reason: RefusalReason,
        /// For people: `190/463`.
        provider_code: String,
    },
    /// The token that was brought is another app's.
    #[error("the token was made for another app")]
    TokenOfOtherApp {
        /// Our app.
        app_id: String,
    },
    /// No such connection, or not this caller's.
    #[error("no connection {0}")]
    ConnectionNotFound(ConnectionId),
    /// Not this caller's workspace.
    #[error("no workspace {0}")]
    WorkspaceNotFound(WorkspaceId),
    /// No such API key.
    #[error("no API key {0}")]
    ApiKeyNotFound(ApiKeyId),
    /// Another connection of the workspace has that subject.
    #[error("another connection of the workspace has this subject")]
    SubjectAlreadyConnected {
        /// That connection.
        connection: ConnectionId,
    },
    /// Past its end.
    #[error("the token expired at {at}")]
    TokenExpired {
        /// Its end.
        at: Timestamp,
    },
    /// The provider refuses it since then.
    #[error("the provider refuses the token: {}", reason.as_str())]
    TokenInvalid {
        /// First known.
        since: Timestamp,
        /// Why.
        reason: RefusalReason,
        /// For people.
        provider_code: String,
    },
    /// We ended it.
    #[error("the connection was revoked at {at}")]
    TokenRevoked {
        /// When.
        at: Timestamp,
    },
    /// It ends sooner than the caller needs.
    #[error("the token does not live long enough")]
    TokenLifeTooShort {
        /// What is left.
        left: Duration,
        /// What was asked for.
        wanted: Duration,
    },
    /// Required scopes are missing.
    #[error("required scopes are missing: {}", missing.join(", "))]
    ScopesMissing {
        /// Not granted.
        missing: Vec<String>,
        /// Of those, expressly declined by the person.
        declined: Vec<String>,
    },
    /// Fewer scopes than the token that is held.
    #[error("the new token has fewer scopes: {}", lost.join(", "))]
    ScopesShrunk {
        /// What would be lost.
        lost: Vec<String>,
    },
    /// Another subject than the connection's.
    #[error("the token speaks for another subject")]
    SubjectMismatch {
        /// The connection's.
        expected: String,
        /// The token's.
        actual: String,
    },
    /// Revoking at the provider would end other workspaces' tokens too.
    #[error("the token is shared with {connections} other connections")]
    TokenShared {
        /// How many.
        connections: u32,
    },
    /// This can't be exchanged.
    #[error("the exchange is not possible: {why}")]
    ExchangeNotPossible {
        /// Why, in words.
        why: String,
    },
    /// The workspace's keys are destroyed.
    #[error("the workspace {0} was shredded")]
    WorkspaceShredded(WorkspaceId),
    /// Our own configuration is wrong.
    #[error("the provider is misconfigured: {}", problem.as_str())]
    ProviderMisconfigured {
        /// What is wrong.
        problem: Misconfiguration,
        /// For people.
        provider_code: String,
    },
    /// The connection holds another version than the caller thinks.
    #[error("the connection holds version {actual}, not {expected}")]
    TokenVersionMismatch {
        /// What the caller said.
        expected: TokenVersion,
        /// What there is.
        actual: TokenVersion,
    },
    /// The facts changed while the provider was being asked, twice.
    #[error("the connection changed meanwhile")]
    ConcurrentChange,
    /// The provider asks to wait.
    #[error("the provider limits calls in scope {scope}")]
    ProviderThrottled {
        /// Which limit.
        scope: String,
        /// How long.
        retry_after: Duration,
    },
    /// The provider can't be asked.
    #[error("the provider can't be reached or stumbles")]
    ProviderUnavailable {
        /// How long to wait.
        retry_after: Duration,
        /// What was seen, redacted.
        detail: String,
    },
    /// The database can't be asked.
    #[error("the database can't be reached")]
    StorageUnavailable,
    /// The vault is going down.
    #[error("the vault is shutting down")]
    ShuttingDown,
    /// A stored secret does not open: tampered with, or rolled back.
    #[error("the stored secret of {0} does not open")]
    CiphertextCorrupt(ConnectionId),
    /// No key, or none of ours.
    #[error("the API key is missing or not known")]
    ApiKeyInvalid,
    /// A key past its end.
    #[error("the API key has ended")]
    ApiKeyExpired,
    /// The role may not do this.
    #[error("the role {} may not do this", role.as_str())]
    RoleInsufficient {
        /// The caller's.
        role: Role,
    },
    /// A bug of ours. The cause is in the log, under the call id.
    #[error("internal error")]
    Internal,
}

impl From<StoreError> for VaultError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) | StoreError::Race(_) => {
                tracing::warn!(%error, "storage did not answer a call");
                Self::StorageUnavailable
            }
            StoreError::Inconsistent { .. } | StoreError::Config(_) | StoreError::Refused(_) => {
                tracing::error!(%error, "storage refused a call");
                Self::Internal
            }
        }
    }
}

impl From<Abort<Self>> for VaultError {
    fn from(abort: Abort<Self>) -> Self {
        match abort {
            Abort::Store(error) => error.into(),
            Abort::Refused(error) => error,
        }
    }
}

impl VaultError {
    /// How long to wait when a refusal names no time.
    pub(super) const WAIT: Duration = Duration::from_secs(30);

    /// What a provider's refusal of a call about a token that is being brought in means.
    pub(super) fn from_intake_refusal(refusal: &Refusal, app_id: &str) -> Self {
        match &refusal.kind {
            RefusalKind::Dead { reason } => {
                Self::ProviderRefusedToken { reason: *reason, provider_code: refusal.provider_code() }
            }
            RefusalKind::OtherApp => Self::TokenOfOtherApp { app_id: app_id.to_owned() },
            _ => Self::from_provider_trouble(refusal),
        }
    }

    /// What a refusal means that says nothing about a token.
    pub(super) fn from_provider_trouble(refusal: &Refusal) -> Self {
        let unavailable = |retry_after: Option<Duration>| Self::ProviderUnavailable {
            retry_after: retry_after.unwrap_or(Self::WAIT),
            detail: refusal.detail.clone(),
        };
        match &refusal.kind {
            RefusalKind::Transient { retry_after } => unavailable(*retry_after),
            RefusalKind::Throttled { scope, retry_after } => {
                Self::ProviderThrottled { scope: scope.clone(), retry_after: *retry_after }
            }
            RefusalKind::Ours(problem) => {
                tracing::error!(problem = problem.as_str(), detail = %refusal.detail, "the provider refuses our configuration");
                Self::ProviderMisconfigured { problem: *problem, provider_code: refusal.provider_code() }
            }
            RefusalKind::Dead { reason } => {
                Self::ProviderRefusedToken { reason: *reason, provider_code: refusal.provider_code() }
            }
            RefusalKind::Blocked => Self::ProviderRefusedToken {
                reason: RefusalReason::PolicyBlocked,
                provider_code: refusal.provider_code(),
            },
            RefusalKind::OtherApp => Self::ProviderRefusedToken {
                reason: RefusalReason::WrongApp,
                provider_code: refusal.provider_code(),
            },
            RefusalKind::Permission { .. } => Self::ProviderRefusedToken {
                reason: RefusalReason::RoleLost,
                provider_code: refusal.provider_code(),
            },
        }
    }
}
