//! A watch against a feed on a real socket that is cut, falls silent, denies calls or loses events.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use token_vault_client::v1::watch_expiry_events_request::{From as WireFrom, Start as WireStart};
use token_vault_client::v1::{ExpiryEvent, Token};
use token_vault_client::{
    Checkpoint as _, ErrorKind, EventStream, FileCheckpoint, Ingestion, Instruction, Snapshot, Start,
    SubscriptionCheckpoint, Vault, WatchItem, WatchOptions,
};
use tonic::Code;

use crate::feed::End;
use crate::relay::Relay;
use crate::scripted::Scripted;
use crate::{denied, key};

/// A time limit that is longer than anything here takes.
const SOON: Duration = Duration::from_secs(20);

async fn vault(url: &str) -> Vault {
    Vault::connect(url, key()).await.unwrap()
}

async fn next(stream: &mut EventStream) -> WatchItem {
    tokio::time::timeout(SOON, stream.next()).await.expect("in time").expect("an item").expect("no error")
}

/// The next event; other items are skipped.
async fn next_event(stream: &mut EventStream) -> ExpiryEvent {
    loop {
        if let WatchItem::Event(event) = next(stream).await {
            return *event;
        }
    }
}

/// An item in a word, such as "event 3".
fn word(item: &WatchItem) -> String {
    match item {
        WatchItem::Event(event) => format!("event {}", event.sequence),
        WatchItem::Snapshot(Snapshot::Started) => "snapshot".into(),
        WatchItem::Snapshot(Snapshot::Token(token)) => token.connection_id.clone(),
        WatchItem::Snapshot(Snapshot::Complete { token_count, .. }) => format!("all {token_count}"),
        WatchItem::CaughtUp => "caught up".into(),
        WatchItem::HistoryLost(error) => error.reason_name().into(),
        WatchItem::Interrupted(_) => "interrupted".into(),
        other => format!("{other:?}"),
    }
}

/// The words up to this one.
async fn words_until(stream: &mut EventStream, last: &str) -> Vec<String> {
    let mut words = Vec::new();
    while words.last().map(String::as_str) != Some(last) {
        words.push(word(&next(stream).await));
    }
    words
}

fn token(connection: &str, last_event_sequence: i64) -> Token {
    Token { connection_id: connection.into(), last_event_sequence, usable: true, ..Default::default() }
}

fn starts(scripted: &Scripted) -> Vec<WireStart> {
    scripted.feed.watched().into_iter().filter_map(|watched| watched.request.start).collect()
}

fn from(from: WireFrom) -> WireStart {
    WireStart::From(from.into())
}

#[tokio::test]
async fn cuts_lose_nothing_and_double_nothing() {
    const EVENTS: i64 = 200;
    let scripted = Scripted::start([]).await;
    scripted.feed.state().happen(EVENTS / 2);
    // The vault also sends again what it has sent before.
    scripted.feed.state().overlap = 4;
    // The feed is slower than the watcher, so that cuts come in the middle.
    scripted.feed.state().pace = Duration::from_millis(3);
    let relay = Relay::to(&scripted.url).await;
    let mut stream = vault(&relay.url).await.watch(WatchOptions::new().start(Start::Earliest));
    let mut got = Vec::new();
    while got.len() < usize::try_from(EVENTS).unwrap() {
        got.push(next_event(&mut stream).await.sequence);
        if got.len() == 60 {
            scripted.feed.state().happen(EVENTS / 2);
        }
        if got.len() % 17 == 0 {
            relay.cut();
        }
    }
    assert_eq!(got, (1..=EVENTS).collect::<Vec<_>>());
    let watches = scripted.feed.watched().len();
    assert!(watches >= 5, "it was really cut, and connected again: {watches}");
    // No event comes after the last one, but the watcher may notice and repair the last cut only now.
    let more = tokio::time::timeout(Duration::from_millis(500), next_event(&mut stream)).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test]
