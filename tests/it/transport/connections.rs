//! Connections that are many, idle or incomplete: they get only their share of the vault, and well-behaved callers are
//! answered throughout.

use std::sync::Arc;
use std::time::Duration;

use token_vault_proto::v1::WatchExpiryEventsRequest as Watch;
use token_vault_tests::certificates::{Authority, Secured};
use token_vault_tests::fleet::turn;
use token_vault_tests::http2::{PREFACE, SETTINGS, frame, headers};
use token_vault_tests::prelude::*;
use token_vault_tests::{Steady, eventually, eventually_async};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::abuse::{LIMIT, LIST, admin_with_key, dial, memory};

/// Reads until the vault closes the connection. Returns false if it does not close in time.
async fn closed(mut socket: TcpStream) -> bool {
    let mut sink = vec![0; 16 * 1024];
    let reading = async {
        // An error counts as the end too.
        while matches!(socket.read(&mut sink).await, Ok(read) if read > 0) {}
    };
    tokio::time::timeout(LIMIT, reading).await.is_ok()
}

/// Reads frames until the one that ends this stream.
async fn answered(socket: &mut TcpStream, stream: u32) {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const GOAWAY: u8 = 7;
    loop {
        let mut head = [0; 9];
        socket.read_exact(&mut head).await.expect("the connection stays");
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        socket.read_exact(&mut payload).await.expect("the connection stays");
        let [.., a, b, c, d] = head;
        assert_ne!(head[3], GOAWAY, "stream {stream}: {}", String::from_utf8_lossy(&payload));
        if matches!(head[3], DATA | HEADERS) && head[4] & 1 == 1 && u32::from_be_bytes([a, b, c, d]) == stream
        {
            return;
        }
    }
}

