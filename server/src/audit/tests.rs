//! Tests the sink against verification, on logs small enough to try every change.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::writer::body;
use super::*;
use crate::crypto::{MacKey, RawKey};
use crate::model::{AuditKind, AuditRecord, Clock, Timestamp};

fn key() -> MacKey {
    MacKey::new(&RawKey::from_bytes([7; 32]))
}

fn config(sink: SinkConfig) -> AuditConfig {
    AuditConfig { sink, sync: SyncMode::Always, max_bytes: 1 << 30, keep: None }
}

fn record(n: usize) -> String {
    let mut record = AuditRecord::new(AuditKind::HandedOut, Timestamp::EPOCH);
    record.principal = format!("service-{n}");
    record.rpc = "tokenvault.v1.TokenVault/FetchAccessToken".into();
    record.code = "OK".into();
    record.version = Some(i32::try_from(n).unwrap());
    body(&record)
}

/// Runs one process life that writes this many records, and returns its anchor.
async fn one_life(config: &AuditConfig, records: usize) -> Anchor {
    let audit = Audit::open(config, key(), Clock::system()).unwrap();
    for n in 0..records {
        audit.append(vec![record(n)]).await.unwrap();
    }
    audit.close(&Clock::system()).await;
    Anchor { head: audit.flushed().unwrap(), log: audit.log_name().to_owned(), dropped_to: 0 }
}

/// The threads end a moment after the close; then the log is free.
async fn until_free<T>(mut open: impl FnMut() -> Result<T, AuditOpenError>) -> T {
    let start = Instant::now();
    loop {
        match open() {
            Ok(opened) => return opened,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(10), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn next_life(config: &AuditConfig, records: usize) -> Anchor {
    drop(
        until_free(|| {
            let SinkConfig::File(path) = &config.sink else { panic!("a file") };
            match FileSet::new(path).lock() {
                Ok(Some(lock)) => Ok(lock),
                other => Err(AuditOpenError(format!("{other:?}"))),
            }
        })
        .await,
    );
    one_life(config, records).await
}

fn check(file: &Path, anchors: &[Anchor]) -> Report {
    verify(&key(), &[FileSet::new(file)], anchors).unwrap()
}

fn found(file: &Path, text: &[u8], anchors: &[Anchor]) -> Option<Finding> {
    fs::write(file, text).unwrap();
    check(file, anchors).finding
}

/// Writes two lives into one file, and returns what the database knows of them.
async fn two_lives(folder: &Path) -> (PathBuf, Vec<Anchor>, Vec<u8>) {
    let file = folder.join("audit.jsonl");
    let config = config(SinkConfig::File(file.clone()));
    let anchors = vec![one_life(&config, 1).await, next_life(&config, 1).await];
    let text = fs::read(&file).unwrap();
    (file, anchors, text)
}

fn lines(text: &[u8]) -> Vec<Vec<u8>> {
    text.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

#[tokio::test]
async fn what_was_written_is_intact_and_private() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (file, anchors, _) = two_lives(folder.path()).await;
    let report = check(&file, &anchors);
    assert_eq!(report, Report { files: 1, records: 6, chains: 2, ..Report::default() });
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let other = MacKey::new(&RawKey::from_bytes([8; 32]));
    let finding = verify(&other, &[FileSet::new(&file)], &anchors).unwrap().finding;
    assert_eq!(finding.map(|finding| finding.line), Some(1), "another key's log");
}

#[tokio::test]
async fn every_changed_byte_is_found_in_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let (file, anchors, text) = two_lives(folder.path()).await;
    let mut line = 1;
    for at in 0..text.len() {
        for replacement in [text[at] ^ 1, text[at] ^ 0x20, b'\n'] {
            // At the very end of the file, a change looks like a line that a crash tore. The anchors decide.
            if replacement == text[at] {
                continue;
            }
            let mut edited = text.clone();
            edited[at] = replacement;
            let finding = found(&file, &edited, &anchors);
            let finding = finding.unwrap_or_else(|| panic!("byte {at} as {replacement:#x} is not found"));
            assert!(
                (line.max(2) - 1..=line + 1).contains(&finding.line),
                "byte {at} of line {line}: {finding}"
            );
        }
        if text[at] == b'\n' {
            line += 1;
        }
    }
}

#[tokio::test]
async fn every_deleted_doubled_moved_or_foreign_line_is_found_by_its_kind() {
    let folder = tempfile::tempdir().unwrap();
    let (file, anchors, text) = two_lives(folder.path()).await;
    let all = lines(&text);
    for at in 0..all.len() {
        let mut without = all.clone();
        without.remove(at);
        let finding = found(&file, &without.concat(), &anchors).expect("a line is gone");
        let kind = if at + 1 == all.len() { Damage::Truncated } else { Damage::Deleted };
        assert_eq!(finding.damage, kind, "line {at} gone: {finding}");
        for to in 0..=all.len() {
            let mut doubled = all.clone();
            doubled.insert(to, all[at].clone());
            let finding = found(&file, &doubled.concat(), &anchors).expect("a line stands twice");
            assert!(
                [Damage::Inserted, Damage::Reordered].contains(&finding.damage),
                "{at} at {to}: {finding}"
            );
            let mut foreign = all.clone();
            foreign.insert(to, b"{\"principal\":\"nobody\"}\n".to_vec());
            let finding = found(&file, &foreign.concat(), &anchors).expect("a foreign line");
            assert_eq!((finding.line, finding.damage == Damage::Deleted), (to + 1, false), "{finding}");
        }
        for other in at + 1..all.len() {
            let mut moved = all.clone();
            moved.swap(at, other);
            let finding = found(&file, &moved.concat(), &anchors).expect("lines changed places");
            assert_eq!(finding.damage, Damage::Reordered, "{at} with {other}: {finding}");
        }
    }
}

#[tokio::test]
async fn every_cut_is_found_and_so_is_the_loss_of_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (file, anchors, text) = two_lives(folder.path()).await;
    for length in 0..text.len() - 1 {
        let finding = found(&file, &text[..length], &anchors).unwrap_or_else(|| panic!("cut to {length}"));
        assert_eq!(finding.damage, Damage::Truncated, "{finding}");
    }
    fs::remove_file(&file).unwrap();
    assert_eq!(check(&file, &anchors).finding.map(|finding| finding.damage), Some(Damage::Truncated));
    // Cut at both ends.
    let middle = lines(&text)[1..4].concat();
    assert_eq!(found(&file, &middle, &anchors).map(|finding| finding.damage), Some(Damage::Deleted));
}

#[tokio::test]
async fn a_torn_line_is_sealed_by_the_next_start_and_by_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (file, mut anchors, text) = two_lives(folder.path()).await;
    let config = config(SinkConfig::File(file.clone()));
    let next = lines(&text)[3].clone();
    for torn in [1, 20, next.len() - 2] {
        let mut crashed = text.clone();
        crashed.extend_from_slice(&next[..torn]);
        fs::write(&file, &crashed).unwrap();
        anchors.truncate(2);
        assert_eq!(check(&file, &anchors).finding, None, "a crash's last word, not yet sealed");
        anchors.push(next_life(&config, 2).await);
        let report = check(&file, &anchors);
        assert_eq!((report.finding, report.recovered, report.chains), (None, 1, 3), "torn after {torn}");
        // A sealed line can't be changed any more.
        let sealed = fs::read(&file).unwrap();
        let mut edited = sealed.clone();
        edited[text.len()] ^= 1;
        assert!(found(&file, &edited, &anchors).is_some());
        fs::write(&file, sealed).unwrap();
    }
    // Only the end of the line was lost.
    fs::write(&file, &text[..text.len() - 1]).unwrap();
    anchors.truncate(2);
    assert_eq!(check(&file, &anchors).finding, None);
    anchors.push(next_life(&config, 2).await);
    let report = check(&file, &anchors);
    assert_eq!((report.finding, report.recovered, report.records), (None, 0, 10));
}