async fn each_outage_is_reported_once_and_being_caught_up_after_it() {
    let scripted = Scripted::start([]).await;
    scripted.feed.state().happen(1);
    let away = || denied(Code::Unavailable, "SHUTTING_DOWN", Some(Duration::from_millis(5)));
    // It stops, and denies calls until it is up again.
    scripted.feed.state().ends.push_back((2, End::With(away())));
    let mut stream = vault(&scripted.url).await.watch(WatchOptions::new().start(Start::Earliest));
    assert_eq!(words_until(&mut stream, "event 1").await, ["event 1"]);
    scripted.feed.state().refusals.extend([away(), away(), away()]);
    let words = words_until(&mut stream, "interrupted").await;
    assert_eq!(words, ["caught up", "interrupted"]);
    scripted.feed.state().happen(1);
    assert_eq!(words_until(&mut stream, "caught up").await, ["event 2", "caught up"]);
    assert_eq!(scripted.feed.watched().len(), 5, "three refusals in between, of which nobody heard");
}

#[tokio::test]
async fn a_crash_begins_where_the_file_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = FileCheckpoint::new(folder.path().join("position"));
    let options = || WatchOptions::new().start(Start::Earliest).checkpoint(file.clone());
    let scripted = Scripted::start([]).await;
    scripted.feed.state().happen(5);
    let vault = vault(&scripted.url).await;

    let mut stream = vault.watch(options());
    for sequence in 1..=4 {
        assert_eq!(next_event(&mut stream).await.sequence, sequence);
    }
    // The fourth event was taken but is not handled, because nobody asked for a fifth.
    stream.close().await.unwrap();
    assert_eq!(file.load().await.unwrap().as_deref(), Some("v0:3"));

    let mut stream = vault.watch(options());
    assert_eq!(next_event(&mut stream).await.sequence, 4, "it comes again");
    assert_eq!(next_event(&mut stream).await.sequence, 5);
    stream.acknowledge_all();
    stream.close().await.unwrap();

    let mut stream = vault.watch(options());
    assert_eq!(word(&next(&mut stream).await), "caught up");
    scripted.feed.state().happen(1);
    assert_eq!(next_event(&mut stream).await.sequence, 6);
    let expected = ["v0:3", "v0:5"].map(|cursor| WireStart::Cursor(cursor.into()));
    assert_eq!(starts(&scripted), [&[from(WireFrom::Earliest)], &expected[..]].concat());
}

#[tokio::test]
async fn an_idle_watch_moves_its_position_with_the_heartbeats() {
    let folder = tempfile::tempdir().unwrap();
    let file = FileCheckpoint::new(folder.path().join("position"));
    let scripted = Scripted::start([]).await;
    scripted.feed.state().happen(7);
    // A consumer that has taken nothing has nothing to acknowledge.
    let options = WatchOptions::new().checkpoint(file.clone()).acknowledge_by_hand();
    let mut stream = vault(&scripted.url).await.watch(options);
    assert_eq!(word(&next(&mut stream).await), "caught up");
    assert!(tokio::time::timeout(Duration::from_millis(100), stream.next()).await.is_err(), "idle");
    assert_eq!(stream.position().as_deref(), Some("v0:7"));
    stream.close().await.unwrap();
    assert_eq!(file.load().await.unwrap().as_deref(), Some("v0:7"), "so that a restart misses nothing");
}

#[tokio::test]
async fn by_hand_nothing_is_stored_that_was_not_acknowledged() {
    let scripted = Scripted::start([]).await;
    scripted.feed.state().happen(6);
    let vault = vault(&scripted.url).await;
    let options = || {
        let kept = SubscriptionCheckpoint::new(&vault, "work");
        WatchOptions::new()
            .start(Start::Earliest)
            .heartbeat(Duration::from_secs(1))
            .checkpoint(kept)
            .acknowledge_by_hand()
    };
    let mut stream = vault.watch(options());
    let mut events = Vec::new();
    while events.len() < 6 {
        events.push(next_event(&mut stream).await);
    }
    assert_eq!(words_until(&mut stream, "caught up").await, ["caught up"], "all is taken");
    let beaten = tokio::time::timeout(Duration::from_millis(1500), stream.next()).await;
    assert!(beaten.is_err(), "a heartbeat passes, and nothing comes of it");
    assert_eq!(stream.position().as_deref(), Some("v0:0"));
    assert!(stream.acknowledge(&events[3].cursor) && !stream.acknowledge(&events[1].cursor));
    stream.close().await.unwrap();
    assert_eq!(scripted.feed.state().acknowledged.last().map(String::as_str), Some("v0:4"));

    let mut stream = vault.watch(options());
    assert_eq!(next_event(&mut stream).await.sequence, 5, "the vault knows the position");
    assert_eq!(next_event(&mut stream).await.sequence, 6);
    let request = scripted.feed.watched().pop().unwrap().request;
    assert_eq!(request.subscription.as_deref(), Some("work"));
}

