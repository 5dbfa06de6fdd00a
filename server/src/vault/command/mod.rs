//! What the vault can be asked, and what it answers: the verbs' inputs and outputs, already parsed.
//!
//! `api/convert.rs` makes commands out of requests and requests' answers out of outcomes, so that
//! no wire type is known in here.

mod feed;
mod keys;
mod runs;

use std::collections::BTreeSet;
use std::time::Duration;

pub use feed::*;
pub use keys::*;
pub use runs::*;

pub use crate::model::ListOrder;
use crate::model::{
    ApiKeyId, Check, CheckResult, ConnectionId, Expiry, ProviderId, ProviderTrouble, RequestId, Role, Secret,
    SecretId, Status, Timestamp, TokenVersion, WorkspaceId, WorkspaceSet,
};
use crate::provider::{ReportedRefusal, RequestPart, Usage};

pub use crate::store::ApiKeyFacts as ApiKey;

use super::TokenView;

/// Names one connection, and the workspace that the caller believes it in.
#[derive(Debug, Clone)]
pub struct Target {
    /// The connection.
    pub connection: ConnectionId,
    /// If given, must be its workspace.
    pub workspace: Option<WorkspaceId>,
}

/// What a caller allows at intake that is refused by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IntakeOptions {
    /// Store although required scopes are missing.
    pub allow_missing_scopes: bool,
    /// Replace although scopes get fewer.
    pub allow_fewer_scopes: bool,
    /// Replace although it speaks for somebody else.
    pub allow_subject_change: bool,
    /// Connect the person's pages too.
    pub connect_pages: bool,
}

/// Paste-token flow.
#[derive(Debug)]
pub struct StoreToken {
    /// Idempotency key.
    pub request_id: Option<RequestId>,
    /// Only if the connection holds this version.
    pub if_version: Option<TokenVersion>,
    /// Whose.
    pub workspace: WorkspaceId,
    /// At which platform.
    pub provider: ProviderId,
    /// Reconnect this one.
    pub connection: Option<ConnectionId>,
    /// As pasted; `Candidate` bounds and cleans it.
    pub access_token: Secret,
    /// What is allowed.
    pub options: IntakeOptions,
    /// Inspect and check, keep nothing.
    pub validate_only: bool,
}

/// What intake did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntakeOutcome {
    /// A new connection.
    Created,
    /// The next version in a working connection.
    Replaced,
    /// The next version in a dead one.
    Restored,
    /// The same secret: nothing new.
    Unchanged,
    /// Nothing kept, as asked.
    ValidatedOnly,
}

/// Answer of the paste-token flow.
#[derive(Debug)]
pub struct Intake {
    /// The token now held; for `ValidatedOnly` a token that would be held.
    pub token: TokenView,
    /// What was done.
    pub outcome: IntakeOutcome,
    /// What the doctor found.
    pub checks: Vec<Check>,
    /// The connections of the person's pages, if they were to be connected.
    pub pages: Vec<ConnectionId>,
    /// Position in the feed.
    pub cursor: String,
}

impl Intake {
    /// The worst finding.
    pub fn overall(&self) -> CheckResult {
        worst(&self.checks)
    }
}

/// The worst finding of many; `Skipped` of none.
pub fn worst(checks: &[Check]) -> CheckResult {
    checks.iter().map(|check| check.result).max().unwrap_or(CheckResult::Skipped)
}

/// What to exchange.
#[derive(Debug)]
pub enum ExchangeSubject {
    /// What a connection holds.
    Stored(Target),
    /// A token in hand, stored afterwards.
    New {
        /// Whose.
        workspace: WorkspaceId,
        /// At which platform.
        provider: ProviderId,
        /// As pasted.
        access_token: Secret,
    },
}

/// Exchange for a longer life.
#[derive(Debug)]
pub struct ExchangeToken {
    /// Idempotency key.
    pub request_id: Option<RequestId>,
    /// Only if the connection holds this version.
    pub if_version: Option<TokenVersion>,
    /// What.
    pub subject: ExchangeSubject,
}

/// Whether the end moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeOutcome {
    /// Later now.
    Extended,
    /// Did not move; a person must reconnect in time.
    AtCeiling,
    /// Would have come earlier: discarded.
    Shortened,
    /// Has no end now.
    NowNeverExpires,
}

/// Answer of an exchange.
#[derive(Debug)]
pub struct Exchange {
    /// The token now held.
    pub token: TokenView,
    /// Whether the end moved.
    pub outcome: ExchangeOutcome,
    /// The end before.
    pub previous_expiry: Expiry,
    /// Position in the feed.
    pub cursor: String,
}

