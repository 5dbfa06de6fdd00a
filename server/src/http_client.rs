//! The one builder of HTTP clients, and a bound on replies. The provider, the issuer of tokens and the key service each
//! have a client of their own, made here.

use std::fs;
use std::path::Path;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Response};
use zeroize::Zeroizing;

/// What differs between the clients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientConfig<'a> {
    pub(crate) connect_timeout: Duration,
    /// Bounds one request, its reply's body included.
    pub(crate) timeout: Duration,
    /// PEM certificates to trust in place of the system's.
    pub(crate) ca_file: Option<&'a Path>,
    /// Whether the system's proxy is used.
    pub(crate) proxy: bool,
    pub(crate) gzip: bool,
}

impl ClientConfig<'_> {
    /// Builds a client that follows no redirect, since that would carry a secret elsewhere, and sends no referer.
    ///
    /// # Errors
    /// A text for the operator.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that builds clients")]
    pub(crate) fn build(self) -> Result<Client, String> {
        // Without a crypto provider, the builder would panic.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err("a TLS crypto provider must be installed first".into());
        }
        let mut builder = Client::builder()
            .user_agent(concat!("token-vault/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .referer(false)
            .gzip(self.gzip)
            .connect_timeout(self.connect_timeout)
            .timeout(self.timeout);
        if !self.proxy {
            builder = builder.no_proxy();
        }
        if let Some(file) = self.ca_file {
            // Its name is not repeated: what was written where the path belongs may be a secret.
            let pem = fs::read(file)
                .map_err(|error| format!("ca_file names a file that can't be read: {error}"))?;
            let certificates = Certificate::from_pem_bundle(&pem)
                .map_err(|_| "ca_file names a file without PEM certificates".to_owned())?;
            builder = builder.tls_certs_only(certificates);
        }
        builder.build().map_err(|error| format!("the HTTP client can't be set up: {error}"))
    }
}

/// Why a body could not be read.
#[derive(Debug)]
pub(crate) enum BodyError {
    TooLong,
    Broken(reqwest::Error),
}

/// Reads a body chunk by chunk, and gives up once it is longer than `longest`, compressed or not. It may hold a secret.
pub(crate) async fn read_body(
    mut response: Response,
    longest: usize,
) -> Result<Zeroizing<Vec<u8>>, BodyError> {
    let mut body = Zeroizing::new(Vec::new());
    while let Some(chunk) = response.chunk().await.map_err(BodyError::Broken)? {
        if body.len().saturating_add(chunk.len()) > longest {
            return Err(BodyError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
