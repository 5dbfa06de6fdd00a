//! The connection, and one method per RPC.

use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use crate::api_key::ApiKey;
use crate::builder::Builder;
use crate::error::Error;
use crate::retry;
use crate::token::AccessToken;
use crate::v1;
use crate::v1::token_vault_client::TokenVaultClient;
use crate::v1::vault_admin_client::VaultAdminClient;
use crate::watch::{EventStream, WatchOptions};

/// A page of a thousand tokens with all their problems passes gRPC's own limit of 4 MiB.
const LARGEST_ANSWER: usize = 64 * 1024 * 1024;

/// A connection to the vault. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct Vault {
    channel: Channel,
    key: Option<MetadataValue<Ascii>>,
    deadline: Duration,
    max_retries: u32,
}

/// One method per RPC. `changes` gives the request an id, so that it can be tried again safely.
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
                    let mut client = $client::new(self.channel.clone()).max_decoding_message_size(LARGEST_ANSWER);
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
    /// Connects with the defaults.
    ///
    /// # Errors
    /// `YourBug` for an endpoint or key that can't be one, `RetryAfter` when nobody answers.
    pub async fn connect(endpoint: impl Into<String>, key: ApiKey) -> Result<Self, Error> {
        Self::builder(endpoint, key).connect().await
    }

    /// Connects as you say.
    pub fn builder(endpoint: impl Into<String>, key: ApiKey) -> Builder {
        Builder::new(endpoint.into(), Some(key))
    }

    /// Connects as you say, without an API key: the client certificate of
    /// [`identity_files`](Builder::identity_files) says who calls.
    pub fn builder_without_key(endpoint: impl Into<String>) -> Builder {
        Builder::new(endpoint.into(), None)
    }

    pub(crate) fn new(
        channel: Channel,
        key: Option<MetadataValue<Ascii>>,
        deadline: Duration,
        max_retries: u32,
    ) -> Self {
        Self { channel, key, deadline, max_retries }
    }

    /// The secret of a connection, for use now.
    ///
    /// # Errors
    /// `Pause` when the token is dead: its `reason` and `metadata` say why and who can mend it.
    pub async fn fetch_access_token(&self, connection_id: impl Into<String>) -> Result<AccessToken, Error> {
        let request =
            v1::FetchAccessTokenRequest { connection_id: connection_id.into(), ..Default::default() };
        self.fetch(request).await
    }

    /// The same, with a minimum of remaining life or a workspace.
    ///
    /// # Errors
    /// `Pause` when the token is dead, or does not live long enough.
    pub async fn fetch(&self, request: v1::FetchAccessTokenRequest) -> Result<AccessToken, Error> {
        let answer = self
            .call(request, |request| {
                let mut client = TokenVaultClient::new(self.channel.clone());
                async move { client.fetch_access_token(request).await }
            })
            .await?;
        AccessToken::read(answer)
    }

    /// Brings a pasted token in, with the defaults.
    ///
    /// # Errors
    /// `YourBug` when the provider refuses the token, `Pause` when it must not replace the one that is there.
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
        let answer = self.store_token(request).await?;
        answer.result.ok_or_else(|| Error::unexpected("the vault answered without a result"))
    }

    /// Reports that the provider refused this token, with its reply as it came. The answer's `advice` says what to do.
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
        /// Brings a pasted token in.
        store_token(StoreTokenRequest) -> StoreTokenResponse changes;
        /// Exchanges a token for one that lasts longer.
        exchange_token(ExchangeTokenRequest) -> ExchangeTokenResponse changes;
        /// Asks the provider about a token.
        validate_token(ValidateTokenRequest) -> ValidateTokenResponse;
        /// Metadata of one token.
        get_token(GetTokenRequest) -> GetTokenResponse;
        /// A page of tokens' metadata.
        list_tokens(ListTokensRequest) -> ListTokensResponse;
        /// Reports that the provider refused a token.
        report_token_error(ReportTokenErrorRequest) -> ReportTokenErrorResponse;
        /// Ends a connection.
        revoke_token(RevokeTokenRequest) -> RevokeTokenResponse changes;
        /// A page of the history of expiry events. To follow the feed, see [`watch`](Vault::watch).
        list_expiry_events(ListExpiryEventsRequest) -> ListExpiryEventsResponse;
        /// Moves a subscription's position. [`SubscriptionCheckpoint`](crate::SubscriptionCheckpoint) does it for a watch.
        acknowledge_events(AcknowledgeEventsRequest) -> AcknowledgeEventsResponse;
    }

    rpcs! { VaultAdminClient:
        /// Makes an API key. A retry of a call whose answer was lost answers without the key: make another.
        create_api_key(CreateApiKeyRequest) -> CreateApiKeyResponse changes;
        /// A page of API keys.
        list_api_keys(ListApiKeysRequest) -> ListApiKeysResponse;
        /// Ends an API key.
        revoke_api_key(RevokeApiKeyRequest) -> RevokeApiKeyResponse changes;
        /// The jobs that the vault does by the clock.
        list_jobs(ListJobsRequest) -> ListJobsResponse;
        /// Starts a job now; does not wait for its end.
        run_job(RunJobRequest) -> RunJobResponse changes;
        /// A page of jobs' runs, the newest first.
        list_job_runs(ListJobRunsRequest) -> ListJobRunsResponse;
        /// A page of all principals' subscriptions.
        list_subscriptions(ListSubscriptionsRequest) -> ListSubscriptionsResponse;
        /// Forgets a subscription's position.
        delete_subscription(DeleteSubscriptionRequest) -> DeleteSubscriptionResponse changes;
        /// What the vault says of itself.
        get_vault_status(GetVaultStatusRequest) -> GetVaultStatusResponse;
    }

    /// Follows the feed of expiry events for as long as the stream is polled: it reconnects and resumes by itself. It
    /// connects with the first poll. See [`EventStream`].
    ///
    /// Call it inside a Tokio runtime: a task of its own keeps the position.
    pub fn watch(&self, options: WatchOptions) -> EventStream {
        EventStream::new(self.clone(), options)
    }

    /// One watch, until it breaks. `patience` is the time until the vault's first sign.
    pub(crate) async fn open_watch(
        &self,
        request: v1::WatchExpiryEventsRequest,
        patience: Duration,
    ) -> Result<Streaming<v1::WatchExpiryEventsResponse>, Error> {
        // No deadline goes along: it would end the stream.
        let request = self.authorized(request);
        let mut client =
            TokenVaultClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_ANSWER);
        match tokio::time::timeout(patience.min(self.deadline), client.watch_expiry_events(request)).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => Err(late().into()),
        }
    }

    fn authorized<Q>(&self, message: Q) -> Request<Q> {
        let mut request = Request::new(message);
        if let Some(key) = &self.key {
            request.metadata_mut().insert("authorization", key.clone());
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
            let answer = match tokio::time::timeout(left, send(request)).await {
                Ok(answer) => answer,
                Err(_) => Err(late()),
            };
            let error = match answer {
                Ok(answer) => return Ok(answer.into_inner()),
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
