//! Who may call what: one row per RPC, and the permissions of each role.
//!
//! An RPC without a row, a row without an RPC and a duplicate row do not compile.

use token_vault_proto::v1::METHODS;

use crate::model::Role;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permission {
    /// Store tokens.
    Store,
    Exchange,
    /// Ask the provider whether a token still works.
    Validate,
    /// Get the secret. Only ingestion and admin have this.
    Fetch,
    /// Read metadata and the feed.
    Read,
    /// Report that a provider refused a token.
    Report,
    Revoke,
    /// Pass on what a provider sent.
    Callback,
    /// Move a subscription's position in the feed.
    Acknowledge,
    /// Read the vault's own state: status, jobs, subscriptions, workspaces.
    Status,
    /// Run jobs, rotate keys, delete subscriptions, shred workspaces.
    Operate,
    ManageKeys,
    /// Make, list and revoke connect links.
    Link,
    /// See what is behind the connect link that the caller acts for.
    OpenLink,
}

#[derive(Debug)]
pub(super) struct Rpc {
    /// The path of the request line.
    pub(super) path: &'static str,
    pub(super) permission: Permission,
    /// Whether it changes anything; such calls are logged at `info`.
    pub(super) changes: bool,
    /// Whether its response is an endless stream.
    pub(super) watches: bool,
}

macro_rules! rows {
    ($($path:literal $permission:ident $effect:ident,)*) => {
        &[$(Rpc { path: $path, permission: Permission::$permission, changes: rows!(@changes $effect), watches: rows!(@watches $effect) },)*]
    };
    (@changes changes) => { true };
    (@changes $other:ident) => { false };
    (@watches watches) => { true };
    (@watches $other:ident) => { false };
}

const TABLE: &[Rpc] = rows! {
    // The hot path comes first: rows are searched in order.
    "/tokenvault.v1.TokenVault/FetchAccessToken"   Fetch       reads,
    "/tokenvault.v1.TokenVault/GetToken"           Read        reads,
    "/tokenvault.v1.TokenVault/ListTokens"         Read        reads,
    "/tokenvault.v1.TokenVault/ListAdAccounts"     Read        reads,
    "/tokenvault.v1.TokenVault/ReportTokenError"   Report      changes,
    "/tokenvault.v1.TokenVault/ValidateToken"      Validate    changes,
    "/tokenvault.v1.TokenVault/StoreToken"         Store       changes,
    "/tokenvault.v1.TokenVault/BeginAuthorization"    Store    changes,
    "/tokenvault.v1.TokenVault/CompleteAuthorization" Store    changes,
    "/tokenvault.v1.TokenVault/CreateConnectLink"  Link        changes,
    "/tokenvault.v1.TokenVault/ListConnectLinks"   Link        reads,
    "/tokenvault.v1.TokenVault/RevokeConnectLink"  Link        changes,
    "/tokenvault.v1.TokenVault/OpenConnectLink"    OpenLink    changes,
    "/tokenvault.v1.TokenVault/ExchangeToken"      Exchange    changes,
    "/tokenvault.v1.TokenVault/RevokeToken"        Revoke      changes,
    "/tokenvault.v1.TokenVault/ReportProviderCallback" Callback changes,
    "/tokenvault.v1.TokenVault/AcknowledgeEvents"  Acknowledge changes,
    "/tokenvault.v1.TokenVault/WatchExpiryEvents"  Read        watches,
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
    pub(super) fn at(path: &str) -> Option<&'static Self> {
        TABLE.iter().find(|rpc| rpc.path == path)
    }

    pub(super) fn allows(&self, role: Role) -> bool {
        permissions(role).contains(&self.permission)
    }

    /// Whether callers may act for a connect link. Elsewhere one would restrict nothing, so it is refused.
    pub(super) fn takes_link(&self) -> bool {
        matches!(self.permission, Permission::Store | Permission::Validate | Permission::OpenLink)
    }

    /// Whether a caller of this role has to act for a connect link. A provider's callback comes with none.
    pub(super) fn needs_link(&self, role: Role) -> bool {
        self.permission == Permission::OpenLink
            || (role == Role::Portal && self.permission != Permission::Callback)
    }
}