#[tokio::test]
async fn a_busy_watch_stores_seldom() {
    let scripted = Scripted::start([]).await;
    scripted.feed.state().happen(300);
    let vault = vault(&scripted.url).await;
    let kept = SubscriptionCheckpoint::new(&vault, "busy");
    let mut stream = vault.watch(WatchOptions::new().start(Start::Earliest).checkpoint(kept));
    let begun = Instant::now();
    while next_event(&mut stream).await.sequence < 300 {}
    stream.acknowledge_all();
    stream.close().await.unwrap();
    let acknowledged = scripted.feed.state().acknowledged.clone();
    assert_eq!(acknowledged.last().map(String::as_str), Some("v0:300"));
    let most = begun.elapsed().as_secs() + 3;
    assert!(u64::try_from(acknowledged.len()).unwrap() <= most, "{acknowledged:?}");
}

#[tokio::test]
async fn lost_history_is_reported_and_a_snapshot_rebuilds() {
    for (reason, file_says) in [("EVENTS_COMPACTED", "v0:2"), ("FEED_REPLACED", "v7:9")] {
        let folder = tempfile::tempdir().unwrap();
        let file = FileCheckpoint::new(folder.path().join("position"));
        file.store(file_says).await.unwrap();
        let scripted = Scripted::start([]).await;
        {
            let mut state = scripted.feed.state();
            state.happen(10);
            state.compacted = 6;
            state.tokens = ["a", "b", "c", "d"].map(|id| token(id, 12)).into();
            state.careless = true;
            // The snapshot is cut in the middle, and begins again.
            state.ends.push_back((2, End::Well));
        }
        let options = WatchOptions::new().checkpoint(file.clone());
        let mut stream = vault(&scripted.url).await.watch(options);
        let words = words_until(&mut stream, "interrupted").await;
        assert_eq!(words, [reason, "snapshot", "a", "b", "c", "interrupted"]);
        let words = words_until(&mut stream, "all 4").await;
        assert_eq!(words, ["snapshot", "a", "b", "c", "d", "all 4"]);
        assert_eq!(file.load().await.unwrap().as_deref(), Some(file_says), "no snapshot is handled in part");

        // The tokens of the snapshot cover the first two of these events already.
        for connection in ["a", "b", "a", "b"] {
            let event = ExpiryEvent { connection_id: connection.into(), ..Default::default() };
            scripted.feed.state().happens(event);
        }
        let words = words_until(&mut stream, "event 14").await;
        assert_eq!(
            words.iter().filter(|word| *word != "caught up").collect::<Vec<_>>(),
            ["event 13", "event 14"]
        );
        stream.close().await.unwrap();
        assert_eq!(file.load().await.unwrap().as_deref(), Some("v0:13"));
        let snapshot = from(WireFrom::Snapshot);
        assert_eq!(starts(&scripted), [WireStart::Cursor(file_says.into()), snapshot.clone(), snapshot]);
    }
}

#[tokio::test]
async fn a_feed_that_is_replaced_under_the_watch_counts_from_its_beginning() {
    let scripted = Scripted::start([]).await;
    scripted.feed.state().happen(50);
    let relay = Relay::to(&scripted.url).await;
    let mut stream = vault(&relay.url).await.watch(WatchOptions::new().start(Start::Earliest));
    while next_event(&mut stream).await.sequence < 50 {}
    {
        let mut state = scripted.feed.state();
        (state.epoch, state.events) = (1, Vec::new());
        state.happen(3);
    }
    relay.cut();
    let words = words_until(&mut stream, "all 0").await;
    assert!(words.ends_with(&["FEED_REPLACED", "snapshot", "all 0"].map(String::from)), "{words:?}");
    scripted.feed.state().happen(1);
    assert_eq!(next_event(&mut stream).await.sequence, 4, "though it had seen 50");
}

