//! Every RPC that names an object, called about one of another workspace.

use token_vault_proto::v1::create_api_key_request::Workspaces;
use token_vault_tests::prelude::*;
use token_vault_tests::request_id;

use super::matrix::new_key;
use super::rpcs::authorization;

/// Calls the RPC with an object of another workspace. `None`: the RPC names no object.
pub(super) async fn reach_for(
    rpc: &str,
    caller: &Caller,
    world: &World,
    id: &str,
    key_id: &str,
    link: &pb::CreateConnectLinkResponse,
) -> Option<Result<(), Denial>> {
    let acme = || Workspaces::Named(pb::WorkspaceList { workspace_ids: vec![ACME.into()] });
    Some(match rpc {
        "TokenVault/StoreToken" => {
            caller.store(ACME, &world.person("eve").short_lived_token()).await.map(drop)
        }
        "TokenVault/BeginAuthorization" => caller.begin_authorization(authorization(None)).await.map(drop),
        "TokenVault/CompleteAuthorization" => {
            let request = pb::CompleteAuthorizationRequest {
                workspace_id: ACME.into(),
                callback_query: "code=a&state=b".into(),
                session_binding: "a session".into(),
            };
            caller.complete_authorization(request).await.map(drop)
        }
        "TokenVault/CreateConnectLink" => {
            let request = pb::CreateConnectLinkRequest { workspace_id: ACME.into(), ..Default::default() };
            caller.create_connect_link(request).await.map(drop)
        }
        "TokenVault/RevokeConnectLink" => {
            let link_id = link.link.as_ref().expect("a link").link_id.clone();
            let request = pb::RevokeConnectLinkRequest { link_id, request_id: request_id() };
            caller.revoke_connect_link(request).await.map(drop)
        }
        "TokenVault/OpenConnectLink" => {
            caller.for_link(&link.url).open_connect_link(pb::OpenConnectLinkRequest {}).await.map(drop)
        }
        "TokenVault/ExchangeToken" => caller.exchange(id).await.map(drop),
        "TokenVault/ValidateToken" => caller.validate(id).await.map(drop),
        "TokenVault/FetchAccessToken" => caller.fetch(id).await.map(drop),
        "TokenVault/GetToken" => caller.get(id).await.map(drop),
        "TokenVault/ListAdAccounts" => {
            let request = pb::ListAdAccountsRequest { connection_id: id.into(), ..Default::default() };
            caller.list_ad_accounts(request).await.map(drop)
        }
        "TokenVault/ReportTokenError" => {
            caller.report(id, 1, 400, r#"{"error":{"code":190}}"#).await.map(drop)
        }
        "TokenVault/RevokeToken" => caller.revoke(id).await.map(drop),
        "VaultAdmin/CreateApiKey" => {
            let request = pb::CreateApiKeyRequest { workspaces: Some(acme()), ..new_key("sideways", None) };
            caller.create_api_key(request).await.map(drop)
        }
        "VaultAdmin/RevokeApiKey" => {
            let request = pb::RevokeApiKeyRequest { key_id: key_id.into(), request_id: request_id() };
            caller.revoke_api_key(request).await.map(drop)
        }
        "VaultAdmin/RotateApiKey" => {
            let request = pb::RotateApiKeyRequest { key_id: key_id.into(), ..Default::default() };
            caller.rotate_api_key(request).await.map(drop)
        }
        "VaultAdmin/RotateKey" => {
            let key = Some(pb::rotate_key_request::Key::WorkspaceId(ACME.into()));
            caller.rotate_key(pb::RotateKeyRequest { key, ..Default::default() }).await.map(drop)
        }
        "VaultAdmin/RunJob" => {
            let request = pb::RunJobRequest { job: "housekeeping".into(), ..Default::default() };
            caller.run_job(request).await.map(drop)
        }
        "VaultAdmin/ListSubscriptions" => caller.list_subscriptions(Default::default()).await.map(drop),
        "VaultAdmin/DeleteSubscription" => {
            let request = pb::DeleteSubscriptionRequest {
                principal: "alerting-acme".into(),
                name: "pager".into(),
                ..Default::default()
            };
            caller.delete_subscription(request).await.map(drop)
        }
        "VaultAdmin/GetWorkspace" => {
            caller.get_workspace(pb::GetWorkspaceRequest { workspace_id: ACME.into() }).await.map(drop)
        }
        "VaultAdmin/ShredWorkspace" => {
            let request = pb::ShredWorkspaceRequest {
                workspace_id: ACME.into(),
                confirm_workspace_id: ACME.into(),
                ..Default::default()
            };
            caller.shred_workspace(request).await.map(drop)
        }
        _ => return None,
    })
}