/// The live doctor.
#[derive(Debug)]
pub struct ValidateToken {
    /// Which.
    pub target: Target,
    /// Which checks; empty means all.
    pub checks: BTreeSet<String>,
    /// The ad account for the smoke test.
    pub ad_account_id: Option<String>,
}

/// Answer of the doctor.
#[derive(Debug)]
pub struct Validation {
    /// The token with its updated facts.
    pub token: TokenView,
    /// The findings.
    pub checks: Vec<Check>,
    /// Position in the feed.
    pub cursor: String,
}

/// The secret for use now.
#[derive(Debug)]
pub struct FetchAccessToken {
    /// Which.
    pub target: Target,
    /// Life that it must still have.
    pub min_ttl: Duration,
}

/// The secret, and what its user must know.
#[derive(Debug)]
pub struct Fetched {
    /// The secret.
    pub secret: Secret,
    /// What else goes on each call.
    pub send_with: Vec<RequestPart>,
    /// Which version.
    pub version: TokenVersion,
    /// Names this secret in reports.
    pub secret_id: SecretId,
    /// Its end.
    pub expiry: Expiry,
    /// What it is worth.
    pub status: Status,
    /// The tightest known limit.
    pub usage: Option<Usage>,
    /// How long it may be kept.
    pub cache_for: Duration,
}

/// Which tokens. Or within a field, and between fields.
#[derive(Debug, Clone, Default)]
pub struct ListTokens {
    /// Of these workspaces; empty means all that the caller may see.
    pub workspaces: BTreeSet<WorkspaceId>,
    /// Of these providers; empty means all.
    pub providers: BTreeSet<ProviderId>,
    /// Of these statuses; empty means all but revoked.
    pub statuses: Vec<Status>,
    /// Ending within this time.
    pub expiring_within: Option<Duration>,
    /// Reaching this ad account.
    pub ad_account_id: Option<String>,
    /// Speaking for this subject.
    pub subject_id: Option<String>,
    /// In which order.
    pub order: ListOrder,
    /// How many at most; 1 to 1000.
    pub page_size: u32,
    /// Where to go on; empty at the start.
    pub page_token: String,
}

/// One page.
#[derive(Debug)]
pub struct TokenPage {
    /// The tokens.
    pub tokens: Vec<TokenView>,
    /// Where the next page starts; empty on the last.
    pub next_page_token: String,
    /// Position in the feed that the list reflects; the same on every page.
    pub cursor: String,
    /// The list's now; the same on every page.
    pub as_of: Timestamp,
}

/// Which secret a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportedSecret {
    /// Exactly this one.
    Id(SecretId),
    /// The one of this version.
    Version(TokenVersion),
}

/// A caller saw the provider refuse a token.
#[derive(Debug)]
pub struct ReportTokenError {
    /// Which connection.
    pub target: Target,
    /// Which of its secrets.
    pub secret: ReportedSecret,
    /// What was seen.
    pub refusal: ReportedRefusal,
    /// When the caller saw the refusal.
    pub observed_at: Option<Timestamp>,
    /// When the caller last saw it work.
    pub last_success_at: Option<Timestamp>,
}

/// What a report came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The token is dead, and known to be so since now.
    Invalidated,
    /// That was known.
    AlreadyDead,
    /// The report is about an older secret.
    StaleReport,
    /// The provider says that it is in order.
    StillValid,
    /// The provider stumbles.
    Transient,
    /// Too many calls.
    Throttled,
    /// It may not do this.
    Permission,
    /// Our configuration is wrong.
    OurMisconfiguration,
    /// The provider could not be asked to confirm.
    Unconfirmed,
}

/// What the caller should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Stop using this connection until an event.
    Pause,
    /// Try again after `retry_after`.
    RetryAfter,
    /// Fetch the token again; there is a newer one.
    FetchAgain,
    /// Leave this ad account out.
    SkipAdAccount,
    /// Mend the request.
    FixRequest,
}

/// Answer to a report.
#[derive(Debug)]
pub struct ReportOutcome {
    /// What it came to.
    pub verdict: Verdict,
    /// What to do.
    pub advice: Advice,
    /// How long to wait first.
    pub retry_after: Duration,
    /// The token as it is now.
    pub token: TokenView,
    /// Position in the feed.
    pub cursor: String,
}

