//! `/_sandbox`: what people and other processes use.

use reqwest::Method;
use serde_json::{Value, json};
use token_vault_sandbox::Sandbox;

use crate::client::{Reply, get, http, me, read, sandbox};

async fn call(sandbox: &Sandbox, method: Method, path: &str, body: Value) -> Reply {
    let url = format!("{}/_sandbox{path}", sandbox.url());
    let reply = read(http().request(method, url).body(body.to_string()).send().await.unwrap()).await;
    assert_eq!(reply.status, 200, "{path}: {}", reply.text);
    reply
}

async fn tell(sandbox: &Sandbox, path: &str, body: Value) -> Value {
    call(sandbox, Method::POST, path, body).await.json
}

#[tokio::test]
async fn a_whole_story_works_over_http() {
    let sandbox = sandbox().await;
    assert!(get(&sandbox, "/_sandbox", &[]).await.text.contains("POST   /_sandbox/users"));
    let ana = tell(
        &sandbox,
        "/users",
        json!({ "name": "ana", "grants": ["ads_read"], "declines": ["ads_management"], "ad_accounts": 2, "pages": ["Shop"] }),
    )
    .await;
    assert_eq!(ana["ad_accounts"].as_array().unwrap().len(), 2);
    let token = ana["tokens"]["short_lived"].as_str().unwrap();
    assert_eq!(me(&sandbox, token).await.json["id"], ana["id"]);

    tell(
        &sandbox,
        "/faults",
        json!({ "on": "me", "with": { "graph_error": { "http": 400, "code": 190, "subcode": 463 } } }),
    )
    .await;
    assert_eq!(me(&sandbox, token).await.error(), (400, 190, Some(463)));
    assert_eq!(me(&sandbox, token).await.status, 200);
    tell(
        &sandbox,
        "/faults",
        json!({ "on": "any", "times": null, "with": ["empty_body", { "stall_first_byte": 0.01 }] }),
    )
    .await;
    assert_eq!(me(&sandbox, token).await.text, "");
    call(&sandbox, Method::DELETE, "/faults", json!({})).await;
    assert_eq!(me(&sandbox, token).await.status, 200);

    tell(&sandbox, "/clock", json!({ "advance_seconds": 6_000 })).await;
    assert_eq!(me(&sandbox, token).await.error(), (400, 190, Some(463)));
    let page = tell(&sandbox, "/users/ana/tokens", json!({ "page": "Shop" })).await;
    assert_eq!(me(&sandbox, page["token"].as_str().unwrap()).await.json["name"], "Shop");
    let long = tell(&sandbox, "/users/ana/tokens", json!({ "kind": "long_lived" })).await;
    let long = long["token"].as_str().unwrap();
    tell(&sandbox, "/users/ana/actions", json!({ "action": "hits_checkpoint" })).await;
    assert_eq!(me(&sandbox, long).await.error(), (400, 190, Some(459)));
    tell(&sandbox, "/users/ana/actions", json!({ "action": "heals" })).await;
    tell(&sandbox, "/tokens/kill", json!({ "token": long, "subcode": 467 })).await;
    assert_eq!(me(&sandbox, long).await.error(), (400, 190, Some(467)));
    tell(&sandbox, "/tokens/revive", json!({ "token": long })).await;
    tell(&sandbox, "/tokens/expire", json!({ "token": long })).await;
    assert_eq!(me(&sandbox, long).await.error(), (400, 190, Some(463)));

    let seen = call(&sandbox, Method::GET, "/requests", json!({})).await.json;
    assert_eq!(seen["requests"].as_array().unwrap().len(), sandbox.requests().len());
    call(&sandbox, Method::DELETE, "/requests", json!({})).await;
    assert!(sandbox.requests().is_empty());
}

