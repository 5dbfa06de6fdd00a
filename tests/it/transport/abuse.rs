//! Callers that mean harm, or are broken: they get their share of the vault and no more, and who behaves well is
//! answered all the while.

use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use token_vault_proto::v1::WatchExpiryEventsRequest as Watch;
use token_vault_tests::certificates::{Authority, Secured};
use token_vault_tests::fleet::turn;
use token_vault_tests::http2::{PREFACE, SETTINGS, frame, headers};
use token_vault_tests::prelude::*;
use token_vault_tests::{Steady, eventually, eventually_async};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::codegen::{Body, Bytes, Service, http};
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const LIMIT: Duration = Duration::from_secs(60);
const LIST: &str = "/tokenvault.v1.TokenVault/ListTokens";

/// Resident memory of the vault, in MiB.
fn memory(world: &World) -> u64 {
    let id = world.process(|process| process.id());
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("Linux tells it");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a resident size");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number");
    kib / 1024
}

async fn dial(world: &World) -> TcpStream {
    let address = world.process(|process| process.grpc());
    TcpStream::connect(address).await.expect("the vault accepts")
}

/// Reads until the vault closes the connection; in vain when it does not.
async fn closed(mut socket: TcpStream) -> bool {
    let mut sink = vec![0; 16 * 1024];
    let reading = async {
        // An error is an end too.
        while matches!(socket.read(&mut sink).await, Ok(read) if read > 0) {}
    };
    tokio::time::timeout(LIMIT, reading).await.is_ok()
}

fn admin_with_key(world: &World) -> impl Fn() -> Caller + Send + 'static {
    let (admin, endpoint) = (world.admin(), world.endpoint());
    move || admin.through(World::channel_to(&endpoint))
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
        // Nothing at all, or the beginning of a ClientHello.
        if number % 2 == 0 {
            socket.write_all(&[22, 3, 1, 2, 0, 1, 0]).await.expect("the vault listens");
        }
        open.push(tokio::spawn(closed(socket)));
    }
    // One that sends a byte now and then.
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
    // Both ends of a connection are files, one in this process and one in the vault's, with the same limit.
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
    // The last one is served as well: its settings are answered.
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
    // Those idle ones stand in the way for a moment only.
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_too_large_is_refused_and_the_connection_goes_on() {
    let world = World::start(Backend::Sqlite).await;
    let connector = world.connector().await;
    let steady = Steady::start(admin_with_key(&world));
    steady.goes_on(10).await;
    let before = memory(&world);
    for _ in 0..20 {
        let no = connector.store(ACME, &"x".repeat(5 << 20)).await.unwrap_err();
        no.is(Code::InvalidArgument, Reason::FieldInvalid).words("4194304 bytes");
    }
    let no = connector.store(ACME, &"x".repeat(3 << 20)).await.unwrap_err();
    no.is(Code::InvalidArgument, Reason::TokenMalformed);
    connector.list().await.expect("the connection goes on");
    let grown = memory(&world).saturating_sub(before);
    assert!(grown < 200, "{grown} MiB");
    steady.goes_on(10).await;
    steady.end().await;
}