/// Ends a connection.
#[derive(Debug)]
pub struct RevokeToken {
    /// Idempotency key.
    pub request_id: Option<RequestId>,
    /// Only if the connection holds this version.
    pub if_version: Option<TokenVersion>,
    /// Which.
    pub target: Target,
    /// At the provider too.
    pub revoke_at_provider: bool,
    /// Although other workspaces lose theirs.
    pub allow_shared: bool,
    /// Forget the person's id and name as well.
    pub erase_subject: bool,
}

/// What became of it at the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderOutcome {
    /// Not asked for.
    NotAsked,
    /// Ended there.
    Revoked,
    /// Had ended before.
    AlreadyGone,
    /// Can't be ended there.
    NotSupported,
    /// The provider could not be asked; the secret is destroyed here all the same.
    Pending,
}

/// Answer of a revocation.
#[derive(Debug)]
pub struct Revoked {
    /// The tombstone.
    pub token: TokenView,
    /// What became of it at the provider.
    pub provider_outcome: ProviderOutcome,
    /// Position in the feed.
    pub cursor: String,
}

/// Makes an API key.
#[derive(Debug)]
pub struct CreateApiKey {
    /// Idempotency key.
    pub request_id: Option<RequestId>,
    /// Stable name of the service that will use it.
    pub principal: String,
    /// What it is for.
    pub role: Role,
    /// Where it may act.
    pub workspaces: WorkspaceSet,
    /// Its end; `None` for none.
    pub expires_at: Option<Timestamp>,
}

/// A new key. The secret is shown this once; a repeat of the request answers without it.
#[derive(Debug)]
pub struct NewApiKey {
    /// What it is.
    pub api_key: ApiKey,
    /// The key itself, once.
    pub key: Option<Secret>,
}

/// Makes an API key in another's place.
#[derive(Debug)]
pub struct RotateApiKey {
    /// Idempotency key.
    pub request_id: Option<RequestId>,
    /// The key to replace.
    pub key: ApiKeyId,
    /// How long it goes on; `None` for the default.
    pub overlap: Option<Duration>,
    /// The new key's end; `None`: it lives as long as the replaced one was made to live.
    pub expires_at: Option<Timestamp>,
}

/// A key in another's place.
#[derive(Debug)]
pub struct RotatedApiKey {
    /// The new one, shown this once.
    pub new: NewApiKey,
    /// The one that it replaces, as it is now.
    pub replaced: ApiKey,
}

/// Which keys.
#[derive(Debug, Clone, Default)]
pub struct ListApiKeys {
    /// Of this principal only.
    pub principal: Option<String>,
    /// How many at most; 1 to 1000.
    pub page_size: u32,
    /// Where to go on; empty at the start.
    pub page_token: String,
}

/// One page of keys.
#[derive(Debug)]
pub struct ApiKeyPage {
    /// The keys.
    pub api_keys: Vec<ApiKey>,
    /// Where the next page starts; empty on the last.
    pub next_page_token: String,
}

/// How one provider stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderState {
    /// Its name.
    pub provider: String,
    /// The version of its API that the vault speaks.
    pub api_version: String,
    /// Calls are held back, as the provider is at fault.
    pub circuit_open: bool,
    /// What is wrong, and since when.
    pub trouble: Option<(ProviderTrouble, Timestamp)>,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaState {
    /// Its name.
    pub name: String,
    /// Of its program.
    pub version: String,
    /// When it began.
    pub started_at: Timestamp,
    /// Microseconds that its clock is ahead of the database's.
    pub clock_offset: i64,
    /// It is the one that answers.
    pub is_this_one: bool,
}

/// What the vault says of itself.
#[derive(Debug, Clone)]
pub struct VaultStatus {
    /// Of this program.
    pub version: &'static str,
    /// The vault's now.
    pub server_time: Timestamp,
    /// `sqlite` or `postgres`.
    pub backend: &'static str,
    /// This process.
    pub replica: String,
    /// Position in the feed.
    pub cursor: String,
    /// Sequence of the newest event.
    pub head_sequence: i64,
    /// Sequence of the oldest event that is kept.
    pub oldest_sequence: i64,
    /// Tokens whose due work was not done, as the watchdog sees it.
    pub overdue_tokens: u64,
    /// How each provider stands.
    pub providers: Vec<ProviderState>,
    /// The processes that live on this database.
    pub replicas: Vec<ReplicaState>,
    /// The master keys that this process holds; the active one first.
    pub master_keys: Vec<MasterKeyState>,
    /// Connections by status, among those that the caller may see.
    pub tokens_by_status: Vec<(Status, u64)>,
}
