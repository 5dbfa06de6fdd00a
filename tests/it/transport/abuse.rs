//! Frames and messages that break the rules harm only their sender.

use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use token_vault_tests::Steady;
use token_vault_tests::http2::{PREFACE, SETTINGS, frame, headers};
use token_vault_tests::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::codegen::{Body, Bytes, Service, http};
use tonic::transport::Channel;

pub(crate) const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const LIST: &str = "/tokenvault.v1.TokenVault/ListTokens";

/// Resident memory of the vault, in MiB.
pub(crate) fn memory(world: &World) -> u64 {
    let id = world.process(|process| process.id());
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("Linux tells it");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a resident size");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number");
    kib / 1024
}

pub(crate) async fn dial(world: &World) -> TcpStream {
    let address = world.process(|process| process.grpc());
    TcpStream::connect(address).await.expect("the vault accepts")
}

pub(crate) fn admin_with_key(world: &World) -> impl Fn() -> Caller + Send + 'static {
    let (admin, endpoint) = (world.admin(), world.endpoint());
    move || admin.through(World::channel_to(&endpoint))
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

/// HTTP/2 frames that break the rules, or that are too many.
fn broken_frames() -> Vec<(&'static str, Vec<u8>)> {
    let call = |stream: u32| frame(1, 4, stream, &headers(LIST));
    let reset = |stream: u32| frame(3, 0, stream, &8_u32.to_be_bytes());
    let many = |count: u32, one: &dyn Fn(u32) -> Vec<u8>| (0..count).flat_map(one).collect::<Vec<u8>>();
    let mut bomb = headers(LIST);
    // The table gets one entry, and then thousands of references to it, of two bytes each.
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
            // The vault may hang up in the middle. Read its answers, because otherwise it would wait for us.
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

/// A request body with these bytes.
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

/// Sends these bytes as the body of a call, and returns the status of the answer.
async fn send_raw(
    caller: &Caller,
    mut channel: Channel,
    rpc: &str,
    more: &[(&str, &str)],
    body: Vec<u8>,
) -> Denial {
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
    Denial::from(status)
}

/// A message with its length prefix.
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