#[tokio::test]
async fn apps_switches_usage_and_consent_are_in_reach() {
    let sandbox = sandbox().await;
    let bot =
        tell(&sandbox, "/users", json!({ "name": "bot", "system": true, "grants": ["ads_read"] })).await;
    let token = bot["tokens"]["never"].as_str().unwrap();
    tell(&sandbox, "/switches", json!({ "auth_status": 401, "mood": "same_expiry" })).await;
    tell(&sandbox, "/users/bot/actions?system=true", json!({ "action": "changes_password" })).await;
    assert_eq!(me(&sandbox, token).await.error(), (401, 190, Some(460)));
    tell(&sandbox, "/usage", json!({ "scope": "app", "percent": 55.5 })).await;
    assert!(me(&sandbox, token).await.header("x-app-usage").unwrap().contains("55"));
    let scope = json!({ "use_case": { "id": "1020304050", "kind": "ads_insights" } });
    tell(&sandbox, "/usage", json!({ "scope": scope, "block_seconds": 60 })).await;
    tell(&sandbox, "/apps", json!({ "id": "999", "secrets": ["s"], "name": "Other" })).await;
    let url = format!(
        "{}/dialog/oauth?client_id=999&redirect_uri=https%3A%2F%2Fx.example&scope=email",
        sandbox.url()
    );
    let consent =
        tell(&sandbox, "/consent", json!({ "dialog_url": url, "user": "ana", "decision": "allow" })).await;
    assert!(consent["location"].as_str().unwrap().contains("code=AQD"));
    let signed = tell(&sandbox, "/signed_request", json!({ "user": "ana" })).await;
    assert!(signed["signed_request"].as_str().unwrap().contains('.'));
}

#[tokio::test]
async fn mistakes_are_explained() {
    let sandbox = sandbox().await;
    let url = format!("{}/_sandbox/users", sandbox.url());
    let reply = read(http().post(&url).body(r#"{"nome":"ana"}"#).send().await.unwrap()).await;
    assert!(reply.status == 400 && reply.json["error"].as_str().unwrap().contains("nome"), "{}", reply.text);
    let reply = read(http().post(format!("{url}/eve/tokens")).send().await.unwrap()).await;
    assert!(reply.status == 400 && reply.text.contains("there is no user eve"));
    assert_eq!(get(&sandbox, "/_sandbox/nonsense", &[]).await.status, 404);
    assert!(sandbox.requests().is_empty(), "control is not recorded");
}

#[tokio::test]
async fn the_clock_runs_at_the_speed_that_is_set() {
    let sandbox = sandbox().await;
    let clock = async || get(&sandbox, "/_sandbox/clock", &[]).await.json;
    let stood = clock().await;
    assert_eq!(stood["speed"], 0, "these tests stop it");
    let (now, now_us) = (stood["now"].as_i64().unwrap(), stood["now_us"].as_i64().unwrap());
    assert_eq!(now_us.div_euclid(1_000_000), now);
    assert_eq!(sandbox.clock().now_micros(), now_us);

    let token = sandbox.user("ana").long_lived_token();
    let shown = tell(&sandbox, "/clock", json!({ "set": 1_763_859_600, "speed": 86_400 })).await;
    assert_eq!(shown["speed"], 86_400);
    assert!(shown["now"].as_i64().unwrap() >= 1_763_859_600);
    sandbox.expires_at(&token, shown["now"].as_i64().unwrap() + 86_400);
    let start = std::time::Instant::now();
    while me(&sandbox, &token).await.status == 200 {
        assert!(start.elapsed().as_secs() < 20, "a day takes a second");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(start.elapsed().as_millis() > 200, "the day was not over at once: {:?}", start.elapsed());
    assert_eq!(me(&sandbox, &token).await.error(), (400, 190, Some(463)));

    for bad in [json!({ "speed": -1 }), json!({ "speed": 1.5 }), json!({ "speed": "fast" })] {
        let url = format!("{}/_sandbox/clock", sandbox.url());
        let reply = read(http().post(url).body(bad.to_string()).send().await.unwrap()).await;
        assert_eq!(reply.status, 400, "{bad}: {}", reply.text);
    }
    assert_eq!(clock().await["speed"], 86_400, "a mistake changes nothing");
}
