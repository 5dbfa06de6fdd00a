//! The only mapping from [`VaultError`] to a gRPC status: canonical code, reason, metadata and words.
//!
//! Its one match has no `_` arm: a new variant does not compile until somebody has decided all four.
//! The metadata keys are part of the contract; the proto lists them at each value of `ErrorReason`.

use token_vault_proto::v1::ErrorReason as Reason;
use tonic::{Code, Response, Status};

use super::call::Call;
use super::denial::{Denial, LATER, SOON, SPREAD};
use crate::backoff::jitter;
use crate::model::{RefusalReason, Refused, Remedy, Renewal, why_withheld};
use crate::provider::GUIDE;
use crate::vault::{FieldViolation, VaultError};

/// The response to a call, from a verb's outcome.
pub(super) fn respond<T, R: From<T>>(
    call: &Call,
    outcome: Result<T, VaultError>,
) -> Result<Response<R>, Status> {
    outcome.map(|done| Response::new(R::from(done))).map_err(|error| deny(error, call))
}

/// The status of a call that ended with `error`.
pub(super) fn deny(error: VaultError, call: &Call) -> Status {
    if let VaultError::ProviderUnavailable { detail, .. } = &error {
        call.note_detail(detail);
    }
    call.deny(denial(error, call))
}

fn denial(error: VaultError, call: &Call) -> Denial {
    use VaultError as E;
    match error {
        E::Fields(violations) => fields(violations),
        E::TokenMalformed { field, advice } => Denial::new(
            Code::InvalidArgument,
            Reason::TokenMalformed,
            "The access token is malformed.",
            advice.clone(),
        )
        .with("field", field)
        .with("hint", &advice)
        .violation(field, &advice),
        E::ProviderUnknown { provider, configured } => {
            let known = if configured.is_empty() { "none".to_owned() } else { configured.join(", ") };
            Denial::new(
                Code::InvalidArgument,
                Reason::ProviderUnknown,
                format!("The provider {provider:?} is not configured in this vault."),
                format!("Use a configured one ({known}), or have the operator configure it."),
            )
            .violation("provider", &format!("must be a configured provider: {known}"))
            .with("provider", provider)
            .with("configured", configured.join(", "))
        }
        E::PageTokenInvalid => Denial::new(
            Code::InvalidArgument,
            Reason::PageTokenInvalid,
            "This vault did not make the page_token.",
            "Start again without page_token.",
        )
        .violation("page_token", "must be next_page_token of the previous page"),
        E::PageTokenMismatch => Denial::new(
            Code::InvalidArgument,
            Reason::PageTokenMismatch,
            "The page_token belongs to a request with different filters or a different order.",
            "Repeat the first page's fields unchanged, or start again without page_token.",
        )
        .with("field", "page_token")
        .violation("page_token", "must be sent with the first page's fields, unchanged"),
        E::CursorInvalid { field } => Denial::new(
            Code::InvalidArgument,
            Reason::CursorInvalid,
            "The cursor is damaged: no vault made it like this.",
            "Store and send cursors untouched.",
        )
        .with("field", field)
        .violation(field, "must be a cursor exactly as the vault returned it"),
        E::FeedReplaced { ours, theirs } => Denial::new(
            Code::OutOfRange,
            Reason::FeedReplaced,
            "The cursor belongs to another feed: this database was restored from a backup or replaced.",
            "Start from a snapshot.",
        )
        .with("feed_epoch", ours)
        .with("cursor_epoch", theirs),
        E::EventsCompacted { oldest, position } => Denial::new(
            Code::OutOfRange,
            Reason::EventsCompacted,
            "Events after this cursor are older than the retention time and were deleted.",
            "Start from a snapshot.",
        )
        .with("oldest_sequence", oldest)
        .with("cursor_sequence", position),
        E::HistoryCompacted { oldest } => Denial::new(
            Code::OutOfRange,
            Reason::EventsCompacted,
            "Events of this list became older than the retention time after its first page, and were deleted.",
            "List again from the first page.",
        )
        .with("oldest_sequence", oldest),
        E::RequestIdReused(request_id) => Denial::new(
            Code::InvalidArgument,
            Reason::RequestIdReused,
            "The request_id was used for a different request in the last 24 hours.",
            "Use a new request_id for each new request.",
        )
        .with("request_id", request_id)
        .violation("request_id", "must be new for a different request"),
        E::RequestInProgress(request_id) => Denial::new(
            Code::Aborted,
            Reason::RequestInProgress,
            "A call with the same request_id is still running.",
            "Repeat the same call after the delay to get its outcome.",
        )
        .with("request_id", request_id)
        .retry(SOON),
        E::ProviderRefusedToken { provider, reason, provider_code } => Denial::by_remedy(
            Code::InvalidArgument,
            Reason::ProviderRefusedToken,
            Remedy::for_refusal(reason, Refused::Offered, &provider, GUIDE),
        )
        .with("provider", provider)
        .with("refusal", reason.as_str())
        .with("provider_code", provider_code),
        E::TokenOfOtherApp { provider, app_id } => Denial::new(
            Code::InvalidArgument,
            Reason::TokenOfOtherApp,
            "The token was made for a different app than the vault is configured with.",
            format!("Use a token of app {app_id}."),
        )
        .with("provider", provider)
        .with("configured", app_id),
        E::AuthorizationOver => Denial::new(
            Code::InvalidArgument,
            Reason::AuthorizationStateInvalid,
            "The authorization can't be completed: it is unknown, used, too old, or of another workspace or browser session; or \
             the provider no longer takes its code.",
            "Begin the authorization again.",
        ),
        E::AuthorizationDeclined { provider, provider_code } => Denial::new(
            Code::FailedPrecondition,
            Reason::AuthorizationDeclined,
            "The person declined in the provider's consent dialog, or the dialog ended without an answer. Nothing changed.",
            "Ask the person whether to try again, and begin the authorization again.",
        )
        .with("provider", provider)
        .with("provider_code", provider_code),
        E::ConnectionNotFound(id) => Denial::new(
            Code::NotFound,
            Reason::ConnectionNotFound,
            format!("There is no connection {id} that the caller may see."),
            "Check the id and the workspace_id sent with it.",
        )
        .with("connection_id", id),
        E::WorkspaceNotFound(id) => Denial::new(
            Code::NotFound,
            Reason::WorkspaceNotFound,
            format!("The caller's key may not act in a workspace {id}."),
            "Check the id, or have an admin make a key for the workspace.",
        )
        .with("workspace_id", id),
        E::ApiKeyNotFound(id) => Denial::new(
            Code::NotFound,
            Reason::ApiKeyNotFound,
            format!("There is no API key {id}."),
            "List the ids with ListApiKeys.",
        )
        .with("key_id", id),
        E::ConnectLinkNotFound(id) => Denial::new(
            Code::NotFound,
            Reason::ConnectLinkNotFound,
            "The connect link is not valid: it has ended, was revoked, or never was.",
            "Ask for a new link.",
        )
        .with("link_id", id.map(|id| id.to_string()).unwrap_or_default()),
        E::PortalNotConfigured => Denial::new(
            Code::FailedPrecondition,
            Reason::PortalNotConfigured,
            "This vault does not know where its portal is, so a connect link would lead nowhere.",
            "Have the operator set portal.url in the vault's configuration.",
        )
        .with("keys", "portal.url"),
        E::DeletionPageNotConfigured { keys } => Denial::new(
            Code::FailedPrecondition,
            Reason::PortalNotConfigured,
            "The vault does not know where people see what became of their request to delete their data, so the request was \
             not taken.",
            format!("Have the operator set one of these keys in the vault's configuration: {keys}."),
        )
        .with("keys", keys),
        E::CallbackNotSigned { provider } => Denial::new(
            Code::InvalidArgument,
            Reason::CallbackSignatureInvalid,
            "The callback is signed with none of the configured app secrets.",
            "Answer 403 and drop it. If all callbacks fail, pass on the body byte for byte, and check the app secret.",
        )
        .with("provider", provider),
        E::ApiKeyNotRotatable { key, state, replaced_by } => {
            let by = replaced_by.map_or(String::new(), |by| by.to_string());
            let (what, remedy) = match state {
                "REVOKED" => ("was revoked", "Make a new key with CreateApiKey.".to_owned()),
                "EXPIRED" => ("has expired", "Make a new key with CreateApiKey.".to_owned()),
                _ => ("was already replaced", format!("Rotate the key that replaced it, {by}.")),
            };
            Denial::new(
                Code::FailedPrecondition,
                Reason::ApiKeyNotRotatable,
                format!("The API key {key} {what}."),
                remedy,
            )
            .with("key_id", key)
            .with("state", state)
            .with("replaced_by", by)
        }
        E::SubscriptionNotFound(name) => Denial::new(
            Code::NotFound,
            Reason::SubscriptionNotFound,
            format!("The principal has no subscription {name}."),
            "List the names with ListSubscriptions; acknowledging a cursor makes a subscription.",
        )
        .with("subscription", name),
        E::JobNotFound { job, known } => Denial::new(
            Code::NotFound,
            Reason::JobNotFound,
            "The vault has no job with that name.",
            format!("List the names with ListJobs: {known}."),
        )
        .with("job", job)
        .with("known", known),
        E::SubjectAlreadyConnected { provider, connection } => Denial::new(
            Code::AlreadyExists,
            Reason::SubjectAlreadyConnected,
            "The token's subject already has another connection in this workspace.",
            format!("Reconnect that connection: {connection}."),
        )
        .with("provider", provider)
        .with("connection_id", connection),
        E::TokenExpired { connection, provider, version, at } => Denial::by_remedy(
            Code::FailedPrecondition,
            Reason::TokenExpired,
            Remedy::for_refusal(RefusalReason::Expired, Refused::Held, &provider, GUIDE),
        )
        .with("connection_id", connection)
        .with("token_version", version)
        .with("expired_at", at),
        E::TokenInvalid { connection, provider, version, since, reason, provider_code } => Denial::by_remedy(
            Code::FailedPrecondition,
            Reason::TokenInvalid,
            Remedy::for_refusal(reason, Refused::Held, &provider, GUIDE),
        )
        .with("connection_id", connection)
        .with("token_version", version)
        .with("invalid_since", since)
        .with("refusal", reason.as_str())
        .with("provider_code", provider_code),
        E::TokenRevoked { connection, at } => Denial::new(
            Code::FailedPrecondition,
            Reason::TokenRevoked,
            format!("The connection was revoked at {at}, and its secret is destroyed."),
            "Stop using it, or connect the account again.",
        )
        .with("connection_id", connection)
        .with("revoked_at", at),
        E::TokenLifeTooShort { connection, version, ends_at, left, wanted, renewal } => Denial::new(
            Code::FailedPrecondition,
            Reason::TokenLifeTooShort,
            format!(
                "The token is valid for {} more seconds, and min_ttl asks for {}.",
                left.as_secs(),
                wanted.as_secs()
            ),
            lengthen(renewal),
        )
        .with("connection_id", connection)
        .with("token_version", version)
        .with("expires_at", ends_at)
        .with("life_left", left.as_secs())
        .with("renewal", renewal.as_str()),
        E::ScopesMissing { missing, declined, expired } => {
            scopes_missing(&missing, &declined, &expired).with("connection_id", call.connection())
        }
        E::ScopesShrunk { connection, lost } => Denial::new(
            Code::FailedPrecondition,
            Reason::ScopesShrunk,
            format!(
                "The new token lacks scopes that the old token has ({}); the old token stays.",
                lost.join(", ")
            ),
            "Have the person grant them, or set options.allow_fewer_scopes.",
        )
        .with("connection_id", connection)
        .with("missing", lost.join(", ")),
        E::SubjectMismatch { connection, expected, actual } => Denial::new(
            Code::FailedPrecondition,
            Reason::SubjectMismatch,
            "The new token belongs to a different subject than the connection; the old token stays.",
            "Log in as the connection's subject, or set options.allow_subject_change.",
        )
        .with("connection_id", connection.map_or_else(|| call.connection().to_owned(), |id| id.to_string()))
        .with("expected_subject_id", expected)
        .with("subject_id", actual),
        E::TokenShared { connection, connections } => Denial::new(
            Code::FailedPrecondition,
            Reason::TokenShared,
            format!(
                "Revoking at the provider would also end {connections} other connections of the same subject."
            ),
            "Set allow_shared, or do not revoke at the provider.",
        )
        .with("connection_id", connection)
        .with("shared_connections", connections),
        E::ExchangeNotPossible { connection, provider, why, end } => {
            let held = connection.map(|_| end);
            Denial::by_remedy(
                Code::FailedPrecondition,
                Reason::ExchangeNotPossible,
                Remedy::for_no_exchange(why.trim_end_matches('.'), held),
            )
            .with("connection_id", connection.map(|id| id.to_string()).unwrap_or_default())
            .with("provider", provider)
        }
        E::WorkspaceShredded(id) => Denial::new(
            Code::FailedPrecondition,
            Reason::WorkspaceShredded,
            format!("The workspace {id} was shredded, and its id cannot be used again."),
            "Use another workspace id.",
        )
        .with("workspace_id", id),
        E::ProviderMisconfigured { provider, problem, provider_code } => Denial::by_remedy(
            Code::FailedPrecondition,
            Reason::ProviderMisconfigured,
            Remedy::for_misconfiguration(problem, &provider, GUIDE),
        )
        .with("provider", provider)
        .with("problem", problem.as_str())
        .with("provider_code", provider_code),
        E::TokenVersionMismatch { connection, expected, actual } => Denial::new(
            Code::Aborted,
            Reason::TokenVersionMismatch,
            format!("The connection holds token version {actual}, and if_token_version is {expected}."),
            "Read the token again, then decide.",
        )
        .with("connection_id", connection)
        .with("token_version", actual),
        E::ConcurrentChange(connection) => Denial::new(
            Code::Aborted,
            Reason::TokenVersionMismatch,
            "The connection changed while the vault was asking the provider.",
            "Read the token again and retry.",
        )
        .with("connection_id", connection)
        .retry(SOON),
        E::ProviderThrottled { provider, provider_code, scope, retry_after } => Denial::new(
            Code::ResourceExhausted,
            Reason::ProviderThrottled,
            format!("The provider limits calls in the scope {scope}."),
            "Retry after the delay; the token is not in doubt.",
        )
        .with("provider", provider)
        .with("provider_code", provider_code)
        .with("scope", scope)
        .retry(retry_after),
        E::ProviderUnavailable { provider, provider_code, retry_after, detail: _ } => Denial::new(
            Code::Unavailable,
            Reason::ProviderUnavailable,
            "The provider does not respond, or responds with an error of its own.",
            "Retry after the delay; the token is not in doubt.",
        )
        .with("provider", provider)
        .with("provider_code", provider_code)
        .retry(retry_after),
        E::StorageUnavailable => Denial::new(
            Code::Unavailable,
            Reason::StorageUnavailable,
            "The vault's database is not available.",
            "Retry with the same request_id: whatever became of the first try, the work is done once.",
        )
        .retry(SOON),
        E::AuditUnavailable => Denial::new(
            Code::Unavailable,
            Reason::AuditUnavailable,
            "The audit log cannot be written, so nothing was handed out or changed.",
            "Retry after the delay, and call the operator if this lasts.",
        )
        .retry(SOON),
        E::Overloaded | E::KeysChanged(_) => Denial::new(
            Code::ResourceExhausted,
            Reason::RateLimited,
            "Too many calls are waiting for the provider or the database.",
            "Retry after the delay, with jitter.",
        )
        .with("limit", "work_in_progress")
        .retry(SOON),
        E::TooManyWatches { limit } => Denial::new(
            Code::ResourceExhausted,
            Reason::RateLimited,
            match limit {
                "watches" => "The vault has reached its limit of watches.",
                _ => "The principal has reached its limit of watches.",
            },
            "End a watch, or have the operator raise server.limits; then retry after the delay.",
        )
        .with("limit", limit)
        .retry(LATER),
        E::OutOfTime => Denial::deadline_exceeded(),
        E::ShuttingDown => Denial::new(
            Code::Unavailable,
            Reason::ShuttingDown,
            "This replica is stopping.",
            "Retry; another replica, or the restarted one, will respond.",
        )
        .retry(SOON + jitter(SPREAD)),
        E::CiphertextCorrupt { connection, version } => Denial::new(
            Code::DataLoss,
            Reason::CiphertextCorrupt,
            format!(
                "The stored secret of {connection} cannot be decrypted: it or its key was damaged or tampered with."
            ),
            "Call the operator; reconnecting the account stores a new secret.",
        )
        .with("connection_id", connection)
        .with("token_version", version),
        E::WorkspaceKeysCorrupt(id) => Denial::new(
            Code::DataLoss,
            Reason::CiphertextCorrupt,
            format!("The keys of workspace {id} cannot be decrypted: they were damaged or tampered with."),
            "Call the operator: the workspace's keys must be restored from a backup.",
        )
        .with("connection_id", call.connection())
        .with("token_version", ""),
        E::KeyServiceUnavailable => Denial::new(
            Code::Unavailable,
            Reason::KeyServiceUnavailable,
            "The key service that unwraps data keys does not respond, or does not let the vault in.",
            "Retry after the delay, and call the operator if this lasts.",
        )
        .retry(SOON),
        E::MasterKeyNotReady { key_id, replicas, why } => {
            let who = if replicas.is_empty() { String::new() } else { format!(": {}", replicas.join(", ")) };
            Denial::new(
                Code::FailedPrecondition,
                Reason::MasterKeyNotReady,
                format!("The master key {key_id} cannot become the active one: {why}{who}."),
                "Give every replica the new key as the last line of its key file, wait a few seconds, and repeat.",
            )
            .with("key_id", key_id)
            .with("replicas", replicas.join(", "))
        }
        E::ApiKeyInvalid => Denial::new(
            Code::Unauthenticated,
            Reason::ApiKeyInvalid,
            "The API key is missing, unknown or revoked.",
            "Send `authorization: Bearer <key>`, or have an admin make a key.",
        ),
        E::ApiKeyExpired { at } => Denial::new(
            Code::Unauthenticated,
            Reason::ApiKeyExpired,
            "The API key has expired.",
            "Have an admin make a new key.",
        )
        .with("expired_at", at),
        E::CertificateUnknown => Denial::new(
            Code::Unauthenticated,
            Reason::ApiKeyInvalid,
            "The client certificate is trusted, but not exactly one of its names belongs to a principal.",
            "Have the operator name one of its SANs in auth.certificates, or send an API key.",
        ),
        E::CertificateExpired { at } => Denial::new(
            Code::Unauthenticated,
            Reason::ApiKeyExpired,
            "The client certificate of this connection has expired.",
            "Connect again with a new certificate.",
        )
        .with("expired_at", at),
        E::CertificateOfAnother => Denial::new(
            Code::Unauthenticated,
            Reason::ApiKeyInvalid,
            "The API key and the client certificate belong to different principals.",
            "Send a key of the certificate's principal, or connect with a certificate of the key's principal.",
        ),
        E::TokenRejected => Denial::new(
            Code::Unauthenticated,
            Reason::ApiKeyInvalid,
            "The vault does not accept this token.",
            "Send a valid token of the issuer and audience that the vault is configured with; the vault's log says, \
             under this call's id, what is wrong.",
        ),
        E::CallerTokenExpired { at } => Denial::new(
            Code::Unauthenticated,
            Reason::ApiKeyExpired,
            "The token has expired.",
            "Get a new one from its issuer.",
        )
        .with("expired_at", at),
        E::TokenUnmapped => Denial::new(
            Code::Unauthenticated,
            Reason::ApiKeyInvalid,
            "The token is valid, but its claims give its bearer no name, role or workspace in this vault.",
            "Have the operator check auth.oidc, or the issuer's administrator check the token's claims; the vault's log says, \
             under this call's id, what is missing.",
        ),
        E::IssuerUnavailable => Denial::new(
            Code::Unavailable,
            Reason::IdentityProviderUnavailable,
            "The token's issuer does not respond, so the vault cannot verify the token.",
            "Retry after the delay, and call the operator if this lasts.",
        )
        .retry(SOON),
        E::RoleInsufficient { role } => Denial::new(
            Code::PermissionDenied,
            Reason::RoleInsufficient,
            format!("The role {} may not call {}.", role.as_str(), call.rpc()),
            "Use a key with a role that may call it.",
        )
        .with("role", role.as_str().to_ascii_uppercase())
        .with("rpc", call.rpc()),
        E::Internal => Denial::bug(call.id()),
    }
}

