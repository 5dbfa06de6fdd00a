//! The client against a scripted vault on a real socket.

#[cfg(test)]
mod feed;
#[cfg(test)]
mod relay;
#[cfg(test)]
mod scripted;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod watch;

use std::time::{Duration, Instant};

use scripted::Scripted;
use token_vault_client::v1::{ErrorReason, ExchangeTokenRequest, GetTokenRequest};
use token_vault_client::{ApiKey, ErrorKind, Vault};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

fn denied(code: Code, reason: &str, after: Option<Duration>) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, "tokenvault.v1", []);
    if after.is_some() {
        details.set_retry_info(after);
    }
    Status::with_error_details(code, "refused", details)
}

fn key() -> ApiKey {
    ApiKey::new("tva_test\n")
}

#[tokio::test]
async fn a_read_is_repeated_until_it_answers() {
    let away = || denied(Code::Unavailable, "STORAGE_UNAVAILABLE", Some(Duration::from_millis(20)));
    let scripted = Scripted::start([away(), away()]).await;
    let vault = Vault::connect(&scripted.url, key()).await.unwrap();
    vault.get_token(GetTokenRequest { connection_id: "c".into(), ..Default::default() }).await.unwrap();
    let calls = scripted.calls();
    assert_eq!(calls.len(), 3);
    assert!(
        calls.iter().all(|call| call.authorization == "Bearer tva_test" && call.has_timeout),
        "{calls:?}"
    );
}

#[tokio::test]
async fn a_change_is_repeated_under_one_request_id() {
    let lost = denied(Code::Unavailable, "STORAGE_UNAVAILABLE", Some(Duration::from_millis(5)));
    let running = denied(Code::Aborted, "REQUEST_IN_PROGRESS", Some(Duration::from_millis(5)));
    let scripted = Scripted::start([lost, running]).await;
    let vault = Vault::connect(&scripted.url, key()).await.unwrap();
    vault.exchange_token(ExchangeTokenRequest::default()).await.unwrap();
    vault
        .exchange_token(ExchangeTokenRequest { request_id: "mine".into(), ..Default::default() })
        .await
        .unwrap();
    let ids: Vec<String> = scripted.calls().into_iter().map(|call| call.request_id).collect();
    let [first, second, third, own] = ids.as_slice() else { panic!("{ids:?}") };
    assert!(first.len() == 36 && first == second && second == third, "{ids:?}");
    assert_eq!(own, "mine");
}

#[tokio::test]
async fn what_waiting_cannot_fix_is_asked_once() {
    for (code, reason) in
        [(Code::FailedPrecondition, "TOKEN_INVALID"), (Code::Aborted, "TOKEN_VERSION_MISMATCH")]
    {
        let scripted = Scripted::start([denied(code, reason, None)]).await;
        let vault = Vault::connect(&scripted.url, key()).await.unwrap();
        let error = vault.exchange_token(ExchangeTokenRequest::default()).await.unwrap_err();
        assert_eq!(error.reason(), ErrorReason::from_reason(reason));
        assert_eq!(scripted.calls().len(), 1, "{reason}");
    }
}

#[tokio::test]
async fn retries_end_with_their_number() {
    let away = || denied(Code::Unavailable, "STORAGE_UNAVAILABLE", Some(Duration::from_millis(1)));
    let scripted = Scripted::start([away(), away(), away()]).await;
    let vault = Vault::builder(&scripted.url, key()).max_retries(1).connect().await.unwrap();
    let error = vault.get_token(GetTokenRequest::default()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::RetryAfter(Duration::from_millis(1)));
    assert_eq!(scripted.calls().len(), 2);
}

#[tokio::test]
async fn a_silent_vault_costs_the_deadline_and_no_more() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let vault = Vault::builder(url, key()).deadline(Duration::from_millis(200)).connect_lazy().unwrap();
    let begun = Instant::now();
    let error = vault.fetch_access_token("c").await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::RetryAfter(_)), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_connection_that_breaks_in_mid_call_says_retry() {
    let url = scripted::hangs_up().await;
    let vault = Vault::builder(url, key()).max_retries(1).connect_lazy().unwrap();
    let error = vault.fetch_access_token("c").await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::RetryAfter(_)), "{error:?}");
    assert_ne!(error.code(), Code::DeadlineExceeded, "the error is the break itself, and comes soon");
}

#[tokio::test]
async fn the_longest_times_are_accepted() {
    let scripted = Scripted::start([]).await;
    let vault = Vault::builder(&scripted.url, key()).deadline(Duration::MAX).keepalive(Duration::ZERO);
    vault.connect().await.unwrap().get_token(GetTokenRequest::default()).await.unwrap();
}

#[tokio::test]
async fn an_invalid_endpoint_or_key_is_the_callers_bug() {
    for (endpoint, key) in [("not a url", "k"), ("ftp://127.0.0.1:1", "k"), ("http://127.0.0.1:1", "a\nb")] {
        let error = Vault::connect(endpoint, ApiKey::new(key)).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::YourBug(_)), "{endpoint}: {error:?}");
    }
}
