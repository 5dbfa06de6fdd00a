//! Who may call what: one row per RPC, and what each role may do.
//!
//! [`check_table`] compares the rows with the services' descriptors at start, so that an RPC without a
//! row is never served.

use std::collections::BTreeSet;

use prost::Message;

use crate::model::Role;

/// What a role may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permission {
    /// Bring tokens in.
    Store,
    /// Exchange them.
    Exchange,
    /// Ask the provider how they are.
    Validate,
    /// Get the secret. No role but ingestion and admin has this.
    Fetch,
    /// Read metadata and the feed.
    Read,
    /// Report that a provider refuses.
    Report,
    /// End connections.
    Revoke,
    /// Move positions in the feed.
    Acknowledge,
    /// Read how the vault is: status, jobs, subscriptions.
    Status,
    /// Run jobs, rotate keys, end subscriptions and workspaces.
    Operate,
    /// Make, list, rotate and revoke API keys.
    ManageKeys,
}

/// One RPC.
#[derive(Debug)]
pub(super) struct Rpc {
    /// As in the request line.
    pub(super) path: &'static str,
    /// What its caller must be allowed.
    pub(super) permission: Permission,
    /// Whether it changes anything; such calls are logged at `info`.
    pub(super) changes: bool,
}

macro_rules! rows {
    ($($path:literal $permission:ident $effect:ident,)*) => {
        &[$(Rpc { path: $path, permission: Permission::$permission, changes: rows!($effect) },)*]
    };
    (changes) => { true };
    (reads) => { false };
}

static TABLE: &[Rpc] = rows! {
    // The hot path stands first: rows are searched in order.
    "/tokenvault.v1.TokenVault/FetchAccessToken"   Fetch       reads,
    "/tokenvault.v1.TokenVault/GetToken"           Read        reads,
    "/tokenvault.v1.TokenVault/ListTokens"         Read        reads,
    "/tokenvault.v1.TokenVault/ReportTokenError"   Report      changes,
    "/tokenvault.v1.TokenVault/ValidateToken"      Validate    changes,
    "/tokenvault.v1.TokenVault/StoreToken"         Store       changes,
    "/tokenvault.v1.TokenVault/ExchangeToken"      Exchange    changes,
    "/tokenvault.v1.TokenVault/RevokeToken"        Revoke      changes,
    "/tokenvault.v1.TokenVault/AcknowledgeEvents"  Acknowledge changes,
    "/tokenvault.v1.TokenVault/WatchExpiryEvents"  Read        reads,
    "/tokenvault.v1.TokenVault/ListExpiryEvents"   Read        reads,
    "/tokenvault.v1.VaultAdmin/GetVaultStatus"     Status      reads,
    "/tokenvault.v1.VaultAdmin/ListJobs"           Status      reads,
    "/tokenvault.v1.VaultAdmin/ListJobRuns"        Status      reads,
    "/tokenvault.v1.VaultAdmin/RunJob"             Operate     changes,
    "/tokenvault.v1.VaultAdmin/ListSubscriptions"  Status      reads,
    "/tokenvault.v1.VaultAdmin/DeleteSubscription" Operate     changes,
    "/tokenvault.v1.VaultAdmin/GetWorkspace"       Status      reads,
    "/tokenvault.v1.VaultAdmin/ListWorkspaces"     Status      reads,
    "/tokenvault.v1.VaultAdmin/RotateKey"          Operate     changes,
    "/tokenvault.v1.VaultAdmin/ShredWorkspace"     Operate     changes,
    "/tokenvault.v1.VaultAdmin/CreateApiKey"       ManageKeys  changes,
    "/tokenvault.v1.VaultAdmin/ListApiKeys"        ManageKeys  reads,
    "/tokenvault.v1.VaultAdmin/RevokeApiKey"       ManageKeys  changes,
    "/tokenvault.v1.VaultAdmin/RotateApiKey"       ManageKeys  changes,
};

impl Rpc {
    /// The row of the RPC at `path`.
    pub(super) fn at(path: &str) -> Option<&'static Self> {
        TABLE.iter().find(|rpc| rpc.path == path)
    }

    /// Whether `role` may call it.
    pub(super) fn allows(&self, role: Role) -> bool {
        permissions(role).contains(&self.permission)
    }
}

/// What each role may do.
const fn permissions(role: Role) -> &'static [Permission] {
    use Permission as P;
    match role {
        Role::Connector => &[P::Store, P::Exchange, P::Validate, P::Read, P::Revoke],
        Role::Ingestion => &[P::Fetch, P::Report, P::Validate, P::Read, P::Acknowledge],
        Role::Alerting => &[P::Read, P::Acknowledge],
        Role::Viewer => &[P::Read, P::Status],
        Role::Admin => &[
            P::Store,
            P::Exchange,
            P::Validate,
            P::Fetch,
            P::Read,
            P::Report,
            P::Revoke,
            P::Acknowledge,
            P::Status,
            P::Operate,
            P::ManageKeys,
        ],
    }
}

/// Compares the rows with the services that `descriptors` hold; tells every difference.
pub(super) fn check_table(descriptors: &[u8]) -> Result<(), String> {
    let set = prost_types::FileDescriptorSet::decode(descriptors)
        .map_err(|e| format!("unreadable descriptors: {e}"))?;
    let mut served = BTreeSet::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                served.insert(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    let rows: BTreeSet<_> = TABLE.iter().map(|rpc| rpc.path.to_owned()).collect();
    let mut differences: Vec<_> = served.difference(&rows).map(|path| format!("{path} has no row")).collect();
    differences.extend(rows.difference(&served).map(|path| format!("{path} is no RPC")));
    if rows.len() != TABLE.len() {
        differences.push("a row stands twice".to_owned());
    }
    if differences.is_empty() { Ok(()) } else { Err(format!("access table: {}", differences.join(", "))) }
}

#[cfg(test)]
mod tests {
    use token_vault_proto::v1::FILE_DESCRIPTOR_SET;

    use super::*;

    #[test]
    fn every_rpc_has_a_row_and_every_row_an_rpc() {
        assert_eq!(check_table(FILE_DESCRIPTOR_SET), Ok(()));
    }

    #[test]
    fn an_rpc_without_a_row_is_found() {
        let mut set = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
        let file = set.file.iter_mut().find(|file| !file.service.is_empty()).unwrap();
        file.service[0].method[0].name = Some("Leak".into());
        let told = check_table(&set.encode_to_vec()).unwrap_err();
        assert!(told.contains("/Leak has no row"), "{told}");
        assert!(told.contains("is no RPC"), "{told}");
    }

    #[test]
    fn nobody_but_ingestion_and_admin_gets_a_secret() {
        let fetch = Rpc::at("/tokenvault.v1.TokenVault/FetchAccessToken").unwrap();
        let may: Vec<_> = Role::ALL.into_iter().filter(|role| fetch.allows(*role)).collect();
        assert_eq!(may, [Role::Ingestion, Role::Admin]);
    }

    #[test]
    fn an_admin_may_do_everything_and_alerting_changes_only_its_positions() {
        assert!(TABLE.iter().all(|rpc| rpc.allows(Role::Admin)));
        let changes = TABLE.iter().filter(|rpc| rpc.changes && rpc.allows(Role::Alerting));
        let changes: Vec<_> = changes.map(|rpc| rpc.path).collect();
        assert_eq!(changes, ["/tokenvault.v1.TokenVault/AcknowledgeEvents"]);
    }

    #[test]
    fn a_viewer_changes_nothing() {
        assert!(TABLE.iter().all(|rpc| !rpc.changes || !rpc.allows(Role::Viewer)));
    }
}
