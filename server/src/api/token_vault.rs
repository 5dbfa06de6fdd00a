//! Service `TokenVault`: each handler reads the request, calls one verb and renders the response.

use std::sync::Arc;

use token_vault_proto::v1 as pb;
use token_vault_proto::v1::exchange_token_request::SubjectOfExchange;
use token_vault_proto::v1::token_vault_server::TokenVault;
use tonic::{Request, Response, Status};

use super::call::Call;
use super::convert::bounds::Page;
use super::convert::{OneToken, RevokeConnectLink};
use super::status::{deny, respond};
use super::watching::{Responses, follow};
use crate::vault::Vault;

pub(super) struct TokenVaultService {
    vault: Arc<Vault>,
}

impl TokenVaultService {
    pub(super) fn new(vault: Arc<Vault>) -> Self {
        Self { vault }
    }
}

#[tonic::async_trait]
impl TokenVault for TokenVaultService {
    type WatchExpiryEventsStream = Responses;

    async fn store_token(
        &self,
        request: Request<pb::StoreTokenRequest>,
    ) -> Result<Response<pb::StoreTokenResponse>, Status> {
        let (call, message) = Call::open(request)?;
        call.about(message.connection_id());
        let outcome = async { self.vault.store_token(call.caller()?, message.try_into()?).await };
        respond(&call, outcome.await)
    }

    async fn begin_authorization(
        &self,
        request: Request<pb::BeginAuthorizationRequest>,
    ) -> Result<Response<pb::BeginAuthorizationResponse>, Status> {
        let (call, message) = Call::open(request)?;
        call.about(message.connection_id());
        let outcome = async { self.vault.begin_authorization(call.caller()?, message.try_into()?).await };
        respond(&call, outcome.await)
    }

    async fn complete_authorization(
        &self,
        request: Request<pb::CompleteAuthorizationRequest>,
    ) -> Result<Response<pb::CompleteAuthorizationResponse>, Status> {
        let (call, message) = Call::open(request)?;
        let outcome =
            Box::pin(async { self.vault.complete_authorization(call.caller()?, message.try_into()?).await });
        let result = outcome.await.map(|intake| pb::StoreTokenResponse::from(intake).result);
        respond(&call, result.map(|result| pb::CompleteAuthorizationResponse { result }))
    }

    async fn create_connect_link(
        &self,
        request: Request<pb::CreateConnectLinkRequest>,
    ) -> Result<Response<pb::CreateConnectLinkResponse>, Status> {
        let (call, message) = Call::open(request)?;
        call.about(message.connection_id());
        let outcome = async { self.vault.create_connect_link(call.caller()?, message.try_into()?).await };
        respond(&call, outcome.await)
    }

    async fn list_connect_links(
        &self,
        request: Request<pb::ListConnectLinksRequest>,
    ) -> Result<Response<pb::ListConnectLinksResponse>, Status> {
        let (call, message) = Call::open(request)?;
        let mut page = Page::<pb::ConnectLink>::default();
        let outcome = async {
            self.vault.list_connect_links(call.caller()?, message.try_into()?, |link| page.take(link)).await
        };
        respond(&call, outcome.await.map(|rest| page.with(rest)))
    }

    async fn revoke_connect_link(
        &self,
        request: Request<pb::RevokeConnectLinkRequest>,
    ) -> Result<Response<pb::RevokeConnectLinkResponse>, Status> {
        let (call, message) = Call::open(request)?;
        let outcome = async {
            let RevokeConnectLink { request_id, link } = message.try_into()?;
            self.vault.revoke_connect_link(call.caller()?, request_id, &link).await
        };
        respond(&call, outcome.await)
    }

    async fn open_connect_link(
        &self,
        request: Request<pb::OpenConnectLinkRequest>,
    ) -> Result<Response<pb::OpenConnectLinkResponse>, Status> {
        let (call, _) = Call::open(request)?;
        let outcome = async { self.vault.open_connect_link(call.caller()?).await };
        respond(&call, outcome.await)
    }

    async fn exchange_token(
        &self,
        request: Request<pb::ExchangeTokenRequest>,
    ) -> Result<Response<pb::ExchangeTokenResponse>, Status> {
        let (call, message) = Call::open(request)?;
        if let Some(SubjectOfExchange::ConnectionId(connection)) = &message.subject_of_exchange {
            call.about(connection);
        }
        let outcome =
            Box::pin(async { self.vault.exchange_token(call.caller()?, message.try_into()?).await });
        respond(&call, outcome.await)
    }

