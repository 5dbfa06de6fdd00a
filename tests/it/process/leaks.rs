//! No secret of a run appears in clear, base64 or hexadecimal in anything that the vault leaves behind: logs at the
//! most verbose level, the data folder, and the database's files and log.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use token_vault_sandbox::appsecret_proof;
use token_vault_tests::prelude::*;
use token_vault_tests::{Cluster, Finding, Hunter, files_below, request_id};

/// The files whose purpose is to hold a secret. No other file may hold one.
const KEY_FILES: [&str; 2] = ["master.key", "bootstrap-admin.key"];

/// Every file that the vault and its database wrote, except the key files.
fn left_behind(world: &World) -> Vec<PathBuf> {
    let mut files = files_below(world.folder());
    if world.database.backend() == Backend::Postgres {
        files.extend(files_below(&world.cluster().data()));
        files.push(world.cluster().log());
    }
    files.retain(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        // The vault reads `app.secret`, which the test itself wrote.
        !KEY_FILES.contains(&name.as_ref()) && name != "app.secret"
    });
    files
}

/// A day of the vault with every kind of secret, and every kind of mistake that could make the vault reveal one.
async fn a_rich_run(world: &World) {
    let (admin, connector, ingestion) = (world.admin(), world.connector().await, world.ingestion().await);
    // The test searches the vault's responses as well.
    let feed = world.alerting().await.watch_all().await;
    let (ana, bob, eve) = (world.person("ana").with_ad_accounts(2), world.person("bob"), world.person("eve"));
    let say = |name: &str, token: String| {
        world.know(name, &token);
        token
    };
    let short = say("short token", ana.short_lived_token());
    let id = connector.connect(ACME, &short).await;
    let bobs = connector.connect("globex", &say("long token", bob.long_lived_token())).await;
    for connection in [&id, &bobs] {
        let secret = say("handed out", ingestion.secret(connection).await);
        say("proof", appsecret_proof(&world.sandbox.app().secrets[0], &secret));
        connector.validate(connection).await.expect("it can be examined");
    }
    // The same call twice: the outcome that is stored for repeats must not hold a secret either.
    let again = pb::StoreTokenRequest {
        request_id: request_id(),
        ..world.pasted(ACME, &say("repeated token", eve.short_lived_token()))
    };
    connector.store_with(again.clone()).await.expect("once");
    connector.store_with(again).await.expect("twice");
    connector.exchange(&bobs).await.expect("it is exchanged");

    // Tokens that the vault or the provider refuses.
    let dead = say("dead token", bob.long_lived_token());
    world.sandbox.kill(&dead, Some(460));
    let foreign = say("made-up token", format!("EAA{}", "Zq7".repeat(60)));
    let wrapped = format!("Bearer {}", say("wrapped token", eve.short_lived_token()));
    let in_json = format!("{{\"access_token\":\"{}\"}}", say("token in JSON", eve.short_lived_token()));
    for bad in [&dead, &foreign, &wrapped, &in_json] {
        connector.store(ACME, bad).await.expect_err("a bad token");
    }
    let misplaced = say("misplaced token", eve.long_lived_token());
    connector.get(&misplaced).await.expect_err("a token in place of an id");
    let elsewhere = pb::StoreTokenRequest { provider: misplaced.clone(), ..world.pasted(&misplaced, &short) };
    connector.store_with(elsewhere).await.expect_err("a token in place of names");
    let paged = pb::ListTokensRequest { page_token: misplaced.clone(), ..Default::default() };
    connector.list_tokens(paged).await.expect_err("a token in place of a page");

    admin.watch_after(&misplaced).await.map(drop).expect_err("a token in place of a position");
    let position = pb::AcknowledgeEventsRequest {
        subscription: "pipeline".into(),
        cursor: misplaced.clone(),
        allow_rewind: true,
    };
    ingestion.acknowledge_events(position).await.expect_err("a token in place of a position");
    let run = pb::RunJobRequest { job: misplaced.clone(), request_id: String::new() };
    admin.run_job(run).await.expect_err("a token in place of a job");

    // The provider repeats secrets in its errors, or does not answer.
    let repeats = FaultKind::Text {
        status: 400,
        text: format!("{{\"error\":{{\"message\":\"{short} is bad\",\"code\":1}}}}"),
    };
    world.sandbox.fault(Fault::on(Endpoint::Any).times(3).with(repeats));
    let _ = connector.validate(&id).await;
    world.sandbox.clear_faults();
    world.sandbox.fault(Fault::on(Endpoint::Any).times(20).with(FaultKind::error(503, 2)));
    let late = say("token at a bad time", eve.long_lived_token());
    connector.store(ACME, &late).await.expect_err("the provider is away");
    world.sandbox.clear_faults();

    // The report repeats the secret, like the log of a careless client.
    ana.changes_password();
    let held = connector.get(&id).await.expect("it is there").token_version;
    let body =
        format!("{{\"error\":{{\"code\":190,\"error_subcode\":460,\"message\":\"{short} {misplaced}\"}}}}");
    ingestion.report(&id, held, 400, &body).await.expect("a report is taken");
    ingestion.fetch(&id).await.expect_err("it is dead");
    connector
        .connect(
            ACME,
            &say("reconnecting token", {
                ana.heals();
                ana.short_lived_token()
            }),
        )
        .await;

    // Wrong keys, in every part of the header.
    let key = ingestion.key().to_owned();
    let other = if key.ends_with('A') { "B" } else { "A" };
    let near = say("nearly a key", format!("{}{other}", &key[..key.len() - 1]));
    for header in
        [near.clone(), format!("Bearer {near}"), format!("Basic {key}"), format!("Bearer {misplaced}")]
    {
        admin.saying(Some(&header)).list().await.expect_err("no such key");
    }
    let made = admin.create_api_key(pb::CreateApiKeyRequest {
        principal: "short-lived".into(),
        role: Role::Viewer.into(),
        workspaces: Some(pb::create_api_key_request::Workspaces::AllWorkspaces(true)),
        request_id: request_id(),
        ..Default::default()
    });
    let made = made.await.expect("a key is made");
    world.know("whole key", &made.key);
    let viewer = world.caller_with(&made.key, "");
    viewer.list().await.expect("the key works");
    viewer.fetch(&bobs).await.expect_err("a viewer gets no secret");
    let ended =
        pb::RevokeApiKeyRequest { key_id: made.api_key.expect("a key").key_id, request_id: request_id() };
    admin.revoke_api_key(ended).await.expect("the key is ended");
    connector.revoke(&bobs).await.expect("it is ended");
    ingestion.fetch(&bobs).await.expect_err("its secret is gone");

    let seen = feed.caught_up().await;
    assert!(seen.len() >= 6, "only {} events", seen.len());
    let history = pb::ListExpiryEventsRequest { page_size: 1_000, ..Default::default() };
    let history = admin.list_expiry_events(history).await.expect("a page");
    assert_eq!(history.events.len(), seen.len());
    assert_eq!(world.secrets().search("the history", format!("{history:?}").as_bytes()), []);
    let last = seen.last().expect("an event").cursor.clone();
    let position =
        pb::AcknowledgeEventsRequest { subscription: "pipeline".into(), cursor: last, allow_rewind: false };
    ingestion.acknowledge_events(position).await.expect("a position is kept");
}

