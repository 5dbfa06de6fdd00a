//! TLS as the client's builder sets it up.

use std::fs;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tempfile::TempDir;
use token_vault_client::v1::GetTokenRequest;
use token_vault_client::{ErrorKind, Vault};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use crate::key;
use crate::scripted::Scripted;

/// A root, the vault's certificate for `localhost`, and a client's, whose files are in `folder`.
struct Certificates {
    folder: TempDir,
    root: String,
    server: Identity,
}

impl Certificates {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let issue = |usage| {
            let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
            params.extended_key_usages = vec![usage];
            let key = KeyPair::generate().unwrap();
            (params.signed_by(&key, &root).unwrap().pem(), key.serialize_pem())
        };
        let (server, server_key) = issue(ExtendedKeyUsagePurpose::ServerAuth);
        let (client, client_key) = issue(ExtendedKeyUsagePurpose::ClientAuth);
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("ca.crt", &root.pem()), ("me.crt", &client), ("me.key", &client_key)] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        Self { folder, root: root.pem(), server: Identity::from_pem(server, server_key) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn server(&self) -> ServerTlsConfig {
        ServerTlsConfig::new().identity(self.server.clone())
    }
}

#[tokio::test]
async fn a_vault_is_called_over_tls_when_the_given_roots_vouch_for_it() {
    let ours = Certificates::new();
    let scripted = Scripted::start_with(ours.server()).await;
    let builder = || Vault::builder(&scripted.url, key()).max_retries(0);
    let vault = builder().ca_file(ours.file("ca.crt")).connect().await.unwrap();
    vault.get_token(GetTokenRequest::default()).await.unwrap();
    assert_eq!(scripted.calls()[0].authorization, "Bearer tva_test");

    let others = Certificates::new();
    let wrong_name = builder().ca_file(ours.file("ca.crt")).domain_name("vault.example");
    for wrong in [builder().ca_file(others.file("ca.crt")), builder(), wrong_name] {
        let error = wrong.connect().await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::RetryAfter(_)), "{error:?}");
    }
    assert_eq!(scripted.calls().len(), 1, "nothing was said to a vault that nobody vouches for");
}

#[tokio::test]
async fn a_client_with_a_certificate_needs_no_key() {
    let ours = Certificates::new();
    let tls = ours.server().client_ca_root(Certificate::from_pem(&ours.root));
    let scripted = Scripted::start_with(tls).await;
    let with = Vault::builder_without_key(&scripted.url)
        .ca_file(ours.file("ca.crt"))
        .identity_files(ours.file("me.crt"), ours.file("me.key"));
    with.connect().await.unwrap().get_token(GetTokenRequest::default()).await.unwrap();
    assert_eq!(scripted.calls()[0].authorization, "");
    let without = Vault::builder(&scripted.url, key()).ca_file(ours.file("ca.crt")).max_retries(0);
    let outcome = match without.connect().await {
        Ok(vault) => vault.get_token(GetTokenRequest::default()).await.map(drop),
        Err(error) => Err(error),
    };
    assert!(matches!(outcome.unwrap_err().kind(), ErrorKind::RetryAfter(_)));
    assert_eq!(scripted.calls().len(), 1);
}

#[tokio::test]
async fn an_invalid_tls_setting_is_the_callers_bug() {
    let ours = Certificates::new();
    let secured = || Vault::builder("https://localhost:1", key());
    let cases = [
        Vault::builder("http://localhost:1", key()).ca_file(ours.file("ca.crt")),
        secured().ca_file(ours.file("absent")),
        secured().ca_file(ours.file("ca.crt")).identity_files(ours.file("me.crt"), ours.file("absent")),
        secured().ca_file(ours.file("ca.crt")).identity_files(ours.file("me.key"), ours.file("me.crt")),
        Vault::builder_without_key("https://localhost:1").ca_file(ours.file("ca.crt")),
    ];
    for (number, case) in cases.into_iter().enumerate() {
        let error = case.connect_lazy().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::YourBug(_)), "{number}: {error:?}");
        assert!(!format!("{error:?}").contains("PRIVATE KEY"));
    }
}
