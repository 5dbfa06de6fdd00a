//! A caller with an API key: every RPC of both services, and short forms of the usual calls.

pub(crate) mod denial;
pub(crate) mod feed;
pub(crate) mod pace;
pub(crate) mod steady;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost_types::Duration as PbDuration;
use token_vault_proto::v1::token_vault_client::TokenVaultClient;
use token_vault_proto::v1::vault_admin_client::VaultAdminClient;
use token_vault_proto::v1::{self as pb, store_token_request::Credential};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::caller::denial::Denial;
use crate::hunt::Hunter;
use crate::machine::process::Process;
use crate::wait::eventually_async;

#[derive(Debug, Clone)]
pub struct Caller {
    pub(crate) channel: Channel,
    /// The value of the whole header. `None`: send no header.
    authorization: Option<String>,
    /// The token of a connect link to act for.
    link: Option<String>,
    deadline: Duration,
    key: String,
    key_id: String,
    secrets: Arc<Mutex<Hunter>>,
}

pub fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// Converts a duration to the form of the protos.
pub fn seconds(seconds: i64) -> Option<PbDuration> {
    Some(PbDuration { seconds, nanos: 0 })
}

pub fn days(days: i64) -> Option<PbDuration> {
    seconds(days * 86_400)
}

/// Defines one method per RPC: it takes the message, and returns the response or the denial.
macro_rules! verbs {
    ($($(#[$doc:meta])* $name:ident: $client:ident $request:ident => $answer:ident;)*) => {
        $($(#[$doc])*
        pub async fn $name(&self, message: pb::$request) -> Result<pb::$answer, Denial> {
            let mut client = $client::new(self.channel.clone()).max_decoding_message_size(64 << 20);
            let outcome = client.$name(self.request(message)).await;
            self.note(outcome)
        })*
    };
}

impl Caller {
    pub(crate) fn new(channel: Channel, key: String, key_id: String, secrets: Arc<Mutex<Hunter>>) -> Self {
        let authorization = Some(format!("Bearer {key}"));
        Self { channel, authorization, link: None, deadline: Duration::from_secs(60), key, key_id, secrets }
    }

    /// The same caller with another `authorization` header.
    pub fn saying(&self, authorization: Option<&str>) -> Self {
        Self { authorization: authorization.map(str::to_owned), ..self.clone() }
    }

    /// The same caller, acting for the connect link with this URL or token.
    pub fn for_link(&self, url: &str) -> Self {
        Self { link: url.rsplit('/').next().map(str::to_owned), ..self.clone() }
    }

    /// The same caller with another deadline than a minute.
    pub fn within(&self, deadline: Duration) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// The same caller at another process.
    pub fn at(&self, process: &Process) -> Self {
        Self { channel: process.channel(), ..self.clone() }
    }

    /// The same caller over another connection.
    pub fn through(&self, channel: Channel) -> Self {
        Self { channel, ..self.clone() }
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.deadline);
        if let Some(authorization) = &self.authorization {
            let value = authorization.parse().expect("a header's value");
            request.metadata_mut().insert("authorization", value);
        }
        if let Some(link) = &self.link {
            request.metadata_mut().insert("connect-link", link.parse().expect("a header's value"));
        }
        request
    }

    pub(crate) fn note<T>(&self, outcome: Result<Response<T>, Status>) -> Result<T, Denial> {
        outcome.map(Response::into_inner).map_err(|status| {
            let denial = Denial::from(status);
            let found =
                self.secrets.lock().expect("no test panics here").search("an error", &denial.everything());
            assert!(found.is_empty(), "an error tells secrets: {found:?}");
            denial
        })
    }

    /// The secrets that occur in something that was received.
    pub(crate) fn secrets_in(&self, place: &str, received: &[u8]) -> Option<String> {
        let found = self.secrets.lock().expect("no test panics here").search(place, received);
        (!found.is_empty()).then(|| format!("{place} tells secrets: {found:?}"))
    }

    verbs! {
        store_token: TokenVaultClient StoreTokenRequest => StoreTokenResponse;
        begin_authorization: TokenVaultClient BeginAuthorizationRequest => BeginAuthorizationResponse;
        complete_authorization: TokenVaultClient CompleteAuthorizationRequest => CompleteAuthorizationResponse;
        create_connect_link: TokenVaultClient CreateConnectLinkRequest => CreateConnectLinkResponse;
        list_connect_links: TokenVaultClient ListConnectLinksRequest => ListConnectLinksResponse;
        revoke_connect_link: TokenVaultClient RevokeConnectLinkRequest => RevokeConnectLinkResponse;
        open_connect_link: TokenVaultClient OpenConnectLinkRequest => OpenConnectLinkResponse;
        exchange_token: TokenVaultClient ExchangeTokenRequest => ExchangeTokenResponse;
        validate_token: TokenVaultClient ValidateTokenRequest => ValidateTokenResponse;
        fetch_access_token: TokenVaultClient FetchAccessTokenRequest => FetchAccessTokenResponse;
        get_token: TokenVaultClient GetTokenRequest => GetTokenResponse;
        list_tokens: TokenVaultClient ListTokensRequest => ListTokensResponse;
        list_ad_accounts: TokenVaultClient ListAdAccountsRequest => ListAdAccountsResponse;
        report_token_error: TokenVaultClient ReportTokenErrorRequest => ReportTokenErrorResponse;
        revoke_token: TokenVaultClient RevokeTokenRequest => RevokeTokenResponse;
        report_provider_callback: TokenVaultClient ReportProviderCallbackRequest => ReportProviderCallbackResponse;
        list_expiry_events: TokenVaultClient ListExpiryEventsRequest => ListExpiryEventsResponse;
        acknowledge_events: TokenVaultClient AcknowledgeEventsRequest => AcknowledgeEventsResponse;
        create_api_key: VaultAdminClient CreateApiKeyRequest => CreateApiKeyResponse;
        list_api_keys: VaultAdminClient ListApiKeysRequest => ListApiKeysResponse;
        revoke_api_key: VaultAdminClient RevokeApiKeyRequest => RevokeApiKeyResponse;
        rotate_api_key: VaultAdminClient RotateApiKeyRequest => RotateApiKeyResponse;
        list_jobs: VaultAdminClient ListJobsRequest => ListJobsResponse;
        run_job: VaultAdminClient RunJobRequest => RunJobResponse;
        list_job_runs: VaultAdminClient ListJobRunsRequest => ListJobRunsResponse;
        rotate_key: VaultAdminClient RotateKeyRequest => RotateKeyResponse;
        get_workspace: VaultAdminClient GetWorkspaceRequest => GetWorkspaceResponse;
        list_workspaces: VaultAdminClient ListWorkspacesRequest => ListWorkspacesResponse;
        shred_workspace: VaultAdminClient ShredWorkspaceRequest => ShredWorkspaceResponse;
        list_subscriptions: VaultAdminClient ListSubscriptionsRequest => ListSubscriptionsResponse;
        delete_subscription: VaultAdminClient DeleteSubscriptionRequest => DeleteSubscriptionResponse;
        get_vault_status: VaultAdminClient GetVaultStatusRequest => GetVaultStatusResponse;
    }

    /// Calls the RPC at this path, such as `/tokenvault.v1.TokenVault/GetToken`, with an empty message, and waits for
    /// the first answer.
    pub async fn call_empty(&self, path: &str) -> Result<(), Denial> {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        let path = path.parse().expect("a path");
        let outcome = async {
            client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
            let mut answers = client.server_streaming(self.request(()), path, codec).await?.into_inner();
            answers.message().await?.ok_or_else(|| Status::unknown("no answer"))
        };
        self.note(outcome.await.map(Response::new))
    }

    /// Stores a token in a workspace.
    pub async fn store(&self, workspace: &str, token: &str) -> Result<pb::IntakeResult, Denial> {
        self.store_with(pasted(workspace, token)).await
    }

    /// Stores a token with the test's own request.
    pub async fn store_with(&self, request: pb::StoreTokenRequest) -> Result<pb::IntakeResult, Denial> {
        Ok(self.store_token(request).await?.result.expect("an answer has a result"))
    }

    /// Stores a token, and returns the connection's id.
    pub async fn connect(&self, workspace: &str, token: &str) -> String {
        let intake = self.store(workspace, token).await.expect("a good token is stored");
        intake.token.expect("a result has a token").connection_id
    }

    /// Starts a job and waits for the end of its run.
    pub async fn run(&self, job: &str) -> pb::JobRun {
        let request = pb::RunJobRequest { job: job.into(), ..Default::default() };
        let begun = self.run_job(request).await.expect("the job is there").run.expect("a run");
        eventually_async(&format!("the end of {job}"), Duration::from_secs(60), async || {
            self.runs(job).await.into_iter().find(|run| run.run_id == begun.run_id && run.ended_at.is_some())
        })
        .await
    }

    pub async fn runs(&self, job: &str) -> Vec<pb::JobRun> {
        let request = pb::ListJobRunsRequest { job: Some(job.into()), ..Default::default() };
        self.list_job_runs(request).await.expect("runs are told").runs
    }

    /// Fetches the secret of a connection.
    pub async fn fetch(&self, connection: &str) -> Result<pb::FetchAccessTokenResponse, Denial> {
        let request = pb::FetchAccessTokenRequest { connection_id: connection.into(), ..Default::default() };
        let answer = self.fetch_access_token(request).await?;
        let mut secrets = self.secrets.lock().expect("no test panics here");
        secrets.add("fetched token", secret_of(&answer));
        for part in &answer.send_with {
            secrets.add(&part.name, &part.value);
        }
        drop(secrets);
        Ok(answer)
    }

    /// The bare secret of a connection.
    pub async fn secret(&self, connection: &str) -> String {
        secret_of(&self.fetch(connection).await.expect("a usable token is handed out"))
    }

    pub async fn get(&self, connection: &str) -> Result<pb::Token, Denial> {
        let request = pb::GetTokenRequest { connection_id: connection.into(), workspace_id: None };
        Ok(self.get_token(request).await?.token.expect("an answer has a token"))
    }

    pub async fn validate(&self, connection: &str) -> Result<pb::ValidateTokenResponse, Denial> {
        let request = pb::ValidateTokenRequest { connection_id: connection.into(), ..Default::default() };
        self.validate_token(request).await
    }

    /// Reports, for the version `version`, an error body that the provider sent.
    pub async fn report(
        &self,
        connection: &str,
        version: i32,
        http_status: i32,
        body: &str,
    ) -> Result<pb::ReportTokenErrorResponse, Denial> {
        self.report_token_error(pb::ReportTokenErrorRequest {
            connection_id: connection.into(),
            token_version: Some(version),
            http_status,
            body: body.into(),
            ..Default::default()
        })
        .await
    }

    /// Makes a connect link of a workspace for Meta, and returns it with its URL.
    pub async fn link(&self, workspace: &str) -> pb::CreateConnectLinkResponse {
        let request = pb::CreateConnectLinkRequest { workspace_id: workspace.into(), ..Default::default() };
        self.link_with(request).await.expect("a link is made")
    }

    /// Makes a connect link with the test's own request.
    pub async fn link_with(
        &self,
        request: pb::CreateConnectLinkRequest,
    ) -> Result<pb::CreateConnectLinkResponse, Denial> {
        let made = self.create_connect_link(request).await?;
        let token = made.url.rsplit('/').next().unwrap_or_default();
        self.secrets.lock().expect("no test panics here").add("connect link", secret_part(token));
        Ok(made)
    }

    /// Exchanges the token of a connection.
    pub async fn exchange(&self, connection: &str) -> Result<pb::ExchangeTokenResponse, Denial> {
        let subject = pb::exchange_token_request::SubjectOfExchange::ConnectionId(connection.into());
        let request = pb::ExchangeTokenRequest { subject_of_exchange: Some(subject), ..Default::default() };
        self.exchange_token(request).await
    }

    /// Revokes a connection here, but not at the provider.
    pub async fn revoke(&self, connection: &str) -> Result<pb::RevokeTokenResponse, Denial> {
        let request = pb::RevokeTokenRequest { connection_id: connection.into(), ..Default::default() };
        self.revoke_token(request).await
    }

    pub async fn list(&self) -> Result<pb::ListTokensResponse, Denial> {
        self.list_tokens(pb::ListTokensRequest::default()).await
    }
}

/// A request to store a token that a person pasted.
pub(crate) fn pasted(workspace: &str, token: &str) -> pb::StoreTokenRequest {
    pb::StoreTokenRequest {
        workspace_id: workspace.into(),
        provider: "meta".into(),
        credential: Some(Credential::AccessToken(token.into())),
        ..Default::default()
    }
}

fn secret_of(answer: &pb::FetchAccessTokenResponse) -> String {
    match &answer.credential {
        Some(pb::fetch_access_token_response::Credential::Bearer(bearer)) => bearer.access_token.clone(),
        other => panic!("not a bearer token: {other:?}"),
    }
}

/// The secret part of an API key `tva_<key id>_<secret>`, or the whole of any other text.
pub fn secret_part(key: &str) -> &str {
    key.splitn(3, '_').nth(2).unwrap_or(key)
}
