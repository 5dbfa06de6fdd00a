//! The only mapping from [`VaultError`] to a gRPC status: canonical code, reason, facts and words.
//!
//! Its one match has no `_` arm: a new variant does not compile until somebody has decided all four.
//! The metadata keys are contract and stand at each value of `ErrorReason` in the proto.

use token_vault_proto::v1::ErrorReason as Reason;
use tonic::{Code, Status};

use super::call::Call;
use super::denial::{LATER, Refused, SOON, fixer};
use crate::model::{Fixer, Remedy};
use crate::vault::{FieldViolation, VaultError};

/// A verb's refusal as a status.
pub(super) fn refuse(error: VaultError, call: &Call) -> Status {
    if let VaultError::ProviderUnavailable { detail, .. } = &error {
        call.note_detail(detail);
    }
    refused(error, call).into_status(call)
}

/// Code, reason, metadata and words of each error.
fn refused(error: VaultError, call: &Call) -> Refused {
    use VaultError as E;
    match error {
        E::Fields(violations) => fields(violations),
        E::TokenMalformed { field, advice } => Refused::new(
            Code::InvalidArgument,
            Reason::TokenMalformed,
            "What was given is not a token.",
            advice.clone(),
        )
        .with("field", field)
        .with("hint", &advice)
        .violation(field, &advice),
        E::ProviderUnknown { provider, configured } => {
            let known = if configured.is_empty() { "none".to_owned() } else { configured.join(", ") };
            Refused::new(
                Code::InvalidArgument,
                Reason::ProviderUnknown,
                format!("The provider {provider:?} is not configured in this vault."),
                format!("Use one of those that are ({known}), or have the operator configure it."),
            )
            .violation("provider", &format!("must be one of those configured: {known}"))
            .with("provider", provider)
            .with("configured", configured.join(", "))
        }
        E::PageTokenInvalid => Refused::new(
            Code::InvalidArgument,
            Reason::PageTokenInvalid,
            "The page_token is not one that this vault made.",
            "Start again without page_token.",
        )
        .violation("page_token", "must be next_page_token of the page before"),
        E::PageTokenMismatch => Refused::new(
            Code::InvalidArgument,
            Reason::PageTokenMismatch,
            "The page_token belongs to a request with other filters or another order.",
            "Repeat the first page's fields unchanged, or start again without page_token.",
        )
        .with("field", "page_token")
        .violation("page_token", "must come with the first page's fields, unchanged"),
        E::CursorInvalid { field } => Refused::new(
            Code::InvalidArgument,
            Reason::CursorInvalid,
            "The cursor is not one that any vault made; it was cut or changed.",
            "Store and send cursors untouched.",
        )
        .with("field", field)
        .violation(field, "must be a cursor as the vault gave it"),
        E::FeedReplaced { ours, theirs } => Refused::new(
            Code::OutOfRange,
            Reason::FeedReplaced,
            "The position is of another feed than this database's: it was restored from a backup or replaced.",
            "Start from a snapshot.",
        )
        .with("feed_epoch", ours)
        .with("cursor_epoch", theirs),
        E::EventsCompacted { oldest, position } => Refused::new(
            Code::OutOfRange,
            Reason::EventsCompacted,
            "Events after this position are past retention and gone.",
            "Start from a snapshot.",
        )
        .with("oldest_sequence", oldest)
        .with("cursor_sequence", position),
        E::RequestIdReused(request_id) => Refused::new(
            Code::InvalidArgument,
            Reason::RequestIdReused,
            "The request_id was used for another request in the last 24 hours.",
            "Take a fresh request_id for each new intention.",
        )
        .with("request_id", request_id)
        .violation("request_id", "must be fresh for another request"),
        E::RequestInProgress(request_id) => Refused::new(
            Code::Aborted,
            Reason::RequestInProgress,
            "A call with the same request_id is still running.",
            "Repeat the same call after the delay to get its outcome.",
        )
        .with("request_id", request_id)
        .retry(SOON),
        E::ProviderRefusedToken { provider, reason, provider_code } => Refused::by_remedy(
            Code::InvalidArgument,
            Reason::ProviderRefusedToken,
            Remedy::for_refusal(reason),
        )
        .with("provider", provider)
        .with("refusal", reason.as_str())
        .with("provider_code", provider_code),
        E::TokenOfOtherApp { provider, app_id } => Refused::new(
            Code::InvalidArgument,
            Reason::TokenOfOtherApp,
            "The token was made for another app than the one that the vault is configured with.",
            format!("Bring a token of app {app_id}."),
        )
        .with("provider", provider)
        .with("configured", app_id),
        E::ConnectionNotFound(id) => Refused::new(
            Code::NotFound,
            Reason::ConnectionNotFound,
            format!("There is no connection {id} that the caller may see."),
            "Check the id and the workspace_id sent with it.",
        )
        .with("connection_id", id),
        E::WorkspaceNotFound(id) => Refused::new(
            Code::NotFound,
            Reason::WorkspaceNotFound,
            format!("The caller's key may not act in a workspace {id}."),
            "Check the id, or have an admin make a key that names the workspace.",
        )
        .with("workspace_id", id),
        E::ApiKeyNotFound(id) => Refused::new(
            Code::NotFound,
            Reason::ApiKeyNotFound,
            format!("There is no API key {id}."),
            "See the ids by ListApiKeys.",
        )
        .with("key_id", id),
        E::ApiKeyNotRotatable { key, state, replaced_by } => {
            let by = replaced_by.map_or(String::new(), |by| by.to_string());
            let (what, remedy) = match state {
                "REVOKED" => ("was revoked", "Make a new key by CreateApiKey.".to_owned()),
                "EXPIRED" => ("has expired", "Make a new key by CreateApiKey.".to_owned()),
                _ => ("was replaced already", format!("Rotate the key that replaced it, {by}.")),
            };
            Refused::new(
                Code::FailedPrecondition,
                Reason::ApiKeyNotRotatable,
                format!("The API key {key} {what}."),
                remedy,
            )
            .with("key_id", key)
            .with("state", state)
            .with("replaced_by", by)
        }
        E::SubscriptionNotFound(name) => Refused::new(
            Code::NotFound,
            Reason::SubscriptionNotFound,
            format!("The principal has no subscription {name}."),
            "See the names by ListSubscriptions, or acknowledge a position to make one.",
        )
        .with("subscription", name),
        E::JobNotFound { job, known } => Refused::new(
            Code::NotFound,
            Reason::JobNotFound,
            "The vault has no job of that name.",
            format!("See the names by ListJobs: {known}."),
        )
        .with("job", job)
        .with("known", known),
        E::SubjectAlreadyConnected { provider, connection } => Refused::new(
            Code::AlreadyExists,
            Reason::SubjectAlreadyConnected,
            "The token's subject already has another connection in this workspace.",
            format!("Reconnect that one: {connection}."),
        )
        .with("provider", provider)
        .with("connection_id", connection),
        E::TokenExpired { connection, version, at } => Refused::new(
            Code::FailedPrecondition,
            Reason::TokenExpired,
            format!("The token expired at {at}, and an expired token cannot be renewed."),
            "Pause the connection and ask the workspace owner to reconnect the account.",
        )
        .with("connection_id", connection)
        .with("token_version", version)
        .with("expired_at", at)
        .with("fixer", fixer(Fixer::WorkspaceOwner)),
        E::TokenInvalid { connection, version, since, reason, provider_code } => {
            Refused::by_remedy(Code::FailedPrecondition, Reason::TokenInvalid, Remedy::for_refusal(reason))
                .with("connection_id", connection)
                .with("token_version", version)
                .with("invalid_since", since)
                .with("refusal", reason.as_str())
                .with("provider_code", provider_code)
        }
        E::TokenRevoked { connection, at } => Refused::new(
            Code::FailedPrecondition,
            Reason::TokenRevoked,
            format!("The connection was ended at {at}; its secret is destroyed."),
            "Stop using it, or connect the account again.",
        )
        .with("connection_id", connection)
        .with("revoked_at", at),
        E::TokenLifeTooShort { connection, version, ends_at, left, wanted } => Refused::new(
            Code::FailedPrecondition,
            Reason::TokenLifeTooShort,
            format!(
                "The token lives for {} s more, and min_ttl asks for {} s.",
                left.as_secs(),
                wanted.as_secs()
            ),
            "Ask for less, or pause until the account is reconnected.",
        )
        .with("connection_id", connection)
        .with("token_version", version)
        .with("expires_at", ends_at)
        .with("life_left", left.as_secs()),
        E::ScopesMissing { missing, declined } => {
            scopes_missing(&missing, &declined).with("connection_id", call.connection())
        }
        E::ScopesShrunk { connection, lost } => Refused::new(
            Code::FailedPrecondition,
            Reason::ScopesShrunk,
            format!(
                "The new token lacks scopes that the old one has ({}); the old one stays.",
                lost.join(", ")
            ),
            "Have the person grant them, or set options.allow_fewer_scopes.",
        )
        .with("connection_id", connection)
        .with("missing", lost.join(", ")),
        E::SubjectMismatch { connection, expected, actual } => Refused::new(
            Code::FailedPrecondition,
            Reason::SubjectMismatch,
            "The new token speaks for another subject than the connection's; the old one stays.",
            "Log in as the right person, or set options.allow_subject_change.",
        )
        .with("connection_id", connection.map_or_else(|| call.connection().to_owned(), |id| id.to_string()))
        .with("expected_subject_id", expected)
        .with("subject_id", actual),
        E::TokenShared { connection, connections } => Refused::new(
            Code::FailedPrecondition,
            Reason::TokenShared,
            format!(
                "Revoking at the provider would also end {connections} other connections of the same subject."
            ),
            "Set allow_shared, or do not revoke at the provider.",
        )
        .with("connection_id", connection)
        .with("shared_connections", connections),
        E::ExchangeNotPossible { connection, provider, why } => Refused::new(
            Code::FailedPrecondition,
            Reason::ExchangeNotPossible,
            format!("The exchange is not possible: {}.", why.trim_end_matches('.')),
            "Keep using the token until it ends; have a person reconnect in time.",
        )
        .with("connection_id", connection.map(|id| id.to_string()).unwrap_or_default())
        .with("provider", provider)
        .with("fixer", fixer(Fixer::WorkspaceOwner)),
        E::WorkspaceShredded(id) => Refused::new(
            Code::FailedPrecondition,
            Reason::WorkspaceShredded,
            format!("The workspace {id} was shredded; its id is never used again."),
            "Use another workspace id.",
        )
        .with("workspace_id", id),
        E::ProviderMisconfigured { provider, problem, provider_code } => Refused::by_remedy(
            Code::FailedPrecondition,
            Reason::ProviderMisconfigured,
            Remedy::for_misconfiguration(problem),
        )
        .with("provider", provider)
        .with("problem", problem.as_str())
        .with("provider_code", provider_code),
        E::TokenVersionMismatch { connection, expected, actual } => Refused::new(
            Code::Aborted,
            Reason::TokenVersionMismatch,
            format!("The connection holds version {actual}, and if_token_version says {expected}."),
            "Read again and decide anew.",
        )
        .with("connection_id", connection)
        .with("token_version", actual),
        E::ConcurrentChange(connection) => Refused::new(
            Code::Aborted,
            Reason::TokenVersionMismatch,
            "The connection changed while the provider was being asked.",
            "Read again and retry.",
        )
        .with("connection_id", connection)
        .retry(SOON),
        E::ProviderThrottled { provider, provider_code, scope, retry_after } => Refused::new(
            Code::ResourceExhausted,
            Reason::ProviderThrottled,
            format!("The provider limits calls in the scope {scope}."),
            "Retry after the delay; the token is not in doubt.",
        )
        .with("provider", provider)
        .with("provider_code", provider_code)
        .with("scope", scope)
        .retry(retry_after),
        E::ProviderUnavailable { provider, provider_code, retry_after, detail: _ } => Refused::new(
            Code::Unavailable,
            Reason::ProviderUnavailable,
            "The provider does not answer, or answers with a fault of its own.",
            "Retry after the delay; the token is not in doubt.",
        )
        .with("provider", provider)
        .with("provider_code", provider_code)
        .retry(retry_after),
        E::StorageUnavailable => Refused::new(
            Code::Unavailable,
            Reason::StorageUnavailable,
            "The vault's database can't be asked just now.",
            "Retry with the same request_id: it settles what became of the first try.",
        )
        .retry(SOON),
        E::AuditUnavailable => Refused::new(
            Code::Unavailable,
            Reason::AuditUnavailable,
            "The audit log can't be written just now, so nothing was handed out or changed.",
            "Retry after the delay; call the operator if it lasts.",
        )
        .retry(SOON),
        E::Overloaded | E::KeysChanged(_) => Refused::new(
            Code::ResourceExhausted,
            Reason::RateLimited,
            "Too many calls wait for the provider or the database.",
            "Retry after the delay, with jitter.",
        )
        .with("limit", "work_in_progress")
        .retry(SOON),
        E::TooManyWatches { limit } => Refused::new(
            Code::ResourceExhausted,
            Reason::RateLimited,
            match limit {
                "watches" => "The vault serves as many watches as it may.",
                _ => "The principal has as many watches as it may.",
            },
            "End a watch, or have the operator raise server.limits; then retry after the delay.",
        )
        .with("limit", limit)
        .retry(LATER),
        E::ShuttingDown => Refused::new(
            Code::Unavailable,
            Reason::ShuttingDown,
            "This replica is stopping.",
            "Retry; another replica, or the restarted one, answers.",
        )
        .retry(SOON),
        E::CiphertextCorrupt { connection, version } => Refused::new(
            Code::DataLoss,
            Reason::CiphertextCorrupt,
            format!(
                "The stored secret of {connection} does not decrypt: it or its key was damaged or tampered with."
            ),
            "Call the operator; a reconnect stores a fresh secret.",
        )
        .with("connection_id", connection)
        .with("token_version", version),
        E::WorkspaceKeysCorrupt(id) => Refused::new(
            Code::DataLoss,
            Reason::CiphertextCorrupt,
            format!("The keys of workspace {id} do not open: they were damaged or tampered with."),
            "Call the operator: the workspace's keys have to come back from a backup.",
        )
        .with("connection_id", call.connection())
        .with("token_version", ""),
        E::KeyServiceUnavailable => Refused::new(
            Code::Unavailable,
            Reason::KeyServiceUnavailable,
            "The key service that unwraps data keys does not answer, or does not let the vault in.",
            "Retry after the delay; call the operator if it lasts.",
        )
        .retry(SOON),
        E::MasterKeyNotReady { key_id, replicas, why } => {
            let who = if replicas.is_empty() { String::new() } else { format!(": {}", replicas.join(", ")) };
            Refused::new(
                Code::FailedPrecondition,
                Reason::MasterKeyNotReady,
                format!("The master key {key_id} can't become the active one: {why}{who}."),
                "Give every replica the new key as the last line of its key file, wait a few seconds, and repeat.",
            )
            .with("key_id", key_id)
            .with("replicas", replicas.join(", "))
        }
        E::ApiKeyInvalid => Refused::new(
            Code::Unauthenticated,
            Reason::ApiKeyInvalid,
            "The API key is missing, unknown or revoked.",
            "Send `authorization: Bearer <key>`, or have an admin make a key.",
        ),
        E::ApiKeyExpired { at } => Refused::new(
            Code::Unauthenticated,
            Reason::ApiKeyExpired,
            "The API key has ended.",
            "Have an admin make a new key.",
        )
        .with("expired_at", at),
        E::CertificateUnknown => Refused::new(
            Code::Unauthenticated,
            Reason::ApiKeyInvalid,
            "The client certificate is trusted, and none of its names, or more than one, is a principal's.",
            "Have the operator name one of its SANs in auth.certificates, or send an API key.",
        ),
        E::CertificateExpired { at } => Refused::new(
            Code::Unauthenticated,
            Reason::ApiKeyExpired,
            "The client certificate of this connection has ended.",
            "Connect again with a new certificate.",
        )
        .with("expired_at", at),
        E::CertificateOfAnother => Refused::new(
            Code::Unauthenticated,
            Reason::ApiKeyInvalid,
            "The API key and the client certificate are not the same principal's.",
            "Send a key of the certificate's principal, or connect with a certificate of the key's.",
        ),
        E::TokenRejected => Refused::new(
            Code::Unauthenticated,
            Reason::ApiKeyInvalid,
            "The token is not one that this vault accepts.",
            "Send a valid token of the issuer and audience that the vault is configured with; the vault's log says, \
             under this call's id, what is wrong.",
        ),
        E::CallerTokenExpired { at } => Refused::new(
            Code::Unauthenticated,
            Reason::ApiKeyExpired,
            "The token has expired.",
            "Get a new one from its issuer.",
        )
        .with("expired_at", at),
        E::TokenUnmapped => Refused::new(
            Code::Unauthenticated,
            Reason::ApiKeyInvalid,
            "The token is genuine, and its claims give its bearer no name, role or workspace in this vault.",
            "Have the operator look at auth.oidc, or the issuer's administrator at the token's claims; the vault's log says, \
             under this call's id, what is missing.",
        ),
        E::IssuerUnavailable => Refused::new(
            Code::Unavailable,
            Reason::IdentityProviderUnavailable,
            "The issuer of tokens does not answer, so that the vault can't tell whether this one is good.",
            "Retry after the delay; call the operator if it lasts.",
        )
        .retry(SOON),
        E::RoleInsufficient { role } => Refused::new(
            Code::PermissionDenied,
            Reason::RoleInsufficient,
            format!("The role {} may not call {}.", role.as_str(), call.rpc()),
            "Use a key with a role that may.",
        )
        .with("role", role.as_str().to_ascii_uppercase())
        .with("rpc", call.rpc()),
        E::Internal => Refused::bug(call),
    }
}

fn fields(violations: Vec<FieldViolation>) -> Refused {
    let told: Vec<_> = violations.iter().map(|v| format!("{} {}", v.field, v.rule)).collect();
    let first = violations.first().map_or(String::new(), |violation| violation.field.clone());
    let wrong = format!("The request is invalid: {}.", told.join("; "));
    let refused = Refused::new(Code::InvalidArgument, Reason::FieldInvalid, wrong, "Correct the request.");
    refused.violations(violations).with("field", first)
}

fn scopes_missing(missing: &[String], declined: &[String]) -> Refused {
    let note = if declined.is_empty() {
        String::new()
    } else {
        format!(" The person declined {}.", declined.join(", "))
    };
    Refused::new(
        Code::FailedPrecondition,
        Reason::ScopesMissing,
        format!("The token lacks required scopes: {}.{note} Nothing was stored.", missing.join(", ")),
        "Have the person grant them, or set options.allow_missing_scopes.",
    )
    .with("missing", missing.join(", "))
}
