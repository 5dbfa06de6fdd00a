//! How to connect.

use std::time::Duration;

use tonic::Status;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Endpoint;
use zeroize::Zeroizing;

use crate::api_key::ApiKey;
use crate::error::Error;
use crate::vault::Vault;

/// No call needs longer; the wire format has an end too.
const LONGEST_DEADLINE: Duration = Duration::from_secs(24 * 3600);
/// More often would look like an attack to the other side.
const SHORTEST_KEEPALIVE: Duration = Duration::from_secs(1);

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
    pub(crate) fn new(endpoint: String, key: ApiKey) -> Self {
        Self {
            endpoint,
            key,
            deadline: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            keepalive: Duration::from_secs(30),
            max_retries: 3,
        }
    }

    /// Time for one call, its retries included; at most a day. Default: 30 s.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline.min(LONGEST_DEADLINE);
        self
    }

    /// Time for connecting. Default: 5 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How often a silent connection is asked whether it lives; at least 1 s. Default: 30 s.
    #[must_use]
    pub fn keepalive(mut self, interval: Duration) -> Self {
        self.keepalive = interval.max(SHORTEST_KEEPALIVE);
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
        let (endpoint, bearer) = (self.endpoint()?, self.bearer()?);
        let channel = endpoint.connect().await.map_err(|error| {
            Error::from(Status::unavailable(format!("cannot reach the vault at {}: {error}", self.endpoint)))
        })?;
        Ok(Vault::new(channel, bearer, self.deadline, self.max_retries))
    }

    /// Connects with the first call.
    ///
    /// # Errors
    /// `YourBug` for an endpoint or key that can't be one.
    pub fn connect_lazy(self) -> Result<Vault, Error> {
        let (endpoint, bearer) = (self.endpoint()?, self.bearer()?);
        Ok(Vault::new(endpoint.connect_lazy(), bearer, self.deadline, self.max_retries))
    }

    fn endpoint(&self) -> Result<Endpoint, Error> {
        let endpoint = Endpoint::from_shared(self.endpoint.clone())
            .and_then(|endpoint| {
                endpoint.user_agent(concat!("token-vault-client/", env!("CARGO_PKG_VERSION")))
            })
            .map_err(|_| Error::your_bug("endpoint", "must be a URL such as http://127.0.0.1:7443"))?;
        if endpoint.uri().scheme_str() != Some("http") {
            return Err(Error::your_bug(
                "endpoint",
                "must begin with http://; TLS comes with the vault's own",
            ));
        }
        Ok(endpoint
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(self.keepalive)
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true))
    }

    fn bearer(&self) -> Result<MetadataValue<Ascii>, Error> {
        let bearer = Zeroizing::new(format!("Bearer {}", self.key.expose()));
        let mut bearer: MetadataValue<Ascii> =
            bearer.parse().map_err(|_| Error::your_bug("api_key", "holds characters that no key has"))?;
        bearer.set_sensitive(true);
        Ok(bearer)
    }
}