#[tokio::test]
async fn a_chain_goes_on_from_file_to_file_and_old_files_may_go() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    let small = AuditConfig { max_bytes: 4_096, ..config(SinkConfig::File(file.clone())) };
    let anchor = one_life(&small, 40).await;
    let set = FileSet::new(&file);
    let files = set.all().unwrap();
    assert!(files.len() > 3, "{files:?}");
    assert!(files.iter().all(|file| fs::metadata(file).unwrap().len() <= 4_096));
    let report = check(&file, std::slice::from_ref(&anchor));
    assert_eq!((report.finding, report.chains, report.files), (None, 1, files.len()));
    // Remove each file in turn.
    for gone in &files {
        let text = fs::read(gone).unwrap();
        fs::remove_file(gone).unwrap();
        let finding = check(&file, std::slice::from_ref(&anchor)).finding.expect("a file is gone");
        let last = *gone == file;
        assert_eq!(finding.damage, if last { Damage::Truncated } else { Damage::Deleted }, "{finding}");
        fs::write(gone, text).unwrap();
    }
    assert_eq!(check(&file, std::slice::from_ref(&anchor)).finding, None);

    let other = folder.path().join("kept.jsonl");
    let kept = AuditConfig { keep: Some(2), max_bytes: 4_096, ..config(SinkConfig::File(other.clone())) };
    let audit = Audit::open(&kept, key(), Clock::system()).unwrap();
    for n in 0..60 {
        audit.append(vec![record(n)]).await.unwrap();
    }
    audit.close(&Clock::system()).await;
    let surplus = audit.take_surplus();
    assert_eq!(FileSet::new(&other).aside().unwrap().len(), surplus.len() + 2, "each is named once");
    let heads = surplus.iter().flat_map(|surplus| &surplus.heads);
    let dropped = heads.max_by_key(|head| head.number).copied().expect("there are old files");
    // Before the files are deleted, after some are, and once all are: the database knew of it first.
    let knows =
        |dropped_to| Anchor { head: audit.flushed().unwrap(), log: audit.log_name().to_owned(), dropped_to };
    for Surplus { file, .. } in &surplus {
        assert_eq!(check(&other, &[knows(dropped.number)]).finding, None);
        fs::remove_file(file).unwrap();
    }
    let anchor = Anchor {
        head: audit.flushed().unwrap(),
        log: audit.log_name().to_owned(),
        dropped_to: dropped.number,
    };
    assert_eq!(check(&other, std::slice::from_ref(&anchor)).finding, None);
    let unknown = Anchor { dropped_to: 0, ..anchor };
    assert_eq!(check(&other, &[unknown]).finding.map(|finding| finding.damage), Some(Damage::Deleted));
}

