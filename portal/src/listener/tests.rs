use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::*;
use crate::config::TlsFiles;
use crate::config::tests::config;

const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

struct Served {
    address: SocketAddr,
    stop: CancellationToken,
    done: JoinHandle<Result<(), PortalError>>,
}

async fn start(config: PortalConfig) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let done = tokio::spawn(serve(config, listener, stop.clone()));
    Served { address, stop, done }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
    stream.write_all(REQUEST).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

fn write_certificate(folder: &Path) -> TlsFiles {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = TlsFiles {
        cert_file: folder.join("cert.pem"),
        key_file: folder.join("key.pem"),
        reload_interval: Duration::from_secs(1),
    };
    std::fs::write(&files.cert_file, made.cert.pem()).unwrap();
    std::fs::write(&files.key_file, made.signing_key.serialize_pem()).unwrap();
    files
}

async fn answer_over_tls(address: SocketAddr, cert_file: &Path) -> io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cert_file).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let client = client.with_root_certificates(roots).with_no_client_auth();
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    Ok(answer(TlsConnector::from(Arc::new(client)).connect(name, socket).await?).await)
}

#[tokio::test]
async fn it_serves_until_it_is_stopped() {
    let served = start(config("http://127.0.0.1:8080")).await;
    let text = answer(TcpStream::connect(served.address).await.unwrap()).await;
    assert!(text.starts_with("HTTP/1.1 200 OK") && text.ends_with("alive\n"), "{text}");
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    idle.write_all(b"GET /he").await.unwrap();
    served.stop.cancel();
    assert!(served.done.await.unwrap().is_ok());
    assert!(TcpStream::connect(served.address).await.is_err());
}

#[tokio::test]
async fn who_says_nothing_is_cut_off() {
    let mut config = config("http://127.0.0.1:8080");
    config.limits.read_timeout = Duration::from_millis(50);
    config.limits.max_connections = 1;
    let served = start(config).await;
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    silent.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let mut text = String::new();
    // Either the end, or an answer that says so, and then the end.
    let _ = silent.read_to_string(&mut text).await;
    assert!(!text.contains("200"), "{text}");
    let text = answer(TcpStream::connect(served.address).await.unwrap()).await;
    assert!(text.starts_with("HTTP/1.1 200 OK"), "there is room again: {text}");
}

#[tokio::test]
async fn a_new_certificate_is_taken_without_a_restart() {
    let folder = TempDir::new().unwrap();
    let files = write_certificate(folder.path());
    let tls = Tls::load(files.clone()).unwrap();
    let first = tls.config();
    std::fs::write(&files.key_file, "nonsense").unwrap();
    assert!(tls.reload().is_err());
    assert!(tls.reload().is_ok(), "the same content is judged once");
    assert!(Arc::ptr_eq(&first, &tls.config()), "the old one stays in force");
    write_certificate(folder.path());
    tls.reload().unwrap();
    assert!(!Arc::ptr_eq(&first, &tls.config()));
}

#[tokio::test]
async fn tls_is_spoken_with_the_configured_certificate() {
    let (folder, foreign) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let files = write_certificate(folder.path());
    let served = start(PortalConfig { tls: Some(files.clone()), ..config("https://connect.example") }).await;
    let text = answer_over_tls(served.address, &files.cert_file).await.unwrap();
    assert!(text.contains("strict-transport-security") && text.ends_with("alive\n"), "{text}");
    let other = write_certificate(foreign.path());
    assert!(answer_over_tls(served.address, &other.cert_file).await.is_err());
}

#[tokio::test]
async fn what_is_wrong_with_a_file_is_said() {
    let folder = TempDir::new().unwrap();
    let files = write_certificate(folder.path());
    for (change, expected) in [
        (TlsFiles { key_file: folder.path().join("none"), ..files.clone() }, "cannot be read"),
        (TlsFiles { key_file: files.cert_file.clone(), ..files.clone() }, "holds no private key in PEM"),
        (TlsFiles { cert_file: files.key_file.clone(), ..files.clone() }, "holds no certificate in PEM"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = PortalConfig { tls: Some(change), ..config("https://connect.example") };
        let error = serve(config, listener, CancellationToken::new()).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
