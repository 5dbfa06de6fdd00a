//! The certificate of the portal. It comes from files, which are read again when they change: the next connection uses
//! the new ones. While they are invalid, the old ones stay in force.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::config::TlsFiles;
use crate::listener::PortalError;

const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

struct Content {
    cert: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

pub(crate) struct Tls {
    files: TlsFiles,
    current: RwLock<Arc<ServerConfig>>,
    /// What was read last, valid or not, so that each content is judged and logged once.
    seen: RwLock<Content>,
}

impl Tls {
    pub(crate) fn load(files: TlsFiles) -> Result<Self, PortalError> {
        let content = read(&files)?;
        let current = RwLock::new(Arc::new(build(&files, &content)?));
        Ok(Self { files, current, seen: RwLock::new(content) })
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read())
    }

    pub(crate) async fn reload_until(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.files.reload_interval.max(SHORTEST_INTERVAL)) => {}
                () = stop.cancelled() => return,
            }
            let this = Arc::clone(&self);
            // Files may lie on a slow disk. A panic in there is one of this check alone.
            if let Ok(Err(error)) = tokio::task::spawn_blocking(move || this.reload()).await {
                tracing::warn!(%error, "the portal's certificate can't be reloaded, so the old one stays in force");
            }
        }
    }

    pub(crate) fn reload(&self) -> Result<(), PortalError> {
        let content = read(&self.files)?;
        {
            let seen = self.seen.read();
            if seen.cert == content.cert && *seen.key == *content.key {
                return Ok(());
            }
        }
        let built = build(&self.files, &content);
        *self.seen.write() = content;
        *self.current.write() = Arc::new(built?);
        tracing::info!("the portal's certificate was reloaded");
        Ok(())
    }
}

fn read(files: &TlsFiles) -> Result<Content, PortalError> {
    let read =
        |file: &Path| fs::read(file).map_err(|error| problem(file, format!("cannot be read: {error}")));
    Ok(Content { cert: read(&files.cert_file)?, key: Zeroizing::new(read(&files.key_file)?) })
}

fn build(files: &TlsFiles, content: &Content) -> Result<ServerConfig, PortalError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content.cert).collect();
    let chain = chain
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or_else(|| problem(&files.cert_file, "holds no certificate in PEM"))?;
    let key = PrivateKeyDer::from_pem_slice(&content.key)
        .map_err(|_| problem(&files.key_file, "holds no private key in PEM"))?;
    // The provider is named, because the process may not have chosen one.
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| problem(&files.cert_file, format!("can't be used: {error}")))?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).map_err(|error| {
        problem(
            &files.key_file,
            format!("does not fit the certificate in {}: {error}", files.cert_file.display()),
        )
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn problem(file: &Path, why: impl Into<String>) -> PortalError {
    PortalError::Tls { file: file.to_owned(), why: why.into() }
}