fn fields(violations: Vec<FieldViolation>) -> Denial {
    let rules: Vec<_> = violations.iter().map(|v| format!("{} {}", v.field, v.rule)).collect();
    let first = violations.first().map_or(String::new(), |violation| violation.field.clone());
    let problem = format!("The request is invalid: {}.", rules.join("; "));
    Denial::new(Code::InvalidArgument, Reason::FieldInvalid, problem, "Correct the request.")
        .violations(violations)
        .with("field", first)
}

/// What to do about a token that ends too soon.
const fn lengthen(renewal: Renewal) -> &'static str {
    match renewal {
        Renewal::ByVault => {
            "Ask for a smaller min_ttl, or have ExchangeToken called: the provider lets the vault renew this token."
        }
        Renewal::MaybeByVault => {
            "Ask for a smaller min_ttl, or have ExchangeToken called, which may give the token a longer life."
        }
        Renewal::ByPerson | Renewal::NotNeeded => {
            "Ask for a smaller min_ttl, or pause until the account is reconnected."
        }
    }
}

fn scopes_missing(missing: &[String], declined: &[String], expired: &[String]) -> Denial {
    let note = why_withheld(declined, expired);
    Denial::new(
        Code::FailedPrecondition,
        Reason::ScopesMissing,
        format!("The token lacks required scopes: {}.{note} Nothing was stored.", missing.join(", ")),
        "Have the person grant them, or set options.allow_missing_scopes.",
    )
    .with("missing", missing.join(", "))
}
