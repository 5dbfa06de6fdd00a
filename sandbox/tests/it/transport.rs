//! Replies that are late, broken, cut off, or not JSON at all.

use std::time::{Duration, Instant};

use token_vault_sandbox::{Endpoint, Fault, FaultKind, GraphError, Sandbox};

use crate::client::{Reply, ana, exchange, http, me, read, sandbox};

async fn broken(sandbox: &Sandbox, token: &str, kind: FaultKind) -> Reply {
    sandbox.fault(Fault::on(Endpoint::Me).token(token).with(kind));
    me(sandbox, token).await
}

/// A broken connection as a client sees it: sending fails, or reading the body does.
async fn failure(sandbox: &Sandbox, path: &str) -> reqwest::Error {
    match http().get(format!("{}{path}", sandbox.url())).send().await {
        Err(error) => error,
        Ok(response) => response.bytes().await.unwrap_err(),
    }
}

#[tokio::test]
async fn pages_and_texts_come_in_place_of_json() {
    let sandbox = sandbox().await;
    let token = ana(&sandbox).long_lived_token();
    for status in [500, 502, 503, 400, 200] {
        let reply = broken(&sandbox, &token, FaultKind::Html { status }).await;
        assert_eq!(reply.status, status);
        assert!(
            reply.text.starts_with("<!DOCTYPE html>")
                && reply.header("content-type").unwrap().contains("html")
        );
    }
    let text = FaultKind::Text { status: 503, text: "Service Unavailable".to_owned() };
    assert_eq!(broken(&sandbox, &token, text).await.text, "Service Unavailable");
    assert_eq!(broken(&sandbox, &token, FaultKind::EmptyBody).await.text, "");
    assert_eq!(broken(&sandbox, &token, FaultKind::BodyFalse).await.text, "false");
    assert_eq!(broken(&sandbox, &token, FaultKind::BodyTrue).await.text, "true");
    assert!(broken(&sandbox, &token, FaultKind::ErrorAsString).await.json["error"].is_string());
    let truncated = broken(&sandbox, &token, FaultKind::Truncated).await;
    assert!(truncated.status == 200 && truncated.text.starts_with('{') && truncated.json.is_null());
    assert_eq!(me(&sandbox, &token).await.status, 200, "each fault was met once");
}

#[tokio::test]
async fn errors_have_every_field_on_demand() {
    let sandbox = sandbox().await;
    let token = ana(&sandbox).long_lived_token();
    let reply = broken(&sandbox, &token, FaultKind::error(500, 1)).await;
    assert_eq!(reply.error(), (500, 1, None));
    let transient = GraphError::new(400, 2, "(#2) Paslauga laikinai neveikia").transient(true);
    let reply = broken(&sandbox, &token, FaultKind::Error(transient)).await;
    assert_eq!(reply.json["error"]["is_transient"], true);
    for data in [serde_json::json!({ "blame_field_specs": [["x"]] }), serde_json::json!("{\"a\":1}")] {
        let error = GraphError {
            data: Some(Box::new(data.clone())),
            ..GraphError::new(400, 424_242, "new").subcode(9_999_999)
        };
        let reply = broken(&sandbox, &token, FaultKind::Error(error)).await;
        assert_eq!(
            (reply.error(), &reply.json["error"]["error_data"]),
            ((400, 424_242, Some(9_999_999)), &data)
        );
    }
}

#[tokio::test]
async fn good_json_comes_in_odd_wrappings() {
    let sandbox = sandbox().await;
    let token = ana(&sandbox).long_lived_token();
    let old = broken(&sandbox, &token, FaultKind::WrongContentType).await;
    assert_eq!(old.header("content-type"), Some("text/javascript; charset=UTF-8"));
    assert_eq!(old.json["name"], "ana");
    let bare = broken(&sandbox, &token, FaultKind::NoContentType).await;
    assert!(bare.header("content-type").is_none() && bare.json["name"] == "ana");
    let packed = broken(&sandbox, &token, FaultKind::Gzip).await;
    assert_eq!(packed.json["name"], "ana", "the client unpacks it");
    let more = broken(&sandbox, &token, FaultKind::UnknownKeys).await;
    assert!(more.json["name"] == "ana" && more.json["x_new_key"].is_object());
    let big = broken(&sandbox, &token, FaultKind::OversizedBody(3_000_000)).await;
    assert!(big.text.len() > 3_000_000);
    let chunked = broken(&sandbox, &token, FaultKind::SlowBody(Duration::from_millis(20))).await;
    assert_eq!(
        (chunked.header("transfer-encoding"), &chunked.json["name"]),
        (Some("chunked"), &"ana".into())
    );
    sandbox.fault(Fault::on(Endpoint::OauthAccessToken).with(FaultKind::QueryStringToken));
    assert!(exchange(&sandbox, &token).await.text.starts_with("access_token=EAA"));
    for kind in [
        FaultKind::ExpiresIn(None),
        FaultKind::ExpiresIn(Some(0)),
        FaultKind::ExpiresInJson("5183944".into()),
    ] {
        sandbox.fault(Fault::on(Endpoint::OauthAccessToken).with(kind));
    }
    assert!(exchange(&sandbox, &token).await.json.get("expires_in").is_none());
    assert_eq!(exchange(&sandbox, &token).await.json["expires_in"], 0);
    assert_eq!(exchange(&sandbox, &token).await.json["expires_in"], "5183944");
}

