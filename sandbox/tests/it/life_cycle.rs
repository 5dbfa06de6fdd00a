//! How consents end, versions, data access, callbacks, and the end of a checkpoint.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use token_vault_sandbox::{Delivery, LONG_LIFE, hub_signature, sign_payload, signed_request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::client::{APP, SECRET, ana, app_token, debug, delete, exchange, get, me, post, sandbox};

#[tokio::test]
async fn deleting_permissions_ends_all_tokens_of_the_person() {
    let sandbox = sandbox().await;
    let user = ana(&sandbox);
    let (one, other) = (user.long_lived_token(), user.short_lived_token());
    let bob = sandbox.user("bob").long_lived_token();
    let path = format!("/v26.0/{}/permissions", user.id());
    let single = delete(&sandbox, &format!("{path}/ads_read"), &[("access_token", &one)]).await;
    assert_eq!(single.json, serde_json::json!({ "success": true }));
    assert_eq!(debug(&sandbox, &one).await["scopes"].as_array().unwrap().len(), 3);
    assert_eq!(delete(&sandbox, &path, &[("access_token", &one)]).await.json["success"], true);
    assert_eq!(me(&sandbox, &one).await.error(), (400, 190, Some(458)));
    assert_eq!(me(&sandbox, &other).await.error(), (400, 190, Some(458)));
    assert_eq!(me(&sandbox, &bob).await.status, 200);
    assert_eq!(delete(&sandbox, &path, &[("access_token", &one)]).await.error(), (400, 190, Some(458)));
    let again = user.long_lived_token();
    assert_eq!(delete(&sandbox, &path, &[("access_token", &app_token())]).await.json["success"], true);
    assert_eq!(me(&sandbox, &again).await.error(), (400, 190, Some(458)));
}

/// Receives `n` POSTs and returns their text.
async fn listen(listener: TcpListener, n: usize) -> Vec<String> {
    let mut heard = Vec::new();
    for _ in 0..n {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = vec![0; 8_192];
        let read = stream.read(&mut bytes).await.unwrap();
        heard.push(String::from_utf8_lossy(&bytes[..read]).into_owned());
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    }
    heard
}

fn body(request: &str) -> &str {
    request.split("\r\n\r\n").nth(1).unwrap()
}

#[tokio::test]
async fn removing_the_app_calls_back_with_good_signatures() {
    let sandbox = sandbox().await;
    let user = ana(&sandbox);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    sandbox.switch(|switches| {
        switches.deauthorize_url = Some(format!("{url}/deauthorize"));
        switches.webhook_url = Some(format!("{url}/webhook"));
    });
    user.removes_app();
    let heard = listen(listener, 2).await;
    let callback = heard.iter().find(|one| one.starts_with("POST /deauthorize ")).unwrap();
    let signed = body(callback).strip_prefix("signed_request=").unwrap();
    let payload = signed.split_once('.').unwrap().1;
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    assert!(text.contains(&user.id()) && sign_payload(SECRET, &text) == signed);
    let webhook = heard.iter().find(|one| one.starts_with("POST /webhook ")).unwrap();
    assert!(webhook.contains(&format!("X-Hub-Signature-256: {}", hub_signature(SECRET, body(webhook)))));
}

#[tokio::test]
async fn callbacks_are_forged_and_doubled_on_demand() {
    let sandbox = sandbox().await;
    for (delivery, posts) in [(Delivery::BadSignature, 1), (Delivery::Twice, 2), (Delivery::Replayed, 1)] {
        let user = ana(&sandbox);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/deauthorize", listener.local_addr().unwrap());
        sandbox.switch(|switches| {
            switches.deauthorize_url = Some(url);
            switches.delivery = delivery;
        });
        user.removes_app();
        let heard = listen(listener, posts).await;
        let signed = body(&heard[0]).strip_prefix("signed_request=").unwrap().to_owned();
        let fresh = signed_request(SECRET, &user.id(), sandbox.clock().now());
        match delivery {
            Delivery::Twice => assert_eq!(body(&heard[0]), body(&heard[1])),
            _ => assert_ne!(signed, fresh),
        }
    }
}

