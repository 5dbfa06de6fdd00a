//! The process: how it starts and ends, how it survives an outage of its database, and what its commands print.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::Value;
use token_vault_tests::prelude::*;
use token_vault_tests::{Cluster, Ended, Launch, Process, eventually, eventually_async};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const LIMIT: Duration = Duration::from_secs(30);

async fn health(world: &World, service: &str) -> Option<ServingStatus> {
    let request = HealthCheckRequest { service: service.to_owned() };
    Some(HealthClient::new(world.channel()).check(request).await.ok()?.into_inner().status())
}

/// The status line of an HTTP probe.
pub(crate) async fn probe(world: &World, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(world.process(|process| process.admin())).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: vault\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

fn asking(launch: &Launch, process: &Process, words: &[&str]) -> Launch {
    let endpoint = format!("http://{}", process.grpc());
    launch.clone().instead(words.iter().copied()).env("TOKEN_VAULT_ENDPOINT", endpoint)
}

fn asked(launch: &Launch, process: &Process, words: &[&str]) -> Ended {
    asking(launch, process, words).run()
}

/// Runs a command against the running vault.
fn command(world: &World, words: &[&str]) -> Ended {
    world.process(|process| asked(&world.launch(), process, words))
}

on_both_databases! {
    async fn sigterm_answers_the_call_in_flight_and_then_ends_with_zero(world: World) {
        let connector = world.connector().await;
        let before = world.sandbox.requests().len();
        let stall = FaultKind::StallFirstByte(Duration::from_secs(1));
        world.sandbox.fault(Fault::on(Endpoint::Any).with(stall));
        let token = world.person("ana").long_lived_token();
        let in_flight = tokio::spawn({
            let connector = connector.clone();
            async move { connector.store(ACME, &token).await }
        });
        eventually("the call waits for the provider", LIMIT, || world.sandbox.requests().len() > before);
        assert!(!in_flight.is_finished(), "the provider was quicker than it should be");
        world.process(|process| process.terminate());
        eventually("it tells that it stops", LIMIT, || world.logs().contains("stopping"));
        assert!(!in_flight.is_finished(), "SIGTERM came too late to prove anything");
        let stored = in_flight.await.unwrap().expect("the call in flight is answered");
        let id = stored.token.unwrap().connection_id;
        assert_eq!(world.process(Process::wait).code(), Some(0), "{}", world.logs());
        world.start_again();
        assert!(world.ingestion().await.fetch(&id).await.is_ok(), "what was answered is kept");
    }

    async fn healthcheck_tells_by_its_exit_code_whether_the_vault_serves(world: World) {
        let well = command(&world, &["healthcheck"]);
        assert_eq!((well.code, well.stdout.trim()), (Some(0), "SERVING"), "{well:?}");
        assert_eq!(health(&world, "").await, Some(ServingStatus::Serving));
        assert_eq!(health(&world, "tokenvault.v1.TokenVault").await, Some(ServingStatus::Serving));
        assert!(probe(&world, "/healthz").await.contains("200"));
        assert!(probe(&world, "/readyz").await.contains("200"));
        let endpoint = world.endpoint();
        world.stop();
        let gone = Launch::new(["healthcheck", "--endpoint", endpoint.as_str()]).run();
        assert_eq!(gone.code, Some(1), "{gone:?}");
        assert!(gone.stderr.contains(&endpoint), "it says where it looked: {}", gone.stderr);
    }

    async fn the_watch_command_tells_what_happens_a_line_each_and_moves_its_bookmark(world: World) {
        let id = world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
        let watch = |words: &[&str], last: &'static str| {
            let words: Vec<&str> = ["watch"].iter().chain(words).copied().collect();
            world.process(|process| asking(&world.launch(), process, &words).run_until(|line| line.contains(last)))
        };
        let text = watch(&["--from", "earliest", "--wide"], "CONNECTED");
        assert!(text.code == Some(0) && text.stdout.contains(&id) && text.stdout.contains("ana in acme"), "{text:?}");
        let snapshot = watch(&["--from", "snapshot", "--json"], "snapshot_complete");
        let printed: Vec<Value> =
            snapshot.stdout.lines().map(|line| serde_json::from_str(line).expect("a line is an object")).collect();
        let token = printed.iter().find(|item| item["type"] == "token").expect("the snapshot tells of the token");
        assert_eq!((&token["connection_id"], &token["status"]), (&id.as_str().into(), &"ACTIVE".into()), "{token}");

        let marked = ["--from", "earliest", "--subscription", "pager", "--json"];
        let first = watch(&marked, "\"CONNECTED\"");
        assert!(first.code == Some(0) && first.stdout.contains("\"kind\":\"CONNECTED\""), "{first:?}");
        let pager = world.ingestion().await;
        pager.report(&id, 1, 400, r#"{"error":{"message":"x","code":4}}"#).await.unwrap();
        world.person("ana").changes_password();
        world.ingestion().await.validate(&id).await.unwrap();
        let second = watch(&marked, "\"INVALIDATED\"");
        assert!(!second.stdout.contains("\"kind\":\"CONNECTED\""), "told twice: {second:?}");
        let severe = watch(&["--from", "earliest", "--min-severity", "critical", "--wide"], "INVALIDATED");
        assert_eq!(severe.stdout.lines().count(), 1, "{severe:?}");
        let unknown = command(&world, &["watch", "--kind", "DIED"]);
        assert!(unknown.code == Some(2) && unknown.stderr.contains("INVALIDATED"), "{unknown:?}");
        let stranger = command(&world, &["watch", "--workspace", "not a name"]);
        assert!(stranger.code == Some(1) && stranger.stderr.contains("workspace"), "{stranger:?}");
    }

    async fn the_jobs_command_lists_starts_and_shows_runs(world: World) {
        let jobs = command(&world, &["jobs"]);
        assert!(jobs.code == Some(0) && jobs.stdout.contains("meta-token-expiry"), "{jobs:?}");
        let asked_for = command(&world, &["jobs", "run", "meta-token-expiry", "--json"]);
        let run: Value = serde_json::from_str(asked_for.stdout.trim()).unwrap();
        let run_id = run["run_id"].as_str().unwrap_or_else(|| panic!("{run}")).to_owned();
        eventually("the run is shown as over", LIMIT, || {
            let runs = command(&world, &["jobs", "runs", "meta-token-expiry", "--json"]).stdout;
            runs.lines().any(|line| line.contains(&run_id) && line.contains("SUCCEEDED"))
        });
        let unknown = command(&world, &["jobs", "run", "nothing"]);
        assert!(unknown.code == Some(1) && unknown.stderr.contains("meta-token-expiry"), "{unknown:?}");
    }

    async fn the_api_key_commands_make_list_and_end_keys_of_the_running_vault(world: World) {
        let create = ["api-key", "create", "--principal", "reader", "--role", "ingestion", "--workspace", ACME, "--expires-in", "90d"];
        let made = command(&world, &create);
        assert_eq!(made.code, Some(0), "{made:?}");
        let key = made.stdout.trim().to_owned();
        assert_eq!(made.stdout.lines().count(), 1, "the bare key and nothing else: {}", made.stdout);
        assert!(!made.stderr.contains(&key), "stderr is for people, and for logs");
        let id = world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
        let reader = world.caller_with(&key, "");
        assert!(reader.fetch(&id).await.is_ok(), "the key works");

        let listed = command(&world, &["api-key", "list", "--principal", "reader", "--json"]);
        assert!(!listed.stdout.contains(&key), "a list shows no key");
        let printed: Value = serde_json::from_str(listed.stdout.trim()).unwrap();
        assert_eq!((&printed["principal"], &printed["role"]), (&"reader".into(), &"ingestion".into()), "{printed}");
        assert_eq!((&printed["workspaces"][0], &printed["revoked_at"]), (&ACME.into(), &Value::Null), "{printed}");
        assert!(printed["expires_at"].is_string(), "{printed}");
        let key_id = printed["key_id"].as_str().unwrap();
        let table = command(&world, &["api-key", "list"]).stdout;
        assert!(table.starts_with("KEY ID") && table.contains(key_id) && table.contains(ACME), "{table}");

        let ended = command(&world, &["api-key", "revoke", key_id]);
        assert_eq!((ended.code, ended.stdout.trim()), (Some(0), format!("revoked {key_id} of reader").as_str()));
        eventually_async("the key fails", LIMIT, async || reader.get(&id).await.err()).await
            .is(Code::Unauthenticated, Reason::ApiKeyInvalid);
        let nobody = command(&world, &["api-key", "revoke", "nobody0000000000"]);
        assert_eq!(nobody.code, Some(1), "{nobody:?}");
        let wrong = command(&world, &["api-key", "create", "--principal", "p", "--role", "king", "--all-workspaces"]);
        assert_eq!(wrong.code, Some(2), "{wrong:?}");
        let nowhere = command(&world, &["api-key", "create", "--principal", "p", "--role", "viewer"]);
        assert!(nowhere.code == Some(2) && nowhere.stderr.contains("--all-workspaces"), "{nowhere:?}");
    }

    async fn an_offline_key_is_made_while_no_vault_runs_and_works_afterwards(world: World) {
        let words = ["api-key", "create", "--principal", "rescue", "--role", "admin", "--all-workspaces", "--offline"];
        if world.database.backend() == Backend::Sqlite {
            let refused = world.launch().instead(words).run();
            assert_eq!(refused.code, Some(1), "while the vault runs the file is its own: {refused:?}");
            assert!(refused.stderr.contains("in use by another token-vault process"), "{}", refused.stderr);
        }
        world.stop();
        // Whoever is in need may not have the configuration at hand.
        let policies = world.database.rows("policies").await;
        let made = world.launch().env("TOKEN_VAULT__EXPIRY__WARNING_WINDOW", "60d").instead(words).run();
        assert_eq!(made.code, Some(0), "{made:?}");
        assert_eq!(world.database.rows("policies").await, policies, "a key is made, and nothing else");
        world.start_again();
        let rescuer = world.caller_with(made.stdout.trim(), "");
        let keys = rescuer.list_api_keys(pb::ListApiKeysRequest::default()).await.unwrap().api_keys;
        assert!(keys.iter().any(|key| key.principal == "rescue" && key.role() == Role::Admin), "{keys:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_vault_on_the_same_file_refuses_and_names_the_remedy() {
    let world = World::start(Backend::Sqlite).await;
    let second = world.launch().serve(world.folder(), "second").expect_err("the file is in use");
    assert_eq!(second.code, Some(1), "{second:?}");
    for word in ["token-vault.db", "in use by another token-vault process", "stop it"] {
        assert!(second.stderr.contains(word), "{word} is missing: {}", second.stderr);
    }
    assert!(world.viewer().await.list().await.is_ok(), "the first one is undisturbed");
    world.kill();
    world.start_again();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_vault_outlives_its_database_and_serves_again_without_a_restart() {
    let world = World::builder(Backend::Postgres).own_cluster(Cluster::start()).start().await;
    let (connector, ingestion) = (world.connector().await, world.ingestion().await);
    let id = connector.connect(ACME, &world.person("ana").long_lived_token()).await;
    let token = world.person("bob").long_lived_token();
    let process = world.process(|process| process.id());
    world.cluster().down();
    for _ in 0..2 {
        // Reads and writes, over a broken connection and without any connection.
        connector.get(&id).await.unwrap_err().is(Code::Unavailable, Reason::StorageUnavailable).has_retry();
        connector
            .store(ACME, &token)
            .await
            .unwrap_err()
            .is(Code::Unavailable, Reason::StorageUnavailable)
            .has_retry();
    }
    let not_serving = async || (health(&world, "").await == Some(ServingStatus::NotServing)).then_some(());
    eventually_async("health tells it", LIMIT, not_serving).await;
    assert_eq!(health(&world, "tokenvault.v1.TokenVault").await, Some(ServingStatus::NotServing));
    let asked = command(&world, &["healthcheck"]);
    assert!(asked.code == Some(1) && asked.stderr.contains("NOT_SERVING"), "{asked:?}");
    assert!(probe(&world, "/readyz").await.contains("503"));
    assert!(probe(&world, "/healthz").await.contains("200"), "a restart would help nothing");

    world.cluster().up();
    let serving = async || (health(&world, "").await == Some(ServingStatus::Serving)).then_some(());
    eventually_async("health tells that it is back", LIMIT, serving).await;
    let stored =
        eventually_async("stores work again", LIMIT, async || connector.store(ACME, &token).await.ok()).await;
    assert!(ingestion.fetch(&stored.token.unwrap().connection_id).await.is_ok());
    assert!(ingestion.fetch(&id).await.is_ok(), "what was stored before is there");
    assert_eq!(command(&world, &["healthcheck"]).code, Some(0));
    assert_eq!(world.process(|vault| (vault.id(), vault.ended())), (process, None), "it is the same process");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_others_could_reach_is_refused_before_anything_is_made() {
    let world = World::builder(Backend::Sqlite).prepare().await;
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:7443"] {
        let launch = Launch::new(["serve", "--listen", address, "--data-dir"]).arg(world.data());
        let refused = launch.serve(world.folder(), "exposed").expect_err("it would serve in the clear");
        assert_eq!(refused.code, Some(2), "{refused:?}");
        for word in ["server.listen", "loopback", "127.0.0.1"] {
            assert!(refused.stderr.contains(word), "{word} is missing: {}", refused.stderr);
        }
    }
    assert!(!world.data().exists(), "nothing was made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_mistake_of_a_configuration_is_told_at_once_with_its_key() {
    let world = World::builder(Backend::Sqlite).prepare().await;
    let file = world.folder().join("token-vault.toml");
    let text = "colour = \"blue\"\n[server]\nlisten = \"0.0.0.0:7443\"\n[storage]\nurl = \"mysql://u:hunter2hunter2@h/d\"\n\
                [expiry]\nwarning_window = \"90d\"\n[log]\nformat = \"loud\"\n[jobs]\nmeta_token_expiry = \"daily\"\n\
                [providers.meta]\napp_id = \"my app\"\napi_version = \"26\"\n";
    fs::write(&file, text).unwrap();
    // Otherwise its mode would be a mistake too, since it holds a password.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let launch = Launch::new(["serve", "--config"]).arg(&file).arg("--data-dir").arg(world.data());
    let refused = launch.env("TOKEN_VAULT__LOG__LEVEL", "token_vault=loud").run();
    assert_eq!(refused.code, Some(2), "{refused:?}");
    let keys = [
        "colour",
        "server.listen",
        "storage.url",
        "expiry.warning_window",
        "log.format",
        "log.level",
        "jobs.meta_token_expiry",
        "providers.meta.app_id",
        "providers.meta.api_version",
    ];
    for key in keys {
        assert!(refused.stderr.contains(&format!("- {key} (")), "{key} is missing: {}", refused.stderr);
    }
    assert!(refused.stderr.contains(&format!("{} mistakes", keys.len())), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("TOKEN_VAULT__LOG__LEVEL") && refused.stderr.contains("token-vault.toml")
    );
    assert!(!refused.stderr.contains("hunter2"), "values may be secrets: {}", refused.stderr);
    assert!(!world.data().exists(), "nothing was made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_tells_its_story_once_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let words = [
        "demo",
        "--once",
        "--listen",
        "127.0.0.1:0",
        "--sandbox-listen",
        "127.0.0.1:0",
        "--portal-listen",
        "127.0.0.1:0",
    ];
    let start = Instant::now();
    let printed =
        Launch::new(words).env("TMPDIR", folder.path().display().to_string()).env("COLUMNS", "80").run();
    assert_eq!(printed.code, Some(0), "{printed:?}");
    assert!(printed.stdout.lines().all(|line| line.chars().count() <= 80), "{}", printed.stdout);
    assert!(start.elapsed() < Duration::from_secs(60), "a story of {:?}", start.elapsed());
    let mut rest = printed.stdout.as_str();
    let story = [
        "1 API keys",
        "2 StoreToken",
        "version 1",
        "3 FetchAccessToken",
        "appsecret_proof",
        "4 ReportTokenError",
        "5 FetchAccessToken",
        "TOKEN_INVALID",
        "6 StoreToken",
        "version 2",
        "7 ListTokens",
        "1 connection",
    ];
    for step in story {
        let at = rest
            .find(step)
            .unwrap_or_else(|| panic!("{step:?} is missing or out of order: {}", printed.stdout));
        rest = &rest[at + step.len()..];
    }
    assert!(!printed.stdout.contains("EAA"), "a story shows no token: {}", printed.stdout);
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
