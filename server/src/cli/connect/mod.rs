//! How a command reaches a running vault: endpoint, API key, and errors in words.

mod failure;
mod own_certificate;
mod probe;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use token_vault_client::{ApiKey, Builder, ErrorKind, Vault};
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use zeroize::Zeroizing;

pub(super) use failure::{denied, in_words};

use super::Mistake;
use super::arguments::ConfigArgs;
use crate::config::{Config, Flags, Reach};
use crate::model::{Secret, exposure_of, read_secret_file};
use failure::Unreachable;
use probe::Speaks;

/// The environment variable with the caller's API key.
const API_KEY_ENV: &str = "TOKEN_VAULT_API_KEY";
/// The name that the first start gives to the file with the admin key.
const BOOTSTRAP_KEY_FILE: &str = "bootstrap-admin.key";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the vault is.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct EndpointArgs {
    /// URL of the vault's gRPC [default: as configured, else http://127.0.0.1:7443].
    ///
    /// Without it, address and TLS follow from the configuration: server.listen and server.tls.
    #[arg(long, value_name = "URL", env = "TOKEN_VAULT_ENDPOINT")]
    endpoint: Option<String>,
    /// PEM file with the roots that vouch for the vault [default: the system's].
    #[arg(long, value_name = "FILE", env = "TOKEN_VAULT_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// PEM file with this caller's certificate, for a vault that asks for one.
    #[arg(long, value_name = "FILE", env = "TOKEN_VAULT_CLIENT_CERT", requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// PEM file with the certificate's key.
    #[arg(long, value_name = "FILE", env = "TOKEN_VAULT_CLIENT_KEY", requires = "client_cert")]
    client_key: Option<PathBuf>,
    /// The name that the vault's certificate must carry [default: the host of the endpoint].
    #[arg(long, value_name = "NAME", env = "TOKEN_VAULT_DOMAIN_NAME")]
    domain_name: Option<String>,
}

/// Where the vault is, and who calls.
#[derive(Debug, Args)]
pub(super) struct CallerArgs {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    #[command(flatten)]
    at: EndpointArgs,
    /// File with the caller's API key [default: bootstrap-admin.key in the data folder; none with --client-cert].
    ///
    /// TOKEN_VAULT_API_KEY in the environment holds the key itself, and wins over the default file.
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    pub(super) key_file: Option<PathBuf>,
}

/// A connection that carries the caller's key.
pub(super) struct Caller {
    pub(super) channel: Channel,
    key: Option<MetadataValue<Ascii>>,
    /// Whether somebody can administer the vault without an API key, as far as the configuration on this machine shows.
    pub(super) admins_without_keys: bool,
}

/// An endpoint, and everything that is needed to connect to it.
pub(super) struct Target {
    url: String,
    endpoint: Endpoint,
    ca_file: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    domain_name: Option<String>,
}

impl EndpointArgs {
    /// Whether an endpoint is named, in place of the one that follows from the configuration.
    pub(super) fn is_named(&self) -> bool {
        self.endpoint.is_some()
    }

    /// Finds the endpoint and makes sure that it speaks what its URL says, before a key is sent there.
    pub(super) async fn target(&self, reach: &Reach) -> anyhow::Result<Target> {
        let target = self.resolve(reach)?;
        if !target.is_secure() {
            target.must_speak_plaintext().await?;
        }
        Ok(target)
    }