/// A denial may come before the caller has sent its message. That must not count against the connection, whose other
/// calls would end too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_come_after_a_denial_do_not_end_the_connection() {
    let world = World::start(Backend::Sqlite).await;
    let mut socket = dial(&world).await;
    socket.set_nodelay(true).expect("an open socket");
    socket.write_all(&[PREFACE, SETTINGS].concat()).await.expect("the vault listens");
    for call in 0..1_500 {
        let stream = 2 * call + 1;
        socket.write_all(&frame(1, 4, stream, &headers(LIST))).await.expect("the connection stays");
        answered(&mut socket, stream).await;
        let message = [frame(0, 0, stream, &[0; 5]), frame(0, 1, stream, &[])].concat();
        socket.write_all(&message).await.expect("the connection stays");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_are_never_finished_are_ended_and_hold_nobody_up() {
    let servers = Authority::new("servers");
    let secured = Secured::prepare(Backend::Sqlite, &servers.server(), None).await;
    let secured = secured.set("server.limits.handshake_timeout", "1s");
    secured.serve();
    let secured = Arc::new(secured);
    let steady = Steady::start({
        let (secured, servers) = (Arc::clone(&secured), servers);
        move || secured.world.admin().through(secured.channel(&servers, None))
    });
    let mut open = Vec::new();
    for number in 0..300 {
        let mut socket = dial(&secured.world).await;
        // These connections send nothing at all, or the beginning of a ClientHello.
        if number % 2 == 0 {
            socket.write_all(&[22, 3, 1, 2, 0, 1, 0]).await.expect("the vault listens");
        }
        open.push(tokio::spawn(closed(socket)));
    }
    // This connection sends a byte now and then.
    let mut drip = dial(&secured.world).await;
    let dripping = tokio::spawn(async move {
        for byte in std::iter::once(22).chain(std::iter::repeat_n(3, 1_000)) {
            if drip.write_all(&[byte]).await.is_err() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    });
    steady.goes_on(20).await;
    for socket in open {
        assert!(socket.await.unwrap(), "a handshake that is never finished stays open");
    }
    assert!(dripping.await.unwrap(), "who sends a byte now and then is not let stay");
    steady.goes_on(20).await;
    steady.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_of_http2_that_are_never_finished_are_ended_and_hold_nobody_up() {
    let world = World::builder(Backend::Sqlite)
        .config("server.limits.handshake_timeout", "1s")
        .config("server.limits.keepalive_interval", "1s")
        .config("server.limits.keepalive_timeout", "1s")
        .start()
        .await;
    let steady = Steady::start(admin_with_key(&world));
    let whole = frame(1, 4, 1, &headers(LIST));
    let begun = |rest: &[u8]| [PREFACE, SETTINGS, rest].concat();
    let cases: [(&str, Vec<u8>); 7] = [
        ("nothing", Vec::new()),
        ("half a preface", PREFACE[..10].to_vec()),
        ("a preface and half a frame", [PREFACE, &SETTINGS[..5]].concat()),
        ("settings and silence", begun(&[])),
        ("half of the headers", begun(&whole[..whole.len() / 2])),
        ("headers that never end", begun(&frame(1, 0, 1, &headers(LIST)))),
        ("a call without its message", begun(&whole)),
    ];
    let mut open = Vec::new();
    for _ in 0..20 {
        for (case, bytes) in &cases {
            let mut socket = dial(&world).await;
            socket.write_all(bytes).await.expect("the vault listens");
            open.push((*case, tokio::spawn(closed(socket))));
        }
    }
    steady.goes_on(20).await;
    for (case, socket) in open {
        assert!(socket.await.unwrap(), "{case}: the connection stays open");
    }
    steady.goes_on(20).await;
    steady.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_cost_little_and_hold_nobody_up() {
    const WANTED: u64 = 10_000;
    let _turn = turn().await;
    // Each connection takes a file in this process and one in the vault's, and both have the same limit.
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).expect("a limit can be raised to its maximum");
    let connections = WANTED.min(limit.maximum.unwrap_or(u64::MAX).saturating_sub(1_000));
    if connections < WANTED {
        eprintln!("this machine allows {connections} idle connections only");
    }
    let world = World::start(Backend::Sqlite).await;
    let steady = Steady::start(admin_with_key(&world));
    steady.goes_on(20).await;
    let before = memory(&world);
    let mut open = Vec::new();
    for _ in 0..connections {
        let mut socket = dial(&world).await;
        socket.write_all(&[PREFACE, SETTINGS].concat()).await.expect("the vault listens");
        open.push(socket);
    }
    // The last connection is served as well: the vault answers its settings.
    let mut answer = [0; 9];
    open.last_mut().unwrap().read_exact(&mut answer).await.expect("the vault speaks HTTP/2");
    steady.goes_on(100).await;
    let after = memory(&world);
    let grown = after.saturating_sub(before);
    eprintln!("{connections} idle connections: {grown} MiB");
    assert!(grown < connections * 64 / 1024, "{grown} MiB for {connections} connections");
    steady.end().await;
    drop(open);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_connections_run_out_the_idle_ones_make_room() {
    let world = World::builder(Backend::Sqlite).config("server.limits.max_connections", "40").start().await;
    let stays = world.admin();
    stays.list().await.unwrap();
    let feed = stays.watch(Watch::default()).await.unwrap();
    let mut open = Vec::new();
    for _ in 0..40 {
        let mut socket = dial(&world).await;
        let _ = socket.write_all(&[PREFACE, SETTINGS].concat()).await;
        open.push(tokio::spawn(closed(socket)));
    }
    // The idle connections are in the way only for a moment.
    let endpoint = world.endpoint();
    for _ in 0..20 {
        let fresh = async || world.admin().through(World::channel_to(&endpoint)).list().await.ok();
        eventually_async("a new connection is served", LIMIT, fresh).await;
    }
    let before = feed.heartbeats();
    eventually("the watch goes on: its connection is not idle", LIMIT, || feed.heartbeats() > before);
    assert!(open.iter().any(tokio::task::JoinHandle::is_finished), "nobody made room");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_calls_is_closed_and_one_with_a_watch_is_not() {
    let world = World::builder(Backend::Sqlite).config("server.limits.idle_timeout", "1s").start().await;
    let (caller, watcher) = (world.admin(), world.admin());
    let feed = watcher.watch(Watch::default()).await.unwrap();
    caller.list().await.unwrap();
    let mut silent = dial(&world).await;
    silent.write_all(&[PREFACE, SETTINGS].concat()).await.unwrap();
    assert!(closed(silent).await, "an idle connection stays");
    tokio::time::sleep(Duration::from_secs(2)).await;
    caller.list().await.or(caller.list().await).expect("who comes back later connects anew");
    let before = feed.heartbeats();
    eventually("a watch is no idleness", LIMIT, || feed.heartbeats() > before);
}
