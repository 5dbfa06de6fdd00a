//! Transport errors, and what the log says about them.

use std::cell::RefCell;
use std::io;
use std::time::{Duration, Instant};

use token_vault_sandbox::{DEFAULT_APP_ID, DEFAULT_APP_SECRET, Endpoint, Fault, FaultKind};

use super::{MetaConfig, World, ana_as_subject, assert_transient, meta_with, secret};
use crate::backoff::jitter;
use crate::model::{RefusalKind as Kind, TokenKind};
use crate::provider::Provider;

#[tokio::test]
async fn an_exchange_is_sent_again_only_when_it_was_certainly_not_taken() {
    let world = World::new().await;
    let token = secret(world.ana.short_lived_token());
    for lost in [FaultKind::ResetAfter, FaultKind::Html { status: 502 }, FaultKind::Truncated] {
        world.sandbox.clear_requests();
        world.fault(Endpoint::OauthAccessToken, lost);
        assert_transient(world.meta.exchange(&token, TokenKind::ShortLivedUser).await, "");
        assert_eq!(world.sandbox.count(Endpoint::OauthAccessToken), 1);
    }
    world.sandbox.clear_requests();
    world.fault(Endpoint::OauthAccessToken, FaultKind::error(500, 2));
    assert!(world.meta.exchange(&token, TokenKind::ShortLivedUser).await.is_ok());
    assert_eq!(world.sandbox.count(Endpoint::OauthAccessToken), 2);
}

#[tokio::test]
async fn transport_faults_pass_when_they_pass_within_three_tries() {
    let world = World::new().await;
    let token = secret(world.ana.long_lived_token());
    for fault in [
        FaultKind::Html { status: 200 },
        FaultKind::Html { status: 400 },
        FaultKind::Html { status: 503 },
        FaultKind::EmptyBody,
        FaultKind::BodyFalse,
        FaultKind::BodyTrue,
        FaultKind::ErrorAsString,
        FaultKind::Truncated,
        FaultKind::Reset,
        FaultKind::ResetAfter,
        FaultKind::ResetMidBody,
        FaultKind::OversizedBody(5 * 1024 * 1024),
        FaultKind::Redirect("https://login.example/".into()),
        FaultKind::error(500, 1),
    ] {
        world.sandbox.clear_requests();
        world.sandbox.fault(Fault::on(Endpoint::Permissions).times(1).with(fault.clone()));
        assert!(world.meta.permissions(&token).await.is_ok(), "{fault:?}");
        assert_eq!(world.sandbox.count(Endpoint::Permissions), 2, "{fault:?}");
    }
    for (fault, words) in [
        (FaultKind::Redirect("https://login.example/".into()), "redirect"),
        (FaultKind::OversizedBody(5 * 1024 * 1024), "more than 4194304 bytes"),
        (FaultKind::Html { status: 200 }, "HTTP 200"),
        (FaultKind::Reset, "connection"),
    ] {
        world.sandbox.clear_requests();
        world.sandbox.fault(Fault::on(Endpoint::Permissions).times(3).with(fault));
        assert_transient(world.meta.permissions(&token).await, words);
        assert_eq!(world.sandbox.count(Endpoint::Permissions), 3);
    }
}

