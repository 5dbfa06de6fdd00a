//! GetVaultStatus: the state of the vault, its providers and its replicas.

use crate::model::{EventKind, Principal, Status, Timestamp};
use crate::vault::error::VaultError;
use crate::vault::keys::master_keys::MasterKeyState;
use crate::vault::provider_health::ProviderState;
use crate::vault::state::Vault;

#[derive(Debug, Clone)]
pub struct VaultStatus {
    pub version: &'static str,
    pub server_time: Timestamp,
    /// `sqlite` or `postgres`.
    pub backend: &'static str,
    /// The name of this process; empty for a caller that may not act in all workspaces.
    pub replica: String,
    /// The feed's position.
    pub cursor: String,
    pub head_sequence: i64,
    pub oldest_sequence: i64,
    /// Tokens whose due work the watchdog has announced as overdue.
    pub overdue_tokens: u64,
    pub providers: Vec<ProviderState>,
    /// The processes that run on this database.
    pub replicas: Vec<ReplicaState>,
    /// The master keys that this process holds, the active one first.
    pub master_keys: Vec<MasterKeyState>,
    /// The number of tokens of each status, among those that the caller may see.
    pub tokens_by_status: Vec<(Status, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaState {
    pub name: String,
    /// The version of the program that it runs.
    pub version: String,
    pub started_at: Timestamp,
    /// How many microseconds its clock is ahead of the database's.
    pub clock_offset: i64,
    /// Whether this replica answers this call.
    pub is_this_one: bool,
}

impl Vault {
    /// # Errors
    /// `StorageUnavailable`.
    pub async fn status(&self, caller: &Principal) -> Result<VaultStatus, VaultError> {
        // A caller limited to some workspaces learns nothing about the whole vault.
        let reaches_all = caller.reaches_all_workspaces();
        let master_keys = if reaches_all { self.master_key_states().await? } else { Vec::new() };
        let mut session = self.store.read().await?;
        let feed = session.feed_state().await?;
        let overdue_tokens =
            if reaches_all { session.count_open_incidents(EventKind::Overdue).await? } else { 0 };
        let own = self.store.incarnation();
        let replicas = if reaches_all { session.replicas().await? } else { Vec::new() };
        let replicas = replicas
            .into_iter()
            .map(|replica| ReplicaState {
                is_this_one: replica.incarnation == own,
                name: replica.name,
                version: replica.version,
                started_at: replica.started_at,
                clock_offset: replica.clock_offset,
            })
            .collect();
        drop(session);
        Ok(VaultStatus {
            version: env!("CARGO_PKG_VERSION"),
            server_time: self.clock.now(),
            backend: self.store.backend().as_str(),
            replica: if reaches_all { self.replica.clone() } else { String::new() },
            cursor: self.cursor(),
            head_sequence: feed.head.sequence,
            oldest_sequence: feed.oldest,
            overdue_tokens,
            providers: self.provider_states().await?,
            replicas,
            master_keys,
            tokens_by_status: self.count_by_status(caller).await?,
        })
    }
}
