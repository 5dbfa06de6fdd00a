//! The output of commands: whole words, on lines that fit the terminal.

use std::collections::BTreeSet;
use std::time::Duration;

use token_vault_tests::prelude::*;
use token_vault_tests::{Ended, Launch, eventually};

const LIMIT: Duration = Duration::from_secs(30);

/// Asserts that no line is longer than `width`, and that no word of `text` is broken: each word is in `whole`, which is
/// the same output without a limit.
fn fits(what: &str, text: &str, width: usize, whole: &str) {
    let words: BTreeSet<_> = whole.split_whitespace().collect();
    for line in text.lines() {
        assert!(line.chars().count() <= width, "{what} at {width}: {line:?}\n{text}");
        for word in line.split_whitespace() {
            assert!(words.contains(word), "{what} at {width} breaks {word:?}:\n{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_and_events_fit_the_terminal_and_break_no_word() {
    let world = World::start(Backend::Sqlite).await;
    let launch = |words: &[&str], width: usize| -> Launch {
        let launch =
            world.launch().instead(words.iter().copied()).env("TOKEN_VAULT_ENDPOINT", world.endpoint());
        launch.env("COLUMNS", width.to_string()).env("TOKEN_VAULT__LOG__LEVEL", "error")
    };
    let run = |words: &[&str], width: usize| -> Ended {
        let ended = launch(words, width).run();
        assert_eq!(ended.code, Some(0), "{words:?}: {ended:?}");
        ended
    };
    let create = ["api-key", "create", "--role", "ingestion", "--principal"];
    for (name, scope) in [
        ("ingestion-eu-west", &["--workspace", ACME, "--workspace", "globex"][..]),
        ("web", &["--all-workspaces"]),
    ] {
        run(&[&create[..], &[name], scope, &["--expires-in", "90d"]].concat(), 80);
    }
    let replaced = world.caller(Role::Viewer, &[]).await;
    run(&["api-key", "rotate", replaced.key_id()], 80);
    let id = world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
    world.ingestion().await.fetch(&id).await.unwrap();
    world.person("ana").changes_password();
    world.ingestion().await.validate(&id).await.unwrap();
    run(&["jobs", "run", "meta-token-expiry"], 80);
    eventually("the run is over", LIMIT, || {
        run(&["jobs", "runs", "meta-token-expiry", "--json"], 80).stdout.contains("SUCCEEDED")
    });

    let tables: [&[&str]; 5] =
        [&["api-key", "list"], &["jobs"], &["jobs", "runs"], &["audit", "search"], &["keys", "list"]];
    for words in tables {
        for width in [80, 100] {
            // Before and after, because a time or a run may change in between.
            let before = run(words, 1_000).stdout;
            let text = run(words, width).stdout;
            let whole = before + &run(words, 1_000).stdout;
            assert!(text.lines().count() > 1 && !text.contains('\u{1b}'), "{words:?}: {text}");
            fits(&words.join(" "), &text, width, &whole);
        }
    }
    for (from, last) in [("earliest", "INVALIDATED"), ("snapshot", "Reconnect needed")] {
        let watch = |width| {
            launch(&["watch", "--from", from], width).run_until(|line| line.contains("reconnect")).stdout
        };
        let whole = watch(1_000);
        assert!(whole.contains(last) && whole.contains("ana in acme"), "{whole}");
        assert!(whole.contains("changed the password"), "it says what is wrong, and what to do: {whole}");
        for width in [80, 100] {
            fits(&format!("watch --from {from}"), &watch(width), width, &whole);
        }
    }
    let dead = launch(&["watch", "--from", "snapshot", "--json"], 80)
        .run_until(|line| line.contains("snapshot_complete"));
    let dead: Vec<serde_json::Value> =
        dead.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let token = dead.iter().find(|item| item["type"] == "token").unwrap();
    assert!(token["days_left"].is_null() && token["problems"][0]["remedy"]["action"].is_string(), "{token}");
}
