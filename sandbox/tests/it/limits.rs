//! Usage headers, throttles and blocks.

use std::time::Duration;

use serde_json::Value;
use token_vault_sandbox::{AccessTier, Endpoint, Fault, FaultKind, Sandbox, SandboxConfig, UsageScope};

use crate::client::{Reply, ana, get, me, sandbox, sandbox_with};

fn header(reply: &Reply, name: &str) -> Option<Value> {
    reply.header(name).map(|text| serde_json::from_str(text).unwrap())
}

async fn read_insights(sandbox: &Sandbox, account: &str, token: &str) -> Reply {
    get(sandbox, &format!("/act_{account}/insights"), &[("access_token", token)]).await
}

fn use_case(account: &str, kind: &str) -> UsageScope {
    UsageScope::UseCase { id: account.to_owned(), kind: kind.to_owned() }
}

#[tokio::test]
async fn usage_is_absent_when_low_and_grows_with_calls() {
    let config = SandboxConfig { tier: AccessTier::Limited, ..SandboxConfig::default() };
    let sandbox = sandbox_with(config).await;
    let user = ana(&sandbox);
    let (token, account) = (user.long_lived_token(), user.ad_account_ids()[0].clone());
    assert!(me(&sandbox, &token).await.header("x-app-usage").is_none());
    let first = read_insights(&sandbox, &account, &token).await;
    let util =
        |reply: &Reply| header(reply, "x-ad-account-usage").unwrap()["acc_id_util_pct"].as_f64().unwrap();
    assert!(header(&first, "x-fb-ads-insights-throttle").is_some());
    let second = read_insights(&sandbox, &account, &token).await;
    assert!(util(&second) > util(&first) && util(&second) < 5.0);
    sandbox.clock().advance(Duration::from_secs(400));
    assert!(util(&read_insights(&sandbox, &account, &token).await) < 2.0, "it decays over 300 s");
    sandbox.clock().reset();
    let real = sandbox.clock().now();
    sandbox.clock().set(1_763_859_600);
    assert!(sandbox.clock().now() < real, "a set clock runs on from there");
}

#[tokio::test]
async fn a_full_meter_blocks_and_calls_lengthen_the_block() {
    let config = SandboxConfig { tier: AccessTier::Limited, ..SandboxConfig::default() };
    let sandbox = sandbox_with(config).await;
    let user = ana(&sandbox);
    let (token, account) = (user.long_lived_token(), user.ad_account_ids()[0].clone());
    sandbox.usage(UsageScope::AdAccount(account.clone()), 99.0);
    let last = read_insights(&sandbox, &account, &token).await;
    assert_eq!(last.status, 200);
    let refused = read_insights(&sandbox, &account, &token).await;
    assert_eq!(refused.error(), (400, 17, Some(2_446_079)));
    assert_eq!(refused.json["error"]["type"], "OAuthException");
    assert!(refused.header("x-ad-account-usage").is_some(), "errors carry the headers too");
    sandbox.clock().advance(Duration::from_secs(301));
    assert_eq!(read_insights(&sandbox, &account, &token).await.status, 400, "the refused call added 10 s");
    sandbox.clock().advance(Duration::from_secs(60));
    assert_eq!(read_insights(&sandbox, &account, &token).await.status, 200);
}

