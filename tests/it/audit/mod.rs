//! The audit log: every hand-out of a secret and every change is recorded first, and nobody can change a record
//! unnoticed.

mod recorded;
mod sink;
mod tampering;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use token_vault_sandbox::Decision;
use token_vault_tests::prelude::*;
use token_vault_tests::{Ended, eventually};

/// The log of a world's first process.
fn log_of(world: &World) -> PathBuf {
    world.data().join("audit.jsonl")
}

/// Every record of a log, oldest first, without repeats.
fn records_in(file: &Path) -> Vec<Value> {
    let folder = file.parent().expect("a file stands in a folder");
    let name = file.file_name().expect("a name").to_string_lossy().into_owned();
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            let other = path.file_name().expect("a name").to_string_lossy().into_owned();
            other.strip_prefix(&format!("{name}.")).is_some_and(|end| end.bytes().all(|b| b.is_ascii_digit()))
        })
        .collect();
    files.sort();
    files.push(file.to_owned());
    let mut seen = BTreeSet::new();
    let text: String = files.iter().map(|file| fs::read_to_string(file).unwrap_or_default()).collect();
    text.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|record| seen.insert(record["id"].as_str().expect("a record has an id").to_owned()))
        .collect()
}

/// The records of one RPC, by the last part of its name.
fn of_rpc<'a>(records: &'a [Value], rpc: &str) -> Vec<&'a Value> {
    let end = format!("/{rpc}");
    records.iter().filter(|record| record["rpc"].as_str().is_some_and(|name| name.ends_with(&end))).collect()
}

/// Waits until the relay has nothing left to write.
async fn all_is_relayed(world: &World) {
    token_vault_tests::eventually_async("the outbox is empty", Duration::from_secs(60), async || {
        (world.database.count("SELECT count(*) FROM audit_outbox").await == 0).then_some(())
    })
    .await;
}

fn audit(world: &World, arguments: &[&str]) -> Ended {
    let mut words = vec!["audit"];
    words.extend(arguments);
    // The command takes the place of `serve`; the settings behind it stay.
    world.launch().env("TOKEN_VAULT__LOG__LEVEL", "warn").instead(words).run()
}

/// Asserts that the command finds the log intact.
fn is_intact(world: &World) {
    let output = audit(world, &["verify"]);
    assert_eq!(output.code, Some(0), "{output:#?}");
    assert!(output.stdout.starts_with("intact: "), "{output:#?}");
}
