//! The verbs. Each file is one `impl Vault` block.

mod command;
mod error;
mod view;

use std::path::PathBuf;
use std::sync::Arc;

pub use command::*;
pub use error::{FieldViolation, VaultError};
pub use view::TokenView;

use crate::model::{ApiKeyId, Clock, Policy, Principal, RequestId, Secret};
use crate::provider::Providers;

/// What the vault needs to open.
#[derive(Debug)]
pub struct VaultConfig {
    /// `sqlite:PATH` or `postgres://…`; may hold a password.
    pub database_url: Secret,
    /// Where a key file and the bootstrap key go on first start.
    pub data_dir: PathBuf,
    /// Master keys as text (`tvk1:<id>:<base64 of 32 bytes>` lines), from the environment.
    pub master_key: Option<Secret>,
    /// File with the same; default: data folder + `/master.key`.
    pub master_key_file: Option<PathBuf>,
    /// File with the bootstrap admin key to adopt at first start, in place of a generated one.
    pub bootstrap_key_file: Option<PathBuf>,
    /// Apply migrations at start.
    pub migrate_on_start: bool,
    /// What the operator decided.
    pub policy: Policy,
}

/// Why the vault does not open. The text names the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(pub String);

/// The vault.
#[derive(Debug)]
pub struct Vault {}

/// What first start left for the operator.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FirstStart {
    /// Written on this start: the bootstrap admin key's file.
    pub bootstrap_key_file: Option<PathBuf>,
    /// Written on this start: the master key's file.
    pub master_key_file: Option<PathBuf>,
}

#[expect(clippy::todo, clippy::unused_async, missing_docs, reason = "stubs")]
impl Vault {
    /// Opens the database (migrating it), checks keys, does what a first start needs, and starts the
    /// background work (writer, coherence).
    pub async fn open(_config: VaultConfig, _providers: Providers, _clock: Clock) -> Result<(Arc<Self>, FirstStart), OpenError> { todo!() }
    /// Applies migrations and returns how many were applied. For `token-vault migrate`.
    pub async fn migrate(_config: &VaultConfig) -> Result<usize, OpenError> { todo!() }
    /// For `api-key create --offline`: opens without serving and makes a key.
    pub async fn create_api_key_offline(_config: VaultConfig, _command: CreateApiKey) -> Result<NewApiKey, OpenError> { todo!() }
    /// True while storage answers and keys are there; changes are seen by health.
    pub fn health(&self) -> tokio::sync::watch::Receiver<bool> { todo!() }
    /// Stops taking writes, drains, closes the database.
    pub async fn close(&self) { todo!() }
    pub async fn authenticate(&self, _key: &Secret) -> Result<Arc<Principal>, VaultError> { todo!() }
    pub async fn store_token(self: &Arc<Self>, _caller: &Principal, _command: StoreToken) -> Result<Intake, VaultError> { todo!() }
    pub async fn exchange_token(self: &Arc<Self>, _caller: &Principal, _command: ExchangeToken) -> Result<Exchange, VaultError> { todo!() }
    pub async fn validate_token(self: &Arc<Self>, _caller: &Principal, _command: ValidateToken) -> Result<Validation, VaultError> { todo!() }
    pub async fn fetch_access_token(&self, _caller: &Principal, _command: FetchAccessToken) -> Result<Fetched, VaultError> { todo!() }
    pub async fn get_token(&self, _caller: &Principal, _target: Target) -> Result<(TokenView, String), VaultError> { todo!() }
    pub async fn list_tokens(&self, _caller: &Principal, _query: ListTokens) -> Result<TokenPage, VaultError> { todo!() }
    pub async fn report_token_error(self: &Arc<Self>, _caller: &Principal, _report: ReportTokenError) -> Result<ReportOutcome, VaultError> { todo!() }
    pub async fn revoke_token(self: &Arc<Self>, _caller: &Principal, _command: RevokeToken) -> Result<Revoked, VaultError> { todo!() }
    pub async fn create_api_key(&self, _caller: &Principal, _command: CreateApiKey) -> Result<NewApiKey, VaultError> { todo!() }
    pub async fn list_api_keys(&self, _caller: &Principal, _query: ListApiKeys) -> Result<ApiKeyPage, VaultError> { todo!() }
    pub async fn revoke_api_key(&self, _caller: &Principal, _request_id: Option<RequestId>, _key: &ApiKeyId) -> Result<ApiKey, VaultError> { todo!() }
    pub async fn status(&self, _caller: &Principal) -> Result<VaultStatus, VaultError> { todo!() }
}
