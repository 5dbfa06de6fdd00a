//! How a command reaches a running vault: endpoint, API key, and errors in words.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use token_vault_client::{ApiKey, ErrorKind, Vault};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::Mistake;
use crate::config::{Config, Flags};
use crate::model::Secret;

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
}

/// Where the vault is, and who calls.
#[derive(Debug, Args)]
pub(super) struct CallerArgs {
    #[command(flatten)]
    at: EndpointArgs,
    /// File with the caller's API key [default: bootstrap-admin.key in the data folder].
    ///
    /// TOKEN_VAULT_API_KEY in the environment holds the key itself, and wins over the default file.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// A connection that carries the caller's key.
pub(super) struct Caller {
    /// The connection.
    pub(super) channel: Channel,
    key: MetadataValue<Ascii>,
}

impl EndpointArgs {
    /// Connects.
    pub(super) async fn connect(&self) -> anyhow::Result<Channel> {
        let endpoint = self.check()?.connect_timeout(TIMEOUTS.0).timeout(TIMEOUTS.1);
        endpoint.connect().await.with_context(|| self.unreachable())
    }

    fn check(&self) -> Result<Endpoint, Mistake> {
        if self.endpoint.starts_with("https:") {
            return Err(Mistake("--endpoint must be http://…: TLS comes in a later release".into()));
        }
        Endpoint::from_shared(self.endpoint.clone())
            .map_err(|_| Mistake("--endpoint must be a URL such as http://127.0.0.1:7443".into()))
    }

    fn unreachable(&self) -> String {
        format!("cannot reach the vault at {}; is `token-vault serve` running?", self.endpoint)
    }
}

impl CallerArgs {
    /// Connects with the caller's key.
    pub(super) async fn connect(&self, flags: Flags) -> anyhow::Result<Caller> {
        let key = self.key(flags)?;
        let mut value: MetadataValue<Ascii> = format!("Bearer {}", key.expose().trim())
            .parse()
            .map_err(|_| Mistake("the API key holds characters that no key has".into()))?;
        value.set_sensitive(true);
        Ok(Caller { channel: self.at.connect().await?, key: value })
    }

    /// The same by the client crate, which retries and watches.
    pub(super) async fn vault(&self, flags: Flags) -> anyhow::Result<Vault> {
        self.at.check()?;
        let key = ApiKey::new(self.key(flags)?.expose());
        Vault::connect(self.at.endpoint.clone(), key).await.map_err(|error| match error.kind() {
            ErrorKind::YourBug(_) => Mistake(error.message().to_owned()).into(),
            _ => anyhow!(self.at.unreachable()),
        })
    }

    fn key(&self, flags: Flags) -> anyhow::Result<Secret> {
        let file = match (&self.key_file, std::env::var(API_KEY_ENV)) {
            (Some(file), _) => file.clone(),
            (None, Ok(key)) if !key.trim().is_empty() => return Ok(Secret::new(key)),
            _ => Config::load(flags)?.data_dir.join(BOOTSTRAP_KEY_FILE),
        };
        fs::read_to_string(&file).map(Secret::new).with_context(|| {
            format!("cannot read an API key from {}; name one by --key-file or {API_KEY_ENV}", file.display())
        })
    }
}

impl Caller {
    /// A request that carries the key.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.key.clone());
        request
    }
}

/// A refusal in words. The message says what is wrong and what to do.
pub(super) fn refused(status: Status) -> anyhow::Error {
    anyhow!("{:?}: {}", status.code(), status.message())
}