    async fn validate_token(
        &self,
        request: Request<pb::ValidateTokenRequest>,
    ) -> Result<Response<pb::ValidateTokenResponse>, Status> {
        let (call, message) = Call::open(request)?;
        call.about(&message.connection_id);
        let outcome =
            Box::pin(async { self.vault.validate_token(call.caller()?, message.try_into()?).await });
        respond(&call, outcome.await)
    }

    async fn fetch_access_token(
        &self,
        request: Request<pb::FetchAccessTokenRequest>,
    ) -> Result<Response<pb::FetchAccessTokenResponse>, Status> {
        let (call, message) = Call::open(request)?;
        call.about(&message.connection_id);
        let outcome = async { self.vault.fetch_access_token(call.caller()?, message.try_into()?).await };
        respond(&call, outcome.await)
    }

    async fn get_token(
        &self,
        request: Request<pb::GetTokenRequest>,
    ) -> Result<Response<pb::GetTokenResponse>, Status> {
        let (call, message) = Call::open(request)?;
        call.about(&message.connection_id);
        let outcome = async {
            self.vault
                .get_token(call.caller()?, message.try_into()?)
                .await
                .map(|(view, cursor)| OneToken(view, cursor))
        };
        respond(&call, outcome.await)
    }

    async fn list_tokens(
        &self,
        request: Request<pb::ListTokensRequest>,
    ) -> Result<Response<pb::ListTokensResponse>, Status> {
        let (call, message) = Call::open(request)?;
        let mut page = Page::<pb::Token>::default();
        let outcome = async {
            self.vault.list_tokens(call.caller()?, message.try_into()?, |token| page.take(token)).await
        };
        respond(&call, outcome.await.map(|rest| page.with(rest)))
    }

    async fn list_ad_accounts(
        &self,
        request: Request<pb::ListAdAccountsRequest>,
    ) -> Result<Response<pb::ListAdAccountsResponse>, Status> {
        let (call, message) = Call::open(request)?;
        call.about(&message.connection_id);
        let mut page = Page::<pb::AdAccount>::default();
        let outcome = async {
            self.vault
                .list_ad_accounts(call.caller()?, message.try_into()?, |account| page.take(account))
                .await
        };
        respond(&call, outcome.await.map(|rest| page.with(rest)))
    }

    async fn report_token_error(
        &self,
        request: Request<pb::ReportTokenErrorRequest>,
    ) -> Result<Response<pb::ReportTokenErrorResponse>, Status> {
        let (call, message) = Call::open(request)?;
        call.about(&message.connection_id);
        let outcome =
            Box::pin(async { self.vault.report_token_error(call.caller()?, message.try_into()?).await });
        respond(&call, outcome.await)
    }

    async fn revoke_token(
        &self,
        request: Request<pb::RevokeTokenRequest>,
    ) -> Result<Response<pb::RevokeTokenResponse>, Status> {
        let (call, message) = Call::open(request)?;
        call.about(&message.connection_id);
        let outcome = Box::pin(async { self.vault.revoke_token(call.caller()?, message.try_into()?).await });
        respond(&call, outcome.await)
    }

    async fn report_provider_callback(
        &self,
        request: Request<pb::ReportProviderCallbackRequest>,
    ) -> Result<Response<pb::ReportProviderCallbackResponse>, Status> {
        let (call, message) = Call::open(request)?;
        let outcome =
            async { self.vault.report_provider_callback(call.caller()?, message.try_into()?).await };
        respond(&call, outcome.await)
    }

    async fn watch_expiry_events(
        &self,
        request: Request<pb::WatchExpiryEventsRequest>,
    ) -> Result<Response<Responses>, Status> {
        let (call, message) = Call::open(request)?;
        let outcome = async { self.vault.watch_events(call.caller_to_keep()?, message.try_into()?).await };
        match outcome.await {
            Ok(watch) => Ok(Response::new(follow(call, watch))),
            Err(error) => Err(deny(error, &call)),
        }
    }

    async fn list_expiry_events(
        &self,
        request: Request<pb::ListExpiryEventsRequest>,
    ) -> Result<Response<pb::ListExpiryEventsResponse>, Status> {
        let (call, message) = Call::open(request)?;
        let mut page = Page::<pb::ExpiryEvent>::default();
        let outcome = async {
            self.vault.list_events(call.caller()?, message.try_into()?, |event| page.take(event)).await
        };
        respond(&call, outcome.await.map(|rest| page.with(rest)))
    }

    async fn acknowledge_events(
        &self,
        request: Request<pb::AcknowledgeEventsRequest>,
    ) -> Result<Response<pb::AcknowledgeEventsResponse>, Status> {
        let (call, message) = Call::open(request)?;
        let outcome = async { self.vault.acknowledge_events(call.caller()?, message.try_into()?).await };
        respond(&call, outcome.await)
    }
}