#[tokio::test]
async fn debug_token_can_tell_lies() {
    let sandbox = sandbox().await;
    let token = ana(&sandbox).long_lived_token();
    sandbox.fault(
        Fault::on(Endpoint::DebugToken)
            .token(Some(&token))
            .with(FaultKind::ExpiresAt(0))
            .with(FaultKind::Subject(Some("42".to_owned())))
            .with(FaultKind::AppId(Some("999".to_owned())))
            .with(FaultKind::Scopes(vec!["email".to_owned()]))
            .with(FaultKind::Set("/data/type".to_owned(), "SOMETHING_NEW".into())),
    );
    let data = crate::client::debug(&sandbox, &token).await;
    assert_eq!(
        (&data["expires_at"], &data["user_id"], &data["app_id"]),
        (&0.into(), &"42".into(), &"999".into())
    );
    assert_eq!((&data["scopes"][0], &data["type"]), (&"email".into(), &"SOMETHING_NEW".into()));
}

#[tokio::test]
async fn connections_break_before_and_after_the_work() {
    let sandbox = sandbox().await;
    let token = ana(&sandbox).short_lived_token();
    let path = format!(
        "/oauth/access_token?grant_type=fb_exchange_token&client_id={}&client_secret={}&fb_exchange_token={token}",
        crate::client::APP,
        crate::client::SECRET
    );
    for kind in [FaultKind::Reset, FaultKind::ResetAfter, FaultKind::ResetMidBody] {
        sandbox.fault(Fault::on(Endpoint::OauthAccessToken).with(kind));
        let error = failure(&sandbox, &path).await;
        assert!(error.status().is_none() && !error.is_timeout(), "{error:?}");
    }
    assert_eq!(sandbox.count(Endpoint::OauthAccessToken), 3, "every one was seen");
}

#[tokio::test]
async fn a_reset_connection_is_reset_by_tcp() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let sandbox = sandbox().await;
    sandbox.fault(Fault::on(Endpoint::Any).with(FaultKind::Reset));
    let mut stream = tokio::net::TcpStream::connect(sandbox.address()).await.unwrap();
    stream.write_all(b"GET /me HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let error = stream.read(&mut [0; 64]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn stalls_are_real() {
    let sandbox = sandbox().await;
    let token = ana(&sandbox).long_lived_token();
    for kind in [
        FaultKind::StallFirstByte(Duration::from_millis(300)),
        FaultKind::StallBody(Duration::from_millis(300)),
    ] {
        let start = Instant::now();
        let reply = broken(&sandbox, &token, kind).await;
        assert_eq!(reply.json["name"], "ana");
        assert!(start.elapsed() >= Duration::from_millis(300));
    }
}

#[tokio::test]
async fn a_redirect_leads_to_a_login_page() {
    let sandbox = sandbox().await;
    let token = ana(&sandbox).long_lived_token();
    let target = "https://www.facebook.com/login/".to_owned();
    let reply = broken(&sandbox, &token, FaultKind::Redirect(target)).await;
    assert_eq!((reply.status, reply.header("location")), (302, Some("https://www.facebook.com/login/")));
}

#[tokio::test]
async fn faults_wait_for_their_token_path_and_turn() {
    let sandbox = sandbox().await;
    let user = ana(&sandbox);
    let (one, other) = (user.long_lived_token(), user.long_lived_token());
    sandbox.fault(Fault::on(Endpoint::Me).token(&one).after(1).times(2).with(FaultKind::error(400, 190)));
    let mut seen = Vec::new();
    for token in [&one, &other, &one, &one, &one] {
        seen.push(me(&sandbox, token).await.status);
    }
    assert_eq!(seen, [200, 200, 400, 400, 200], "an intermittent 190");
    sandbox.fault(Fault::on(Endpoint::Any).always().path("/v25.0/").with(FaultKind::EmptyBody));
    for _ in 0..3 {
        let url = format!("{}/v25.0/me?access_token={one}", sandbox.url());
        assert_eq!(read(http().get(url).send().await.unwrap()).await.text, "");
        assert_eq!(me(&sandbox, &one).await.status, 200);
    }
    sandbox.clear_faults();
}

#[tokio::test]
async fn a_shut_down_sandbox_refuses_connections() {
    let sandbox = sandbox().await;
    sandbox.shutdown().await;
    assert!(failure(&sandbox, "/me").await.is_connect());
}