    fn resolve(&self, reach: &Reach) -> Result<Target, Mistake> {
        let configured = || {
            reach.url().ok_or_else(|| {
                Mistake(
                    "server.listen leaves the port to the system: name the vault's address by --endpoint, as its line \
                     \"ready\" shows it"
                        .into(),
                )
            })
        };
        let url = self.endpoint.clone().map_or_else(configured, Ok)?;
        let endpoint = Endpoint::from_shared(url.clone())
            .map_err(|_| Mistake("--endpoint must be a URL such as https://vault.example:7443".into()))?;
        let wants_tls = self.ca_file.is_some() || self.client_cert.is_some();
        match endpoint.uri().scheme_str() {
            Some("https") => {}
            Some("http") if wants_tls => {
                let rule = "--endpoint must begin with https:// where --ca-file or --client-cert is given";
                return Err(Mistake(rule.into()));
            }
            Some("http") if reach.tls => {
                let rule = "--endpoint must begin with https://, because the configuration turns TLS on (server.tls)";
                return Err(Mistake(rule.into()));
            }
            Some("http") => {}
            _ => return Err(Mistake("--endpoint must begin with https:// or http://".into())),
        }
        let mut target = Target {
            url,
            endpoint,
            ca_file: self.ca_file.clone(),
            identity: self.client_cert.clone().zip(self.client_key.clone()),
            domain_name: self.domain_name.clone(),
        };
        if let (None, Some(file)) = (&self.endpoint, &reach.certificate_file) {
            target.trust(file, reach);
        }
        Ok(target)
    }
}

impl Target {
    fn is_secure(&self) -> bool {
        self.endpoint.uri().scheme_str() == Some("https")
    }

    /// On the vault's own machine its configuration says which certificate to expect.
    fn trust(&mut self, certificate_file: &Path, reach: &Reach) {
        let own = own_certificate::read(certificate_file, reach.listen.ip());
        if self.ca_file.is_none() && own.vouches {
            self.ca_file = Some(certificate_file.to_path_buf());
        }
        self.domain_name = self.domain_name.take().or(own.name);
    }

    fn address(&self) -> (String, u16) {
        let uri = self.endpoint.uri();
        let port = uri.port_u16().unwrap_or(if self.is_secure() { 443 } else { 80 });
        (uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned(), port)
    }

    async fn must_speak_plaintext(&self) -> anyhow::Result<()> {
        let (host, port) = self.address();
        match probe::probe(&host, port, CONNECT_TIMEOUT).await {
            Ok(Speaks::Http2) => Ok(()),
            Ok(Speaks::Tls) => Err(Mistake(format!(
                "the vault at {host}:{port} speaks TLS, so nothing was sent to it: write https:// in place of http://"
            ))
            .into()),
            Ok(Speaks::Other) => Err(Unreachable::new(&self.url, "what answers there does not speak gRPC").into()),
            Err(error) => Err(Unreachable::new(&self.url, error).into()),
        }
    }

    /// Connects.
    pub(super) async fn connect(&self) -> anyhow::Result<Channel> {
        let endpoint = match self.is_secure() {
            true => self
                .endpoint
                .clone()
                .tls_config(self.tls()?)
                .context("--ca-file, --client-cert, --client-key")?,
            false => self.endpoint.clone(),
        };
        let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).timeout(CALL_TIMEOUT);
        match endpoint.connect().await {
            Ok(channel) => Ok(channel),
            Err(error) => Err(self.explain(failure::causes(&error)).await),
        }
    }

    async fn explain(&self, cause: String) -> anyhow::Error {
        let (host, port) = self.address();
        if self.is_secure()
            && let Ok(Speaks::Http2) = probe::probe(&host, port, CONNECT_TIMEOUT).await
        {
            return Mistake(format!(
                "the vault at {host}:{port} does not speak TLS: write http:// in place of https://, or turn TLS on \
                 there (server.tls)"
            ))
            .into();
        }
        Unreachable::new(&self.url, cause).into()
    }

    fn tls(&self) -> anyhow::Result<ClientTlsConfig> {
        let read = |file: &PathBuf| fs::read(file).with_context(|| format!("cannot read {}", file.display()));
        let mut config = match &self.ca_file {
            Some(file) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(file)?)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let Some((certificate, key)) = &self.identity {
            if let Some(why) = exposure_of(key) {
                bail!("--client-key is refused: {why}");
            }
            let key = Zeroizing::new(read(key)?);
            config = config.identity(Identity::from_pem(read(certificate)?, &*key));
        }
        Ok(match &self.domain_name {
            Some(name) => config.domain_name(name),
            None => config,
        })
    }
}