#[tokio::test]
async fn odd_but_good_replies_pass_at_once() {
    let world = World::new().await;
    let token = secret(world.ana.long_lived_token());
    for fault in
        [FaultKind::WrongContentType, FaultKind::NoContentType, FaultKind::Gzip, FaultKind::UnknownKeys]
    {
        world.sandbox.clear_requests();
        world.fault(Endpoint::DebugToken, fault.clone());
        assert!(world.meta.inspect(&token).await.is_ok(), "{fault:?}");
        assert_eq!(world.sandbox.count(Endpoint::DebugToken), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn a_stall_ends_with_the_operation() {
    let world = World::new().await;
    let token = secret(world.ana.long_lived_token());
    let hasty = meta_with(&world.sandbox, &[DEFAULT_APP_SECRET], |config| {
        config.request_timeout = Duration::from_millis(150);
        config.operation_timeout = Duration::from_millis(400);
    });
    let long = Duration::from_secs(30);
    for stall in [FaultKind::StallFirstByte(long), FaultKind::StallBody(long), FaultKind::SlowBody(long)] {
        world.sandbox.clear_faults();
        world.sandbox.fault(Fault::on(Endpoint::DebugToken).always().with(stall));
        let start = Instant::now();
        assert_transient(hasty.inspect(&token).await, "t");
        assert!(start.elapsed() < Duration::from_secs(2));
    }
}

#[tokio::test]
async fn an_unreachable_host_is_transient_and_the_error_has_no_url() {
    let world = World::new().await;
    let token = secret(world.ana.long_lived_token());
    world.sandbox.shutdown().await;
    let refusal = world.meta.inspect(&token).await.unwrap_err();
    assert!(matches!(refusal.kind, Kind::Transient { .. }));
    assert!(!refusal.detail.contains("http") && !refusal.detail.contains("EAA"), "{}", refusal.detail);
}

#[tokio::test]
async fn debug_shows_no_secret() {
    let world = World::new().await;
    let config = MetaConfig {
        app_id: "1".into(),
        app_secrets: vec![secret("hush-hush")],
        graph_url: "https://graph.facebook.com".parse().unwrap(),
        dialog_url: "https://www.facebook.com".parse().unwrap(),
        login_config_id: None,
        api_version: "v26.0".into(),
        request_timeout: Duration::from_secs(1),
        operation_timeout: Duration::from_secs(1),
        required_scopes: Vec::new(),
        optional_scopes: Vec::new(),
        webhook_verify_token: None,
        deletion_page: None,
    };
    let shown = format!("{config:?} {:?} {:?}", world.meta, world.meta.http);
    assert!(!shown.contains("hush-hush") && !shown.contains(DEFAULT_APP_SECRET), "{shown}");
}

#[test]
fn pauses_differ_and_keep_within_their_bound() {
    let most = Duration::from_millis(250);
    let drawn: Vec<Duration> = (0..200).map(|_| jitter(most)).collect();
    assert!(drawn.iter().all(|pause| *pause <= most));
    assert!(drawn.iter().any(|pause| *pause < most / 4) && drawn.iter().any(|pause| *pause > most / 4 * 3));
}

thread_local! {
    static LOGGED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Keeps what each thread logs. It is process-wide, since the subscriber of a single thread misses events whose call
/// sites another thread saw first.
struct Log;

impl io::Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        LOGGED.with_borrow_mut(|log| log.extend_from_slice(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_shows_every_call_and_no_secret() {
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(|| Log)
        .try_init()
        .unwrap();
    let world = World::new().await;
    let meta = meta_with(&world.sandbox, &[DEFAULT_APP_SECRET], |config| config.api_version = "v3.0".into());
    let token = secret(world.ana.long_lived_token());
    world.fault(Endpoint::DebugToken, FaultKind::Reset);
    meta.inspect(&token).await.unwrap();
    meta.exchange(&token, TokenKind::LongLivedUser).await.unwrap();
    let robot = secret(world.sandbox.system_user("robot").token_never());
    meta.revoke(&robot, &ana_as_subject(&world), TokenKind::SystemUser).await.unwrap();
    world.sandbox.shutdown().await;
    meta.permissions(&token).await.unwrap_err();

    let log = LOGGED.with_borrow(|log| String::from_utf8(log.clone()).unwrap());
    for shown in ["debug_token", "oauth/access_token", "oauth/revoke", "status=200", "Meta did not reply"] {
        assert!(log.contains(shown), "{shown}: {log}");
    }
    assert_eq!(log.matches("another API version").count(), 1, "{log}");
    for hidden in ["EAA", DEFAULT_APP_SECRET, &format!("{DEFAULT_APP_ID}|"), "appsecret_proof", "input_token"]
    {
        assert!(!log.contains(hidden), "{hidden}: {log}");
    }
}
