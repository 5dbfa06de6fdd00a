//! Every RPC, called about one connection.

use std::pin::Pin;

use token_vault_proto::v1::create_api_key_request::Workspaces;
use token_vault_sandbox::Decision;
use token_vault_tests::prelude::*;

/// The refusal of a dead token.
pub(super) const DEAD: &str =
    r#"{"error":{"code":190,"error_subcode":460,"message":"x","type":"OAuthException"}}"#;

/// A connection whose tokens can be made to stall at the provider.
pub(crate) struct Stalled {
    pub(crate) connection: String,
    /// The token that it holds, and another of the same person.
    pub(super) tokens: [String; 2],
    sandbox: Sandbox,
}

/// The request for an authorization of a connection, or of a new one.
pub(crate) fn authorization(connection: Option<&str>) -> pb::BeginAuthorizationRequest {
    pb::BeginAuthorizationRequest {
        workspace_id: ACME.into(),
        provider: "meta".into(),
        redirect_uri: "https://app.example/".into(),
        connection_id: connection.map(str::to_owned),
        session_binding: "a session".into(),
        ..Default::default()
    }
}

pub(crate) async fn connected(world: &World, name: &str) -> Stalled {
    let person = world.person(name);
    let tokens = [person.long_lived_token(), person.long_lived_token()];
    let connection = world.admin().connect(ACME, &tokens[0]).await;
    Stalled { connection, tokens, sandbox: world.sandbox.clone() }
}

/// What becomes of a provider call whose caller hangs up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum InProvider {
    /// The RPC asks no provider.
    Never,
    /// It is cut off.
    Cut,
    /// It changes something at the provider, so it goes on.
    GoesOn,
}

use InProvider::{Cut, GoesOn, Never};

/// Every RPC.
pub(crate) const RPCS: [(&str, InProvider); 33] = [
    ("TokenVault/StoreToken", Cut),
    ("TokenVault/BeginAuthorization", Never),
    // What a code gives does not stall; authorization::once hangs up on it.
    ("TokenVault/CompleteAuthorization", Never),
    ("TokenVault/CreateConnectLink", Never),
    ("TokenVault/ListConnectLinks", Never),
    ("TokenVault/RevokeConnectLink", Never),
    ("TokenVault/OpenConnectLink", Never),
    ("TokenVault/ExchangeToken", GoesOn),
    ("TokenVault/ValidateToken", Cut),
    ("TokenVault/FetchAccessToken", Never),
    ("TokenVault/GetToken", Never),
    ("TokenVault/ListTokens", Never),
    ("TokenVault/ListAdAccounts", Never),
    ("TokenVault/ReportTokenError", Cut),
    ("TokenVault/RevokeToken", GoesOn),
    ("TokenVault/ReportProviderCallback", Never),
    ("TokenVault/WatchExpiryEvents", Never),
    ("TokenVault/ListExpiryEvents", Never),
    ("TokenVault/AcknowledgeEvents", Never),
    ("VaultAdmin/CreateApiKey", Never),
    ("VaultAdmin/ListApiKeys", Never),
    ("VaultAdmin/RevokeApiKey", Never),
    ("VaultAdmin/RotateApiKey", Never),
    ("VaultAdmin/ListJobs", Never),
    ("VaultAdmin/RunJob", Never),
    ("VaultAdmin/ListJobRuns", Never),
    ("VaultAdmin/ListSubscriptions", Never),
    ("VaultAdmin/DeleteSubscription", Never),
    ("VaultAdmin/RotateKey", Never),
    ("VaultAdmin/GetWorkspace", Never),
    ("VaultAdmin/ListWorkspaces", Never),
    ("VaultAdmin/ShredWorkspace", Never),
    ("VaultAdmin/GetVaultStatus", Never),
];

pub(crate) type Called = Pin<Box<dyn Future<Output = core::result::Result<(), Denial>> + Send>>;

