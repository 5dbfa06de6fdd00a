//! TLS of the gRPC port. Certificate, key and client CA come from files, which are reloaded when they change: open
//! connections keep what they have, and the next connection uses the new files. While the files are invalid, the old
//! ones stay in force.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;
use zeroize::Zeroizing;

use crate::model::{CertificateName, ClientCertificate, Clock, Timestamp, exposure_of, shown_path};

/// A certificate that expires sooner than this is warned about, at start and once a day.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Whether clients present a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// Clients are not asked for one.
    None,
    /// Clients may present one, which must be valid.
    Optional,
    /// Clients must present one, even for health and reflection.
    Required,
}

/// The configuration below `server.tls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM: the server's certificate, then the intermediate certificates.
    pub cert_file: PathBuf,
    /// PEM: the private key, which other users must not be able to read.
    pub key_file: PathBuf,
    /// PEM: the roots of clients' certificates. Required when clients are asked for one.
    pub client_ca_file: Option<PathBuf>,
    /// Whether clients are asked for a certificate.
    pub client_auth: ClientAuth,
    /// How often the files are checked for changes.
    pub reload_interval: Duration,
}

/// What is wrong with a file, and which configuration key names it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} names {}, which {why}", shown_path(file))]
pub struct TlsProblem {
    key: &'static str,
    file: PathBuf,
    why: String,
}

struct Content {
    cert: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    ca: Vec<u8>,
}

struct Current {
    config: Arc<ServerConfig>,
    not_after: Timestamp,
}

/// The TLS configuration in force, and the files that it came from.
pub struct Tls {
    files: TlsFiles,
    current: RwLock<Current>,
    /// Digest of the content that was last checked, valid or not, so that each content is checked and logged once.
    seen: Mutex<[u8; 32]>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl TlsFiles {
    const CERT: &'static str = "server.tls.cert_file";
    const KEY: &'static str = "server.tls.key_file";
    const CA: &'static str = "server.tls.client_ca_file";

    fn read(&self) -> Result<Content, TlsProblem> {
        let key = read(Self::KEY, &self.key_file)?;
        if let Some(why) = exposure_of(&self.key_file) {
            return Err(problem(Self::KEY, &self.key_file, format!("is refused: {why}")));
        }
        let ca = match &self.client_ca_file {
            Some(file) if self.client_auth != ClientAuth::None => read(Self::CA, file)?,
            _ => Vec::new(),
        };
        Ok(Content { cert: read(Self::CERT, &self.cert_file)?, key: Zeroizing::new(key), ca })
    }

    fn check(&self, content: &Content) -> Result<Current, TlsProblem> {
        let chain = certificates(Self::CERT, &self.cert_file, &content.cert)?;
        let leaf = chain.first().map(|leaf| facts(leaf.as_ref()));
        let leaf = leaf.flatten().ok_or_else(|| {
            problem(Self::CERT, &self.cert_file, "holds no certificate that can be parsed".to_owned())
        })?;
        if leaf.not_after <= Clock::system().now() {
            let why = format!("holds a certificate that expired at {}", leaf.not_after);
            return Err(problem(Self::CERT, &self.cert_file, why));
        }
        let key = PrivateKeyDer::from_pem_slice(&content.key)
            .map_err(|_| problem(Self::KEY, &self.key_file, "holds no private key in PEM".to_owned()))?;
        let config = match &self.client_ca_file {
            Some(file) if self.client_auth != ClientAuth::None => {
                let mut roots = RootCertStore::empty();
                for root in certificates(Self::CA, file, &content.ca)? {
                    roots.add(root).map_err(|error| {
                        problem(Self::CA, file, format!("holds an invalid root: {error}"))
                    })?;
                }
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots));
                let verifier = match self.client_auth {
                    ClientAuth::Required => verifier,
                    ClientAuth::Optional | ClientAuth::None => verifier.allow_unauthenticated(),
                };
                let verifier = verifier
                    .build()
                    .map_err(|error| problem(Self::CA, file, format!("can't be used: {error}")))?;
                ServerConfig::builder().with_client_cert_verifier(verifier)
            }
            _ => ServerConfig::builder().with_no_client_auth(),
        };
        let mut config = config.with_single_cert(chain, key).map_err(|error| {
            let why = format!("does not fit the certificate in {}: {error}", self.cert_file.display());
            problem(Self::KEY, &self.key_file, why)
        })?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session is not verified again, so it could outlive the CA that signed its certificate.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Current { config: Arc::new(config), not_after: leaf.not_after })
    }
}

