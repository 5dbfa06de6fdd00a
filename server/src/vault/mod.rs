//! The vault: what it does for callers, and what it does on a schedule. Each file of a wing is one `impl Vault` block:
//! a verb, with its command and its outcome at the top.
//!
//! - `state`: what a process remembers between calls. `Vault` itself is here.
//! - `token`: storing, fetching, validating, exchanging, reporting, listing and revoking tokens.
//! - `authorization`: a person's consent at a provider, from the dialog to the stored token.
//! - `callbacks`: what a provider sends to our app by itself.
//! - `feed`: watching the events, paging through them, and subscriptions.
//! - `jobs`: work that starts on a schedule or after a change, one file per job; `timetable` names the jobs.
//! - `keys`: master keys and workspaces' keys, as they are used.
//! - `access`: authenticating callers, and managing API keys.
//! - `workspace`: listing workspaces, and shredding one.
//! - `once`: a repeated or concurrent request does its work once.
//! - `audit`: what the vault records in the audit log, and when.
//! - `opening`: the start of a process, the very first start, and commands without a server.
//! - `position`: page tokens and cursors. `paging`: how a page fills. `provider_health`: circuits, and doubt when many tokens die. `status`:
//!   GetVaultStatus.
//!
//! From the top down: `opening`, `workspace` and `status`; `jobs`; `feed`; `callbacks`; `authorization`; `token`; `access`, `keys`, `once` and
//! `audit`; `state`. The vault knows no wire type, no SQL and no HTTP. If a caller hangs up, nothing is lost: from its
//! first side effect on, an operation runs detached from its caller.

mod access;
mod audit;
mod authorization;
mod callbacks;
mod error;
mod feed;
#[cfg(fuzzing)]
pub mod fuzzing;
mod jobs;
mod keys;
mod once;
mod opening;
mod paging;
mod pass;
mod position;
mod provider_health;
mod state;
mod status;
mod timetable;
mod token;
mod workspace;

pub use access::api_key_rotation::{RotateApiKey, RotatedApiKey};
pub use access::api_keys::{CreateApiKey, ListApiKeys, NewApiKey};
pub use authorization::begin::{Authorization, BeginAuthorization};
pub use authorization::complete::CompleteAuthorization;
pub use authorization::links::create::{CreateConnectLink, NewConnectLink};
pub use authorization::links::manage::{ConnectLinkView, ListConnectLinks};
pub use authorization::links::open::{ConnectionCard, OpenedLink};
pub use callbacks::report::{CallbackOutcome, DeletionState, ReportProviderCallback};
pub use error::{FieldViolation, OpenError, VaultError};
pub use feed::filter::EventFilter;
pub use feed::history::{EventPage, ListEvents, SeenEvent};
pub use feed::subscriptions::{AcknowledgeEvents, DeleteSubscription, ListSubscriptions, Subscription};
pub use feed::watch::{Watch, WatchEvents, WatchItem, WatchMessage, WatchStart};
pub use jobs::admin::{Job, ListJobRuns, RunJob};
pub use jobs::rotate_key::{KeyToRotate, RotateKey};
pub use keys::master_keys::MasterKeyState;
pub use opening::config::{CallerPolicy, FirstStart, VaultConfig};
pub use opening::recover::Recovered;
pub use opening::waiting::{Missing, StartWait};
pub use position::NextPage;
pub use provider_health::ProviderState;
pub use state::Vault;
pub use state::access::LinkConfig;
pub use state::attendance::{Attendance, Deadline};
pub use state::feed::WatchLimits;
pub use state::shares::Shares;
pub use status::{ReplicaState, VaultStatus};
pub use timetable::{JobKind, Timetable};
pub use token::exchange::save::ExchangeOutcome;
pub use token::exchange::{Exchange, ExchangeSubject, ExchangeToken};
pub use token::fetch::{FetchAccessToken, Fetched};
pub use token::list::ad_accounts::{AdAccountPage, AdAccountView, ListAdAccounts};
pub use token::list::{ListTokens, TokenPage};
pub use token::report::{Advice, ReportOutcome, ReportTokenError, ReportedSecret, Verdict};
pub use token::revoke::{ProviderOutcome, RevokeToken, Revoked};
pub use token::store::accept::IntakeOptions;
pub use token::store::save::IntakeOutcome;
pub use token::store::{Intake, StoreToken};
pub use token::target::Target;
pub use token::validate::checks::{CHECKS, worst};
pub use token::validate::{ValidateToken, Validation};
pub use token::view::TokenView;
pub use workspace::list::ListWorkspaces;
pub use workspace::shred::{ShredWorkspace, Shredded};

pub use crate::crypto::{BreakGlassSealingKey, TransitConfig, TransitLogin};
pub use crate::model::ListOrder;
pub use crate::store::{ApiKeyFacts as ApiKey, JobRun, Origin, RunState, WorkspaceFacts};
