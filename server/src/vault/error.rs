//! Everything that can go wrong: one variant for each thing that a caller can act on.

use std::time::Duration;

use uuid::Uuid;

use crate::model::{
    ApiKeyId, ConnectLinkId, ConnectionId, Expiry, Misconfiguration, ProviderId, Refusal, RefusalKind,
    RefusalReason, Renewal, RequestId, Role, SubscriptionName, Timestamp, TokenVersion, WorkspaceId,
};
use crate::provider::Provider;
use crate::store::{Abort, StoreError};

/// Why the vault does not open. The text names the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(pub String);

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

/// Why a verb of the vault did not do what was asked. Carries facts, never a secret. `api/status.rs` gives each variant
/// its code, reason and remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// All fields that break their rules.
    #[error("invalid request")]
    Fields(Vec<FieldViolation>),
    /// The pasted text can't be a token; `advice` says what it looks like and what to paste.
    #[error("the token is malformed: {advice}")]
    TokenMalformed {
        /// The request's field.
        field: &'static str,
        advice: String,
    },
    #[error("unknown provider {provider:?}")]
    ProviderUnknown { provider: String, configured: Vec<String> },
    #[error("the page token is not one of this vault's")]
    PageTokenInvalid,
    #[error("the page token belongs to another query")]
    PageTokenMismatch,
    /// No vault wrote this cursor.
    #[error("the cursor is not one of a vault's")]
    CursorInvalid {
        /// The request's field.
        field: &'static str,
    },
    /// The position is from the feed of another vault, or from before a backup of this database was restored.
    #[error("the position is of another feed than this one")]
    FeedReplaced {
        /// This feed's epoch.
        ours: Uuid,
        /// The position's epoch.
        theirs: Uuid,
    },
    /// The events after the position were deleted.
    #[error("the events after the position are no longer kept")]
    EventsCompacted {
        /// Sequence of the oldest event that is kept.
        oldest: i64,
        position: i64,
    },
    /// Events of a list were deleted while its pages were read.
    #[error("events of this list are no longer kept")]
    HistoryCompacted {
        /// Sequence of the oldest event that is kept.
        oldest: i64,
    },
    #[error("no subscription {0}")]
    SubscriptionNotFound(SubscriptionName),
    #[error("no job of that name")]
    JobNotFound { job: String, known: String },
    #[error("the request id was used for another request")]
    RequestIdReused(RequestId),
    #[error("the same request is being worked on")]
    RequestInProgress(RequestId),
    /// The provider refuses the token that a caller wants to store.
    #[error("the provider refuses the token: {}", reason.as_str())]
    ProviderRefusedToken {
        provider: ProviderId,
        reason: RefusalReason,
        /// For people: `190/463`.
        provider_code: String,
    },
    /// The token that a caller wants to store was issued to another app.
    #[error("the token was issued to another app")]
    TokenOfOtherApp { provider: ProviderId, app_id: String },
    /// No such connection, or one that the caller must not see.
    #[error("no connection {0}")]
    ConnectionNotFound(ConnectionId),
    /// No such workspace, or one that the caller must not see.
    #[error("no workspace {0}")]
    WorkspaceNotFound(WorkspaceId),
    /// No such API key, or one that reaches further than the caller.
    #[error("no API key {0}")]
    ApiKeyNotFound(ApiKeyId),
    /// A connect link that has ended, was revoked or never was; or none, where one is needed. Which of these it is, is not
    /// told.
    #[error("the connect link is not valid")]
    ConnectLinkNotFound(
        /// The link that a request names.
        Option<ConnectLinkId>,
    ),
    /// Connect links would lead nowhere.
    #[error("portal.url is not configured")]
    PortalNotConfigured,
    /// Nobody could see what became of a request to delete data.
    #[error("there is no page for requests to delete data")]
    DeletionPageNotConfigured {
        /// The configuration keys of which one is needed.
        keys: &'static str,
    },
    /// A callback that no secret of our app has signed.
    #[error("the callback is not signed by the provider")]
    CallbackNotSigned { provider: ProviderId },
    #[error("the API key {key} can't be rotated: {state}")]
    ApiKeyNotRotatable {
        key: ApiKeyId,
        /// `REVOKED`, `EXPIRED` or `REPLACED`.
        state: &'static str,
        replaced_by: Option<ApiKeyId>,
    },
    #[error("another connection of the workspace has this subject")]
    SubjectAlreadyConnected { provider: ProviderId, connection: ConnectionId },
    #[error("the token expired at {at}")]
    TokenExpired { connection: ConnectionId, provider: ProviderId, version: TokenVersion, at: Timestamp },
    /// The provider has refused the token since `since`.
    #[error("the provider refuses the token: {}", reason.as_str())]
    TokenInvalid {
        connection: ConnectionId,
        provider: ProviderId,
        version: TokenVersion,
        since: Timestamp,
        reason: RefusalReason,
        provider_code: String,
    },
    #[error("the connection was revoked at {at}")]
    TokenRevoked { connection: ConnectionId, at: Timestamp },
    /// The token ends sooner than the caller needs.
    #[error("the token does not live long enough")]
    TokenLifeTooShort {
        connection: ConnectionId,
        version: TokenVersion,
        ends_at: Timestamp,
        left: Duration,
        wanted: Duration,
        /// Who or what could lengthen it.
        renewal: Renewal,
    },
    #[error("required scopes are missing: {}", missing.join(", "))]
    ScopesMissing {
        missing: Vec<String>,
        /// The missing scopes that the person declined expressly.
        declined: Vec<String>,
        /// The missing scopes that ended because they were not used.
        expired: Vec<String>,
    },
    /// The new token has fewer scopes than the one held.
    #[error("the new token has fewer scopes: {}", lost.join(", "))]
    ScopesShrunk { connection: ConnectionId, lost: Vec<String> },
    #[error("the token speaks for another subject")]
    SubjectMismatch {
        /// `None` if an exchange gave a token of another subject.
        connection: Option<ConnectionId>,
        expected: String,
        actual: String,
    },
    /// Revoking the token at the provider would also end the tokens of other workspaces.
    #[error("the token is shared with {connections} other connections")]
    TokenShared { connection: ConnectionId, connections: u32 },
    #[error("the exchange is not possible: {why}")]
    ExchangeNotPossible {
        /// `None` for a token that is not stored yet.
        connection: Option<ConnectionId>,
        provider: ProviderId,
        why: String,
        /// The end that the token keeps.
        end: Expiry,
    },
    /// An authorization that is unknown, used, too old or of another session; or one whose code gave no token. Which of
    /// these it is, is not told.
    #[error("the authorization is over")]
    AuthorizationOver,
    /// The person declined in the consent dialog, or the dialog ended without a code.
    #[error("the authorization was declined")]
    AuthorizationDeclined {
        provider: ProviderId,
        /// For people: `access_denied/200`, or empty.
        provider_code: String,
    },
    #[error("the workspace {0} was shredded")]
    WorkspaceShredded(WorkspaceId),
    /// The vault's own configuration is wrong.
    #[error("the provider is misconfigured: {}", problem.as_str())]
    ProviderMisconfigured { provider: ProviderId, problem: Misconfiguration, provider_code: String },
    /// The connection holds another version than the caller expects.
    #[error("the connection holds version {actual}, not {expected}")]
    TokenVersionMismatch { connection: ConnectionId, expected: TokenVersion, actual: TokenVersion },
    /// The connection changed while the provider was asked, twice.
    #[error("the connection changed meanwhile")]
    ConcurrentChange(ConnectionId),
    #[error("the provider limits calls in scope {scope}")]
    ProviderThrottled { provider: ProviderId, provider_code: String, scope: String, retry_after: Duration },
    #[error("the provider can't be reached, or answers with an error of its own")]
    ProviderUnavailable {
        provider: ProviderId,
        /// Empty if the provider did not answer.
        provider_code: String,
        retry_after: Duration,
        /// Redacted.
        detail: String,
    },
    #[error("the database can't be reached")]
    StorageUnavailable,
    #[error("the audit log can't be written")]
    AuditUnavailable,
    #[error("too much work is under way")]
    Overloaded,
    /// No seat is free for another watch.
    #[error("there are too many watches")]
    TooManyWatches {
        /// `watches` or `watches_per_principal`.
        limit: &'static str,
    },
    /// The caller's time is over. Work that has begun goes on without him.
    #[error("the caller's time is over")]
    OutOfTime,
    #[error("the vault is shutting down")]
    ShuttingDown,
    /// A stored secret does not decrypt: its row was altered, or comes from another copy of the database.
    #[error("the stored secret of {connection} does not open")]
    CiphertextCorrupt { connection: ConnectionId, version: TokenVersion },
    /// A workspace's keys do not unwrap: their rows were altered.
    #[error("the keys of workspace {0} do not open")]
    WorkspaceKeysCorrupt(WorkspaceId),
    /// A workspace's keys changed while something was being encrypted with them. The work starts over.
    #[error("the keys of workspace {0} changed meanwhile")]
    KeysChanged(WorkspaceId),
    #[error("the key service can't be reached")]
    KeyServiceUnavailable,
    #[error("the master key {key_id} can't become the active one: {why}")]
    MasterKeyNotReady {
        key_id: String,
        /// The running replicas that lack the key.
        replicas: Vec<String>,
        why: &'static str,
    },
    /// The call has no API key, or its key is unknown or revoked.
    #[error("the API key is missing or not known")]
    ApiKeyInvalid,
    #[error("the API key expired at {at}")]
    ApiKeyExpired { at: Timestamp },
    /// The certificate is valid, but its names are mapped to no principal, or to several.
    #[error("the certificate's names are mapped to no principal")]
    CertificateUnknown,
    /// The connection has outlived its certificate.
    #[error("the certificate expired at {at}")]
    CertificateExpired { at: Timestamp },
    #[error("the certificate and the API key are of different principals")]
    CertificateOfAnother,
    /// The caller's token is invalid, was issued by another issuer, or is not meant for this vault.
    #[error("the caller's token is not accepted")]
    TokenRejected,
    #[error("the caller's token expired at {at}")]
    CallerTokenExpired { at: Timestamp },
    /// The token is valid, but its claims give the caller no name, role or workspace here.
    #[error("the token's claims are mapped to no principal")]
    TokenUnmapped,
    /// The issuer's keys could not be fetched, so the token can't be verified.
    #[error("the issuer's keys are not available")]
    IssuerUnavailable,
    #[error("the role {} may not do this", role.as_str())]
    RoleInsufficient { role: Role },
    /// A bug. The cause is in the log, under the call id.
    #[error("internal error")]
    Internal,
}