/// Fails if there was no secret to search for, because then finding none would prove nothing.
fn hunt(world: &World, when: &str) -> Vec<Finding> {
    let secrets = world.secrets();
    assert!(secrets.len() > 30, "only {} secrets are known", secrets.len());
    let files = left_behind(world);
    let names: BTreeSet<_> =
        files.iter().filter_map(|file| Some(file.file_name()?.to_string_lossy().into_owned())).collect();
    let expected: &[&str] = match world.database.backend() {
        Backend::Sqlite if when == "while it runs" => {
            &["audit.jsonl", "token-vault.db", "token-vault.db-wal", "vault-1.err", "vault-1.out"]
        }
        Backend::Sqlite => &["audit.jsonl", "token-vault.db", "vault-1.err", "vault-1.out"],
        Backend::Postgres => &["PG_VERSION", "audit.jsonl", "log", "vault-1.err", "vault-1.out"],
    };
    for name in expected {
        assert!(names.contains(*name), "{name} was not searched {when}: {names:?}");
    }
    assert!(world.logs().contains("DEBUG"), "the log is not at its most talkative");
    let mut found = secrets.search_files(files);
    if when == "while it runs" {
        found.extend(told_to_the_system(world));
    }
    found
}

/// What the system shows of a process to all users: its arguments. And what its children would inherit; there are none.
fn told_to_the_system(world: &World) -> Vec<Finding> {
    let pid = world.process(|process| process.id());
    let process = PathBuf::from(format!("/proc/{pid}"));
    let read = |name: &str| fs::read(process.join(name)).unwrap_or_default();
    let (arguments, name) = (read("cmdline"), read("comm"));
    assert!(arguments.windows(5).any(|part| part == b"serve"), "the arguments were not read");
    let mut found = world.secrets().search("/proc/PID/cmdline", &arguments);
    found.extend(world.secrets().search("/proc/PID/comm", &name));
    for task in fs::read_dir(process.join("task")).expect("a process has threads").flatten() {
        // A thread that has ended no longer has children.
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        assert_eq!(children.trim(), "", "the vault starts no process");
    }
    found
}

