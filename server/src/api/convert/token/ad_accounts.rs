//! Ad accounts: the request into a command, the page into a response.

use token_vault_proto::v1 as pb;
use token_vault_proto::v1::ad_account::State;

use crate::api::convert::bounds::Filled;
use crate::api::convert::fields::Fields;
use crate::api::convert::time::instant;
use crate::model::AdAccountState;
use crate::vault::{AdAccountPage, AdAccountView, ListAdAccounts, NextPage, VaultError};

impl TryFrom<pb::ListAdAccountsRequest> for ListAdAccounts {
    type Error = VaultError;

    fn try_from(request: pb::ListAdAccountsRequest) -> Result<Self, VaultError> {
        let mut fields = Fields::default();
        let target = fields.target(&request.connection_id, request.workspace_id);
        let page_size = fields.page_size(request.page_size);
        let page_token = fields.page_token(request.page_token);
        let target = fields.finish(target)?;
        Ok(Self { target, page_size, page_token, reachable: request.reachable })
    }
}

impl From<AdAccountView> for pb::AdAccount {
    fn from(AdAccountView { account, problem }: AdAccountView) -> Self {
        let state = match account.state {
            AdAccountState::Active => State::Active,
            AdAccountState::Limited => State::Limited,
            AdAccountState::Disabled => State::Disabled,
            AdAccountState::Closed => State::Closed,
            AdAccountState::Unknown => State::Unknown,
        };
        Self {
            id: account.id,
            name: account.name,
            currency: account.currency,
            time_zone: account.time_zone,
            state: state.into(),
            provider_state: account.provider_state,
            owner_id: account.owner_id,
            owner_name: account.owner_name,
            reachable: account.unreachable_since.is_none(),
            problem: problem.map(Into::into),
            last_reachable_at: account.last_reachable_at.map(instant),
            checked_at: Some(instant(account.checked_at)),
        }
    }
}

impl From<Filled<AdAccountPage, pb::AdAccount>> for pb::ListAdAccountsResponse {
    fn from(page: Filled<AdAccountPage, pb::AdAccount>) -> Self {
        let AdAccountPage { next: NextPage(next_page_token), checked_at } = page.rest;
        Self { ad_accounts: page.elements, next_page_token, checked_at: checked_at.map(instant) }
    }
}