#[tokio::test]
async fn many_at_once_share_writes_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    let small = AuditConfig { max_bytes: 16_384, ..config(SinkConfig::File(file.clone())) };
    let audit = std::sync::Arc::new(Audit::open(&small, key(), Clock::system()).unwrap());
    let writers: Vec<_> = (0..16)
        .map(|of| {
            let audit = std::sync::Arc::clone(&audit);
            tokio::spawn(async move {
                for n in 0..50 {
                    audit.append(vec![record(of * 50 + n)]).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    audit.close(&Clock::system()).await;
    assert_eq!(check(&file, &[]).finding, None);
    let all =
        search(&[FileSet::new(&file)], &Query { outcome: Some("OK".into()), ..Query::default() }).unwrap();
    assert_eq!(all.len(), 800);
}

#[tokio::test]
async fn a_log_has_one_writer_and_a_folder_has_room_for_more() {
    let folder = tempfile::tempdir().unwrap();
    let named = config(SinkConfig::File(folder.path().join("audit.jsonl")));
    let first = Audit::open(&named, key(), Clock::system()).unwrap();
    let error = Audit::open(&named, key(), Clock::system()).unwrap_err().to_string();
    assert!(error.contains("another token-vault process") && error.contains("audit.file"), "{error}");
    let free = config(SinkConfig::Folder(folder.path().to_owned()));
    let second = Audit::open(&free, key(), Clock::system()).unwrap();
    assert_ne!(first.log_name(), second.log_name());
    assert_eq!(file_sets(folder.path()).unwrap().len(), 2);
}

#[tokio::test]
async fn a_sink_without_room_fails_from_the_start_and_one_that_can_not_be_written_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let full = folder.path().join("full.jsonl");
    std::os::unix::fs::symlink("/dev/full", &full).unwrap();
    let full = Audit::open(&config(SinkConfig::File(full)), key(), Clock::system()).unwrap();
    assert!(full.check().is_err() && !*full.health().borrow(), "it fails until there is room");
    let a_folder = config(SinkConfig::File(folder.path().to_owned()));
    let error = Audit::open(&a_folder, key(), Clock::system()).unwrap_err().to_string();
    assert!(error.contains("audit.file"), "{error}");
}

/// A log that was written in this format once: every later release must still verify it.
#[test]
fn a_line_of_format_one_reads_as_it_always_did() {
    let mut head = Head { chain: uuid::Uuid::nil(), number: 0, mac: [0; 32] };
    let mut out = Vec::new();
    let body = r#"{"id":"00000000-0000-0000-0000-000000000001","at":"1970-01-01T00:00:00.000000Z","kind":"handed_out","principal":"p","version":3}"#;
    head.append(&key(), body, &mut out);
    let text = String::from_utf8(out).unwrap();
    let known = include_str!("known_line.jsonl");
    assert_eq!(text, known);
    let line = Line::read(&key(), known.trim_end().as_bytes()).unwrap();
    assert_eq!((line.number, line.record.principal.as_str(), line.record.version), (1, "p", Some(3)));
}

#[tokio::test]
async fn what_only_looks_like_the_vaults_own_word_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    let anchor = one_life(&config(SinkConfig::File(file.clone())), 3).await;
    let text = fs::read(&file).unwrap();
    let with = |line: &str| {
        let planted = [line.as_bytes(), b"\n", &text].concat();
        found(&file, &planted, std::slice::from_ref(&anchor))
    };
    assert_eq!(with("token-vault ready: grpc=127.0.0.1:50051 admin=[::1]:9090"), None);
    for planted in [
        "token-vault ready: ",
        "token-vault ready: grpc=127.0.0.1:50051",
        "token-vault ready: grpc=127.0.0.1:50051 admin=127.0.0.1:9090 and more",
        "token-vault ready: grpc=somewhere admin=127.0.0.1:9090",
    ] {
        let finding = with(planted).expect("the vault says no such thing");
        assert_eq!((finding.line, finding.damage), (1, Damage::Inserted), "{planted}");
    }
    let long = format!("{{\"chain\":\"{}\"}}", "x".repeat(3 * 1024 * 1024));
    assert_eq!(with(&long).map(|finding| finding.damage), Some(Damage::Inserted), "a line without measure");
}