#[tokio::test]
async fn lost_history_ends_the_watch_where_that_is_wanted() {
    let scripted = Scripted::start([]).await;
    scripted.feed.state().happen(3);
    let options = WatchOptions::new().start(Start::Cursor("v9:1".into())).end_when_history_is_lost();
    let mut stream = vault(&scripted.url).await.watch(options);
    assert_eq!(word(&next(&mut stream).await), "FEED_REPLACED");
    for _ in 0..2 {
        assert!(tokio::time::timeout(SOON, stream.next()).await.unwrap().is_none());
    }
    assert_eq!(scripted.feed.watched().len(), 1);
}

#[tokio::test]
async fn a_dead_stream_is_noticed() {
    let scripted = Scripted::start([]).await;
    scripted.feed.state().happen(1);
    // The feed sends a first heartbeat and then nothing at all: no end, no error, no event.
    scripted.feed.state().ends.push_back((1, End::Silent));
    let options = WatchOptions::new().start(Start::Earliest).heartbeat(Duration::from_millis(1));
    let mut stream = vault(&scripted.url).await.watch(options);
    let begun = Instant::now();
    assert_eq!(words_until(&mut stream, "event 1").await, ["interrupted", "event 1"]);
    let silence = begun.elapsed();
    assert!(silence >= Duration::from_secs(3) && silence < Duration::from_secs(6), "{silence:?}");
    let request = scripted.feed.watched().pop().unwrap().request;
    assert_eq!(request.heartbeat_interval.unwrap().seconds, 1, "the shortest there is");
}

#[tokio::test]
async fn a_watch_waits_as_long_as_the_vault_asks() {
    const ASKED: Duration = Duration::from_millis(700);
    let scripted = Scripted::start([]).await;
    scripted.feed.state().happen(1);
    let stopping = || denied(Code::Unavailable, "SHUTTING_DOWN", Some(ASKED));
    // Once in the middle of a watch, and once at its beginning.
    scripted.feed.state().ends.push_back((2, End::With(stopping())));
    let mut stream = vault(&scripted.url).await.watch(WatchOptions::new().start(Start::Earliest));
    assert_eq!(words_until(&mut stream, "interrupted").await, ["event 1", "caught up", "interrupted"]);
    scripted.feed.state().refusals.push_back(stopping());
    scripted.feed.state().happen(1);
    assert_eq!(next_event(&mut stream).await.sequence, 2);
    let at: Vec<Instant> = scripted.feed.watched().iter().map(|watched| watched.at).collect();
    assert_eq!(at.len(), 3);
    for pair in at.windows(2) {
        let wait = pair[1] - pair[0];
        assert!(wait >= ASKED && wait < ASKED * 3, "{wait:?}");
    }
}

#[tokio::test]
async fn what_waiting_cannot_fix_ends_the_watch() {
    let cases = [
        (Code::Unauthenticated, "API_KEY_INVALID", ErrorKind::Access),
        (Code::PermissionDenied, "ROLE_INSUFFICIENT", ErrorKind::Access),
        (Code::InvalidArgument, "CURSOR_INVALID", ErrorKind::YourBug(vec![])),
    ];
    for (code, reason, kind) in cases {
        // The denial comes when the watch begins, or when it is under way.
        for under_way in [false, true] {
            let scripted = Scripted::start([]).await;
            scripted.feed.state().happen(1);
            let refusal = denied(code, reason, None);
            if under_way {
                scripted.feed.state().ends.push_back((2, End::With(refusal)));
            } else {
                scripted.feed.state().refusals.push_back(refusal);
            }
            let mut stream = vault(&scripted.url).await.watch(WatchOptions::new().start(Start::Earliest));
            if under_way {
                assert_eq!(words_until(&mut stream, "caught up").await, ["event 1", "caught up"]);
            }
            let error = tokio::time::timeout(SOON, stream.next()).await.unwrap().unwrap().unwrap_err();
            assert_eq!((error.kind(), error.reason_name()), (&kind, reason));
            assert!(stream.next().await.is_none(), "and that was all");
            assert_eq!(scripted.feed.watched().len(), 1, "{reason}");
        }
    }
}

