//! The connection to a vault, with one method per RPC.

use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use crate::error::Error;
use crate::retry;
use crate::token::AccessToken;
use crate::v1;
use crate::v1::token_vault_client::TokenVaultClient;
use crate::v1::vault_admin_client::VaultAdminClient;

/// The largest response. Vaults keep theirs below gRPC's default limit of 4 MiB, but older ones did not always.
const LARGEST_RESPONSE: usize = 64 * 1024 * 1024;

/// A connection to a vault. Clones are cheap and share it.
#[derive(Clone)]
pub struct Vault {
    channel: Channel,
    key: Option<MetadataValue<Ascii>>,
    deadline: Duration,
    max_retries: u32,
    /// The token of the connect link for which the calls are made.
    link: Option<MetadataValue<Ascii>>,
}

/// Defines one method per RPC. `changes` gives the request an id, so that it can be repeated safely.
macro_rules! rpcs {
    ($client:ident: $($(#[$doc:meta])* $name:ident($request:ident) -> $response:ident $($changes:ident)?;)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            /// See [`ErrorKind`](crate::ErrorKind).
            pub async fn $name(&self, request: v1::$request) -> Result<v1::$response, Error> {
                $(let request = rpcs!($changes request);)?
                self.call(request, |request| {
                    let mut client = $client::new(self.channel.clone()).max_decoding_message_size(LARGEST_RESPONSE);
                    async move { client.$name(request).await }
                })
                .await
            }
        )*
    };
    (changes $request:ident) => {{
        let mut request = $request;
        if request.request_id.is_empty() {
            request.request_id = Uuid::new_v4().to_string();
        }
        request
    }};
}

impl Vault {
    pub(crate) fn new(
        channel: Channel,
        key: Option<MetadataValue<Ascii>>,
        deadline: Duration,
        max_retries: u32,
    ) -> Self {
        Self { channel, key, deadline, max_retries, link: None }
    }

    /// The same connection, whose calls are made for a connect link.
    pub(crate) fn with_link(mut self, link: MetadataValue<Ascii>) -> Self {
        self.link = Some(link);
        self
    }

    /// Fetches the secret of a connection, for use now.
    ///
    /// # Errors
    /// `Pause` when the token is dead: the error's `reason` and `metadata` say why, and who can fix it.
    pub async fn fetch_access_token(&self, connection_id: impl Into<String>) -> Result<AccessToken, Error> {
        let request =
            v1::FetchAccessTokenRequest { connection_id: connection_id.into(), ..Default::default() };
        self.fetch(request).await
    }

    /// Fetches a secret with the request's own fields, such as a minimum of remaining life.
    ///
    /// # Errors
    /// `Pause` when the token is dead, or does not live long enough.
    pub async fn fetch(&self, request: v1::FetchAccessTokenRequest) -> Result<AccessToken, Error> {
        let response = self
            .call(request, |request| {
                let mut client = TokenVaultClient::new(self.channel.clone());
                async move { client.fetch_access_token(request).await }
            })
            .await?;
        AccessToken::read(response)
    }

    /// Stores a pasted token, with the defaults.
    ///
    /// # Errors
    /// `YourBug` when the provider refuses the token, `Pause` when it must not replace the stored one.
    pub async fn store_access_token(
        &self,
        workspace_id: impl Into<String>,
        provider: impl Into<String>,
        access_token: impl Into<String>,
    ) -> Result<v1::IntakeResult, Error> {
        let request = v1::StoreTokenRequest {
            workspace_id: workspace_id.into(),
            provider: provider.into(),
            credential: Some(v1::store_token_request::Credential::AccessToken(access_token.into())),
            ..Default::default()
        };
        let response = self.store_token(request).await?;
        response.result.ok_or_else(|| Error::unexpected("the vault answered without a result"))
    }

    /// Reports that the provider refused this token, with the provider's unchanged reply. The response's `advice` says
    /// what to do.
    ///
    /// # Errors
    /// See [`ErrorKind`](crate::ErrorKind).
    pub async fn report_refusal(
        &self,
        connection_id: impl Into<String>,
        token: &AccessToken,
        http_status: u16,
        body: impl Into<String>,
    ) -> Result<v1::ReportTokenErrorResponse, Error> {
        let request = v1::ReportTokenErrorRequest {
            connection_id: connection_id.into(),
            secret_id: Some(token.secret_id.clone()),
            http_status: http_status.into(),
            body: body.into(),
            ..Default::default()
        };
        self.report_token_error(request).await
    }

    rpcs! { TokenVaultClient:
        /// Stores a pasted token.
        store_token(StoreTokenRequest) -> StoreTokenResponse changes;
        /// Begins an authorization: returns the address of the provider's consent dialog, for the person's browser.
        begin_authorization(BeginAuthorizationRequest) -> BeginAuthorizationResponse changes;
        /// Completes an authorization with what the provider sent back through the browser. It is safe to repeat with
        /// the same callback.
        complete_authorization(CompleteAuthorizationRequest) -> CompleteAuthorizationResponse;
        /// Creates a link with which a person connects an account in the portal. When the response is lost and the call
        /// is repeated, the URL is missing from the second response: create another link.
        create_connect_link(CreateConnectLinkRequest) -> CreateConnectLinkResponse changes;
        /// Returns a page of connect links, the newest first.
        list_connect_links(ListConnectLinksRequest) -> ListConnectLinksResponse;
        /// Ends a connect link at once.
        revoke_connect_link(RevokeConnectLinkRequest) -> RevokeConnectLinkResponse changes;
        /// Exchanges a token for one that lasts longer.
        exchange_token(ExchangeTokenRequest) -> ExchangeTokenResponse changes;
        /// Asks the provider about a token.
        validate_token(ValidateTokenRequest) -> ValidateTokenResponse;
        /// Returns one token's metadata.
        get_token(GetTokenRequest) -> GetTokenResponse;
        /// Returns a page of tokens' metadata.
        list_tokens(ListTokensRequest) -> ListTokensResponse;
        /// Returns a page of the ad accounts that a token reaches, or once reached.
        list_ad_accounts(ListAdAccountsRequest) -> ListAdAccountsResponse;
        /// Reports that the provider refused a token.
        report_token_error(ReportTokenErrorRequest) -> ReportTokenErrorResponse;
        /// Ends a connection.
        revoke_token(RevokeTokenRequest) -> RevokeTokenResponse changes;
        /// Passes on what a provider sent to the app, and returns what to answer. It is safe to repeat.
        report_provider_callback(ReportProviderCallbackRequest) -> ReportProviderCallbackResponse;
        /// Returns a page of the history of expiry events. To follow the feed, see [`watch`](Vault::watch).
        list_expiry_events(ListExpiryEventsRequest) -> ListExpiryEventsResponse;
        /// Moves a subscription's position. [`SubscriptionCheckpoint`](crate::SubscriptionCheckpoint) does it for a
        /// watch.
        acknowledge_events(AcknowledgeEventsRequest) -> AcknowledgeEventsResponse;
    }

    rpcs! { VaultAdminClient:
        /// Makes an API key. When the response is lost and the call is repeated, the key itself is missing from the
        /// second response: make another key.
        create_api_key(CreateApiKeyRequest) -> CreateApiKeyResponse changes;
        /// Returns a page of API keys.
        list_api_keys(ListApiKeysRequest) -> ListApiKeysResponse;
        /// Ends an API key.
        revoke_api_key(RevokeApiKeyRequest) -> RevokeApiKeyResponse changes;
        /// Returns the jobs that the vault runs at set times.
        list_jobs(ListJobsRequest) -> ListJobsResponse;
        /// Starts a job now, without waiting for its end.
        run_job(RunJobRequest) -> RunJobResponse changes;
        /// Returns a page of jobs' runs, the newest first.
        list_job_runs(ListJobRunsRequest) -> ListJobRunsResponse;
        /// Returns a page of all principals' subscriptions.
        list_subscriptions(ListSubscriptionsRequest) -> ListSubscriptionsResponse;
        /// Deletes a subscription with its position.
        delete_subscription(DeleteSubscriptionRequest) -> DeleteSubscriptionResponse changes;
        /// Returns the state of the vault itself.
        get_vault_status(GetVaultStatusRequest) -> GetVaultStatusResponse;
    }

    pub(crate) async fn open_connect_link(&self) -> Result<v1::OpenConnectLinkResponse, Error> {
        self.call(v1::OpenConnectLinkRequest {}, |request| {
            let mut client =
                TokenVaultClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_RESPONSE);
            async move { client.open_connect_link(request).await }
        })
        .await
    }

    /// Opens one watch, which lasts until it breaks. `patience` bounds the wait for the vault's first message.
    pub(crate) async fn open_watch(
        &self,
        request: v1::WatchExpiryEventsRequest,
        patience: Duration,
    ) -> Result<Streaming<v1::WatchExpiryEventsResponse>, Error> {
        // Set no deadline, because that would end the stream.
        let request = self.authorized(request);
        let mut client =
            TokenVaultClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_RESPONSE);
        match tokio::time::timeout(patience.min(self.deadline), client.watch_expiry_events(request)).await {
            Ok(response) => Ok(response?.into_inner()),
            Err(_) => Err(late().into()),
        }
    }

    pub(crate) fn authorized<Q>(&self, message: Q) -> Request<Q> {
        let mut request = Request::new(message);
        if let Some(key) = &self.key {
            request.metadata_mut().insert("authorization", key.clone());
        }
        if let Some(link) = &self.link {
            request.metadata_mut().insert("connect-link", link.clone());
        }
        request
    }

    async fn call<Q, A, F>(&self, message: Q, send: impl Fn(Request<Q>) -> F) -> Result<A, Error>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let end = Instant::now() + self.deadline;
        let mut tries = 1;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let mut request = self.authorized(message.clone());
            request.set_timeout(left);
            let response = match tokio::time::timeout(left, send(request)).await {
                Ok(response) => response,
                Err(_) => Err(late()),
            };
            let error = match response {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => Error::from(status),
            };
            let left = end.saturating_duration_since(Instant::now());
            let Some(wait) = retry::wait(&error, tries, self.max_retries, left) else { return Err(error) };
            tokio::time::sleep(wait).await;
            tries += 1;
        }
    }
}

fn late() -> Status {
    Status::deadline_exceeded("the vault did not answer in time")
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}