impl From<StoreError> for VaultError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_)
            | StoreError::Race(_)
            | StoreError::Locked(_)
            | StoreError::Slow(_) => {
                tracing::warn!(%error, "storage did not answer a call");
                Self::StorageUnavailable
            }
            StoreError::Inconsistent { .. } | StoreError::Config(_) | StoreError::Unexpected(_) => {
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
            Abort::Work(error) => error,
        }
    }
}

impl VaultError {
    /// How long to wait when a refusal names no time.
    pub(super) const WAIT: Duration = Duration::from_secs(30);

    /// Whether the database, the key service or the audit log is unavailable. A run that meets an outage continues
    /// after it.
    pub(super) const fn is_outage(&self) -> bool {
        matches!(self, Self::StorageUnavailable | Self::KeyServiceUnavailable | Self::AuditUnavailable)
    }

    /// The error for an inspection that lacks a fact without which a token can't be taken. Nobody but the provider can
    /// do anything about it.
    pub(super) fn untold(provider: &ProviderId, what: &str) -> Self {
        Self::ProviderUnavailable {
            provider: provider.clone(),
            provider_code: String::new(),
            retry_after: Self::WAIT,
            detail: format!("the inspection of the token does not tell {what}"),
        }
    }

    /// The error for a refusal of a token that a caller wants to store.
    pub(super) fn from_intake_refusal(refusal: &Refusal, provider: &dyn Provider) -> Self {
        match &refusal.kind {
            RefusalKind::OtherApp => Self::TokenOfOtherApp {
                provider: provider.id().clone(),
                app_id: provider.app_id().to_owned(),
            },
            _ => Self::from_provider_trouble(refusal, provider.id()),
        }
    }

