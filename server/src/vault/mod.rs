//! The vault: what callers ask for and what the clock brings. `state` holds it; each file of a wing is one
//! `impl Vault` block, a verb with its command and its outcome on top:
//!
//! - `opening`: the start of a process, the very first start, and what is done to a vault that does not run.
//! - `access`: who calls, and the API keys that say so.
//! - `token`: storing, fetching, validating, exchanging, reporting, listing and revoking tokens.
//! - `feed`: following the events.
//! - `jobs`: work by the clock, a file per job.
//! - `keys`: the keys that everything is encrypted by, and their rotation.
//! - `workspace`: workspaces and their end.
//! - `once`: what makes a repeated or a concurrent request happen once.
//! - `audit`: what is written to the audit log, and when.
//!
//! The vault knows no wire type, no SQL and no HTTP. A caller's hang-up loses nothing: from its first side
//! effect on, an operation runs detached from its caller.

mod access;
mod audit;
mod error;
mod feed;
#[cfg(fuzzing)]
pub mod fuzzing;
mod jobs;
mod keys;
mod once;
mod opening;
mod position;
mod provider_health;
mod shares;
mod state;
mod status;
mod token;
mod work;
mod workspace;

pub use access::callers::{ApiKeyPage, CreateApiKey, ListApiKeys, NewApiKey, RotateApiKey, RotatedApiKey};
pub use error::{FieldViolation, OpenError, VaultError};
pub use feed::permits::WatchLimits;
pub use feed::watch::{
    AcknowledgeEvents, DeleteSubscription, EventFilter, EventPage, ListEvents, ListSubscriptions, SeenEvent,
    Subscription, SubscriptionPage, Watch, WatchEvents, WatchItem, WatchStart, Watched,
};
pub use jobs::schedule::{Job, JobKind, JobRunPage, ListJobRuns, RunJob, Timetable};
pub use keys::rekey::{KeyToRotate, MasterKeyState, RotateKey};
pub use opening::config::{CallerPolicy, FirstStart, VaultConfig};
pub use opening::recover::Recovered;
pub use provider_health::ProviderState;
pub use shares::Shares;
pub use state::Vault;
pub use status::{ReplicaState, VaultStatus};
pub use token::custody::{FetchAccessToken, Fetched, ProviderOutcome, RevokeToken, Revoked};
pub use token::exchange::{Exchange, ExchangeOutcome, ExchangeSubject, ExchangeToken};
pub use token::intake::{Intake, IntakeOptions, IntakeOutcome, StoreToken, worst};
pub use token::list::{ListTokens, TokenPage};
pub use token::report::{Advice, ReportOutcome, ReportTokenError, ReportedSecret, Verdict};
pub use token::target::Target;
pub use token::validate::{ValidateToken, Validation};
pub use token::view::TokenView;
pub use workspace::shred::{ListWorkspaces, ShredWorkspace, Shredded, WorkspacePage};

pub use crate::crypto::{BreakGlassSealingKey, TransitConfig, TransitLogin};
pub use crate::model::ListOrder;
pub use crate::store::{ApiKeyFacts as ApiKey, JobRun, Origin, RunState, WorkspaceFacts};
