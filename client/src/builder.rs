//! How to connect to a vault.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::Status;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use zeroize::Zeroizing;

use crate::api_key::ApiKey;
use crate::error::Error;
use crate::vault::Vault;

/// The longest deadline. No call needs more, and gRPC can't express much more.
const LONGEST_DEADLINE: Duration = Duration::from_secs(24 * 3600);
/// The shortest ping interval. A vault treats more frequent pings as an attack.
const SHORTEST_KEEPALIVE: Duration = Duration::from_secs(1);

/// How to connect to a vault; see [`Vault::builder`].
#[derive(Debug, Clone)]
pub struct Builder {
    endpoint: String,
    key: Option<ApiKey>,
    tls: Tls,
    deadline: Duration,
    connect_timeout: Duration,
    keepalive: Duration,
    max_retries: u32,
}

/// What TLS needs to know. Files are read when the connection is made.
#[derive(Clone, Default)]
struct Tls {
    ca_file: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    domain_name: Option<String>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("ca_file", &self.ca_file)
            .field("identity", &self.identity)
            .field("domain_name", &self.domain_name)
            .finish()
    }
}

impl Vault {
    /// Connects with the defaults.
    ///
    /// # Errors
    /// `YourBug` for an invalid endpoint or key, `RetryAfter` when the vault cannot be reached.
    pub async fn connect(endpoint: impl Into<String>, key: ApiKey) -> Result<Self, Error> {
        Self::builder(endpoint, key).connect().await
    }

    /// Returns a builder for a connection with an API key.
    pub fn builder(endpoint: impl Into<String>, key: ApiKey) -> Builder {
        Builder::new(endpoint.into(), Some(key))
    }

    /// Returns a builder for a connection without an API key: the client certificate of
    /// [`identity_files`](Builder::identity_files) identifies the caller.
    pub fn builder_without_key(endpoint: impl Into<String>) -> Builder {
        Builder::new(endpoint.into(), None)
    }
}

impl Builder {
    fn new(endpoint: String, key: Option<ApiKey>) -> Self {
        Self {
            endpoint,
            key,
            tls: Tls::default(),
            deadline: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            keepalive: Duration::from_secs(30),
            max_retries: 3,
        }
    }

    /// Sets a PEM file with the roots that vouch for the vault, in place of the system's.
    #[must_use]
    pub fn ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.tls.ca_file = Some(file.into());
        self
    }

    /// Sets PEM files with this client's certificate and its key, for a vault that asks for one. They are read once, by
    /// `connect`: connect again after they have been renewed.
    #[must_use]
    pub fn identity_files(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.tls.identity = Some((certificate.into(), key.into()));
        self
    }

    /// Sets the name that the vault's certificate must carry. Default: the host of the endpoint.
    #[must_use]
    pub fn domain_name(mut self, name: impl Into<String>) -> Self {
        self.tls.domain_name = Some(name.into());
        self
    }

    /// Bounds one call, its retries included; at most a day. Default: 30 s.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline.min(LONGEST_DEADLINE);
        self
    }

    /// Bounds connecting. Default: 5 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets how often a silent connection is pinged; at least 1 s. Default: 30 s.
    #[must_use]
    pub fn keepalive(mut self, interval: Duration) -> Self {
        self.keepalive = interval.max(SHORTEST_KEEPALIVE);
        self
    }

    /// Sets how often a failed call is repeated. Default: 3.
    #[must_use]
    pub fn max_retries(mut self, retries: u32) -> Self {
        self.max_retries = retries;
        self
    }

    /// Connects now.
    ///
    /// # Errors
    /// `YourBug` for an invalid endpoint or key, `RetryAfter` when the vault cannot be reached.
    pub async fn connect(self) -> Result<Vault, Error> {
        let (endpoint, bearer) = (self.endpoint()?, self.bearer()?);
        let channel = endpoint.connect().await.map_err(|error| {
            let cause = innermost(&error);
            Error::from(Status::unavailable(format!("cannot reach the vault at {}: {cause}", self.endpoint)))
        })?;
        Ok(Vault::new(channel, bearer, self.deadline, self.max_retries))
    }

    /// Connects with the first call.
    ///
    /// # Errors
    /// `YourBug` for an invalid endpoint or key.
    pub fn connect_lazy(self) -> Result<Vault, Error> {
        let (endpoint, bearer) = (self.endpoint()?, self.bearer()?);
        Ok(Vault::new(endpoint.connect_lazy(), bearer, self.deadline, self.max_retries))
    }

    fn endpoint(&self) -> Result<Endpoint, Error> {
        let endpoint = Endpoint::from_shared(self.endpoint.clone())
            .and_then(|endpoint| {
                endpoint.user_agent(concat!("token-vault-client/", env!("CARGO_PKG_VERSION")))
            })
            .map_err(|_| Error::your_bug("endpoint", "must be a URL such as https://vault.example:7443"))?;
        let endpoint = match endpoint.uri().scheme_str() {
            Some("https") => endpoint.tls_config(self.tls.config()?).map_err(|_| {
                Error::your_bug("ca_file, identity_files", "must hold certificates and a key in PEM")
            })?,
            Some("http") if self.tls.is_unset() => endpoint,
            Some("http") => {
                return Err(Error::your_bug("endpoint", "must begin with https:// where TLS is configured"));
            }
            _ => return Err(Error::your_bug("endpoint", "must begin with https://, or http:// for no TLS")),
        };
        Ok(endpoint
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(self.keepalive)
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true))
    }

    fn bearer(&self) -> Result<Option<MetadataValue<Ascii>>, Error> {
        let Some(key) = &self.key else {
            return match self.tls.identity {
                Some(_) => Ok(None),
                None => Err(Error::your_bug("identity_files", "must be set where there is no API key")),
            };
        };
        let bearer = Zeroizing::new(format!("Bearer {}", key.expose()));
        let mut bearer: MetadataValue<Ascii> = bearer
            .parse()
            .map_err(|_| Error::your_bug("api_key", "holds characters that an API key cannot have"))?;
        bearer.set_sensitive(true);
        Ok(Some(bearer))
    }
}

impl Tls {
    fn is_unset(&self) -> bool {
        self.ca_file.is_none() && self.identity.is_none() && self.domain_name.is_none()
    }

    fn config(&self) -> Result<ClientTlsConfig, Error> {
        let mut config = ClientTlsConfig::new();
        config = match &self.ca_file {
            Some(file) => config.ca_certificate(Certificate::from_pem(read("ca_file", file)?)),
            None => config.with_native_roots(),
        };
        if let Some((certificate, key)) = &self.identity {
            let key = Zeroizing::new(read("identity_files", key)?);
            config = config.identity(Identity::from_pem(read("identity_files", certificate)?, &*key));
        }
        Ok(match &self.domain_name {
            Some(name) => config.domain_name(name),
            None => config,
        })
    }
}

/// The innermost cause of an error. The outer ones only say that the transport failed.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.last().map(ToString::to_string).unwrap_or_default()
}

fn read(option: &str, file: &Path) -> Result<Vec<u8>, Error> {
    fs::read(file)
        .map_err(|error| Error::your_bug(option, &format!("{} cannot be read: {error}", file.display())))
}