#[tokio::test]
async fn a_checkpoint_that_fails_is_reported_and_one_that_never_can_ends_the_watch() {
    let scripted = Scripted::start([]).await;
    scripted.feed.state().happen(2);
    let vault = vault(&scripted.url).await;
    let watch = || {
        let kept = SubscriptionCheckpoint::new(&vault, "viewer");
        vault.watch(
            WatchOptions::new().start(Start::Earliest).heartbeat(Duration::from_secs(1)).checkpoint(kept),
        )
    };
    scripted.feed.state().acknowledge_with = Some(denied(Code::DataLoss, "CIPHERTEXT_CORRUPT", None));
    let mut stream = watch();
    let failed = loop {
        if let WatchItem::CheckpointFailed(error) = next(&mut stream).await {
            break error;
        }
    };
    assert_eq!(failed.kind(), &ErrorKind::CallOperator);
    scripted.feed.state().acknowledge_with = None;
    drop(stream);

    scripted.feed.state().acknowledge_with = Some(denied(Code::PermissionDenied, "ROLE_INSUFFICIENT", None));
    let mut stream = watch();
    let error = loop {
        match tokio::time::timeout(SOON, stream.next()).await.unwrap() {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("it ended without a word"),
        }
    };
    assert_eq!(error.kind(), &ErrorKind::Access);

    // A file that can't be read must not make the watch start over.
    let folder = tempfile::tempdir().unwrap();
    let watches = scripted.feed.watched().len();
    let mut stream = vault.watch(WatchOptions::new().checkpoint(FileCheckpoint::new(folder.path())));
    let error = tokio::time::timeout(SOON, stream.next()).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::CallOperator);
    assert_eq!(scripted.feed.watched().len(), watches, "it did not even connect");
}

#[tokio::test]
async fn a_newer_vault_is_understood_as_far_as_possible() {
    let scripted = Scripted::start([]).await;
    let event = ExpiryEvent { kind: 4711, severity: 99, connection_id: "c".into(), ..Default::default() };
    scripted.feed.state().happens(event);
    let mut stream = vault(&scripted.url).await.watch(WatchOptions::new().start(Start::Earliest));
    let item = next(&mut stream).await;
    assert_eq!(word(&item), "event 1");
    let pause = Instruction::Pause { connection_id: "c".into() };
    assert_eq!(Ingestion::new().take(&item), [pause], "it goes by usable");
}

#[tokio::test]
async fn a_vault_that_is_not_there_yet_is_waited_for() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let vault = Vault::builder(&url, key()).connect_lazy().unwrap();
    let mut stream = vault.watch(WatchOptions::new());
    let WatchItem::Interrupted(error) = next(&mut stream).await else { panic!("nobody is there") };
    assert!(matches!(error.kind(), ErrorKind::RetryAfter(_)), "{error:?}");
    let scripted = Scripted::start_at(url.trim_start_matches("http://")).await;
    assert_eq!(word(&next(&mut stream).await), "caught up");
    assert_eq!(scripted.feed.watched().len(), 1);
}

#[tokio::test]
async fn a_snapshot_starts_a_watch_that_wants_one() {
    let scripted = Scripted::start([]).await;
    scripted.feed.state().happen(2);
    scripted.feed.state().tokens = vec![token("a", 2)];
    let vault = vault(&scripted.url).await;
    let kept = SubscriptionCheckpoint::new(&vault, "fresh");
    let mut stream = vault.watch(WatchOptions::new().start(Start::Snapshot).checkpoint(kept));
    assert_eq!(words_until(&mut stream, "caught up").await, ["snapshot", "a", "all 1", "caught up"]);
    scripted.feed.state().happen(1);
    assert_eq!(next_event(&mut stream).await.sequence, 3);
    stream.close().await.unwrap();
    assert_eq!(scripted.feed.state().acknowledged, ["v0:2"], "nothing before the snapshot was whole");
}
