//! Callbacks that are ordered: signed, sent, and the app's reply returned.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use token_vault_sandbox::{
    App, Callback, CallbackKind, Sandbox, Sign, hub_signature, sign_payload, signed_request,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::client::{Reply, SECRET, ana, http, me, read, sandbox};

/// An app that answers every request with this reply, and tells what it got.
async fn app(reply: &'static str) -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = Vec::new();
            while !complete(&heard) {
                if stream.read_buf(&mut heard).await.unwrap() == 0 {
                    break;
                }
            }
            tell.send(String::from_utf8(heard).unwrap()).unwrap();
            stream.write_all(reply.as_bytes()).await.unwrap();
        }
    });
    (url, told)
}

fn complete(heard: &[u8]) -> bool {
    let text = String::from_utf8_lossy(heard);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length =
        head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

const FINE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nfine";

async fn order(sandbox: &Sandbox, body: Value) -> Reply {
    let url = format!("{}/_sandbox/callbacks", sandbox.url());
    read(http().post(url).body(body.to_string()).send().await.unwrap()).await
}

fn body(request: &str) -> &str {
    request.split_once("\r\n\r\n").unwrap().1
}

/// Signature and payload of a `signed_request`.
fn opened(request: &str) -> (String, Value) {
    let signed = body(request).strip_prefix("signed_request=").unwrap();
    let (signature, payload) = signed.split_once('.').unwrap();
    let payload = URL_SAFE_NO_PAD.decode(payload).unwrap();
    (signature.to_owned(), serde_json::from_slice(&payload).unwrap())
}

#[tokio::test]
async fn a_deauthorization_is_signed_sent_and_its_reply_returned() {
    let sandbox = sandbox().await;
    let user = ana(&sandbox);
    let (url, mut told) = app(FINE).await;
    let reply = order(&sandbox, json!({ "kind": "deauthorize", "user": "ana", "url": url })).await;
    let delivery = &reply.json["deliveries"][0];
    assert_eq!((&delivery["answer"]["status"], &delivery["answer"]["body"]), (&json!(200), &json!("fine")));
    assert_eq!(
        (&delivery["method"], &delivery["url"], &delivery["error"]),
        (&json!("POST"), &json!(url), &Value::Null)
    );
    let heard = told.recv().await.unwrap();
    let signed = signed_request(SECRET, &user.id(), sandbox.clock().now());
    assert_eq!(body(&heard), format!("signed_request={signed}"));
    assert_eq!(delivery["sent"], body(&heard));
    assert!(heard.starts_with("POST /hook HTTP/1.1") && heard.contains("application/x-www-form-urlencoded"));
    assert_eq!(me(&sandbox, &user.long_lived_token()).await.status, 200, "an order changes nothing");
}

#[tokio::test]
async fn a_data_deletion_is_answered_with_json_that_comes_in_pieces() {
    let sandbox = sandbox().await;
    let user = ana(&sandbox);
    let chunked = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n\
                   1a\r\n{\"confirmation_code\":\"abc\"\r\n15\r\n,\"url\":\"https://x/y\"}\r\n0\r\n\r\n";
    let (url, mut told) = app(chunked).await;
    sandbox.switch(|switches| switches.data_deletion_url = Some(url));
    let callback = Callback { expires: Some(1_763_859_600), ..Callback::new(CallbackKind::DataDeletion) };
    let sent = sandbox.call_back(callback.about("ana")).await.unwrap();
    let answer = sent[0].answer.clone().unwrap();
    assert_eq!(answer.content_type.as_deref(), Some("application/json"));
    let answered: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(answered, json!({ "confirmation_code": "abc", "url": "https://x/y" }));
    let (_, payload) = opened(&told.recv().await.unwrap());
    assert_eq!(
        payload,
        json!({ "user_id": user.id(), "algorithm": "HMAC-SHA256", "expires": 1_763_859_600,
        "issued_at": sandbox.clock().now() })
    );
}

#[tokio::test]
async fn a_webhook_is_signed_over_its_raw_bytes() {
    let sandbox = sandbox().await;
    let user = ana(&sandbox);
    let (url, mut told) = app(FINE).await;
    sandbox.switch(|switches| switches.webhook_url = Some(url));
    let changes = json!([{ "field": "ads_read", "value": { "verb": "revoked", "note": "Žalgiris 🏀" } }]);
    for (more, part) in [
        (json!({}), "\"changed_fields\":[\"connected\"]"),
        (json!({ "changes": changes }), "\\u017dalgiris \\ud83c\\udfc0"),
        (json!({ "body": "{ \"odd\":\tž }" }), "{ \"odd\":\tž }"),
    ] {
        let mut wanted = json!({ "kind": "webhook", "user": "ana" });
        wanted.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let reply = order(&sandbox, wanted).await;
        let heard = told.recv().await.unwrap();
        let signature = hub_signature(SECRET, body(&heard));
        assert!(heard.contains(&format!("X-Hub-Signature-256: {signature}\r\n")), "{heard}");
        assert_eq!(reply.json["deliveries"][0]["signature"], signature);
        assert!(body(&heard).contains(part), "{heard}");
        if let Ok(sent) = serde_json::from_str::<Value>(body(&heard)) {
            assert_eq!(
                (&sent["object"], &sent["entry"][0]["id"]),
                (&json!("permissions"), &json!(user.id()))
            );
        }
    }
}

#[tokio::test]
async fn a_subscription_is_a_get_with_a_challenge() {
    let sandbox = sandbox().await;
    let (url, mut told) = app("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nc1 42").await;
    let wanted = json!({ "kind": "subscription", "url": format!("{url}?a=1"), "verify_token": "t&t", "challenge": "c1 42" });
    let reply = order(&sandbox, wanted).await;
    assert_eq!(reply.json["deliveries"][0]["answer"]["body"], "c1 42");
    let heard = told.recv().await.unwrap();
    let line = "GET /hook?a=1&hub.mode=subscribe&hub.challenge=c1+42&hub.verify_token=t%26t HTTP/1.1\r\n";
    assert!(heard.starts_with(line), "{heard}");
    order(&sandbox, json!({ "kind": "probe", "url": url })).await;
    assert!(told.recv().await.unwrap().starts_with("GET /hook HTTP/1.1\r\n"));
}

#[tokio::test]
async fn it_is_sent_twice_late_old_and_forged_on_demand() {
    let sandbox = sandbox().await;
    ana(&sandbox);
    sandbox.add_app(App { id: "999".to_owned(), secrets: vec!["theirs".to_owned()], ..App::default() });
    let (url, mut told) = app(FINE).await;
    let callback = |kind| Callback::new(kind).about("ana").to(&url);
    let start = Instant::now();
    let twice = Callback { times: Some(2), delay_seconds: 0.1, ..callback(CallbackKind::Deauthorize) };
    let sent = sandbox.call_back(twice).await.unwrap();
    assert!(sent.len() == 2 && sent[0] == sent[1] && start.elapsed() >= Duration::from_millis(200));
    assert_eq!(told.recv().await, told.recv().await);

    let old = Callback {
        age_seconds: 604_800,
        algorithm: Some("none".to_owned()),
        ..callback(CallbackKind::Deauthorize)
    };
    sandbox.call_back(old).await.unwrap();
    let (_, payload) = opened(&told.recv().await.unwrap());
    assert_eq!(payload["issued_at"], sandbox.clock().now() - 604_800);
    assert_eq!(payload["algorithm"], "none");

    let theirs = Sign::App("999".to_owned());
    for (sign, secret) in
        [(Sign::Right, Some(SECRET)), (theirs, Some("theirs")), (Sign::Wrong, None), (Sign::Missing, None)]
    {
        let signed = Callback { sign: sign.clone(), ..callback(CallbackKind::DataDeletion) };
        sandbox.call_back(signed).await.unwrap();
        let heard = told.recv().await.unwrap();
        let (signature, payload) = opened(&heard);
        let by = |secret| body(&heard).ends_with(&sign_payload(secret, &payload.to_string()));
        assert_eq!(by(SECRET), secret == Some(SECRET), "{sign:?}");
        assert_eq!(by("theirs"), secret == Some("theirs"), "{sign:?}");
        assert_eq!(signature.is_empty(), sign == Sign::Missing);

        let hook = Callback { sign: sign.clone(), ..callback(CallbackKind::Webhook) };
        let sent = sandbox.call_back(hook).await.unwrap();
        let heard = told.recv().await.unwrap();
        let header = sent[0].signature.clone();
        assert_eq!(header.is_none(), !heard.contains("X-Hub-Signature-256") && sign == Sign::Missing);
        let right = Some(hub_signature(SECRET, body(&heard)));
        assert_eq!(header == right, sign == Sign::Right, "{sign:?}");
    }
}

#[tokio::test]
async fn an_order_that_cannot_be_sent_says_why() {
    let sandbox = sandbox().await;
    ana(&sandbox);
    for (wanted, why) in [
        (json!({ "user": "ana" }), "kind"),
        (json!({ "kind": "deauthorize", "user": "ana" }), "deauthorize_url"),
        (json!({ "kind": "webhook", "url": "http://127.0.0.1:1" }), "user"),
        (json!({ "kind": "webhook", "url": "http://127.0.0.1:1", "user": "eve" }), "eve"),
        (
            json!({ "kind": "webhook", "url": "http://127.0.0.1:1", "user": "ana", "sign": { "app": "5" } }),
            "no app 5",
        ),
        (json!({ "kind": "webhook", "url": "http://127.0.0.1:1", "user": "ana", "times": 0 }), "times"),
        (
            json!({ "kind": "webhook", "url": "http://127.0.0.1:1", "user": "ana", "delay_seconds": -1 }),
            "delay_seconds",
        ),
        (json!({ "kind": "webhook", "uri": "http://127.0.0.1:1" }), "uri"),
    ] {
        let reply = order(&sandbox, wanted.clone()).await;
        let error = reply.json["error"].as_str().unwrap_or_default();
        assert!(reply.status == 400 && error.contains(why), "{wanted}: {}", reply.text);
    }
    for url in ["http://127.0.0.1:1/", "https://app.example/"] {
        let reply = order(&sandbox, json!({ "kind": "probe", "url": url })).await;
        let delivery = &reply.json["deliveries"][0];
        assert!(
            reply.status == 200 && delivery["answer"].is_null() && delivery["error"].is_string(),
            "{}",
            reply.text
        );
    }
}
