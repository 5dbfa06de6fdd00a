//! The login dialog and its codes.

use std::collections::HashMap;
use std::time::Duration;

use token_vault_sandbox::{Decision, Endpoint, Fault, FaultKind, Sandbox};
use url::Url;

use crate::client::{APP, REDIRECT, Reply, SECRET, get, http, read, sandbox};

fn dialog(sandbox: &Sandbox, extra: &str) -> String {
    format!(
        "{}/v26.0/dialog/oauth?client_id={APP}&redirect_uri=https%3A%2F%2Fvault.example%2Fcb&state=xyz\
         &scope=ads_read,ads_management{extra}",
        sandbox.url()
    )
}

fn pairs(location: &str) -> HashMap<String, String> {
    Url::parse(location).unwrap().query_pairs().into_owned().collect()
}

fn code(sandbox: &Sandbox, decision: Decision) -> String {
    let location = sandbox.consent(&dialog(sandbox, ""), "ana", decision).unwrap();
    pairs(&location)["code"].clone()
}

async fn redeem(sandbox: &Sandbox, code: &str, redirect_uri: &str) -> Reply {
    let query =
        [("client_id", APP), ("client_secret", SECRET), ("redirect_uri", redirect_uri), ("code", code)];
    get(sandbox, "/v26.0/oauth/access_token", &query).await
}

#[tokio::test]
async fn the_page_lets_a_person_agree_in_part() {
    let sandbox = sandbox().await;
    let url = dialog(&sandbox, "&return_scopes=true");
    let page = read(http().get(&url).send().await.unwrap()).await;
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    assert!(
        page.text.contains("name=\"sandbox_grant\" value=\"ads_read\"")
            && page.text.contains("value=\"xyz\"")
    );
    let form = [
        ("client_id", APP),
        ("redirect_uri", REDIRECT),
        ("state", "xyz"),
        ("scope", "ads_read,ads_management"),
        ("return_scopes", "true"),
        ("sandbox_form", "1"),
        ("sandbox_user", "ana"),
        ("sandbox_grant", "ads_read"),
        ("sandbox_decision", "allow"),
    ];
    let post = http().post(format!("{}/v26.0/dialog/oauth", sandbox.url())).form(&form);
    let reply = read(post.send().await.unwrap()).await;
    let location = reply.header("location").unwrap();
    assert!(reply.status == 302 && location.starts_with(REDIRECT) && location.ends_with("#_=_"));
    let pairs = pairs(location);
    assert_eq!((pairs["state"].as_str(), pairs["granted_scopes"].as_str()), ("xyz", "ads_read"));
    assert_eq!(pairs["denied_scopes"], "ads_management");
    assert!(redeem(&sandbox, &pairs["code"], REDIRECT).await.token().starts_with("EAA"));
}

#[tokio::test]
async fn a_refusal_and_the_odd_redirects_look_as_metas() {
    let sandbox = sandbox().await;
    let url = dialog(&sandbox, "");
    let denied = sandbox.consent(&url, "ana", Decision::Deny).unwrap();
    assert_eq!(
        denied,
        "https://vault.example/cb?error=access_denied&error_code=200&error_description=Permissions+error\
         &error_reason=user_denied&state=xyz#_=_"
    );
    let odd = pairs(&sandbox.consent(&url, "ana", Decision::Misconfigured).unwrap());
    assert!(
        odd["error_code"] == "1349048" && odd.contains_key("error_message") && !odd.contains_key("error")
    );
    let nothing = pairs(&sandbox.consent(&url, "ana", Decision::Nothing).unwrap());
    assert_eq!(nothing.len(), 1);
}

#[tokio::test]
async fn a_declined_permission_is_asked_again_only_on_rerequest() {
    let sandbox = sandbox().await;
    let except = Decision::AllowExcept(vec!["ads_management".to_owned()]);
    sandbox.consent(&dialog(&sandbox, ""), "ana", except).unwrap();
    let scopes = |extra: &str| {
        let url = dialog(&sandbox, &format!("&return_scopes=true{extra}"));
        pairs(&sandbox.consent(&url, "ana", Decision::Allow).unwrap())["granted_scopes"].clone()
    };
    assert_eq!(scopes(""), "ads_read");
    assert_eq!(scopes("&auth_type=rerequest"), "ads_read,ads_management");
}

