//! Calls in flight: no principal takes more than its share of the permits, and a permit is held for work, not for
//! waiting.

use std::sync::Arc;
use std::time::Duration;

use token_vault_sandbox::{Endpoint, Fault, FaultKind};
use token_vault_tests::http2::{PREFACE, frame, headers};
use token_vault_tests::prelude::*;
use token_vault_tests::{eventually, eventually_async};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

const LIMIT: Duration = Duration::from_secs(60);
const GET: &str = "/tokenvault.v1.TokenVault/ListTokens";

/// Calls that wait for the provider.
async fn slow_calls(world: &World, caller: &Caller, number: usize) -> Vec<JoinHandle<bool>> {
    let before = world.sandbox.requests().len();
    world.sandbox.fault(Fault::on(Endpoint::Any).with(FaultKind::StallFirstByte(Duration::from_secs(5))));
    let calls = (0..number)
        .map(|n| {
            let (caller, token) =
                (caller.clone(), world.person(&format!("person {before} {n}")).long_lived_token());
            tokio::spawn(async move { caller.store(ACME, &token).await.is_ok() })
        })
        .collect();
    eventually("all are on their way", LIMIT, || world.sandbox.requests().len() >= before + number);
    calls
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_principal_takes_its_share_of_the_places_and_leaves_the_others() {
    let world =
        World::builder(Backend::Sqlite).config("server.limits.max_calls_per_principal", "2").start().await;
    let eager = world.key_of("eager", Role::Connector).await;
    let same = world.key_of("eager", Role::Connector).await;
    let calm = world.key_of("calm", Role::Connector).await;
    let calls = slow_calls(&world, &eager, 2).await;
    for caller in [&eager, &same] {
        let no = caller.list().await.unwrap_err();
        no.is(Code::ResourceExhausted, Reason::RateLimited)
            .has_retry()
            .says("limit", "max_calls_per_principal");
    }
    calm.list().await.expect("another principal has places of its own");
    for call in calls {
        assert!(call.await.unwrap(), "those that were let in are answered");
    }
    same.list().await.expect("there is room again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admin_gets_through_to_a_vault_that_others_fill() {
    let world = World::builder(Backend::Sqlite).config("server.limits.max_calls", "16").start().await;
    let eager = world.key_of("eager", Role::Connector).await;
    let calls = slow_calls(&world, &eager, 15).await;
    let no = eager.list().await.unwrap_err();
    no.is(Code::ResourceExhausted, Reason::RateLimited).has_retry().says("limit", "in_flight");
    let revoke = pb::RevokeApiKeyRequest { key_id: eager.key_id().into(), ..Default::default() };
    world.admin().revoke_api_key(revoke).await.expect("one place is for admins alone");
    for call in calls {
        call.await.unwrap();
    }
}

/// A caller that writes HTTP/2 frames itself.
struct ByHand {
    writer: Arc<Mutex<OwnedWriteHalf>>,
    pongs: JoinHandle<()>,
    next: u32,
}

impl ByHand {
    /// Opens a connection whose flow-control window is `window` bytes.
    async fn connect(world: &World, window: u32) -> Self {
        let address = world.process(|process| process.grpc());
        let mut socket = TcpStream::connect(address).await.expect("the vault accepts");
        let settings = [&[0, 4][..], &window.to_be_bytes()].concat();
        socket.write_all(&[PREFACE, &frame(4, 0, 0, &settings)].concat()).await.expect("the vault listens");
        let (reader, writer) = socket.into_split();
        let writer = Arc::new(Mutex::new(writer));
        Self { pongs: tokio::spawn(pongs(reader, Arc::clone(&writer))), writer, next: 1 }
    }

    /// Starts a call, with or without its (empty) message.
    async fn call(&mut self, caller: &Caller, message: bool) {
        let mut block = headers(GET);
        for (name, value) in
            [("authorization", format!("Bearer {}", caller.key())), ("grpc-timeout", "300S".to_owned())]
        {
            block.push(0);
            for text in [name, &value] {
                block.push(u8::try_from(text.len()).expect("a short text"));
                block.extend(text.as_bytes());
            }
        }
        let mut frames = frame(1, 4, self.next, &block);
        if message {
            frames.extend(frame(0, 1, self.next, &[0; 5]));
        }
        self.next += 2;
        self.writer.lock().await.write_all(&frames).await.expect("the vault listens");
    }
}

/// Replies to pings, so that the vault keeps the connection, and discards everything else.
async fn pongs(mut reader: OwnedReadHalf, writer: Arc<Mutex<OwnedWriteHalf>>) {
    loop {
        let mut head = [0; 9];
        if reader.read_exact(&mut head).await.is_err() {
            return;
        }
        let [a, b, c, kind, flags, ..] = head;
        let mut payload = vec![0; usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)];
        if reader.read_exact(&mut payload).await.is_err() {
            return;
        }
        if kind == 6 && flags == 0 && writer.lock().await.write_all(&frame(6, 1, 0, &payload)).await.is_err()
        {
            return;
        }
    }
}

async fn places_are_given_back(window: u32, message: bool) {
    let world =
        World::builder(Backend::Sqlite).config("server.limits.max_calls_per_principal", "2").start().await;
    world.admin().connect(ACME, &world.person("ana").long_lived_token()).await;
    let eager = world.key_of("eager", Role::Viewer).await;
    let mut by_hand = ByHand::connect(&world, window).await;
    let no = loop {
        // Our own probe may have taken one of their permits.
        by_hand.call(&eager, message).await;
        by_hand.call(&eager, message).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        if let Err(no) = eager.list().await {
            break no;
        }
    };
    no.is(Code::ResourceExhausted, Reason::RateLimited).says("limit", "max_calls_per_principal");
    eventually_async("they are given back", 2 * LIMIT, async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        eager.list().await.ok()
    })
    .await;
    assert!(!by_hand.pongs.is_finished(), "the connection itself did nothing wrong");
    by_hand.pongs.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_message_does_not_come_loses_its_place_whatever_its_deadline() {
    places_are_given_back(65_535, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_nobody_reads_is_thrown_away_and_gives_its_place_back() {
    places_are_given_back(0, true).await;
}