/// Frames of HTTP/2 that break its rules, or are too many.
fn broken_frames() -> Vec<(&'static str, Vec<u8>)> {
    let call = |stream: u32| frame(1, 4, stream, &headers(LIST));
    let reset = |stream: u32| frame(3, 0, stream, &8_u32.to_be_bytes());
    let many = |count: u32, one: &dyn Fn(u32) -> Vec<u8>| (0..count).flat_map(one).collect::<Vec<u8>>();
    let mut bomb = headers(LIST);
    // One entry in the table, and then thousands of references to it, of two bytes each.
    bomb.extend([0x40, 1, b'a', 127, 0xa1, 0x1e]);
    bomb.extend(std::iter::repeat_n(b'x', 4_000));
    bomb.extend(std::iter::repeat_n(0xbe, 12_000));
    vec![
        ("noise", (0..=255).cycle().take(64 * 1024).collect()),
        ("HTTP/1.1", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
        ("a frame that is too long", vec![0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]),
        ("data on stream 0", frame(0, 0, 0, b"x")),
        ("data on a stream that is not open", frame(0, 0, 5, b"x")),
        ("headers on an even stream", frame(1, 4, 2, &headers(LIST))),
        ("headers that are no HPACK", frame(1, 4, 1, &[0xff; 64])),
        ("a table size that is too large", frame(1, 4, 1, &[0x3f, 0xff, 0xff, 0xff, 0xff, 0x0f])),
        ("settings of half a value", frame(4, 0, 0, &[0, 1, 0])),
        (
            "a window that overflows",
            [frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff])].concat(),
        ),
        ("a window update of nothing", frame(8, 0, 0, &[0; 4])),
        ("a continuation of nothing", frame(9, 4, 1, &headers(LIST))),
        ("a promise from a client", frame(5, 4, 1, &[0, 0, 0, 2])),
        ("padding that is longer than the frame", [call(1), frame(0, 8, 1, &[200, 1])].concat()),
        ("an unknown frame", frame(0xee, 0xff, 7, &[1; 100])),
        ("many settings", many(20_000, &|_| SETTINGS.to_vec())),
        ("many pings", many(20_000, &|_| frame(6, 0, 0, &[0; 8]))),
        (
            "many calls that are reset at once",
            many(10_000, &|n| [call(2 * n + 1), reset(2 * n + 1)].concat()),
        ),
        (
            "headers without an end",
            [frame(1, 0, 1, &headers(LIST)), many(5_000, &|_| frame(9, 0, 1, &[0, 1, b'a', 1, b'b']))]
                .concat(),
        ),
        ("headers that are a bomb", frame(1, 4, 1, &bomb)),
        (
            "a message that says it is longer than anything",
            [call(1), frame(0, 1, 1, &[0, 0xff, 0xff, 0xff, 0xff, 1])].concat(),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_break_the_rules_harm_nobody_but_their_sender() {
    let world = World::builder(Backend::Sqlite)
        .config("server.limits.handshake_timeout", "1s")
        .config("server.limits.keepalive_interval", "1s")
        .config("server.limits.keepalive_timeout", "1s")
        .start()
        .await;
    let steady = Steady::start(admin_with_key(&world));
    let before = memory(&world);
    for (case, bytes) in broken_frames() {
        for begun in [true, false] {
            let mut socket = dial(&world).await;
            let all = if begun { [PREFACE, SETTINGS, &bytes].concat() } else { bytes.clone() };
            let (mut reads, mut writes) = socket.split();
            // It may hang up in the middle, and what it answers must be taken or it would wait for us.
            let writing = async { drop(writes.write_all(&all).await) };
            let reading = async {
                let mut sink = vec![0; 64 * 1024];
                while matches!(reads.read(&mut sink).await, Ok(read) if read > 0) {}
            };
            let done = async { tokio::join!(writing, reading) };
            assert!(tokio::time::timeout(LIMIT, done).await.is_ok(), "{case}: the connection stays open");
        }
        steady.goes_on(2).await;
    }
    let grown = memory(&world).saturating_sub(before);
    assert!(grown < 200, "{grown} MiB");
    steady.end().await;
}

/// A body of these bytes.
struct Raw(Option<Bytes>);

impl Body for Raw {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(http_body::Frame::data(bytes))))
    }
}

/// Sends these bytes as the body of a call, and gives the status that comes back.
async fn send_raw(
    caller: &Caller,
    mut channel: Channel,
    rpc: &str,
    more: &[(&str, &str)],
    body: Vec<u8>,
) -> Refusal {
    let mut request = http::Request::post(format!("http://vault/tokenvault.v1.TokenVault/{rpc}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {}", caller.key()));
    for (name, value) in more {
        request = request.header(*name, *value);
    }
    let request = request.body(tonic::body::Body::new(Raw(Some(body.into())))).expect("a request");
    std::future::poll_fn(|cx| channel.poll_ready(cx)).await.expect("a connection");
    let answer = channel.call(request).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let status = tonic::Status::from_header_map(answer.headers()).expect("a status without a message");
    Refusal::from(status)
}

