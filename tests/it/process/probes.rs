//! The probes: liveness is the process alone, readiness is whether calls are answered, and the command that asks for
//! them finds the vault in every configuration.

use std::net::TcpListener;

use token_vault_tests::certificates::{Authority, replace};
use token_vault_tests::prelude::*;
use token_vault_tests::{Ended, Launch};

use super::lifecycle::probe;

/// A port at which nothing listens.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn key(name: &str) -> String {
    format!("TOKEN_VAULT__{}", name.replace('.', "__").to_uppercase())
}

fn asked(launch: &Launch, words: &[&str]) -> Ended {
    launch.clone().instead(words.iter().copied()).run()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_health_check_finds_the_vault_by_its_configuration_alone() {
    let servers = Authority::new("servers");
    let pair = servers.server();
    let tls = [("server.tls.cert_file", "vault.crt"), ("server.tls.key_file", "vault.key")];
    let mutual =
        [tls[0], tls[1], ("server.tls.client_auth", "required"), ("server.tls.client_ca_file", "ca.crt")];
    let (plain, remote) = ([("server.allow_plaintext", "true")], [("server.allow_remote_admin", "true")]);
    let cases = [
        ("127.0.0.1", "127.0.0.1", &tls[..0]),
        ("0.0.0.0", "127.0.0.1", &tls[..]),
        ("0.0.0.0", "127.0.0.1", &mutual[..]),
        ("0.0.0.0", "127.0.0.1", &plain[..]),
        ("127.0.0.1", "0.0.0.0", &remote[..]),
    ];
    for (host, admin, settings) in cases {
        let world = World::builder(Backend::Sqlite).prepare().await;
        for (name, text) in
            [("vault.crt", &pair.certificate), ("vault.key", &pair.key), ("ca.crt", &servers.pem())]
        {
            replace(&world.folder().join(name), text);
        }
        let mut launch = world
            .launch()
            .env(&key("server.listen"), format!("{host}:{}", free_port()))
            .env(&key("server.admin_listen"), format!("{admin}:{}", free_port()));
        for (name, value) in settings {
            let file = world.folder().join(value);
            let value = if file.exists() { file.display().to_string() } else { (*value).to_owned() };
            launch = launch.env(&key(name), value);
        }
        let before = asked(&launch, &["healthcheck", "--live"]);
        assert!(before.code == Some(1) && before.stderr.contains("cannot reach"), "{before:?}");
        world.try_start_as(&launch).expect("it starts");
        for (words, said) in [
            (&["healthcheck"][..], "SERVING"),
            (&["healthcheck", "--ready"], "SERVING"),
            (&["healthcheck", "--live"], "ALIVE"),
        ] {
            let well = asked(&launch, words);
            assert_eq!((well.code, well.stdout.trim()), (Some(0), said), "{host} {settings:?}: {well:?}");
        }
        world.stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_name_in_the_certificate_can_come_from_the_environment() {
    let servers = Authority::new("servers");
    let pair = servers.server_named(&["vault.example"]);
    let world = World::builder(Backend::Sqlite).prepare().await;
    let file = |name: &str, text: &str| {
        replace(&world.folder().join(name), text);
        world.folder().join(name).display().to_string()
    };
    let roots = file("ca.crt", &servers.pem());
    let launch = world
        .launch()
        .env(&key("server.tls.cert_file"), file("vault.crt", &pair.certificate))
        .env(&key("server.tls.key_file"), file("vault.key", &pair.key));
    world.try_start_as(&launch).expect("it starts");
    let endpoint = format!("https://{}", world.process(|process| process.grpc()));
    let check =
        Launch::new(["healthcheck"]).env("TOKEN_VAULT_ENDPOINT", endpoint).env("TOKEN_VAULT_CA_FILE", roots);
    let unnamed = check.run();
    assert!(unnamed.code == Some(1) && unnamed.stderr.contains("--domain-name"), "{unnamed:?}");
    let named = check.env("TOKEN_VAULT_DOMAIN_NAME", "vault.example").run();
    assert_eq!((named.code, named.stdout.trim()), (Some(0), "SERVING"), "{named:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_that_answers_no_calls_lives_and_is_not_ready() {
    let world = World::builder(Backend::Sqlite).prepare().await;
    // Every write to this file fails as on a full disk.
    let log = world.folder().join("audit.jsonl");
    std::os::unix::fs::symlink("/dev/full", &log).unwrap();
    let launch = world
        .launch()
        .env(&key("audit.file"), log.display().to_string())
        .env(&key("server.admin_listen"), format!("127.0.0.1:{}", free_port()));
    world.try_start_as(&launch).expect("a full disk is no reason not to start");
    assert!(probe(&world, "/livez").await.contains("200"));
    assert!(probe(&world, "/healthz").await.contains("200"), "the older name of the same");
    assert!(probe(&world, "/readyz").await.contains("503"));
    let live = asked(&launch, &["healthcheck", "--live"]);
    assert_eq!((live.code, live.stdout.trim()), (Some(0), "ALIVE"), "{live:?}");
    for words in [&["healthcheck"][..], &["healthcheck", "--ready"]] {
        let ready = asked(&launch, words);
        assert!(ready.code == Some(1) && ready.stderr.contains("NOT_SERVING"), "{ready:?}");
    }
    let grpc = format!("http://{}", world.process(|process| process.grpc()));
    let elsewhere = Launch::new(["healthcheck", "--live", "--endpoint", grpc.as_str()]).run();
    assert_eq!((elsewhere.code, elsewhere.stdout.trim()), (Some(0), "ALIVE"), "{elsewhere:?}");
    let both = asked(&launch, &["healthcheck", "--live", "--ready"]);
    assert_eq!(both.code, Some(2), "{both:?}");
    assert!(world.admin().list().await.is_ok(), "it serves what it may");
}
