//! While the log can't be written, no secret is handed out and nothing changes. The vault recovers by itself.

use std::process::Command;
use std::time::Instant;

use token_vault_tests::{SmallDisk, eventually_async};

use crate::process::lifecycle::probe;

use super::*;

async fn a_full_disk_stops_secrets_and_changes_until_there_is_room(backend: Backend) {
    let world = World::builder(backend).prepare().await;
    let folder = world.folder().join("small-disk");
    let disk = SmallDisk::at(&folder, 256);
    let log = folder.join("audit.jsonl");
    let launch = world.launch().env("TOKEN_VAULT__AUDIT__FILE", log.display().to_string());
    world.try_start_as(&launch).expect("there is room");
    let admin = world.admin();
    let id = admin.connect(ACME, &world.person("ana").long_lived_token()).await;
    all_is_relayed(&world).await;
    disk.fill();
    let start = Instant::now();
    token_vault_tests::eventually_async("a hand-out fails", Duration::from_secs(60), async || {
        admin.fetch(&id).await.err()
    })
    .await
    .is(Code::Unavailable, Reason::AuditUnavailable)
    .has_retry();
    let before = world.database.contents().await;
    for round in 0..3 {
        let start = Instant::now();
        admin.fetch(&id).await.unwrap_err().is(Code::Unavailable, Reason::AuditUnavailable).has_retry();
        let token = world.person(&format!("late {round}")).long_lived_token();
        admin
            .store(ACME, &token)
            .await
            .unwrap_err()
            .is(Code::Unavailable, Reason::AuditUnavailable)
            .has_retry();
        admin.revoke(&id).await.unwrap_err().is(Code::Unavailable, Reason::AuditUnavailable).has_retry();
        assert!(start.elapsed() < Duration::from_secs(20), "not in bounded time: {:?}", start.elapsed());
    }
    assert_eq!(world.database.contents().await, before, "something changed unrecorded");
    // Calls that hand out no secret still work.
    admin.get(&id).await.expect("metadata is no secret");
    assert_eq!(admin.list().await.expect("nor are lists").tokens.len(), 1);
    assert!(world.logs().contains("the audit log can't be written"), "not a word in the log");
    assert!(start.elapsed() < Duration::from_secs(120));

    disk.free();
    token_vault_tests::eventually_async("it works again", Duration::from_secs(60), async || {
        admin.fetch(&id).await.ok()
    })
    .await;
    admin.revoke(&id).await.expect("changes work again");
    all_is_relayed(&world).await;
    let verified = launch.clone().env("TOKEN_VAULT__LOG__LEVEL", "warn").instead(["audit", "verify"]).run();
    assert_eq!(verified.code, Some(0), "{verified:#?}");
    let records = records_in(&log);
    assert!(records.iter().any(|record| record["kind"] == "resumed"), "{records:#?}");
    world.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_secrets_and_changes_on_sqlite() {
    if SmallDisk::rerun(module_path!(), "a_full_disk_stops_secrets_and_changes_on_sqlite") {
        return;
    }
    a_full_disk_stops_secrets_and_changes_until_there_is_room(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_secrets_and_changes_on_postgres() {
    if SmallDisk::rerun(module_path!(), "a_full_disk_stops_secrets_and_changes_on_postgres") {
        return;
    }
    a_full_disk_stops_secrets_and_changes_until_there_is_room(Backend::Postgres).await;
}

/// A start while the log's disk is full: the vault shows what it has, and does the rest once there is room.
async fn a_full_disk_is_no_reason_not_to_start(backend: Backend) {
    let world = World::builder(backend).prepare().await;
    let folder = world.folder().join("small-disk");
    let disk = SmallDisk::at(&folder, 256);
    let log = folder.join("audit.jsonl");
    let launch = world.launch().env("TOKEN_VAULT__AUDIT__FILE", log.display().to_string());
    world.try_start_as(&launch).expect("there is room");
    let id = world.admin().connect(ACME, &world.person("ana").long_lived_token()).await;
    all_is_relayed(&world).await;
    world.stop();
    disk.fill();
    // The last block of the old file has room for a few lines; a new file has none.
    let fresh = folder.join("fresh.jsonl");
    let launch = launch.env("TOKEN_VAULT__AUDIT__FILE", fresh.display().to_string());
    world.try_start_as(&launch).expect("it starts on a full disk");
    assert!(world.logs().contains("the audit log can't be written"), "not a word in the log");
    let admin = world.admin();
    assert_eq!(admin.list().await.expect("lists go on").tokens.len(), 1);
    admin.get(&id).await.expect("metadata is no secret");
    let feed = admin.watch_all().await;
    feed.first(&id, Kind::Connected).await;
    admin.fetch(&id).await.unwrap_err().is(Code::Unavailable, Reason::AuditUnavailable).has_retry();
    let token = world.person("bob").long_lived_token();
    admin.store(ACME, &token).await.unwrap_err().is(Code::Unavailable, Reason::AuditUnavailable).has_retry();
    assert!(probe(&world, "/livez").await.contains("200"), "a restart would mend nothing");
    assert!(probe(&world, "/readyz").await.contains("503"), "not all calls are answered");
    let process = world.process(|process| process.id());

    disk.free();
    let limit = Duration::from_secs(60);
    token_vault_tests::eventually_async("it works again", limit, async || admin.fetch(&id).await.ok()).await;
    admin.store(ACME, &token).await.expect("changes too");
    token_vault_tests::eventually_async("it is ready", limit, async || {
        probe(&world, "/readyz").await.contains("200").then_some(())
    })
    .await;
    assert_eq!(world.process(|process| process.id()), process, "without a restart");
    all_is_relayed(&world).await;
    let words =
        ["audit", "verify", "--file", &log.display().to_string(), "--file", &fresh.display().to_string()];
    let verified = launch.clone().env("TOKEN_VAULT__LOG__LEVEL", "warn").instead(words).run();
    assert_eq!(verified.code, Some(0), "{verified:#?}");
    world.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_no_reason_not_to_start_on_sqlite() {
    if SmallDisk::rerun(module_path!(), "a_full_disk_is_no_reason_not_to_start_on_sqlite") {
        return;
    }
    a_full_disk_is_no_reason_not_to_start(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_no_reason_not_to_start_on_postgres() {
    if SmallDisk::rerun(module_path!(), "a_full_disk_is_no_reason_not_to_start_on_postgres") {
        return;
    }
    a_full_disk_is_no_reason_not_to_start(Backend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_failed_flush_lost_is_written_again() {
    let world = World::builder(Backend::Sqlite).prepare().await;
    let (library, flag) = (world.folder().join("failing_flush.so"), world.folder().join("fail"));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/it/audit/failing_flush.c");
    let mut compiler = Command::new("cc");
    let made = compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl").status();
    assert!(made.expect("cc runs").success());
    let launch = world
        .launch()
        .env("LD_PRELOAD", library.display().to_string())
        .env("FAIL_FLUSH", flag.display().to_string());
    world.try_start_as(&launch).unwrap();
    let admin = world.admin();
    let id = admin.connect(ACME, &world.person("ana").long_lived_token()).await;
    let handed_out = std::sync::atomic::AtomicUsize::new(0);
    let fetched = async || {
        let works = admin.fetch(&id).await.is_ok();
        handed_out.fetch_add(usize::from(works), std::sync::atomic::Ordering::Relaxed);
        works
    };
    for _ in 0..3 {
        fs::write(&flag, "").unwrap();
        token_vault_tests::eventually_async("a flush fails", Duration::from_secs(60), async || {
            fetched().await;
            (!flag.exists()).then_some(())
        })
        .await;
        token_vault_tests::eventually_async("it works again", Duration::from_secs(60), async || {
            fetched().await.then_some(())
        })
        .await;
    }
    assert!(world.logs().contains("the audit log can't be written"), "not a word in the log");
    all_is_relayed(&world).await;
    world.stop();
    let verified = world.launch().env("TOKEN_VAULT__LOG__LEVEL", "warn").instead(["audit", "verify"]).run();
    assert_eq!(verified.code, Some(0), "{verified:#?}");
    let records = records_in(&log_of(&world));
    assert_eq!(
        records.iter().filter(|record| record["kind"] == "handed_out").count(),
        handed_out.into_inner()
    );
    assert!(records.iter().any(|record| record["kind"] == "resumed"), "{records:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_hangs_is_given_up_in_bounded_time() {
    let world = World::builder(Backend::Sqlite).prepare().await;
    let pipe = world.folder().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let launch = world.launch().env("TOKEN_VAULT__AUDIT__FILE", pipe.display().to_string());
    world.try_start_as(&launch).expect("a pipe takes the first lines");
    let admin = world.admin();
    let id = admin.connect(ACME, &world.person("ana").long_lived_token()).await;
    // Nobody reads from the pipe, so it is full after a number of lines, and the next write hangs.
    let refusal =
        token_vault_tests::eventually_async("the pipe is full", Duration::from_secs(120), async || {
            let start = Instant::now();
            let outcome = admin.fetch(&id).await;
            assert!(start.elapsed() < Duration::from_secs(15), "not in bounded time");
            outcome.err()
        });
    refusal.await.is(Code::Unavailable, Reason::AuditUnavailable).has_retry();
    admin.revoke(&id).await.unwrap_err().is(Code::Unavailable, Reason::AuditUnavailable);
    admin.get(&id).await.expect("metadata is no secret");
    world.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_moved_or_deleted_is_noticed_and_goes_on_in_a_new_file() {
    let world = World::builder(Backend::Sqlite).start().await;
    let (admin, log) = (world.admin(), log_of(&world));
    let id = admin.connect(ACME, &world.person("ana").long_lived_token()).await;
    let moved = world.data().join("moved.jsonl");
    for round in ["moved", "deleted"] {
        all_is_relayed(&world).await;
        if round == "moved" {
            fs::rename(&log, &moved).expect("it can be moved");
        } else {
            fs::remove_file(&log).expect("it can be deleted");
        }
        let written = fs::read(&moved).expect("it can be read");
        eventually_async("the log goes on", Duration::from_secs(60), async || log.exists().then_some(()))
            .await;
        eventually_async("secrets are handed out", Duration::from_secs(60), async || {
            admin.fetch(&id).await.ok()
        })
        .await;
        let handed_out = |record: &Value| record["kind"] == "handed_out";
        assert!(records_in(&log).iter().any(handed_out), "{round}: in the new file");
        assert_eq!(
            fs::read(&moved).expect("it can be read"),
            written,
            "{round}: nothing more in the old one"
        );
        all_is_relayed(&world).await;
        if round == "moved" {
            let both = [written, fs::read(&log).expect("it can be read")].concat();
            let copy = world.data().join("both.jsonl");
            fs::write(&copy, both).expect("it can be written");
            let file = copy.display().to_string();
            let output = audit(&world, &["verify", "--file", &file]);
            assert_eq!(output.code, Some(0), "no record is missing: {output:#?}");
        }
    }
    let output = audit(&world, &["verify"]);
    assert_eq!(output.code, Some(1), "what was deleted is missing: {output:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_can_not_be_written_is_told_at_start() {
    let world = World::builder(Backend::Sqlite).prepare().await;
    let refused = |place: &str| {
        let launch = world.launch().env("TOKEN_VAULT__AUDIT__FILE", place);
        let ended = world.try_start_as(&launch).expect_err("it must not serve");
        assert_eq!(ended.code, Some(1), "{ended:#?}");
        ended.stderr
    };
    for place in ["/proc/audit.jsonl", "/dev/null/audit.jsonl"] {
        let output = refused(place);
        assert!(output.contains(place) && output.contains("audit.file"), "{output}");
    }
    world.try_start_as(&world.launch()).expect("it starts with a file that can be written");
    let in_use = log_of(&world).display().to_string();
    let other = World::builder(Backend::Sqlite).prepare().await;
    let ended = other.try_start_as(&other.launch().env("TOKEN_VAULT__AUDIT__FILE", in_use)).unwrap_err();
    assert!(ended.stderr.contains("another token-vault process"), "{ended:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stdout_can_be_the_log_and_off_is_off() {
    let world = World::builder(Backend::Sqlite).config("audit.sink", "stdout").start().await;
    let id = world.admin().connect(ACME, &world.person("ana").long_lived_token()).await;
    world.admin().fetch(&id).await.unwrap();
    all_is_relayed(&world).await;
    let out = world.folder().join("vault-1.out");
    assert_eq!(of_rpc(&records_in(&out), "FetchAccessToken").len(), 1);
    let file = out.display().to_string();
    let output = audit(&world, &["verify", "--file", &file]);
    assert_eq!(output.code, Some(0), "{output:#?}");
    assert!(!log_of(&world).exists());
    world.stop();

    let quiet = World::builder(Backend::Sqlite).config("audit.sink", "off").start().await;
    let id = quiet.admin().connect(ACME, &quiet.person("ana").long_lived_token()).await;
    quiet.admin().fetch(&id).await.unwrap();
    assert!(!log_of(&quiet).exists());
    assert_eq!(quiet.database.count("SELECT count(*) FROM audit_outbox").await, 0);
    assert!(quiet.logs().contains("audit.sink is off"));
}