#[tokio::test]
async fn signatures_have_the_published_values() {
    let payload = r#"{"user_id":"10158000000000001","algorithm":"HMAC-SHA256","issued_at":1763859600}"#;
    let known = "4Q2u7zOM4VqOxdSSKywmMVb5hyRVPPH4ICKU1ppXqTk.eyJ1c2VyX2lkIjoiMTAxNTgwMDAwMDAwMDAwMDEiLCJhbGdvcml0aG0iOiJITUFDLVNIQTI1NiIsImlzc3VlZF9hdCI6MTc2Mzg1OTYwMH0";
    assert_eq!(sign_payload(SECRET, payload), known);
    let body = r#"{"object":"permissions","entry":[{"id":"10158000000000001","time":1763859600,"changed_fields":["connected"]}]}"#;
    let known = "sha256=945d09bdde55381d0de882269beb083a375e69e0a77510492a6af3003070a624";
    assert_eq!(hub_signature(SECRET, body), known);
}

#[tokio::test]
async fn revoking_answers_with_a_string() {
    let sandbox = sandbox().await;
    let bot = sandbox.system_user("bot").grants(["ads_read"]);
    let (token, admin) = (bot.token_never(), bot.token_never());
    let query =
        [("client_id", APP), ("client_secret", SECRET), ("revoke_token", &token), ("access_token", &admin)];
    let reply = get(&sandbox, "/v26.0/oauth/revoke", &query).await;
    assert_eq!(reply.json["success"], "true");
    assert_eq!(me(&sandbox, &token).await.error(), (400, 190, Some(466)));
    assert_eq!(debug(&sandbox, &token).await["scopes"], serde_json::json!([]));
    assert_eq!(me(&sandbox, &admin).await.status, 200);
}

#[tokio::test]
async fn a_system_users_60_days_are_renewed_before_their_end_only() {
    let sandbox = sandbox().await;
    let token = sandbox.system_user("bot").grants(["ads_read"]).token_60_days();
    sandbox.clock().advance(Duration::from_hours(24 * 50));
    let form = [
        ("grant_type", "fb_exchange_token"),
        ("client_id", APP),
        ("client_secret", SECRET),
        ("set_token_expires_in_60_days", "true"),
        ("fb_exchange_token", &token),
    ];
    let renewed = get(&sandbox, "/oauth/access_token", &form).await.token();
    assert_eq!(sandbox.expiry_of(&renewed), Some(sandbox.clock().now() + LONG_LIFE));
    assert_eq!(me(&sandbox, &token).await.status, 200);
    sandbox.clock().advance(Duration::from_hours(24 * 11));
    assert_eq!(get(&sandbox, "/oauth/access_token", &form).await.error(), (400, 190, Some(463)));
    assert_eq!(me(&sandbox, &renewed).await.status, 200);
}

#[tokio::test]
async fn lapsed_data_access_leaves_ads_alone_unless_enforced() {
    let sandbox = sandbox().await;
    let user = ana(&sandbox);
    let token = user.long_lived_token();
    user.data_access_lapses();
    let before = debug(&sandbox, &token).await;
    assert!(before["data_access_expires_at"].as_i64().unwrap() < sandbox.clock().now());
    assert_eq!(before["is_valid"], true);
    assert_eq!(get(&sandbox, "/me/adaccounts", &[("access_token", &token)]).await.status, 200);
    let exchanged = exchange(&sandbox, &token).await.token();
    let after = debug(&sandbox, &exchanged).await;
    assert_eq!(before["data_access_expires_at"], after["data_access_expires_at"]);
    sandbox.switch(|switches| switches.enforce_data_access = true);
    assert_eq!(me(&sandbox, &token).await.error(), (400, 190, Some(493)));
}

