//! The check before a webhook is subscribed, and requests that are out of bounds.

use token_vault_sandbox::CallbackKind;

use super::*;

const TOKEN: &str = "chosen-by-the-operator";

fn subscription(token: &str) -> Callback {
    let challenge = Some("1158201444".to_owned());
    Callback { verify_token: Some(token.into()), challenge, ..Callback::new(CallbackKind::Subscription) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_is_subscribed_with_our_token_only() {
    let world = World::builder(Backend::Sqlite).prepare().await;
    let file = world.secret_file("webhook.token", TOKEN);
    let key = "TOKEN_VAULT__PROVIDERS__META__WEBHOOK_VERIFY_TOKEN_FILE";
    let launch = world.launch().env(key, file.display().to_string());
    world.try_start_as(&launch).expect("the vault starts");
    let platform = Platform::start(world.connector().await).await;
    let answer = platform.gets(&world, subscription(TOKEN), "webhook").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "1158201444"));
    assert_eq!(answer.content_type.as_deref(), Some("text/plain; charset=utf-8"));
    for callback in [
        subscription("chosen-by-another"),
        subscription(""),
        Callback { mode: Some("unsubscribe".into()), ..subscription(TOKEN) },
    ] {
        let answer = platform.gets(&world, callback, "webhook").await;
        assert_eq!((answer.status, answer.body.as_str()), (403, ""));
    }
    let script = Callback { challenge: Some("<script>\u{7}".into()), ..subscription(TOKEN) };
    platform.gets(&world, script, "webhook").await;
    platform.last().unwrap_err().is(Code::InvalidArgument, Reason::FieldInvalid).field("query");
    let probe = platform.gets(&world, Callback::new(CallbackKind::Probe), "deauthorize").await;
    assert_eq!((probe.status, probe.body.as_str()), (200, ""), "Meta looks whether there is somebody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_token_nobody_subscribes_and_what_is_too_large_is_named() {
    let world = World::start(Backend::Sqlite).await;
    let connector = world.connector().await;
    let platform = Platform::start(connector.clone()).await;
    assert_eq!(platform.gets(&world, subscription(""), "webhook").await.status, 403);
    assert!(world.logs().contains("webhook_verify_token_file"), "the log says what to set");
    let good = sent_by_provider(
        &world,
        Callback { user_id: Some("7".into()), ..Callback::new(CallbackKind::Deauthorize) },
    )
    .await;
    let header = || pb::Header { name: "a".into(), value: "b".into() };
    type Change = fn(&mut pb::ReportProviderCallbackRequest);
    let changes: [(&str, Change); 9] = [
        ("provider", |request| request.provider.clear()),
        ("kind", |request| request.kind = 0),
        ("kind", |request| request.kind = 9),
        ("method", |request| request.method = "post".into()),
        ("method", |request| request.method = "POST /".into()),
        ("query", |request| request.query = "a".repeat(8 * 1024 + 1)),
        ("headers[0].value", |request| request.headers[0].value = "a".repeat(8 * 1024 + 1)),
        ("body", |request| request.body = vec![b'a'; 256 * 1024 + 1]),
        ("body", |request| request.body = vec![0xff; 100]),
    ];
    for (field, change) in changes {
        let mut request = good.clone();
        change(&mut request);
        let no = connector.report_provider_callback(request).await.unwrap_err();
        no.is(Code::InvalidArgument, Reason::FieldInvalid).field(field);
    }
    let crowded = pb::ReportProviderCallbackRequest { headers: vec![header(); 65], ..good.clone() };
    connector.report_provider_callback(crowded).await.unwrap_err().field("headers");
    let unknown = pb::ReportProviderCallbackRequest { provider: "tiktok".into(), ..good.clone() };
    let no = connector.report_provider_callback(unknown).await.unwrap_err();
    no.is(Code::InvalidArgument, Reason::ProviderUnknown);
    let put = pb::ReportProviderCallbackRequest { method: "PUT".into(), ..good.clone() };
    assert_eq!(connector.report_provider_callback(put).await.unwrap().http_status, 405);
    assert_eq!(connector.report_provider_callback(good).await.unwrap().http_status, 200);
}
