//! OpenConnectLink: what the card shows.

use super::manage::ConnectLinkView;
use crate::model::{ConnectLink, Connection, Principal, Problem};
use crate::store::Abort;
use crate::vault::error::VaultError;
use crate::vault::state::Vault;
use crate::vault::token::list::ad_accounts::AdAccountView;
use crate::vault::token::view::TokenView;

/// The most connections that a card shows.
const CONNECTIONS: i64 = 20;
/// The most ad accounts that it shows of each.
const AD_ACCOUNTS: i64 = 200;

#[derive(Debug)]
pub struct OpenedLink {
    pub link: ConnectLinkView,
    /// The workspace's name for people; may be empty.
    pub workspace_name: String,
    pub connections: Vec<ConnectionCard>,
    pub left_out_connections: usize,
    pub required_scopes: Vec<String>,
    pub optional_scopes: Vec<String>,
}

#[derive(Debug)]
pub struct ConnectionCard {
    pub token: TokenView,
    pub ad_accounts: Vec<AdAccountView>,
    pub left_out_ad_accounts: usize,
}

impl Vault {
    /// What is behind the link that the caller acts for.
    ///
    /// # Errors
    /// `ConnectLinkNotFound`.
    pub async fn open_connect_link(&self, caller: &Principal) -> Result<OpenedLink, VaultError> {
        let link = caller.link.as_deref().ok_or(VaultError::ConnectLinkNotFound(None))?.clone();
        let now = self.clock.now();
        if link.opened_at.is_none() {
            let id = link.id.clone();
            self.store
                .write(move |tx| {
                    let id = id.clone();
                    Box::pin(async move {
                        Ok::<_, Abort<VaultError>>(tx.note_connect_link_opened(&id, now).await?)
                    })
                })
                .await?;
        }
        let workspace = self.store.read().await?.workspace(&link.workspace).await?;
        let (shown, all) = self.connections_behind(&link).await?;
        let left_out_connections = all.saturating_sub(shown.len());
        let mut connections = Vec::new();
        for connection in shown {
            connections.push(self.card(connection).await?);
        }
        let policy = self.policy();
        Ok(OpenedLink {
            workspace_name: workspace.map(|facts| facts.display_name).unwrap_or_default(),
            left_out_connections,
            connections,
            required_scopes: policy.required_scopes.clone(),
            optional_scopes: policy.optional_scopes.clone(),
            link: ConnectLinkView::new(link, now),
        })
    }

    async fn connections_behind(&self, link: &ConnectLink) -> Result<(Vec<Connection>, usize), VaultError> {
        let mut session = self.store.read().await?;
        let Some(id) = link.connection else {
            let (workspace, provider) = (&link.workspace, &link.provider);
            return Ok(session
                .connections_with(workspace, provider, link.last_connection, CONNECTIONS)
                .await?);
        };
        let mut shown: Vec<_> = session.connection(id).await?.into_iter().collect();
        shown.retain(|one| one.workspace == link.workspace && link.reaches(&one.provider, one.id));
        let all = shown.len();
        Ok((shown, all))
    }

    async fn card(&self, connection: Connection) -> Result<ConnectionCard, VaultError> {
        let mut session = self.store.read().await?;
        let accounts = session.ad_accounts_after(connection.id, "", None, AD_ACCOUNTS).await?;
        drop(session);
        let token = self.view(connection).await?;
        let all = token.connection.seen.ad_accounts.unwrap_or_default()
            + token.connection.seen.unreachable_ad_accounts;
        let all = usize::try_from(all).unwrap_or(usize::MAX);
        let left_out_ad_accounts = all.saturating_sub(accounts.len());
        let ad_accounts = accounts
            .into_iter()
            .map(|account| AdAccountView {
                problem: account.unreachable_since.map(Problem::of_lost_ad_account),
                account,
            })
            .collect();
        Ok(ConnectionCard { token, ad_accounts, left_out_ad_accounts })
    }
}