/// A message with its prefix.
fn message(compressed: u8, length: u32, bytes: &[u8]) -> Vec<u8> {
    let mut message = vec![compressed];
    message.extend(length.to_be_bytes());
    message.extend(bytes);
    message
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_message_are_told_so_and_the_connection_goes_on() {
    let world = World::start(Backend::Sqlite).await;
    let caller = world.connector().await;
    let channel = world.channel();
    let whole = |bytes: &[u8]| message(0, u32::try_from(bytes.len()).unwrap(), bytes);
    let deep: Vec<u8> = [10, 255, 255, 255, 255, 15].repeat(1_000);
    let cases: [(&str, Vec<u8>); 8] = [
        ("noise", whole(&[0xff; 1_000])),
        ("a number where a text belongs", whole(&[8, 5])),
        ("a text that is not UTF-8", whole(&[10, 2, 0xc3, 0x28])),
        ("a length past the end", whole(&[10, 200, 1, b'x'])),
        ("lengths that are huge", whole(&deep)),
        ("groups that never end", whole(&[11].repeat(10_000))),
        ("a number that never ends", whole(&[0x80].repeat(10_000))),
        ("a prefix that promises too much", message(0, u32::MAX, b"x")),
    ];
    for (case, bytes) in cases {
        let no = send_raw(&caller, channel.clone(), "StoreToken", &[], bytes).await;
        assert_eq!((no.code(), no.reason()), (Code::InvalidArgument, "FIELD_INVALID"), "{case}: {no:?}");
    }
    for (case, bytes) in [("no message", Vec::new()), ("half a message", message(0, 100, b"x"))] {
        let no = send_raw(&caller, channel.clone(), "StoreToken", &[], bytes).await;
        assert_ne!(no.code(), Code::Ok, "{case}");
    }
    caller.through(channel).list().await.expect("the connection goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compression_bomb_is_not_unpacked() {
    let world = World::start(Backend::Sqlite).await;
    let caller = world.connector().await;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..512 {
        gzip.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let bomb = gzip.finish().unwrap();
    assert!(bomb.len() < 1 << 20, "half a gibibyte in {} bytes", bomb.len());
    let body = message(1, u32::try_from(bomb.len()).unwrap(), &bomb);
    let steady = Steady::start(admin_with_key(&world));
    steady.goes_on(10).await;
    let before = memory(&world);
    for encoding in ["gzip", "deflate", "zstd", "identity"] {
        for _ in 0..10 {
            let more = [("grpc-encoding", encoding)];
            let no = send_raw(&caller, world.channel(), "StoreToken", &more, body.clone()).await;
            assert!(matches!(no.code(), Code::Unimplemented | Code::InvalidArgument), "{encoding}: {no:?}");
        }
    }
    let grown = memory(&world).saturating_sub(before);
    assert!(grown < 100, "{grown} MiB");
    steady.goes_on(10).await;
    steady.end().await;
}

on_both_databases! {
    with |builder| builder
        .config("server.limits.per_principal_rps", "2")
        .config("server.limits.per_principal_burst", "20")
        .config("server.limits.per_principal_watches", "3");

    async fn a_principal_that_calls_too_often_waits_and_others_do_not(world: World) {
        let (hasty, same) = (world.key_of("hasty", Role::Viewer).await, world.key_of("hasty", Role::Viewer).await);
        let calm = world.key_of("calm", Role::Viewer).await;
        let mut refused = None;
        for _ in 0..200 {
            if let Err(no) = hasty.list().await {
                refused = Some(no);
                break;
            }
        }
        let no = refused.expect("two hundred at once are too many");
        no.is(Code::ResourceExhausted, Reason::RateLimited).has_retry().says("limit", "per_principal_rps");
        calm.list().await.expect("another principal has its own share");
        // Another key of the same principal is no way around it.
        let mut another = None;
        for _ in 0..50 {
            another = same.list().await.err();
            if another.is_some() {
                break;
            }
        }
        another.expect("the share is the principal's").is(Code::ResourceExhausted, Reason::RateLimited);
        eventually_async("who waits is let in again", LIMIT, async || {
            tokio::time::sleep(no.retry_after().unwrap()).await;
            hasty.list().await.ok()
        })
        .await;
    }

    async fn a_principal_has_so_many_watches_and_each_place_is_free_at_once(world: World) {
        let (eager, same) = (world.key_of("eager", Role::Viewer).await, world.key_of("eager", Role::Viewer).await);
        let calm = world.key_of("calm", Role::Viewer).await;
        let mut feeds = Vec::new();
        for _ in 0..3 {
            feeds.push(eager.watch(Watch::default()).await.unwrap());
        }
        for caller in [&eager, &same] {
            let no = caller.watch(Watch::default()).await.unwrap_err();
            no.is(Code::ResourceExhausted, Reason::RateLimited).has_retry().says("limit", "watches_per_principal");
        }
        calm.watch(Watch::default()).await.expect("another principal has places of its own");
        // A stream that ends.
        drop(feeds.pop());
        let again = async || {
            tokio::time::sleep(Duration::from_millis(500)).await;
            same.watch(Watch::default()).await.ok()
        };
        let own = eventually_async("a place is free", LIMIT, again).await;
        // A key that ends, under streams that are there.
        let revoke = pb::RevokeApiKeyRequest { key_id: eager.key_id().into(), ..Default::default() };
        world.admin().revoke_api_key(revoke).await.unwrap();
        let more = eventually_async("the key's places are free", LIMIT, again).await;
        drop((own, more, feeds));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_too_many_at_once_are_refused_at_once_and_probes_are_not() {
    let world = World::builder(Backend::Sqlite).config("server.limits.max_calls", "2").start().await;
    let connector = world.connector().await;
    let before = world.sandbox.requests().len();
    world.sandbox.fault(Fault::on(Endpoint::Any).with(FaultKind::StallFirstByte(Duration::from_secs(3))));
    let slow: Vec<_> = ["ana", "bob"]
        .map(|name| {
            let (connector, token) = (connector.clone(), world.person(name).long_lived_token());
            tokio::spawn(async move { connector.store(ACME, &token).await })
        })
        .into();
    eventually("both are on their way", LIMIT, || world.sandbox.requests().len() >= before + 2);
    let no = connector.list().await.unwrap_err();
    no.is(Code::ResourceExhausted, Reason::RateLimited).has_retry().says("limit", "in_flight");
    let mut health = HealthClient::new(world.channel());
    health.check(HealthCheckRequest::default()).await.expect("a probe is always answered");
    world.sandbox.clear_faults();
    for call in slow {
        call.await.unwrap().expect("those that were let in are answered");
    }
    connector.list().await.expect("there is room again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guessing_at_keys_is_slowed_down_and_who_was_let_in_before_is_not() {
    let world = World::builder(Backend::Sqlite)
        .config("server.limits.failed_authentications_per_minute", "30")
        .start()
        .await;
    let (good, later) = (world.admin(), world.viewer().await);
    good.list().await.unwrap();
    let guess = |n: u32| format!("Bearer tva_{n:016}_{}", "A".repeat(43));
    let mut slowed = None;
    for n in 0..200 {
        let no = good.saying(Some(&guess(n))).list().await.unwrap_err();
        if no.code() == Code::ResourceExhausted {
            slowed = Some((n, no));
            break;
        }
        no.is(Code::Unauthenticated, Reason::ApiKeyInvalid);
    }
    let (n, no) = slowed.expect("two hundred guesses are too many");
    assert!(n >= 30, "{n} were looked at");
    no.is(Code::ResourceExhausted, Reason::RateLimited).has_retry().says("limit", "failed_authentications");
    for _ in 0..20 {
        good.list().await.expect("who was let in before is no guesser, though the address is the same");
    }
    later.list().await.expect("nor is who was never here and has a key");
    let newest = world.key_of("newest", Role::Viewer).await;
    newest.list().await.expect("even one that was made just now");
    let shut = good.saying(Some(&guess(500))).list().await.unwrap_err();
    shut.is(Code::ResourceExhausted, Reason::RateLimited);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_health_are_bounded_and_a_probe_is_always_answered() {
    let world = World::builder(Backend::Sqlite).config("server.limits.max_open_streams", "20").start().await;
    let request = || HealthCheckRequest { service: String::new() };
    let follow = async |channel: &Channel| HealthClient::new(channel.clone()).watch(request()).await;
    let (first, second) = (world.channel(), world.channel());
    let mut streams = Vec::new();
    let refused = |status: tonic::Status| {
        let no = Refusal::from(status);
        no.is(Code::ResourceExhausted, Reason::RateLimited).has_retry().says("limit", "open_streams");
    };
    for _ in 0..16 {
        streams.push(follow(&first).await.expect("a connection has so many"));
    }
    refused(follow(&first).await.unwrap_err());
    for _ in 0..4 {
        streams.push(follow(&second).await.expect("another has its own, while there are any"));
    }
    refused(follow(&second).await.unwrap_err());
    for channel in [&first, &second, &world.channel()] {
        HealthClient::new(channel.clone()).check(request()).await.expect("a probe is always answered");
    }
    world.admin().list().await.expect("so are calls with a key");
    drop(streams);
    eventually_async("places are free again", LIMIT, async || follow(&first).await.ok()).await;
}