#[tokio::test]
async fn a_code_is_good_once_for_its_redirect_uri_and_for_ten_minutes() {
    let sandbox = sandbox().await;
    let first = code(&sandbox, Decision::Allow);
    assert!(first.len() > 400);
    let mismatch = redeem(&sandbox, &first, "https://vault.example/cb/").await;
    assert_eq!(mismatch.error(), (400, 100, Some(36_008)));
    let reply = redeem(&sandbox, &first, REDIRECT).await;
    assert!(reply.json["expires_in"].as_i64().unwrap() <= 7_200);
    let again = redeem(&sandbox, &first, REDIRECT).await;
    assert_eq!(again.error(), (400, 100, Some(36_009)));
    let header = r#"OAuth "Facebook Platform" "invalid_code" "This authorization code has been used.""#;
    assert_eq!(again.header("www-authenticate"), Some(header));
    assert_eq!(
        redeem(&sandbox, "AQDnonsense", REDIRECT).await.message(),
        "Invalid verification code format."
    );
    let late = code(&sandbox, Decision::Allow);
    sandbox.clock().advance(Duration::from_secs(601));
    assert_eq!(redeem(&sandbox, &late, REDIRECT).await.message(), "This authorization code has expired.");
    sandbox.switch(|switches| switches.long_lived_codes = true);
    let reply = redeem(&sandbox, &code(&sandbox, Decision::Allow), REDIRECT).await;
    assert_eq!(reply.json["expires_in"], 5_184_000);
}

#[tokio::test]
async fn the_dialog_refuses_unknown_apps_and_redirect_uris() {
    let sandbox = sandbox().await;
    let unknown =
        format!("{}/dialog/oauth?client_id=1&redirect_uri=https%3A%2F%2Fvault.example", sandbox.url());
    assert_eq!(read(http().get(&unknown).send().await.unwrap()).await.status, 400);
    let insecure =
        format!("{}/dialog/oauth?client_id={APP}&redirect_uri=http%3A%2F%2Fvault.example", sandbox.url());
    assert_eq!(read(http().get(&insecure).send().await.unwrap()).await.status, 400);
    sandbox.switch(|switches| switches.redirect_uris = vec!["https://vault.example/other".to_owned()]);
    assert!(sandbox.consent(&dialog(&sandbox, ""), "ana", Decision::Allow).is_err());
    sandbox.switch(|switches| switches.redirect_uris = vec![REDIRECT.to_owned()]);
    assert!(sandbox.consent(&dialog(&sandbox, ""), "ana", Decision::Allow).is_ok());
}

#[tokio::test]
async fn a_script_answers_through_the_url_and_consent_renews_data_access() {
    let sandbox = sandbox().await;
    let user = sandbox.user("ana");
    user.data_access_lapses();
    let url = dialog(&sandbox, "&auth_type=reauthorize&sandbox_user=ana&sandbox_decline=ads_management");
    let reply = read(http().get(&url).send().await.unwrap()).await;
    let code = pairs(reply.header("location").unwrap())["code"].clone();
    let token = redeem(&sandbox, &code, REDIRECT).await.token();
    let data = crate::client::debug(&sandbox, &token).await;
    assert_eq!(data["scopes"], serde_json::json!(["ads_read", "public_profile"]));
    assert!(data["data_access_expires_at"].as_i64().unwrap() > sandbox.clock().now());
}

#[tokio::test]
async fn a_lost_reply_has_used_the_code_and_a_lost_request_has_not() {
    let sandbox = sandbox().await;
    for (kind, after) in [(FaultKind::Reset, 200), (FaultKind::ResetAfter, 400)] {
        let code = code(&sandbox, Decision::Allow);
        let query =
            [("client_id", APP), ("client_secret", SECRET), ("redirect_uri", REDIRECT), ("code", &code)];
        sandbox.fault(Fault::on(Endpoint::OauthAccessToken).with(kind));
        let url = format!("{}/oauth/access_token", sandbox.url());
        assert!(http().get(url).query(&query).send().await.is_err());
        assert_eq!(redeem(&sandbox, &code, REDIRECT).await.status, after);
    }
}