async fn nothing_is_left_behind(world: World) {
    a_rich_run(&world).await;
    if world.database.backend() == Backend::Postgres {
        // A checkpoint writes everything into the files; until then it may be in memory only.
        world.database.execute("CHECKPOINT").await;
    }
    assert_eq!(hunt(&world, "while it runs"), []);
    world.kill();
    world.start_again();
    assert!(world.viewer().await.list().await.is_ok());
    assert_eq!(hunt(&world, "after a power cut"), []);
    world.stop();
    assert_eq!(hunt(&world, "after an orderly end"), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_stands_in_the_logs_or_the_data_folder() {
    nothing_is_left_behind(World::start(Backend::Sqlite).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_stands_in_the_logs_or_in_the_files_of_the_database_server() {
    // The cluster logs every statement with its parameters, so that a secret among them would be found.
    let cluster = Cluster::start();
    let world = World::builder(Backend::Postgres).own_cluster(cluster).prepare().await;
    world.database.execute("ALTER SYSTEM SET log_statement = 'all'").await;
    world.database.execute("ALTER SYSTEM SET log_min_duration_statement = 0").await;
    world.database.execute("SELECT pg_reload_conf()").await;
    world.start_again();
    nothing_is_left_behind(world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_behind_is_read_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::start(Backend::Sqlite).await;
    world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
    let files = files_below(&world.data());
    for name in KEY_FILES.iter().chain(&["token-vault.db", "token-vault.db-wal"]) {
        let file =
            files.iter().find(|file| file.ends_with(name)).unwrap_or_else(|| panic!("{name} is not there"));
        let mode = fs::metadata(file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{name} is {mode:o}");
    }
}

#[test]
fn the_hunter_finds_a_planted_secret_in_every_form_and_nothing_in_its_absence() {
    let folder = tempfile::tempdir().unwrap();
    let secret = "EAAplanted+Secret/with~odd?signs>0123456789";
    let mut hunter = Hunter::default();
    hunter.add("planted", secret);
    let file = folder.path().join("deep").join("file");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let mut forms = vec![secret.to_owned(), hex::encode(secret), hex::encode_upper(secret)];
    for offset in 0..3 {
        // The search finds it at each of the three alignments of base64, whatever surrounds it.
        let around = format!("{}{secret}{}", &"<<<"[..offset], ">>>>");
        forms.extend([
            STANDARD.encode(&around),
            URL_SAFE_NO_PAD.encode(&around),
            STANDARD.encode(&around[..offset + secret.len()]),
        ]);
    }
    for form in forms {
        // The secret is among other bytes, across the border of two database pages.
        let mut bytes = vec![0xfe; 4_090];
        bytes.extend_from_slice(form.as_bytes());
        bytes.extend_from_slice(&[0; 100]);
        fs::write(&file, bytes).unwrap();
        let found = hunter.search_files(files_below(folder.path()));
        assert_eq!(
            found.iter().map(|finding| finding.name.as_str()).collect::<BTreeSet<_>>(),
            BTreeSet::from(["planted"]),
            "{form}"
        );
    }
    let near = secret.replace("Secret", "Sekret");
    fs::write(&file, format!("{near} {} {}", hex::encode(&near), STANDARD.encode(&near))).unwrap();
    assert_eq!(hunter.search_files(files_below(folder.path())), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_does_get_into_the_database_is_found_there() {
    let world = World::start(Backend::Sqlite).await;
    a_rich_run(&world).await;
    assert_eq!(hunt(&world, "while it runs"), []);
    let secret = world.person("zoe").long_lived_token();
    world.know("planted", &secret);
    world
        .database
        .execute(format!("UPDATE workspaces SET display_name = '{}'", STANDARD.encode(format!("x{secret}"))))
        .await;
    let found = hunt(&world, "while it runs");
    assert!(found.iter().any(|finding| finding.name == "planted" && finding.form == "base64"), "{found:?}");
}