const fn permissions(role: Role) -> &'static [Permission] {
    use Permission as P;
    match role {
        Role::Connector => &[P::Store, P::Exchange, P::Validate, P::Read, P::Revoke, P::Callback, P::Link],
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
            P::Callback,
            P::Acknowledge,
            P::Status,
            P::Operate,
            P::ManageKeys,
            P::Link,
            P::OpenLink,
        ],
        Role::Portal => &[P::OpenLink, P::Store, P::Validate, P::Callback],
    }
}

// The compile error names the RPC that is missing in the table or in the proto.
const _: () = {
    let rows = paths::<{ TABLE.len() }>(TABLE);
    if let Some(path) = first_missing(METHODS, &rows) {
        panic!("{}", path);
    }
    if let Some(path) = first_missing(&rows, METHODS) {
        panic!("{}", path);
    }
    assert!(TABLE.len() == METHODS.len(), "the access table has a duplicate row");
};

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler only, which stops at a slip")]
const fn paths<const N: usize>(table: &[Rpc]) -> [&'static str; N] {
    let mut paths = [""; N];
    let mut at = 0;
    while at < N {
        paths[at] = table[at].path;
        at += 1;
    }
    paths
}

/// The first of `wanted` that is not in `there`.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler only, which stops at a slip")]
const fn first_missing<'a>(wanted: &[&'a str], there: &[&str]) -> Option<&'a str> {
    let mut at = 0;
    while at < wanted.len() {
        let mut other = 0;
        while other < there.len() && !same(wanted[at].as_bytes(), there[other].as_bytes()) {
            other += 1;
        }
        if other == there.len() {
            return Some(wanted[at]);
        }
        at += 1;
    }
    None
}

const fn same(one: &[u8], other: &[u8]) -> bool {
    match (one, other) {
        ([], []) => true,
        ([a, one @ ..], [b, other @ ..]) => *a == *b && same(one, other),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use token_vault_proto::v1::FILE_DESCRIPTOR_SET;

    use super::*;

    /// The list that the compiler checks the rows against is the list that is served.
    #[test]
    fn the_methods_are_those_of_the_descriptors() {
        let set = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
        let mut served = Vec::new();
        for file in set.file.iter().filter(|file| file.package() == "tokenvault.v1") {
            for service in &file.service {
                let path = |method: &str| format!("/{}.{}/{method}", file.package(), service.name());
                served.extend(service.method.iter().map(|method| path(method.name())));
            }
        }
        let mut methods = METHODS.to_vec();
        served.sort();
        methods.sort();
        assert_eq!(methods, served);
        assert!(methods.len() > 20);
    }

    #[test]
    fn an_rpc_without_a_row_is_found() {
        assert_eq!(first_missing(&["/a/B", "/a/Leak"], &["/a/C", "/a/B"]), Some("/a/Leak"));
        assert_eq!(first_missing(&["/a/B", "/a/C"], &["/a/C", "/a/B"]), None);
        assert_eq!(first_missing(&["/a/B"], &["/a/", "/a/BB"]), Some("/a/B"));
    }

    #[test]
    fn nobody_but_ingestion_and_admin_gets_a_secret() {
        let fetch = Rpc::at("/tokenvault.v1.TokenVault/FetchAccessToken").unwrap();
        let may: Vec<_> = Role::ALL.iter().copied().filter(|role| fetch.allows(*role)).collect();
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
    fn the_portal_calls_only_what_takes_a_link_and_passes_callbacks_on() {
        let without = TABLE.iter().filter(|rpc| rpc.allows(Role::Portal) && !rpc.takes_link());
        let without: Vec<_> = without.map(|rpc| rpc.path).collect();
        assert_eq!(without, ["/tokenvault.v1.TokenVault/ReportProviderCallback"]);
        let needless: Vec<_> = TABLE.iter().filter(|rpc| !rpc.needs_link(Role::Portal)).collect();
        assert!(needless.iter().all(|rpc| rpc.path == without[0]), "{needless:?}");
    }

    #[test]
    fn a_viewer_changes_nothing() {
        assert!(TABLE.iter().all(|rpc| !rpc.changes || !rpc.allows(Role::Viewer)));
    }
}
