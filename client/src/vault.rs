//! The connection, and one method per RPC.

use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::api_key::ApiKey;
use crate::error::Error;
use crate::retry;
use crate::token::AccessToken;
use crate::v1;
use crate::v1::token_vault_client::TokenVaultClient;
use crate::v1::vault_admin_client::VaultAdminClient;

/// A connection to the vault. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct Vault {
    channel: Channel,
    key: MetadataValue<Ascii>,
    deadline: Duration,
    max_retries: u32,
}

/// How to connect.
#[derive(Debug, Clone)]
pub struct Builder {
    endpoint: String,
    key: ApiKey,
    deadline: Duration,
    connect_timeout: Duration,
    keepalive: Duration,
    max_retries: u32,
}

impl Builder {
    /// Time for one call, its retries included. Default: 30 s.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Time for connecting. Default: 5 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How often a silent connection is asked whether it lives. Default: 30 s.
    #[must_use]
    pub fn keepalive(mut self, interval: Duration) -> Self {
        self.keepalive = interval;
        self
    }

    /// Tries beside the first. Default: 3.
    #[must_use]
    pub fn max_retries(mut self, retries: u32) -> Self {
        self.max_retries = retries;
        self
    }

    /// Connects now.
    ///
    /// # Errors
    /// `YourBug` for an endpoint or key that can't be one, `RetryAfter` when nobody answers.
    pub async fn connect(self) -> Result<Vault, Error> {
        let channel = self.endpoint()?.connect().await.map_err(|error| {
            Error::from(Status::unavailable(format!("cannot reach the vault at {}: {error}", self.endpoint)))
        })?;
        self.vault(channel)
    }

    /// Connects with the first call.
    ///
    /// # Errors
    /// `YourBug` for an endpoint or key that can't be one.
    pub fn connect_lazy(self) -> Result<Vault, Error> {
        let channel = self.endpoint()?.connect_lazy();
        self.vault(channel)
    }

    fn endpoint(&self) -> Result<Endpoint, Error> {
        let endpoint = Endpoint::from_shared(self.endpoint.clone())
            .and_then(|endpoint| {
                endpoint.user_agent(concat!("token-vault-client/", env!("CARGO_PKG_VERSION")))
            })
            .map_err(|_| Error::your_bug("endpoint", "must be a URL such as http://127.0.0.1:7443"))?;
        Ok(endpoint
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(self.keepalive)
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true))
    }

    fn vault(&self, channel: Channel) -> Result<Vault, Error> {
        let mut key: MetadataValue<Ascii> = format!("Bearer {}", self.key.expose())
            .parse()
            .map_err(|_| Error::your_bug("api_key", "holds characters that no key has"))?;
        key.set_sensitive(true);
        Ok(Vault { channel, key, deadline: self.deadline, max_retries: self.max_retries })
    }
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
                    let mut client = $client::new(self.channel.clone());
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
        Builder {
            endpoint: endpoint.into(),
            key,
            deadline: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            keepalive: Duration::from_secs(30),
            max_retries: 3,
        }
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
    }

    rpcs! { VaultAdminClient:
        /// Makes an API key. A retry of a call whose answer was lost answers without the key: make another.
        create_api_key(CreateApiKeyRequest) -> CreateApiKeyResponse changes;
        /// A page of API keys.
        list_api_keys(ListApiKeysRequest) -> ListApiKeysResponse;
        /// Ends an API key.
        revoke_api_key(RevokeApiKeyRequest) -> RevokeApiKeyResponse changes;
        /// What the vault says of itself.
        get_vault_status(GetVaultStatusRequest) -> GetVaultStatusResponse;
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
            let mut request = Request::new(message.clone());
            request.metadata_mut().insert("authorization", self.key.clone());
            request.set_timeout(left);
            let answer = match tokio::time::timeout(left, send(request)).await {
                Ok(answer) => answer,
                Err(_) => Err(Status::deadline_exceeded("the vault did not answer in time")),
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

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}
