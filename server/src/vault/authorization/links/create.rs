//! CreateConnectLink.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use super::manage::ConnectLinkView;
use crate::crypto::PresentedLink;
use crate::model::{
    ConnectLink, ConnectLinkId, ConnectionId, Principal, ProviderId, RequestId, Secret, WorkspaceId,
};
use crate::store::ConnectLinkRecord;
use crate::vault::access::connect_links::{checked, row_mac};
use crate::vault::error::{FieldViolation, VaultError};
use crate::vault::once::idempotency::RequestClaim;
use crate::vault::state::Vault;
use crate::vault::token::target::Target;

/// How long a link works, unless its creator says otherwise.
const LIFE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const SHORTEST_LIFE: Duration = Duration::from_secs(60);
const LONGEST_LIFE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const MOST_USES: u32 = 1_000;
/// Longest return URL, in bytes.
const LONGEST_URL: usize = 2_048;

#[derive(Debug)]
pub struct CreateConnectLink {
    pub request_id: Option<RequestId>,
    pub workspace: WorkspaceId,
    /// `None`: the connection's, or the only one that is configured.
    pub provider: Option<ProviderId>,
    pub connection: Option<ConnectionId>,
    /// `None`: seven days.
    pub life: Option<Duration>,
    /// Empty: none.
    pub return_url: String,
    /// 0: one.
    pub max_uses: u32,
}

#[derive(Debug)]
pub struct NewConnectLink {
    pub link: ConnectLinkView,
    /// Only the first response holds it; a repeated request gets only the link's facts.
    pub url: Option<Secret>,
}

/// The stored outcome of a request that made a link. Its field names never change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct MadeLink {
    link: ConnectLinkId,
}

impl Vault {
    /// Makes a link with which a person connects an account.
    ///
    /// # Errors
    /// `Fields`; `PortalNotConfigured`; `WorkspaceNotFound`, `WorkspaceShredded`, `ProviderUnknown`, `ConnectionNotFound`;
    /// `RequestIdReused`, `RequestInProgress`.
    pub async fn create_connect_link(
        &self,
        caller: &Principal,
        command: CreateConnectLink,
    ) -> Result<NewConnectLink, VaultError> {
        if !caller.workspaces.contains(&command.workspace) {
            return Err(VaultError::WorkspaceNotFound(command.workspace));
        }
        let portal = self.access.links.portal.as_ref().ok_or(VaultError::PortalNotConfigured)?;
        let life = command.life.unwrap_or(LIFE);
        let max_uses = command.max_uses.max(1);
        self.check_new_link(&command, life)?;
        let provider = self.provider_of_link(caller, &command).await?;
        // The workspace comes into being now; a shredded one is refused.
        self.workspace_keys_or_new(&command.workspace).await?;
        let connection = command.connection.map(|id| id.to_string()).unwrap_or_default();
        let parts: [&[u8]; 6] = [
            command.workspace.as_str().as_bytes(),
            provider.as_str().as_bytes(),
            connection.as_bytes(),
            &life.as_nanos().to_be_bytes(),
            command.return_url.as_bytes(),
            &max_uses.to_be_bytes(),
        ];
        let request = self.request("CreateConnectLink", command.request_id.as_ref(), &parts);
        let work = async |claim: RequestClaim| {
            let (token, presented) = PresentedLink::mint().map_err(|_| VaultError::Internal)?;
            let now = self.clock.now();
            let link = ConnectLink {
                id: presented.id.clone(),
                workspace: command.workspace.clone(),
                provider: provider.clone(),
                connection: command.connection,
                return_url: command.return_url.clone(),
                max_uses,
                uses: 0,
                created_by: caller.name.clone(),
                created_at: now,
                expires_at: now + life,
                opened_at: None,
                last_used_at: None,
                last_connection: None,
                revoked_at: None,
            };
            let hash = presented.hash();
            let mac = row_mac(&self.keys.authorization, &link, &hash);
            let record = ConnectLinkRecord { link: link.clone(), hash, mac };
            self.store
                .write(move |tx| {
                    let (record, claim) = (record.clone(), claim.clone());
                    Box::pin(async move {
                        tx.insert_connect_link(&record).await?;
                        tx.audit_connect_link(&record.link, now);
                        claim.finish(tx, &MadeLink { link: record.link.id.clone() }).await
                    })
                })
                .await?;
            tracing::info!(connect_link = %link.id, workspace = %link.workspace, by = caller.name, "connect link created");
            // The response shows the link, only this once, so the audit log must hold its record first.
            self.wait_until_recorded().await?;
            let url = format!("{}/l/{}", portal.as_str().trim_end_matches('/'), token.expose());
            Ok(NewConnectLink { link: ConnectLinkView::new(link, now), url: Some(Secret::new(url)) })
        };
        let repeat = async |made: MadeLink| {
            let record = self.store.read().await?.connect_link(&made.link).await?;
            let link = record.and_then(|record| checked(&self.keys.authorization, record));
            let link = link.filter(|link| caller.workspaces.contains(&link.workspace));
            let link = link.ok_or(VaultError::ConnectLinkNotFound(Some(made.link)))?;
            Ok(NewConnectLink { link: ConnectLinkView::new(link, self.clock.now()), url: None })
        };
        self.once(caller, request, work, repeat).await
    }