/// A call of this RPC about the connection. `nth` makes it another question than an earlier one.
pub(crate) fn call(caller: &Caller, rpc: &str, about: &Stalled, nth: usize) -> Called {
    let (caller, id) = (caller.clone(), about.connection.clone());
    let token = about.tokens[nth % 2].clone();
    let checks = ["token_accepted", "ad_accounts"][nth % 2].to_owned();
    macro_rules! called {
        ($verb:ident, $message:expr) => {
            Box::pin(async move { caller.$verb($message).await.map(drop) })
        };
    }
    match rpc.split('/').nth(1).expect("a method") {
        "StoreToken" => called!(
            store_token,
            pb::StoreTokenRequest {
                workspace_id: ACME.into(),
                provider: "meta".into(),
                connection_id: Some(id),
                credential: Some(pb::store_token_request::Credential::AccessToken(token)),
                ..Default::default()
            }
        ),
        "BeginAuthorization" => {
            Box::pin(async move { caller.begin_authorization(authorization(Some(&id))).await.map(drop) })
        }
        "CompleteAuthorization" => {
            let sandbox = about.sandbox.clone();
            Box::pin(async move {
                let begun = caller.begin_authorization(authorization(Some(&id))).await?;
                let person = format!("person {nth}");
                let callback = sandbox.consent(&begun.authorization_url, &person, Decision::Deny);
                let request = pb::CompleteAuthorizationRequest {
                    workspace_id: ACME.into(),
                    callback_query: callback.expect("the dialog is shown"),
                    session_binding: "a session".into(),
                };
                caller.complete_authorization(request).await.map(drop)
            })
        }
        "CreateConnectLink" => called!(
            create_connect_link,
            pb::CreateConnectLinkRequest { workspace_id: ACME.into(), ..Default::default() }
        ),
        "OpenConnectLink" => Box::pin(async move {
            let made = caller
                .link_with(pb::CreateConnectLinkRequest { workspace_id: ACME.into(), ..Default::default() });
            let link = made.await?.url;
            caller.for_link(&link).open_connect_link(pb::OpenConnectLinkRequest {}).await.map(drop)
        }),
        "ExchangeToken" => Box::pin(async move { caller.exchange(&id).await.map(drop) }),
        "ValidateToken" => called!(
            validate_token,
            pb::ValidateTokenRequest { connection_id: id, checks: vec![checks], ..Default::default() }
        ),
        "ListAdAccounts" => {
            called!(list_ad_accounts, pb::ListAdAccountsRequest { connection_id: id, ..Default::default() })
        }
        "ReportTokenError" => Box::pin(async move { caller.report(&id, 1, 400, DEAD).await.map(drop) }),
        "RevokeToken" => called!(
            revoke_token,
            pb::RevokeTokenRequest { connection_id: id, revoke_at_provider: true, ..Default::default() }
        ),
        "FetchAccessToken" => Box::pin(async move { caller.fetch(&id).await.map(drop) }),
        "GetToken" => Box::pin(async move { caller.get(&id).await.map(drop) }),
        "ShredWorkspace" => called!(
            shred_workspace,
            pb::ShredWorkspaceRequest {
                workspace_id: "nowhere".into(),
                confirm_workspace_id: "nowhere".into(),
                ..Default::default()
            }
        ),
        "GetWorkspace" => called!(get_workspace, pb::GetWorkspaceRequest { workspace_id: ACME.into() }),
        "RotateKey" => called!(
            rotate_key,
            pb::RotateKeyRequest {
                key: Some(pb::rotate_key_request::Key::WorkspaceId(ACME.into())),
                ..Default::default()
            }
        ),
        "CreateApiKey" => called!(
            create_api_key,
            pb::CreateApiKeyRequest {
                principal: format!("another-{nth}"),
                role: Role::Viewer.into(),
                workspaces: Some(Workspaces::AllWorkspaces(true)),
                ..Default::default()
            }
        ),
        // The others are called without a message, which names nothing or is refused; they hold a place all the same.
        _ => {
            let path = format!("/tokenvault.v1.{rpc}");
            Box::pin(async move {
                match caller.call_empty(&path).await {
                    Err(no) if no.code() == Code::InvalidArgument => Ok(()),
                    outcome => outcome,
                }
            })
        }
    }
}