    /// The error for a call that met a refusal.
    pub(super) fn from_provider_trouble(refusal: &Refusal, provider: &ProviderId) -> Self {
        let (provider, provider_code) = (provider.clone(), refusal.provider_code());
        let reason = match &refusal.kind {
            RefusalKind::Transient { retry_after } => {
                let retry_after = retry_after.unwrap_or(Self::WAIT);
                let detail = refusal.detail.clone();
                return Self::ProviderUnavailable { provider, provider_code, retry_after, detail };
            }
            RefusalKind::Throttled { scope, retry_after } => {
                let (scope, retry_after) = (scope.clone(), *retry_after);
                return Self::ProviderThrottled { provider, provider_code, scope, retry_after };
            }
            RefusalKind::OutOfTime => {
                let (retry_after, detail) = (Duration::from_secs(5), refusal.detail.clone());
                return Self::ProviderUnavailable { provider, provider_code, retry_after, detail };
            }
            RefusalKind::Ours(problem) => {
                tracing::error!(problem = problem.as_str(), detail = %refusal.detail, "the provider refuses our configuration");
                return Self::ProviderMisconfigured { provider, problem: *problem, provider_code };
            }
            RefusalKind::Dead { reason } => *reason,
            RefusalKind::Blocked => RefusalReason::PolicyBlocked,
            RefusalKind::OtherApp => RefusalReason::WrongApp,
            RefusalKind::Permission { .. } => RefusalReason::RoleLost,
        };
        Self::ProviderRefusedToken { provider, reason, provider_code }
    }
}
