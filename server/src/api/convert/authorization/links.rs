//! Connect links: requests into commands, outcomes into responses.

use prost::Message;
use token_vault_proto::v1 as pb;
use token_vault_proto::v1::connect_link::State;

use crate::api::convert::bounds::{Filled, PAGE, fit};
use crate::api::convert::fields::Fields;
use crate::api::convert::time::instant;
use crate::model::{ConnectLinkId, ConnectLinkState, ProviderId, RequestId};
use crate::vault::{
    ConnectLinkView, ConnectionCard, CreateConnectLink, ListConnectLinks, NewConnectLink, NextPage,
    OpenedLink, VaultError,
};

impl TryFrom<pb::CreateConnectLinkRequest> for CreateConnectLink {
    type Error = VaultError;

    fn try_from(request: pb::CreateConnectLinkRequest) -> Result<Self, VaultError> {
        let mut fields = Fields::default();
        let request_id = fields.request_id(request.request_id);
        let workspace = fields.workspace("workspace_id", request.workspace_id);
        let named = Some(request.provider).filter(|name| !name.is_empty());
        let provider = named.and_then(|name| fields.keep("provider", ProviderId::parse(name)));
        let connection = request.connection_id.and_then(|id| fields.connection(&id));
        let life = fields.length("expires_in", request.expires_in);
        let max_uses = u32::try_from(request.max_uses).ok();
        fields.reject_if(max_uses.is_none(), "max_uses", "must be 0 to 1000");
        let (workspace, max_uses) = fields.finish(workspace.zip(max_uses))?;
        let return_url = request.return_url;
        Ok(Self { request_id, workspace, provider, connection, life, return_url, max_uses })
    }
}

impl TryFrom<pb::ListConnectLinksRequest> for ListConnectLinks {
    type Error = VaultError;

    fn try_from(request: pb::ListConnectLinksRequest) -> Result<Self, VaultError> {
        let mut fields = Fields::default();
        let page_size = fields.page_size(request.page_size);
        let page_token = fields.page_token(request.page_token);
        let workspace = request.workspace_id.and_then(|id| fields.workspace("workspace_id", id));
        fields.check()?;
        Ok(Self { workspace, page_size, page_token })
    }
}

#[derive(Debug)]
pub(in crate::api) struct RevokeConnectLink {
    pub(in crate::api) request_id: Option<RequestId>,
    pub(in crate::api) link: ConnectLinkId,
}

impl TryFrom<pb::RevokeConnectLinkRequest> for RevokeConnectLink {
    type Error = VaultError;

    fn try_from(request: pb::RevokeConnectLinkRequest) -> Result<Self, VaultError> {
        let mut fields = Fields::default();
        let request_id = fields.request_id(request.request_id);
        let link = fields.keep("link_id", ConnectLinkId::parse(request.link_id));
        let link = fields.finish(link)?;
        Ok(Self { request_id, link })
    }
}

impl From<ConnectLinkView> for pb::ConnectLink {
    fn from(ConnectLinkView { link, state }: ConnectLinkView) -> Self {
        let state = match state {
            ConnectLinkState::Open => State::Open,
            ConnectLinkState::Used => State::Used,
            ConnectLinkState::Expired => State::Expired,
            ConnectLinkState::Revoked => State::Revoked,
        };
        Self {
            link_id: link.id.to_string(),
            workspace_id: link.workspace.to_string(),
            provider: link.provider.to_string(),
            connection_id: link.connection.map(|id| id.to_string()),
            return_url: link.return_url,
            max_uses: i32::try_from(link.max_uses).unwrap_or(i32::MAX),
            uses: i32::try_from(link.uses).unwrap_or(i32::MAX),
            state: state.into(),
            created_by: link.created_by,
            created_at: Some(instant(link.created_at)),
            expires_at: Some(instant(link.expires_at)),
            opened_at: link.opened_at.map(instant),
            last_used_at: link.last_used_at.map(instant),
            last_connection_id: link.last_connection.map(|id| id.to_string()),
            revoked_at: link.revoked_at.map(instant),
        }
    }
}

impl From<NewConnectLink> for pb::CreateConnectLinkResponse {
    fn from(new: NewConnectLink) -> Self {
        let url = new.url.map_or(String::new(), |url| url.expose().to_owned());
        Self { link: Some(new.link.into()), url }
    }
}

impl From<Filled<NextPage, pb::ConnectLink>> for pb::ListConnectLinksResponse {
    fn from(page: Filled<NextPage, pb::ConnectLink>) -> Self {
        let NextPage(next_page_token) = page.rest;
        Self { links: page.elements, next_page_token }
    }
}

impl From<ConnectLinkView> for pb::RevokeConnectLinkResponse {
    fn from(link: ConnectLinkView) -> Self {
        Self { link: Some(link.into()) }
    }
}

/// A card of at most so many bytes.
fn card(card: ConnectionCard, most: usize) -> pb::ConnectionCard {
    let mut token = pb::Token::from(card.token);
    let mut left = most.saturating_sub(fit(&mut token, most / 2));
    let (mut ad_accounts, mut left_out) = (Vec::new(), card.left_out_ad_accounts);
    for account in card.ad_accounts {
        let account = pb::AdAccount::from(account);
        // A few bytes say how long it is.
        match left.checked_sub(account.encoded_len() + 8) {
            Some(rest) if left_out == card.left_out_ad_accounts => {
                left = rest;
                ad_accounts.push(account);
            }
            _ => left_out += 1,
        }
    }
    let left_out_ad_accounts = i32::try_from(left_out).unwrap_or(i32::MAX);
    pb::ConnectionCard { token: Some(token), ad_accounts, left_out_ad_accounts }
}

impl From<OpenedLink> for pb::OpenConnectLinkResponse {
    fn from(opened: OpenedLink) -> Self {
        let most = PAGE / opened.connections.len().max(1);
        Self {
            link: Some(opened.link.into()),
            workspace_display_name: opened.workspace_name,
            connections: opened.connections.into_iter().map(|shown| card(shown, most)).collect(),
            left_out_connections: i32::try_from(opened.left_out_connections).unwrap_or(i32::MAX),
            required_scopes: opened.required_scopes,
            optional_scopes: opened.optional_scopes,
        }
    }
}