impl Content {
    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for part in [&self.cert, &*self.key, &self.ca] {
            digest.update(Sha256::digest(part));
        }
        digest.finalize().into()
    }
}

impl Tls {
    /// Reads and checks the files.
    pub fn load(files: TlsFiles) -> Result<Self, TlsProblem> {
        let content = files.read()?;
        let current = files.check(&content)?;
        log_in_force(&files, current.not_after);
        Ok(Self { files, current: RwLock::new(current), seen: Mutex::new(content.digest()) })
    }

    /// The configuration for a new connection.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().config)
    }

    /// Reads the files, and puts them in force if they are new and valid.
    fn reload(&self) {
        let read = self.files.read();
        let digest = match &read {
            Ok(content) => content.digest(),
            Err(problem) => Sha256::digest(problem.to_string()).into(),
        };
        {
            let mut seen = self.seen.lock();
            if *seen == digest {
                return;
            }
            *seen = digest;
        }
        match read.and_then(|content| self.files.check(&content)) {
            Ok(current) => {
                log_in_force(&self.files, current.not_after);
                *self.current.write() = current;
            }
            Err(problem) => {
                tracing::error!(file = %problem.file.display(), "{problem}; the old certificate stays in force");
            }
        }
    }

    /// Reloads the files at each interval, and at once when `asked`, until `stop`.
    pub async fn follow(
        self: Arc<Self>,
        mut asked: tokio::sync::mpsc::Receiver<()>,
        stop: CancellationToken,
    ) {
        let mut warned = Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.files.reload_interval) => {}
                Some(()) = asked.recv() => tracing::info!("asked to reload the TLS files"),
                () = stop.cancelled() => return,
            }
            let tls = Arc::clone(&self);
            if let Err(error) = tokio::task::spawn_blocking(move || tls.reload()).await {
                tracing::error!(%error, "the TLS files could not be checked");
            }
            if warned.elapsed() >= DAY {
                warned = Instant::now();
                let not_after = self.current.read().not_after;
                warn_of_expiry(&self.files, not_after);
            }
        }
    }
}

fn log_in_force(files: &TlsFiles, not_after: Timestamp) {
    tracing::info!(file = %files.cert_file.display(), %not_after, "TLS certificate in force");
    warn_of_expiry(files, not_after);
}

fn warn_of_expiry(files: &TlsFiles, not_after: Timestamp) {
    let now = Clock::system().now();
    if not_after <= now + EXPIRES_SOON {
        let days_left = not_after.since(now).as_secs() / DAY.as_secs();
        tracing::warn!(file = %files.cert_file.display(), %not_after, days_left, "the TLS certificate expires soon: renew it");
    }
}

fn problem(key: &'static str, file: &Path, why: String) -> TlsProblem {
    TlsProblem { key, file: file.to_owned(), why }
}

fn read(key: &'static str, file: &Path) -> Result<Vec<u8>, TlsProblem> {
    fs::read(file).map_err(|error| problem(key, file, format!("can't be read: {error}")))
}

fn certificates(
    key: &'static str,
    file: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsProblem> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(problem(key, file, "holds no certificate in PEM".to_owned())),
        Err(error) => Err(problem(key, file, format!("is not PEM: {error}"))),
    }
}

/// The names and the expiry of a certificate.
pub(in crate::api) fn facts(der: &[u8]) -> Option<ClientCertificate> {
    let (_, certificate) = parse_x509_certificate(der).ok()?;
    let names = match certificate.subject_alternative_name() {
        Ok(Some(extension)) => extension.value.general_names.iter().filter_map(name).collect(),
        Ok(None) => Vec::new(),
        Err(_) => return None,
    };
    let not_after = Timestamp::from_unix_seconds(certificate.validity().not_after.timestamp());
    Some(ClientCertificate { names, not_after })
}

fn name(name: &GeneralName<'_>) -> Option<CertificateName> {
    match name {
        GeneralName::URI(uri) => Some(CertificateName::Uri((*uri).to_owned())),
        GeneralName::DNSName(dns) => Some(CertificateName::dns(dns)),
        _ => None,
    }
}