#[tokio::test]
async fn every_scope_has_its_header_and_its_error() {
    let sandbox = sandbox().await;
    let user = ana(&sandbox);
    let (token, account) = (user.long_lived_token(), user.ad_account_ids()[0].clone());
    sandbox.usage(UsageScope::App, 28.0);
    sandbox.usage(UsageScope::AppInsights, 12.5);
    sandbox.usage(UsageScope::AdAccount(account.clone()), 9.67);
    sandbox.usage(use_case(&account, "ads_insights"), 10.0);
    sandbox.usage(use_case(&account, "custom_audience"), 85.0);
    sandbox.usage(use_case("777000111", "ads_management"), 3.0);
    let reply = read_insights(&sandbox, &account, &token).await;
    assert_eq!(header(&reply, "x-app-usage").unwrap()["call_count"], 28);
    let account_usage = header(&reply, "x-ad-account-usage").unwrap();
    assert_eq!(
        (&account_usage["acc_id_util_pct"], &account_usage["reset_time_duration"]),
        (&9.68.into(), &29.into())
    );
    assert_eq!(header(&reply, "x-fb-ads-insights-throttle").unwrap()["app_id_util_pct"], 12.5);
    let cases = header(&reply, "x-business-use-case-usage").unwrap();
    let list = cases[&account].as_array().unwrap();
    assert_eq!((list[0]["call_count"].as_i64(), list[1]["call_count"].as_i64()), (Some(10), Some(85)));
    assert_eq!(list[0]["ads_api_access_tier"], "standard_access");
    assert!(list[1].get("ads_api_access_tier").is_none());
    assert_eq!(cases["777000111"][0]["type"], "ads_management");

    for (scope, code, subcode) in [
        (use_case(&account, "ads_insights"), 80_000, None),
        (use_case(&account, "custom_audience"), 80_003, Some(2_446_079)),
        (use_case(&account, "leadgen"), 80_005, None),
        (UsageScope::AppInsights, 4, Some(1_504_022)),
        (UsageScope::AdAccount(account.clone()), 17, Some(2_446_079)),
    ] {
        sandbox.clear_usage();
        sandbox.throttle(scope, Duration::from_mins(12));
        let reply = read_insights(&sandbox, &account, &token).await;
        assert_eq!(reply.error(), (400, code, subcode));
        if code >= 80_000 {
            let cases = header(&reply, "x-business-use-case-usage").unwrap();
            assert_eq!(
                cases[&account][0]["estimated_time_to_regain_access"], 13,
                "minutes, the call added 10 s"
            );
        }
    }
    sandbox.clear_usage();
    sandbox.throttle(use_case(&account, "ads_management"), Duration::from_mins(1));
    let reply = get(&sandbox, &format!("/act_{account}"), &[("access_token", &token)]).await;
    assert_eq!(reply.error(), (400, 80_004, Some(2_446_079)));
    sandbox.switch(|switches| switches.throttle_status = 403);
    sandbox.throttle(UsageScope::App, Duration::from_mins(1));
    assert_eq!(me(&sandbox, &token).await.error(), (403, 4, None));
}

#[tokio::test]
async fn usage_jumps_and_passes_100() {
    let sandbox = sandbox().await;
    let user = ana(&sandbox);
    let (token, account) = (user.long_lived_token(), user.ad_account_ids()[0].clone());
    let before = read_insights(&sandbox, &account, &token).await;
    assert!(before.header("x-business-use-case-usage").is_none());
    sandbox.usage(use_case(&account, "ads_insights"), 118.0);
    let after = read_insights(&sandbox, &account, &token).await;
    assert_eq!(header(&after, "x-business-use-case-usage").unwrap()[&account][0]["call_count"], 118);
    assert_eq!(after.error().1, 80_000);
}

#[tokio::test]
async fn throttles_come_by_script_with_any_code() {
    let sandbox = sandbox().await;
    let token = ana(&sandbox).long_lived_token();
    for (code, subcode) in [(4, None), (32, None), (613, None), (613, Some(1_487_742)), (80_005, None)] {
        let kind =
            FaultKind::GraphError { http: 400, code, subcode, transient: None, message: None, kind: None };
        sandbox.fault(Fault::on(Endpoint::Me).with(kind));
        let reply = me(&sandbox, &token).await;
        assert_eq!(reply.error(), (400, code, subcode.map(i64::from)));
        assert_eq!(reply.json["error"]["type"], "OAuthException");
    }
    assert_eq!(me(&sandbox, &token).await.status, 200);
}

#[tokio::test]
async fn usage_headers_can_be_malformed_partial_and_repeated() {
    let sandbox = sandbox().await;
    let token = ana(&sandbox).long_lived_token();
    for text in ["{\"call_count\":2", "", "[1,2]", "{\"call_count\":\"28\"}", "{\"call_count\":null}"] {
        let headers = vec![("X-App-Usage".to_owned(), text.to_owned())];
        sandbox.fault(Fault::on(Endpoint::Me).with(FaultKind::Headers(headers)));
        assert_eq!(me(&sandbox, &token).await.header("x-app-usage"), Some(text));
    }
    let twice = ["{}", "{\"call_count\":99}"].map(|text| ("x-app-usage".to_owned(), text.to_owned()));
    sandbox.fault(Fault::on(Endpoint::Me).with(FaultKind::Headers(twice.to_vec())));
    assert_eq!(me(&sandbox, &token).await.headers.get_all("x-app-usage").iter().count(), 2);
}
