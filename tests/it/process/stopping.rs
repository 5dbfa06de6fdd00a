//! A stop takes no longer than the documents say, whatever a client, a provider or the database does meanwhile.

use std::time::{Duration, Instant};

use token_vault_tests::http2::{Frozen, PREFACE, SETTINGS};
use token_vault_tests::prelude::*;
use token_vault_tests::{Cluster, Launch, Process, eventually};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// The time that README.md and docs/operating.md promise, which is less than Docker's ten seconds.
const PROMISED: Duration = Duration::from_secs(8);
const LIMIT: Duration = Duration::from_secs(60);

/// Ends the vault by SIGTERM: within the promised time, and with the exit code zero.
fn stops_in_time(world: &World) {
    let begun = Instant::now();
    world.stop();
    let took = begun.elapsed();
    assert!(took < PROMISED, "{took:?}:\n{}", world.logs());
}

async fn frozen(world: &World) -> Frozen {
    Frozen::greet(world.process(|process| process.grpc())).await
}

async fn connection(world: &World) -> TcpStream {
    TcpStream::connect(world.process(|process| process.grpc())).await.expect("the vault accepts")
}

fn hang(world: &World, endpoint: Endpoint) {
    world.sandbox.fault(Fault::on(endpoint).always().with(FaultKind::Hang));
}

on_both_databases! {
    async fn a_stop_waits_for_no_connection_that_says_nothing(world: World) {
        let silent = connection(&world).await;
        let mut begun = connection(&world).await;
        begun.write_all(&PREFACE[..10]).await.unwrap();
        let mut greeted = connection(&world).await;
        greeted.write_all(&[PREFACE, SETTINGS].concat()).await.unwrap();
        // Connections are accepted one after the other, so that those before this caller's are known by now.
        world.viewer().await.list().await.unwrap();
        stops_in_time(&world);
        drop((silent, begun, greeted));
    }

    async fn a_stop_waits_for_no_watcher_that_froze(world: World) {
        let key = format!("Bearer {}", world.bootstrap_key());
        let mut frozen = frozen(&world).await;
        for _ in 0..3 {
            frozen.call("/tokenvault.v1.TokenVault/WatchExpiryEvents", &key, Some(&[])).await;
        }
        eventually("the watches begin", LIMIT, || {
            world.logs().matches("WatchExpiryEvents").count() >= 3
        });
        stops_in_time(&world);
        drop(frozen);
    }

    async fn a_stop_waits_for_no_call_that_is_not_finished(world: World) {
        let key = format!("Bearer {}", world.bootstrap_key());
        let (mut health, mut list, mut stream) = (frozen(&world).await, frozen(&world).await, frozen(&world).await);
        health.call("/grpc.health.v1.Health/Check", "none", None).await;
        list.call("/tokenvault.v1.TokenVault/ListTokens", &key, None).await;
        stream.call("/grpc.health.v1.Health/Watch", "none", Some(&[])).await;
        stops_in_time(&world);
        drop((health, list, stream));
    }

    async fn a_stop_waits_for_no_provider_that_stalls(world: World) {
        let connector = world.connector().await;
        let kept = connector.connect(ACME, &world.person("ana").long_lived_token()).await;
        hang(&world, Endpoint::DebugToken);
        let token = world.person("bob").long_lived_token();
        let storing = tokio::spawn(async move { connector.store(ACME, &token).await });
        eventually("the provider stalls", LIMIT, || world.sandbox.unanswered(Endpoint::DebugToken) > 0);
        stops_in_time(&world);
        let told = storing.await.unwrap().expect_err("nothing was stored");
        told.is(Code::Unavailable, Reason::ShuttingDown).has_retry();
        world.start_again();
        assert!(world.ingestion().await.fetch(&kept).await.is_ok(), "what was stored before is there");
    }

    async fn a_stop_waits_for_no_work_whose_caller_hung_up(world: World) {
        let connector = world.connector().await;
        hang(&world, Endpoint::OauthAccessToken);
        let token = world.person("bob").short_lived_token();
        let storing = tokio::spawn(async move { connector.store(ACME, &token).await });
        eventually("the exchange stalls", LIMIT, || world.sandbox.unanswered(Endpoint::OauthAccessToken) > 0);
        storing.abort();
        stops_in_time(&world);
    }

    async fn a_stop_waits_for_no_run_of_a_job_at_a_provider_that_stalls(world: World) {
        let admin = world.admin();
        for name in ["ana", "bob", "cleo"] {
            admin.connect(ACME, &world.person(name).long_lived_token()).await;
        }
        hang(&world, Endpoint::DebugToken);
        admin.run("meta-token-expiry").await;
        eventually("the run stalls", LIMIT, || world.sandbox.unanswered(Endpoint::DebugToken) > 0);
        stops_in_time(&world);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_waits_for_no_database_that_hangs() {
    let world = World::builder(Backend::Postgres).own_cluster(Cluster::start()).start().await;
    let connector = world.connector().await;
    connector.connect(ACME, &world.person("ana").long_lived_token()).await;
    let frozen = world.cluster().freeze();
    stops_in_time(&world);
    drop(frozen);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_while_the_vault_waits_for_its_key_service_is_clean() {
    let world = World::builder(Backend::Sqlite).prepare().await;
    let token = world.folder().join("transit.token");
    std::fs::write(&token, "s.token").unwrap();
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let launch = world
        .launch()
        .env("TOKEN_VAULT__KEYS__TRANSIT__ADDRESS", "http://127.0.0.1:1")
        .env("TOKEN_VAULT__KEYS__TRANSIT__TOKEN_FILE", token.display().to_string());
    let ended = launch.run_until_it_logs(|line| line.contains("waiting for the key service"));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let file = world.database.file();
    assert!(file.exists(), "it opened the database before");
    assert!(!file.with_extension("db-wal").exists(), "and closed it:\n{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_probes_tell_of_the_stop_until_it_is_over() {
    let world = World::start(Backend::Sqlite).await;
    hang(&world, Endpoint::DebugToken);
    let (connector, token) = (world.connector().await, world.person("ana").long_lived_token());
    let storing = tokio::spawn(async move { connector.store(ACME, &token).await });
    eventually("the provider stalls", LIMIT, || world.sandbox.unanswered(Endpoint::DebugToken) > 0);
    world.process(|process| process.terminate());
    eventually("it tells that it stops", LIMIT, || world.logs().contains("stopping"));
    assert!(super::lifecycle::probe(&world, "/readyz").await.contains("503"));
    assert!(super::lifecycle::probe(&world, "/healthz").await.contains("200"));
    let admin = world.process(|process| process.admin()).to_string();
    let check = |word: &str| {
        Launch::new(["healthcheck", word]).env("TOKEN_VAULT__SERVER__ADMIN_LISTEN", &admin).run()
    };
    assert_eq!(check("--live").code, Some(0));
    let ready = check("--ready");
    assert!(ready.code == Some(1) && ready.stderr.contains("stopping"), "{ready:?}");
    let ended = world.process(Process::wait);
    assert_eq!(ended.code(), Some(0), "{}", world.logs());
    let _ = storing.await;
    world.start_again();
}
