//! `audit verify` finds every change of the log, with the vault's own key and anchors.

use super::*;

/// What the command reports about a log with these bytes.
fn verdict(world: &World, text: &[u8]) -> Value {
    fs::write(log_of(world), text).expect("the log is writable");
    let output = audit(world, &["verify", "--json"]);
    assert_eq!(output.code, Some(1), "{output:#?}");
    let report: Value = serde_json::from_str(output.stdout.trim()).expect("JSON");
    assert_eq!(report["intact"], false);
    report["finding"].clone()
}

on_both_databases! {
    async fn a_log_that_was_changed_is_told_with_file_line_and_kind(world: World) {
        let admin = world.admin();
        let id = admin.connect(ACME, &world.person("ana").long_lived_token()).await;
        for _ in 0..4 {
            admin.fetch(&id).await.unwrap();
        }
        all_is_relayed(&world).await;
        is_intact(&world);
        world.stop();
        is_intact(&world);
        let text = fs::read(log_of(&world)).unwrap();
        let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        assert!(lines.len() >= 7, "{} lines", lines.len());
        let (start, end) = (lines[..2].concat(), lines[3..].concat());
        let is = |finding: &Value, line: usize, damage: &str| {
            assert_eq!((&finding["line"], &finding["damage"]), (&line.into(), &damage.into()), "{finding:#}");
            assert!(finding["file"].as_str().unwrap().ends_with("audit.jsonl"), "{finding:#}");
        };
        let edited = String::from_utf8(lines[2].to_vec()).unwrap().replace("bootstrap-admin", "somebody-else");
        is(&verdict(&world, &[&start, edited.as_bytes(), &end].concat()), 3, "edited");
        is(&verdict(&world, &[&start[..], &end].concat()), 3, "deleted");
        is(&verdict(&world, &[&start, lines[2], lines[2], &end].concat()), 4, "inserted");
        is(&verdict(&world, &[&start, edited.as_bytes(), lines[2], &end].concat()), 3, "inserted");
        let swapped = [&start, lines[3], lines[2], &lines[4..].concat()].concat();
        is(&verdict(&world, &swapped), 3, "reordered");
        let cut = lines.len() - 2;
        is(&verdict(&world, &lines[..cut].concat()), cut, "truncated");
        is(&verdict(&world, b""), 0, "truncated");
        fs::write(log_of(&world), &text).unwrap();
        is_intact(&world);
        fs::remove_file(log_of(&world)).unwrap();
        let output = audit(&world, &["verify"]);
        assert_eq!(output.code, Some(1), "{output:#?}");
        assert!(output.stderr.contains("truncated"), "{output:#?}");
        fs::write(log_of(&world), &text).unwrap();
        world.start_again();
        is_intact(&world);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_a_kill_tore_is_sealed_and_no_alarm() {
    let world = World::start(Backend::Sqlite).await;
    let id = world.admin().connect(ACME, &world.person("ana").long_lived_token()).await;
    world.admin().fetch(&id).await.unwrap();
    all_is_relayed(&world).await;
    world.kill();
    // As after a power cut: the last line is incomplete.
    let mut text = fs::read(log_of(&world)).unwrap();
    let line = text.split_inclusive(|byte| *byte == b'\n').next_back().unwrap().to_vec();
    text.extend_from_slice(&line[..line.len() / 2]);
    fs::write(log_of(&world), &text).unwrap();
    is_intact(&world);
    world.start_again();
    is_intact(&world);
    let records = records_in(&log_of(&world));
    assert!(records.iter().any(|record| record["kind"] == "recovered"), "{records:#?}");
    assert!(audit(&world, &["verify"]).stdout.contains("1 torn by a crash"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_have_a_log_and_a_chain_each() {
    let world = World::start(Backend::Postgres).await;
    let replica = world.replica();
    let id = world.admin().connect(ACME, &world.person("ana").long_lived_token()).await;
    world.admin().fetch(&id).await.unwrap();
    world.admin_of(&replica).fetch(&id).await.unwrap();
    all_is_relayed(&world).await;
    let logs = [log_of(&world), world.data().join("audit-2.jsonl")];
    let chains: Vec<BTreeSet<String>> = logs
        .iter()
        .map(|log| {
            let records = records_in(log);
            assert_eq!(of_rpc(&records, "FetchAccessToken").len(), 1, "{records:#?}");
            records.iter().map(|record| record["chain"].as_str().unwrap().to_owned()).collect()
        })
        .collect();
    assert_eq!(chains.iter().map(BTreeSet::len).collect::<Vec<_>>(), [1, 1]);
    assert!(chains[0].is_disjoint(&chains[1]));
    is_intact(&world);
    // The other replica's log is checked too.
    let text = fs::read(&logs[1]).unwrap();
    let cut = text.split_inclusive(|byte| *byte == b'\n').next().unwrap().to_vec();
    token_vault_tests::eventually_async("its head is anchored", Duration::from_secs(60), async || {
        (world.database.count("SELECT count(*) FROM audit_chains WHERE number >= 2").await == 2).then_some(())
    })
    .await;
    replica.kill();
    fs::write(&logs[1], cut).unwrap();
    let output = audit(&world, &["verify"]);
    assert!(output.code == Some(1) && output.stderr.contains("audit-2.jsonl"), "{output:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_file_is_put_aside_under_load_and_the_chain_goes_on() {
    let world = World::builder(Backend::Sqlite).config("audit.max_bytes", "20000").start().await;
    let id = world.admin().connect(ACME, &world.person("ana").long_lived_token()).await;
    let ingestion = world.ingestion().await;
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let (ingestion, id) = (ingestion.clone(), id.clone());
            tokio::spawn(async move {
                for _ in 0..60 {
                    ingestion.fetch(&id).await.expect("it is handed out");
                }
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    all_is_relayed(&world).await;
    assert_eq!(of_rpc(&records_in(&log_of(&world)), "FetchAccessToken").len(), 480);
    let aside = world.data().join("audit.jsonl.000005");
    assert!(aside.exists(), "no file was put aside");
    is_intact(&world);
    world.restart();
    is_intact(&world);
    fs::remove_file(&aside).unwrap();
    let output = audit(&world, &["verify"]);
    assert!(output.code == Some(1) && output.stderr.contains("audit.jsonl.000006:1: deleted"), "{output:#?}");
}
