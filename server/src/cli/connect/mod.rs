//! How a command reaches a running vault: endpoint, API key, and errors in words.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use token_vault_client::{ApiKey, ErrorKind, Vault};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};
use zeroize::Zeroizing;

use super::{Mistake, note};
use crate::config::{Config, Flags};
use crate::model::{Secret, exposure_of};

/// The environment variable with the caller's API key.
const API_KEY_ENV: &str = "TOKEN_VAULT_API_KEY";
/// What the first start calls the file with the admin key.
const BOOTSTRAP_KEY_FILE: &str = "bootstrap-admin.key";
/// How long connecting may take, and one call.
const TIMEOUTS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));

/// Where the vault is.
#[derive(Debug, Args)]
pub(super) struct EndpointArgs {
    /// Where the vault's gRPC is.
    #[arg(long, value_name = "URL", env = "TOKEN_VAULT_ENDPOINT", default_value = "http://127.0.0.1:7443")]
    pub(super) endpoint: String,
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
    #[arg(long, value_name = "NAME")]
    domain_name: Option<String>,
}

/// Where the vault is, and who calls.
#[derive(Debug, Args)]
pub(super) struct CallerArgs {
    #[command(flatten)]
    at: EndpointArgs,
    /// File with the caller's API key [default: bootstrap-admin.key in the data folder; none with --client-cert].
    ///
    /// TOKEN_VAULT_API_KEY in the environment holds the key itself, and wins over the default file.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// A connection that carries the caller's key.
pub(super) struct Caller {
    /// The connection.
    pub(super) channel: Channel,
    key: Option<MetadataValue<Ascii>>,
}

impl EndpointArgs {
    /// Connects.
    pub(super) async fn connect(&self) -> anyhow::Result<Channel> {
        let endpoint = self.check()?;
        let endpoint = match endpoint.uri().scheme_str() {
            Some("https") => {
                endpoint.tls_config(self.tls()?).context("--ca-file, --client-cert, --client-key")?
            }
            _ => endpoint,
        };
        let endpoint = endpoint.connect_timeout(TIMEOUTS.0).timeout(TIMEOUTS.1);
        endpoint.connect().await.with_context(|| self.unreachable())
    }

    fn check(&self) -> Result<Endpoint, Mistake> {
        let endpoint = Endpoint::from_shared(self.endpoint.clone())
            .map_err(|_| Mistake("--endpoint must be a URL such as https://vault.example:7443".into()))?;
        match endpoint.uri().scheme_str() {
            Some("https") => Ok(endpoint),
            Some("http") if self.ca_file.is_none() && self.client_cert.is_none() => Ok(endpoint),
            Some("http") => {
                let rule = "--endpoint must begin with https:// where --ca-file or --client-cert is given";
                Err(Mistake(rule.into()))
            }
            _ => Err(Mistake("--endpoint must begin with https:// or http://".into())),
        }
    }

    fn unreachable(&self) -> String {
        format!("cannot reach the vault at {}; is `token-vault serve` running?", self.endpoint)
    }
}

impl EndpointArgs {
    fn tls(&self) -> anyhow::Result<ClientTlsConfig> {
        let read = |file: &PathBuf| fs::read(file).with_context(|| format!("cannot read {}", file.display()));
        let mut config = match &self.ca_file {
            Some(file) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(file)?)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let (Some(certificate), Some(key)) = (&self.client_cert, &self.client_key) {
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
    pub(super) async fn connect(&self, flags: Flags) -> anyhow::Result<Caller> {
        let key = match self.key(flags)? {
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
        Ok(Caller { channel: self.at.connect().await?, key })
    }

    /// The same by the client crate, which retries and watches.
    pub(super) async fn vault(&self, flags: Flags) -> anyhow::Result<Vault> {
        self.at.check()?;
        let mut builder = match self.key(flags)? {
            Some(key) => Vault::builder(self.at.endpoint.clone(), ApiKey::new(key.expose())),
            None => Vault::builder_without_key(self.at.endpoint.clone()),
        };
        if let Some(file) = &self.at.ca_file {
            builder = builder.ca_file(file);
        }
        if let (Some(certificate), Some(key)) = (&self.at.client_cert, &self.at.client_key) {
            builder = builder.identity_files(certificate, key);
        }
        if let Some(name) = &self.at.domain_name {
            builder = builder.domain_name(name);
        }
        builder.connect().await.map_err(|error| match error.kind() {
            ErrorKind::YourBug(_) => Mistake(error.message().to_owned()).into(),
            _ => anyhow!(self.at.unreachable()),
        })
    }

    /// `None`: the certificate says who calls.
    fn key(&self, flags: Flags) -> anyhow::Result<Option<Secret>> {
        let file = match (&self.key_file, std::env::var(API_KEY_ENV)) {
            (Some(file), _) => file.clone(),
            (None, Ok(key)) if !key.trim().is_empty() => return Ok(Some(Secret::new(key))),
            _ if self.at.client_cert.is_some() => return Ok(None),
            _ => Config::load(flags)?.data_dir.join(BOOTSTRAP_KEY_FILE),
        };
        if let Some(warning) = exposure_of(&file) {
            note(warning);
        }
        fs::read_to_string(&file).map(Secret::new).map(Some).with_context(|| {
            format!("cannot read an API key from {}; name one by --key-file or {API_KEY_ENV}", file.display())
        })
    }
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

/// A refusal in words. The message says what is wrong and what to do. Where the vault said nothing, the connection broke,
/// and the causes say why: a certificate that it does not take, for one.
pub(super) fn refused(status: Status) -> anyhow::Error {
    let first = std::error::Error::source(&status);
    if first.is_none() {
        return token_vault_client::Error::from(status).into();
    }
    let causes = std::iter::successors(first, |cause| cause.source()).map(ToString::to_string);
    anyhow!("the connection to the vault broke: {}", causes.collect::<Vec<_>>().join(": "))
}