#[tokio::test]
async fn versions_are_named_fall_forward_and_retire() {
    let sandbox = sandbox().await;
    let token = ana(&sandbox).long_lived_token();
    let query = [("access_token", token.as_str())];
    for (path, served) in [("/v26.0/me", "v26.0"), ("/me", "v21.0"), ("/v19.0/me", "v21.0")] {
        let reply = get(&sandbox, path, &query).await;
        assert_eq!((reply.status, reply.header("facebook-api-version")), (200, Some(served)));
    }
    assert_eq!(get(&sandbox, "/v20.0/me/adaccounts", &query).await.error(), (400, 2635, None));
    assert_eq!(get(&sandbox, "/v99.0/me", &query).await.error(), (400, 2500, None));
    sandbox.switch(|switches| switches.retired_versions.push("v26.0".to_owned()));
    assert_eq!(get(&sandbox, "/v26.0/me/adaccounts", &query).await.error(), (400, 2635, None));
    let debug = get(&sandbox, "/v26.0/me", &[("access_token", token.as_str()), ("debug", "all")]).await;
    assert!(debug.json["__debug__"]["messages"].is_array());
}

#[tokio::test]
async fn replies_wear_metas_headers() {
    let sandbox = sandbox().await;
    let token = ana(&sandbox).long_lived_token();
    let good = me(&sandbox, &token).await;
    for name in
        ["x-fb-request-id", "x-fb-trace-id", "x-fb-rev", "x-fb-debug", "etag", "cache-control", "vary"]
    {
        assert!(good.header(name).is_some(), "{name}");
    }
    let bad = me(&sandbox, "EAAnonsense").await;
    assert_eq!(bad.header("x-fb-request-id"), bad.json["error"]["fbtrace_id"].as_str());
    assert_eq!(bad.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn a_checkpoint_heals_by_time_or_by_the_person() {
    let sandbox = sandbox().await;
    let user = ana(&sandbox);
    let token = user.long_lived_token();
    user.hits_checkpoint_for(Duration::from_hours(1));
    let reply = me(&sandbox, &token).await;
    assert_eq!(reply.error(), (400, 190, Some(459)));
    assert!(reply.json["error"]["error_data"]["url"].is_string());
    sandbox.clock().advance(Duration::from_hours(1));
    assert_eq!(me(&sandbox, &token).await.status, 200);
    user.hits_checkpoint();
    assert_eq!(debug(&sandbox, &token).await["error"]["subcode"], 459);
    user.heals();
    assert_eq!(me(&sandbox, &token).await.status, 200);
}

#[tokio::test]
async fn the_other_grants_work() {
    let sandbox = sandbox().await;
    let app = [("grant_type", "client_credentials"), ("client_id", APP), ("client_secret", SECRET)];
    let token = get(&sandbox, "/oauth/access_token", &app).await.token();
    assert!(token.starts_with("123456789012345|"));
    let user_token = ana(&sandbox).long_lived_token();
    let reply = crate::client::debug_reply(&sandbox, &user_token, &token).await;
    assert_eq!(reply.json["data"]["is_valid"], true);
    let query = [
        ("client_id", APP),
        ("client_secret", SECRET),
        ("redirect_uri", "https://device.example/"),
        ("access_token", user_token.as_str()),
    ];
    let code = get(&sandbox, "/oauth/client_code", &query).await.json["code"].as_str().unwrap().to_owned();
    let device = [
        ("client_id", APP),
        ("redirect_uri", "https://device.example/"),
        ("machine_id", "m1"),
        ("code", code.as_str()),
    ];
    let reply = post(&sandbox, "/oauth/access_token", &device).await;
    assert_eq!(
        (reply.json["machine_id"].as_str(), reply.json["expires_in"].as_i64()),
        (Some("m1"), Some(LONG_LIFE))
    );
}
