//! Certificates for tests, and a vault that uses them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::prelude::*;
use crate::{Ended, Launch};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

pub struct Authority(CertifiedIssuer<'static, KeyPair>);

pub const DAY: Duration = Duration::from_secs(86_400);

#[derive(Debug, Clone, Copy)]
pub enum End {
    Far,
    In(Duration),
    Past,
}

/// A certificate and its key, in PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a root"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self, names: &[&str], usage: ExtendedKeyUsagePurpose, end: End) -> Pair {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names
            .iter()
            .map(|name| match name.contains("://") {
                true => SanType::URI((*name).try_into().expect("ASCII")),
                false => SanType::DnsName((*name).try_into().expect("ASCII")),
            })
            .collect();
        params.extended_key_usages = vec![usage];
        let now = rcgen::date_time_ymd(1970, 1, 1) + std::time::UNIX_EPOCH.elapsed().expect("after 1970");
        match end {
            End::Far => {}
            End::In(time) => params.not_after = now + time,
            End::Past => params.not_after = now - DAY,
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// A certificate for a server on this machine.
    pub fn server(&self) -> Pair {
        self.server_until(End::Far)
    }

    pub fn server_named(&self, names: &[&str]) -> Pair {
        self.issue(names, ExtendedKeyUsagePurpose::ServerAuth, End::Far)
    }

    pub fn server_until(&self, end: End) -> Pair {
        self.issue(&["localhost"], ExtendedKeyUsagePurpose::ServerAuth, end)
    }

    /// A certificate for a client with these names.
    pub fn client(&self, names: &[&str]) -> Pair {
        self.client_until(names, End::Far)
    }

    pub fn client_until(&self, names: &[&str], end: End) -> Pair {
        self.issue(names, ExtendedKeyUsagePurpose::ClientAuth, end)
    }
}

/// A vault with TLS, whose files are in its test's folder.
pub struct Secured {
    pub world: World,
    pub launch: Launch,
}

impl Secured {
    /// Prepares everything, but does not start the vault. `clients`: the authority of clients' certificates, and
    /// whether clients must send one.
    pub async fn prepare(backend: Backend, server: &Pair, clients: Option<(&Authority, &str)>) -> Self {
        let world = World::builder(backend).prepare().await;
        let key = |name: &str| format!("TOKEN_VAULT__SERVER__TLS__{name}");
        let path = |name: &str| world.folder().join(name).display().to_string();
        let mut launch = world
            .launch()
            .env(&key("CERT_FILE"), path("tls.crt"))
            .env(&key("KEY_FILE"), path("tls.key"))
            .env(&key("RELOAD_INTERVAL"), "100ms");
        if let Some((authority, client_auth)) = clients {
            fs::write(world.folder().join("clients.pem"), authority.pem()).expect("the folder is writable");
            launch =
                launch.env(&key("CLIENT_CA_FILE"), path("clients.pem")).env(&key("CLIENT_AUTH"), client_auth);
        }
        let secured = Self { world, launch };
        secured.install(server);
        secured
    }

    /// Prepares everything, and starts the vault.
    pub async fn start(backend: Backend, server: &Pair, clients: Option<(&Authority, &str)>) -> Self {
        let secured = Self::prepare(backend, server, clients).await;
        secured.serve();
        secured
    }

    /// Adds a setting.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        let name = format!("TOKEN_VAULT__{}", key.replace('.', "__").to_uppercase());
        self.launch = self.launch.env(&name, value);
        self
    }

    pub fn serve(&self) {
        self.try_serve().expect("the vault starts");
    }

    pub fn try_serve(&self) -> Result<(), Ended> {
        self.world.try_start_as(&self.launch)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.world.folder().join(name)
    }

    /// Replaces the certificate and the key, each in one step.
    pub fn install(&self, pair: &Pair) {
        replace(&self.file("tls.key"), &pair.key);
        replace(&self.file("tls.crt"), &pair.certificate);
    }

    /// A connection that trusts `authority`, made when first used.
    pub fn channel(&self, authority: &Authority, identity: Option<&Pair>) -> Channel {
        self.channel_trusting(&authority.pem(), "localhost", identity)
    }

    pub fn channel_trusting(&self, roots: &str, name: &str, identity: Option<&Pair>) -> Channel {
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(roots)).domain_name(name);
        if let Some(pair) = identity {
            tls = tls.identity(Identity::from_pem(&pair.certificate, &pair.key));
        }
        let endpoint = self.world.endpoint().replace("http://", "https://");
        let endpoint = Endpoint::from_shared(endpoint).expect("a good URL");
        endpoint.tls_config(tls).expect("good certificates").connect_lazy()
    }
}

/// Writes a file that only its owner may read, in one step.
pub fn replace(file: &Path, text: &str) {
    let fresh = file.with_extension("fresh");
    fs::write(&fresh, text).expect("the folder is writable");
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).expect("a mode can be set");
    fs::rename(&fresh, file).expect("within one folder");
}
