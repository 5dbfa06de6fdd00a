//! Everything that can go wrong, one variant per thing that a caller can act on.

use std::time::Duration;

use uuid::Uuid;

use crate::model::{
    ApiKeyId, ConnectionId, Misconfiguration, ProviderId, Refusal, RefusalKind, RefusalReason, RequestId,
    Role, SubscriptionName, Timestamp, TokenVersion, WorkspaceId,
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
    /// A position in the feed that no vault wrote.
    #[error("the cursor is not one of a vault's")]
    CursorInvalid {
        /// The request's field.
        field: &'static str,
    },
    /// A position in another feed than this one.
    #[error("the position is of another feed than this one")]
    FeedReplaced {
        /// The feed that this one is.
        ours: Uuid,
        /// The one that the position is of.
        theirs: Uuid,
    },
    /// A position before the kept history.
    #[error("the events after the position are no longer kept")]
    EventsCompacted {
        /// Sequence of the oldest event that is kept.
        oldest: i64,
        /// Sequence of the position.
        position: i64,
    },
    /// No such bookmark.
    #[error("no subscription {0}")]
    SubscriptionNotFound(SubscriptionName),
    /// No such job.
    #[error("no job of that name")]
    JobNotFound {
        /// What was asked for.
        job: String,
        /// The jobs that there are.
        known: String,
    },
    /// The same request id came with another request.
    #[error("the request id was used for another request")]
    RequestIdReused(RequestId),
    /// The same request is being worked on.
    #[error("the same request is being worked on")]
    RequestInProgress(RequestId),
    /// The provider refuses the token that was brought.
    #[error("the provider refuses the token: {}", reason.as_str())]
    ProviderRefusedToken {
        /// At which provider.
        provider: ProviderId,
        /// Why.
        reason: RefusalReason,
        /// For people: `190/463`.
        provider_code: String,
    },
    /// The token that was brought is another app's.
    #[error("the token was made for another app")]
    TokenOfOtherApp {
        /// At which provider.
        provider: ProviderId,
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
    /// An API key that can't be replaced, since it has ended or was replaced already.
    #[error("the API key {key} can't be rotated: {state}")]
    ApiKeyNotRotatable {
        /// Which key.
        key: ApiKeyId,
        /// `REVOKED`, `EXPIRED` or `REPLACED`.
        state: &'static str,
        /// What replaced it.
        replaced_by: Option<ApiKeyId>,
    },
    /// Another connection of the workspace has that subject.
    #[error("another connection of the workspace has this subject")]
    SubjectAlreadyConnected {
        /// At which provider.
        provider: ProviderId,
        /// That connection.
        connection: ConnectionId,
    },
    /// Past its end.
    #[error("the token expired at {at}")]
    TokenExpired {
        /// Which connection.
        connection: ConnectionId,
        /// Which version of its token.
        version: TokenVersion,
        /// Its end.
        at: Timestamp,
    },
    /// The provider refuses it since then.
    #[error("the provider refuses the token: {}", reason.as_str())]
    TokenInvalid {
        /// Which connection.
        connection: ConnectionId,
        /// Which version of its token.
        version: TokenVersion,
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
        /// Which connection.
        connection: ConnectionId,
        /// When.
        at: Timestamp,
    },
    /// It ends sooner than the caller needs.
    #[error("the token does not live long enough")]
    TokenLifeTooShort {
        /// Which connection.
        connection: ConnectionId,
        /// Which version of its token.
        version: TokenVersion,
        /// Its end.
        ends_at: Timestamp,
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
        /// Which connection.
        connection: ConnectionId,
        /// What would be lost.
        lost: Vec<String>,
    },
    /// Another subject than the connection's.
    #[error("the token speaks for another subject")]
    SubjectMismatch {
        /// Which connection; none when an exchange came back with another subject.
        connection: Option<ConnectionId>,
        /// The connection's.
        expected: String,
        /// The token's.
        actual: String,
    },
    /// Revoking at the provider would end other workspaces' tokens too.
    #[error("the token is shared with {connections} other connections")]
    TokenShared {
        /// Which connection.
        connection: ConnectionId,
        /// How many.
        connections: u32,
    },
    /// This can't be exchanged.
    #[error("the exchange is not possible: {why}")]
    ExchangeNotPossible {
        /// Which connection; none for a token in hand.
        connection: Option<ConnectionId>,
        /// At which provider.
        provider: ProviderId,
        /// Why, in words.
        why: String,
    },
    /// The workspace's keys are destroyed.
    #[error("the workspace {0} was shredded")]
    WorkspaceShredded(WorkspaceId),
    /// Our own configuration is wrong.
    #[error("the provider is misconfigured: {}", problem.as_str())]
    ProviderMisconfigured {
        /// At which provider.
        provider: ProviderId,
        /// What is wrong.
        problem: Misconfiguration,
        /// For people.
        provider_code: String,
    },
    /// The connection holds another version than the caller thinks.
    #[error("the connection holds version {actual}, not {expected}")]
    TokenVersionMismatch {
        /// Which connection.
        connection: ConnectionId,
        /// What the caller said.
        expected: TokenVersion,
        /// What there is.
        actual: TokenVersion,
    },
    /// The facts changed while the provider was being asked, twice.
    #[error("the connection changed meanwhile")]
    ConcurrentChange(ConnectionId),
    /// The provider asks to wait.
    #[error("the provider limits calls in scope {scope}")]
    ProviderThrottled {
        /// At which provider.
        provider: ProviderId,
        /// For people.
        provider_code: String,
        /// Which limit.
        scope: String,
        /// How long.
        retry_after: Duration,
    },
    /// The provider can't be asked.
    #[error("the provider can't be reached or stumbles")]
    ProviderUnavailable {
        /// At which provider.
        provider: ProviderId,
        /// For people; empty when the provider said nothing.
        provider_code: String,
        /// How long to wait.
        retry_after: Duration,
        /// What was seen, redacted.
        detail: String,
    },
    /// The database can't be asked.
    #[error("the database can't be reached")]
    StorageUnavailable,
    /// The audit log can't be written.
    #[error("the audit log can't be written")]
    AuditUnavailable,
    /// Too much work is going on.
    #[error("too much work is going on")]
    Overloaded,
    /// No place for one more watch.
    #[error("too many watch at once")]
    TooManyWatches {
        /// Which bound: `watches` or `watches_per_principal`.
        limit: &'static str,
    },
    /// The vault is going down.
    #[error("the vault is shutting down")]
    ShuttingDown,
    /// A stored secret does not open: tampered with, or rolled back.
    #[error("the stored secret of {connection} does not open")]
    CiphertextCorrupt {
        /// Which connection.
        connection: ConnectionId,
        /// Which version of its token.
        version: TokenVersion,
    },
    /// A workspace's keys do not open: tampered with.
    #[error("the keys of workspace {0} do not open")]
    WorkspaceKeysCorrupt(WorkspaceId),
    /// A workspace's keys changed while something was sealed by them; it is sealed again.
    #[error("the keys of workspace {0} changed meanwhile")]
    KeysChanged(WorkspaceId),
    /// A key can't be wrapped or unwrapped now.
    #[error("the key service can't be asked")]
    KeyServiceUnavailable,
    /// A master key can't become the active one.
    #[error("the master key {key_id} can't become the active one: {why}")]
    MasterKeyNotReady {
        /// Which key.
        key_id: String,
        /// The living replicas that lack it.
        replicas: Vec<String>,
        /// Why, in words.
        why: &'static str,
    },
    /// No key, or none of ours.
    #[error("the API key is missing or not known")]
    ApiKeyInvalid,
    /// A key past its end.
    #[error("the API key ended at {at}")]
    ApiKeyExpired {
        /// Its end.
        at: Timestamp,
    },
    /// A certificate whose chain is good, and which is nobody's or several principals'.
    #[error("the certificate's names are no principal's")]
    CertificateUnknown,
    /// A certificate past its end, on a connection that outlived it.
    #[error("the certificate ended at {at}")]
    CertificateExpired {
        /// Its end.
        at: Timestamp,
    },
    /// A key on a connection that was opened with another principal's certificate.
    #[error("the certificate is another principal's than the API key")]
    CertificateOfAnother,
    /// A token that is none, or not of the issuer that is configured, or not meant for this vault.
    #[error("the token is not one that this vault accepts")]
    TokenRejected,
    /// A genuine token past its end.
    #[error("the caller's token ended at {at}")]
    CallerTokenExpired {
        /// Its end.
        at: Timestamp,
    },
    /// A genuine token whose claims give its bearer no name, role or workspace here.
    #[error("the token's claims are nobody's here")]
    TokenUnmapped,
    /// The issuer's keys are not at hand, so that nobody knows whether a token is good.
    #[error("the issuer of tokens can't be asked")]
    IssuerUnavailable,
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

    /// Whether something that the vault stands on is away: the database, the key service or the audit log. What was
    /// begun goes on when it is back.
    pub(super) const fn is_outage(&self) -> bool {
        matches!(self, Self::StorageUnavailable | Self::KeyServiceUnavailable | Self::AuditUnavailable)
    }

    /// What a provider's refusal of a token that is being brought in means.
    pub(super) fn from_intake_refusal(refusal: &Refusal, provider: &dyn Provider) -> Self {
        match &refusal.kind {
            RefusalKind::OtherApp => Self::TokenOfOtherApp {
                provider: provider.id().clone(),
                app_id: provider.app_id().to_owned(),
            },
            _ => Self::from_provider_trouble(refusal, provider.id()),
        }
    }

    /// What a refusal means for the call that met it.
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