    fn check_new_link(&self, command: &CreateConnectLink, life: Duration) -> Result<(), VaultError> {
        let mut violations = Vec::new();
        if !(SHORTEST_LIFE..=LONGEST_LIFE).contains(&life) {
            violations.push(FieldViolation::new("expires_in", "must be 1 minute to 30 days"));
        }
        if command.max_uses > MOST_USES {
            violations.push(FieldViolation::new("max_uses", format!("must be 0 to {MOST_USES}")));
        }
        if !command.return_url.is_empty() && !may_return(&self.access.links.return_urls, &command.return_url)
        {
            let rule = "must have the scheme, host, port and path of one of portal.return_urls in the vault's configuration, \
                        and no user name or fragment";
            violations.push(FieldViolation::new("return_url", rule));
        }
        if violations.is_empty() { Ok(()) } else { Err(VaultError::Fields(violations)) }
    }

    async fn provider_of_link(
        &self,
        caller: &Principal,
        command: &CreateConnectLink,
    ) -> Result<ProviderId, VaultError> {
        let provider = match (command.connection, &command.provider) {
            (Some(connection), wanted) => {
                let target = Target { connection, workspace: Some(command.workspace.clone()) };
                let provider = self.held(caller, &target).await?.connection.provider.clone();
                if wanted.as_ref().is_some_and(|wanted| *wanted != provider) {
                    return Err(VaultError::ConnectionNotFound(connection));
                }
                provider
            }
            (None, Some(provider)) => provider.clone(),
            (None, None) => {
                let names = self.providers.names();
                let only = names.first().filter(|_| names.len() == 1).cloned();
                let only = only.and_then(|name| ProviderId::parse(name).ok());
                let rule = "must be set, since this vault has several providers or none";
                only.ok_or_else(|| VaultError::Fields(vec![FieldViolation::new("provider", rule)]))?
            }
        };
        self.provider(&provider)?;
        Ok(provider)
    }
}

/// Whether a URL is one of the allowed addresses, with any query.
fn may_return(allowed: &[Url], wanted: &str) -> bool {
    let good = wanted.len() <= LONGEST_URL && wanted.bytes().all(|byte| byte.is_ascii_graphic());
    let Some(url) = Some(wanted).filter(|_| good).and_then(|text| Url::parse(text).ok()) else {
        return false;
    };
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    plain
        && allowed.iter().any(|one| {
            one.scheme() == url.scheme()
                && one.host() == url.host()
                && one.port_or_known_default() == url.port_or_known_default()
                && one.path() == url.path()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_returns_only_to_an_allowed_address() {
        let allowed =
            ["https://app.example/settings", "http://localhost:3000/"].map(|url| Url::parse(url).unwrap());
        for good in [
            "https://app.example/settings",
            "https://app.example:443/settings?tab=ads&x=https://evil.example",
            "https://APP.example/settings",
            "http://localhost:3000",
        ] {
            assert!(may_return(&allowed, good), "{good}");
        }
        for bad in [
            "https://app.example/",
            "https://app.example/settings/more",
            "https://app.example/settings/..//evil",
            "http://app.example/settings",
            "https://app.example:8443/settings",
            "https://app.example.evil.example/settings",
            "https://app.example@evil.example/settings",
            "https://user@app.example/settings",
            "https://app.example/settings#x",
            "//app.example/settings",
            "javascript:alert(1)",
            "/settings",
            "https://app.example/settings\n",
            "https://app.example\\@evil.example/settings",
        ] {
            assert!(!may_return(&allowed, bad), "{bad}");
        }
    }

    #[test]
    fn a_stored_outcome_keeps_its_bytes() {
        let outcome = MadeLink { link: ConnectLinkId::parse("abcdefgh234567ab").unwrap() };
        let stored = r#"{"link":"abcdefgh234567ab"}"#;
        assert_eq!(serde_json::to_string(&outcome).unwrap(), stored);
        assert_eq!(serde_json::from_str::<MadeLink>(stored).unwrap(), outcome);
    }
}