impl CallerArgs {
    /// Connects with the caller's key.
    pub(super) async fn connect(self) -> anyhow::Result<Caller> {
        let reach = Config::reach(self.config.into())?;
        let target = self.at.target(&reach).await?;
        let key = match key(self.key_file, target.identity.is_some(), &reach)? {
            Some(key) => {
                let line = Zeroizing::new(format!("Bearer {}", key.expose().trim()));
                let mut value: MetadataValue<Ascii> = line
                    .parse()
                    .map_err(|_| Mistake("the API key holds characters that no key has".into()))?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        let admins_without_keys = reach.admins_without_keys;
        Ok(Caller { channel: target.connect().await?, key, admins_without_keys })
    }

    /// Connects with the client crate, which retries and watches.
    pub(super) async fn vault(self) -> anyhow::Result<Vault> {
        let reach = Config::reach(self.config.into())?;
        let target = self.at.target(&reach).await?;
        let key = key(self.key_file, target.identity.is_some(), &reach)?;
        let builder = target.builder(key.map(|key| ApiKey::new(key.expose())));
        match builder.connect().await {
            Ok(vault) => Ok(vault),
            Err(error) if matches!(error.kind(), ErrorKind::YourBug(_)) => {
                Err(Mistake(error.message().to_owned()).into())
            }
            Err(error) => {
                let prefix = format!("cannot reach the vault at {}: ", target.url);
                let cause = error.message().strip_prefix(&prefix).unwrap_or(error.message());
                Err(target.explain(cause.to_owned()).await)
            }
        }
    }
}

impl Target {
    fn builder(&self, key: Option<ApiKey>) -> Builder {
        let mut builder = match key {
            Some(key) => Vault::builder(self.url.clone(), key),
            None => Vault::builder_without_key(self.url.clone()),
        };
        if let Some(file) = &self.ca_file {
            builder = builder.ca_file(file);
        }
        if let Some((certificate, key)) = &self.identity {
            builder = builder.identity_files(certificate, key);
        }
        if let Some(name) = &self.domain_name {
            builder = builder.domain_name(name);
        }
        builder
    }
}

/// The caller's key. `None`: the certificate identifies the caller.
fn key(named: Option<PathBuf>, certified: bool, reach: &Reach) -> anyhow::Result<Option<Secret>> {
    let file = match (named, std::env::var(API_KEY_ENV)) {
        (Some(file), _) => file,
        // Neither an API key nor an issuer's token has a slash in it.
        (None, Ok(key)) if key.contains('/') => {
            bail!(
                "{API_KEY_ENV} holds the name of a file; it must be the API key itself: name a file by --key-file"
            )
        }
        (None, Ok(key)) if !key.trim().is_empty() => return Ok(Some(Secret::new(key))),
        _ if certified => return Ok(None),
        _ => reach.data_dir.join(BOOTSTRAP_KEY_FILE),
    };
    read_secret_file(&file).map(Some).with_context(|| {
        format!("cannot read an API key from {}; name one by --key-file or {API_KEY_ENV}", file.display())
    })
}

impl Caller {
    /// A request that carries the key.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(key) = &self.key {
            request.metadata_mut().insert("authorization", key.clone());
        }
        request
    }
}

/// The error of a command that could not reach `url`.
pub(super) fn unreachable(url: &str, cause: impl std::fmt::Display) -> anyhow::Error {
    Unreachable::new(url, cause).into()
}

/// Finds the vault's address in its configuration, for a command that needs no data folder.
pub(super) fn reach(config: Option<PathBuf>) -> Result<Reach, crate::config::ConfigError> {
    Config::reach(Flags { file: config, ..Flags::default() })
}
