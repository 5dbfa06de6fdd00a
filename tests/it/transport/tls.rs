//! TLS on the gRPC port, and what happens when certificates change while calls are running.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use token_vault_proto::v1::WatchExpiryEventsRequest as Watch;
use token_vault_tests::certificates::{Authority, DAY, End, Pair, Secured, replace};
use token_vault_tests::prelude::*;
use token_vault_tests::tools::grpcurl;
use token_vault_tests::{Launch, Steady, eventually, eventually_async, seconds};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::client_certificates::mutual;

pub(super) const LIMIT: Duration = Duration::from_secs(30);
pub(super) const INGESTION: &str = "spiffe://acme/ingestion";

/// The admin, over TLS.
pub(super) fn admin(secured: &Secured, servers: &Authority) -> Caller {
    secured.world.admin().through(secured.channel(servers, None))
}

/// Asserts that there was no connection. With TLS 1.3, a client learns only afterwards that the vault rejected its
/// certificate, and its library reports that in several ways. The vault's own denials always have a reason.
#[track_caller]
pub(super) fn unheard<T: std::fmt::Debug>(outcome: Result<T, Denial>) {
    let no = outcome.expect_err("nobody answers");
    let broken = matches!(no.code(), Code::Unavailable | Code::Cancelled | Code::Unknown | Code::Internal);
    assert!(broken && no.reason().is_empty(), "{no:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_answered_over_tls() {
    let servers = Authority::new("servers");
    let secured = Secured::start(Backend::Sqlite, &servers.server(), None).await;
    let admin = admin(&secured, &servers);
    let id = admin.connect(ACME, &secured.world.person("ana").long_lived_token()).await;
    let secret = admin.secret(&id).await;
    assert!(secret.starts_with("EAA"));
    let feed = admin.watch(Watch::default()).await.expect("a watch goes over TLS too");
    drop(feed);
    let mut health = HealthClient::new(secured.channel(&servers, None));
    health.check(HealthCheckRequest::default()).await.expect("health is answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpcurl_lists_the_services_over_tls() {
    let servers = Authority::new("servers");
    let secured = Secured::start(Backend::Sqlite, &servers.server(), None).await;
    replace(&secured.file("roots.pem"), &servers.pem());
    let port = secured.world.process(|process| process.grpc()).port();
    let run = |flags: &[&str]| {
        let mut grpcurl = std::process::Command::new(grpcurl());
        grpcurl.args(["-max-time", "20"]).args(flags).arg(format!("localhost:{port}")).arg("list");
        grpcurl.output().expect("grpcurl runs")
    };
    let roots = secured.file("roots.pem").display().to_string();
    let listed = run(&["-cacert", &roots]);
    let names = String::from_utf8_lossy(&listed.stdout);
    assert!(names.contains("tokenvault.v1.TokenVault"), "{listed:?}");
    for flags in [&["-plaintext"][..], &[]] {
        let refused = run(flags);
        assert!(!refused.status.success(), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_speaks_plaintext_to_tls_or_tls_to_plaintext_fails_at_once_and_harms_nobody() {
    let servers = Authority::new("servers");
    let secured = Secured::start(Backend::Sqlite, &servers.server(), None).await;
    let began = Instant::now();
    // The caller gets a TLS alert, which it can't read as HTTP/2.
    unheard(secured.world.admin().list().await);
    admin(&secured, &servers).list().await.expect("others are answered");

    let plain = World::start(Backend::Sqlite).await;
    let secured = Secured { launch: plain.launch(), world: plain };
    unheard(admin(&secured, &servers).list().await);
    secured.world.admin().list().await.expect("others are answered");
    assert!(began.elapsed() < LIMIT, "it took {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_that_the_callers_roots_do_not_vouch_for_is_not_spoken_to() {
    let (servers, others) = (Authority::new("servers"), Authority::new("others"));
    let secured = Secured::start(Backend::Sqlite, &servers.server(), None).await;
    let admin = secured.world.admin();
    let wrong_root = admin.through(secured.channel(&others, None));
    assert_eq!(wrong_root.list().await.unwrap_err().code(), Code::Unavailable);
    let wrong_name = admin.through(secured.channel_trusting(&servers.pem(), "vault.example", None));
    assert_eq!(wrong_name.list().await.unwrap_err().code(), Code::Unavailable);
    admin.through(secured.channel(&servers, None)).list().await.expect("the right one is");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_server_certificate_is_met_without_a_restart_and_without_a_failed_call() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let secured = Secured::start(Backend::Sqlite, &old.server(), None).await;
    let both = format!("{}{}", old.pem(), new.pem());
    let endpoint = secured.channel_trusting(&both, "localhost", None);
    let patient = secured.world.admin().through(endpoint);
    let feed = patient.watch(Watch::default()).await.unwrap();
    let secured = Arc::new(secured);
    let steady = Steady::start({
        let secured = Arc::clone(&secured);
        move || secured.world.admin().through(secured.channel_trusting(&both, "localhost", None))
    });
    steady.goes_on(20).await;
    let to_new = || secured.world.admin().through(secured.channel(&new, None));
    assert_eq!(to_new().list().await.unwrap_err().code(), Code::Unavailable, "it is not there yet");
    secured.install(&new.server());
    eventually_async("the new certificate", LIMIT, async || to_new().list().await.ok()).await;
    let to_old = secured.world.admin().through(secured.channel(&old, None));
    assert_eq!(to_old.list().await.unwrap_err().code(), Code::Unavailable, "the old one is gone");
    steady.goes_on(20).await;
    patient.list().await.expect("a connection that was there stays");
    let before = feed.heartbeats();
    eventually("the watch goes on", LIMIT, || feed.heartbeats() > before);
    steady.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hangup_has_the_files_read_at_once_and_ends_nothing() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let secured = Secured::prepare(Backend::Sqlite, &old.server(), None).await;
    let secured = secured.set("server.tls.reload_interval", "1h");
    secured.serve();
    let hang_up = || {
        secured.world.process(|process| {
            let pid = rustix::process::Pid::from_raw(process.id().try_into().unwrap()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
        })
    };
    secured.install(&new.server());
    hang_up();
    let caller = secured.world.admin().through(secured.channel(&new, None));
    eventually_async("the new certificate", LIMIT, async || caller.list().await.ok()).await;

    let plain = World::start(Backend::Sqlite).await;
    let admin = plain.admin();
    plain.process(|process| {
        let pid = rustix::process::Pid::from_raw(process.id().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    });
    eventually("SIGHUP is told", LIMIT, || plain.logs().contains("SIGHUP: without TLS"));
    admin.list().await.expect("without TLS it ends nothing either");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_no_good_leave_the_old_certificate_and_are_named_in_the_log() {
    let servers = Authority::new("servers");
    let secured = Secured::start(Backend::Sqlite, &servers.server(), None).await;
    let log = || secured.world.process(|process| process.log());
    let logged =
        |what: &str| log().lines().filter(|line| line.contains("\"ERROR\"") && line.contains(what)).count();
    let call = async || admin(&secured, &servers).list().await;
    let good = servers.server();
    let stranger = servers.server();
    let cases: [(&str, &str, &str, &str); 4] = [
        ("tls.crt", "no certificate at all", "holds no certificate in PEM", "server.tls.cert_file"),
        (
            "tls.crt",
            &servers.server_until(End::Past).certificate,
            "holds a certificate that expired",
            "server.tls.cert_file",
        ),
        (
            "tls.key",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "tls.key",
            "server.tls.key_file",
        ),
        ("tls.key", &stranger.key, "does not fit the certificate", "server.tls.key_file"),
    ];
    for (file, text, why, key) in cases {
        let before = logged(why);
        replace(&secured.file(file), text);
        eventually(why, LIMIT, || logged(why) > before);
        assert!(log().lines().any(|line| line.contains(why) && line.contains(key) && line.contains(file)));
        call().await.expect("the old one stays in force");
        secured.install(&good);
        eventually_async("a good one is taken again", LIMIT, async || call().await.ok()).await;
    }
    fs::set_permissions(secured.file("tls.key"), fs::Permissions::from_mode(0o644)).unwrap();
    eventually("a key that others may read is told", LIMIT, || logged("chmod 600") > 0);
    fs::remove_file(secured.file("tls.crt")).unwrap();
    eventually("a file that is gone is told", LIMIT, || {
        logged("can't be read") > 0 || logged("chmod 600") > 0
    });
    call().await.expect("the old one stays in force");
    assert!(!log().contains("PRIVATE KEY"), "the key is not in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_with_files_that_are_no_good_is_refused_with_the_file_and_the_reason() {
    let servers = Authority::new("servers");
    let secured = Secured::prepare(Backend::Sqlite, &servers.server(), None).await;
    let refused = |why: &str| {
        let ended = secured.try_serve().expect_err(why);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(why) && ended.stderr.contains("server.tls."), "{}", ended.stderr);
        assert!(!ended.stderr.contains("PRIVATE KEY"), "{}", ended.stderr);
    };
    fs::set_permissions(secured.file("tls.key"), fs::Permissions::from_mode(0o604)).unwrap();
    refused("others may read");
    secured.install(&Pair { key: servers.server().key, ..servers.server() });
    refused("does not fit the certificate");
    secured.install(&servers.server_until(End::Past));
    refused("holds a certificate that expired");
    fs::remove_file(secured.file("tls.crt")).unwrap();
    refused("can't be read");
    secured.install(&servers.server_until(End::In(10 * DAY)));
    secured.serve();
    eventually("the end that is near is told", LIMIT, || {
        let log = secured.world.process(|process| process.log());
        log.lines()
            .any(|line| line.contains("expires soon") && line.contains("not_after") && line.contains("WARN"))
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn off_loopback_nothing_is_served_in_the_clear_unless_told() {
    let world = World::builder(Backend::Sqlite).prepare().await;
    let refused = |launch: Launch, words: &str| {
        let ended = launch.run();
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    };
    let open = |launch: Launch| launch.arg("--listen").arg("0.0.0.0:0");
    // The usual launch of the world sets the address by a flag, which would win over the environment.
    let data = world.data();
    let bare = || Launch::new(["serve", "--data-dir"]).arg(&data);
    refused(open(bare()), "server.tls.cert_file");
    refused(bare().env("TOKEN_VAULT__SERVER__ADMIN_LISTEN", "0.0.0.0:0"), "server.allow_remote_admin");
    let allowed = open(bare())
        .env("TOKEN_VAULT__SERVER__ALLOW_PLAINTEXT", "true")
        .env("TOKEN_VAULT__SERVER__ADMIN_LISTEN", "0.0.0.0:0")
        .env("TOKEN_VAULT__SERVER__ALLOW_REMOTE_ADMIN", "true")
        .env("TOKEN_VAULT__LOG__FORMAT", "json");
    world.try_start_as(&allowed).expect("told in so many words, it starts");
    assert!(world.logs().contains("in the clear"), "and says what that means");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_end_at_their_age_without_a_failed_call_and_watches_are_told_to_resume() {
    let servers = Authority::new("servers");
    let secured = Secured::prepare(Backend::Sqlite, &servers.server(), None).await;
    let secured = secured.set("server.limits.max_connection_age", "1s");
    secured.serve();
    let secured = Arc::new(secured);
    let watcher = admin(&secured, &servers);
    let feed = watcher.watch(Watch { heartbeat_interval: seconds(1), ..Watch::default() }).await.unwrap();
    let began = Instant::now();
    let stays = admin(&secured, &servers);
    let (mut calls, mut unsent) = (0, 0);
    while began.elapsed() < Duration::from_secs(4) {
        match stays.list().await {
            Ok(_) => calls += 1,
            // This error is the library's own: it had queued the call on a connection that was about to close, and
            // never sent it.
            Err(no) => {
                unheard(Err::<(), _>(no));
                unsent += 1;
            }
        }
    }
    assert!(calls > 10 && unsent <= 5, "{calls} calls, {unsent} of them never sent");
    let end = feed.ended().await.expect("an error tells why");
    end.is(Code::Unavailable, Reason::ShuttingDown).has_retry().words("Resume");
    watcher.watch(Watch::default()).await.expect("it resumes over a new connection");
}

/// Does one handshake with these versions and ALPN protocols, and returns its outcome.
async fn shake(
    secured: &Secured,
    config: &Arc<rustls::ClientConfig>,
) -> std::io::Result<(Option<rustls::HandshakeKind>, Option<Vec<u8>>)> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = secured.world.process(|process| process.grpc());
    let socket = tokio::net::TcpStream::connect(address).await?;
    let name = "localhost".try_into().expect("a name");
    let mut stream = tokio_rustls::TlsConnector::from(Arc::clone(config)).connect(name, socket).await?;
    // Send the beginning of HTTP/2, so that everything that the vault sends after the handshake has arrived, including
    // tickets.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    stream.read_exact(&mut [0; 9]).await?;
    let session = stream.get_ref().1;
    Ok((session.handshake_kind(), session.alpn_protocol().map(<[u8]>::to_vec)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_1_2_or_1_3_for_http2_only_and_no_session_is_resumed_unverified() {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let servers = Authority::new("servers");
    let secured = Secured::start(Backend::Sqlite, &servers.server(), None).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(servers.pem().as_bytes()).unwrap()).unwrap();
    let client = |versions: &[&'static rustls::SupportedProtocolVersion], protocols: &[&[u8]]| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider);
        let config = config.with_protocol_versions(versions).unwrap().with_root_certificates(roots.clone());
        let mut config = config.with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    };
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = client(&[version], &[b"http/1.1", b"h2"]);
        for _ in 0..2 {
            let (kind, protocol) = shake(&secured, &config).await.expect("a handshake");
            assert_eq!(kind, Some(rustls::HandshakeKind::Full), "{version:?}");
            assert_eq!(protocol.as_deref(), Some(&b"h2"[..]));
        }
        let no = shake(&secured, &client(&[version], &[b"http/1.1"])).await.unwrap_err();
        assert!(no.to_string().contains("NoApplicationProtocol"), "{no}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_speak_tls_and_show_certificates() {
    let (secured, servers, clients) = mutual(Backend::Sqlite, "required").await;
    let ops = clients.client(&["ops.acme.example"]);
    replace(&secured.file("roots.pem"), &servers.pem());
    replace(&secured.file("ops.crt"), &ops.certificate);
    replace(&secured.file("ops.key"), &ops.key);
    let path = |name: &str| secured.file(name).display().to_string();
    let port = secured.world.process(|process| process.grpc()).port();
    let run = |words: &[&str], with: &[(&str, &str)]| {
        let mut launch =
            Launch::new(words.iter().copied()).arg("--endpoint").arg(format!("https://localhost:{port}"));
        for (flag, file) in with {
            launch = launch.arg(format!("--{flag}")).arg(path(file));
        }
        launch.run()
    };
    let all = [("ca-file", "roots.pem"), ("client-cert", "ops.crt"), ("client-key", "ops.key")];
    let health = run(&["healthcheck"], &all);
    assert_eq!((health.code, health.stdout.trim()), (Some(0), "SERVING"), "{health:?}");
    let keys = run(&["api-key", "list"], &all);
    assert_eq!(keys.code, Some(0), "a certificate needs no key: {keys:?}");
    for part in [&all[..1], &all[1..]] {
        let ended = run(&["healthcheck"], part);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let words = ["cannot reach the vault", "the connection to the vault broke"];
        assert!(words.iter().any(|words| ended.stderr.contains(words)), "{ended:?}");
    }
    let half = run(&["healthcheck"], &all[..2]);
    assert_eq!(half.code, Some(2), "{half:?}");
    let plain = Launch::new(["healthcheck", "--endpoint", "http://127.0.0.1:1", "--ca-file", "x"]).run();
    assert_eq!(plain.code, Some(2), "{plain:?}");
}
