//! Entry points for fuzzing: request messages and client certificates.

use prost::Message;
use token_vault_proto::v1 as pb;

use super::convert::{GetWorkspace, RevokeApiKey, RevokeConnectLink};
use super::listener::tls;
use crate::vault::{
    AcknowledgeEvents, BeginAuthorization, CompleteAuthorization, CreateApiKey, CreateConnectLink,
    DeleteSubscription, ExchangeToken, FetchAccessToken, ListAdAccounts, ListConnectLinks, ListEvents,
    ListJobRuns, ListSubscriptions, ListTokens, ListWorkspaces, ReportProviderCallback, ReportTokenError,
    RevokeToken, RotateApiKey, RotateKey, RunJob, ShredWorkspace, StoreToken, Target, ValidateToken,
    VaultError, WatchEvents,
};

fn read<M: Message + Default, C: TryFrom<M, Error = VaultError>>(bytes: &[u8]) {
    if let Ok(message) = M::decode(bytes) {
        // A command and an error that names a field are both right.
        let _ = C::try_from(message).map_err(|error| error.to_string());
    }
}

/// The first byte chooses the request's type.
pub fn message(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else { return };
    match which % 21 {
        0 => read::<pb::StoreTokenRequest, StoreToken>(bytes),
        1 => read::<pb::ExchangeTokenRequest, ExchangeToken>(bytes),
        2 => read::<pb::ValidateTokenRequest, ValidateToken>(bytes),
        3 => read::<pb::FetchAccessTokenRequest, FetchAccessToken>(bytes),
        4 => read::<pb::GetTokenRequest, Target>(bytes),
        5 => read::<pb::ListTokensRequest, ListTokens>(bytes),
        6 => read::<pb::ReportTokenErrorRequest, ReportTokenError>(bytes),
        7 => read::<pb::RevokeTokenRequest, RevokeToken>(bytes),
        8 => read::<pb::WatchExpiryEventsRequest, WatchEvents>(bytes),
        9 => read::<pb::ListExpiryEventsRequest, ListEvents>(bytes),
        10 => read::<pb::AcknowledgeEventsRequest, AcknowledgeEvents>(bytes),
        11 => read::<pb::CreateApiKeyRequest, CreateApiKey>(bytes),
        12 => read::<pb::RevokeApiKeyRequest, RevokeApiKey>(bytes),
        13 => read::<pb::RunJobRequest, RunJob>(bytes),
        14 => read::<pb::ListJobRunsRequest, ListJobRuns>(bytes),
        15 => read::<pb::RotateApiKeyRequest, RotateApiKey>(bytes),
        16 => read::<pb::RotateKeyRequest, RotateKey>(bytes),
        17 => read::<pb::ShredWorkspaceRequest, ShredWorkspace>(bytes),
        18 => {
            read::<pb::GetWorkspaceRequest, GetWorkspace>(bytes);
            read::<pb::ListWorkspacesRequest, ListWorkspaces>(bytes);
        }
        19 => {
            read::<pb::BeginAuthorizationRequest, BeginAuthorization>(bytes);
            read::<pb::CompleteAuthorizationRequest, CompleteAuthorization>(bytes);
            read::<pb::ListAdAccountsRequest, ListAdAccounts>(bytes);
            read::<pb::CreateConnectLinkRequest, CreateConnectLink>(bytes);
            read::<pb::ListConnectLinksRequest, ListConnectLinks>(bytes);
            read::<pb::RevokeConnectLinkRequest, RevokeConnectLink>(bytes);
            read::<pb::ReportProviderCallbackRequest, ReportProviderCallback>(bytes);
        }
        _ => {
            read::<pb::ListSubscriptionsRequest, ListSubscriptions>(bytes);
            read::<pb::DeleteSubscriptionRequest, DeleteSubscription>(bytes);
        }
    }
}

pub fn certificate(der: &[u8]) {
    let _ = tls::facts(der);
}
