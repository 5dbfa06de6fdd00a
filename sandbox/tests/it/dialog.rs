//! The login dialog and its codes.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;
use token_vault_sandbox::{AdAccountSpec, Decision, Endpoint, Fault, FaultKind, Pick, Sandbox};
use url::Url;

use crate::client::{APP, REDIRECT, Reply, SECRET, debug, get, http, read, sandbox};

pub(crate) fn dialog(sandbox: &Sandbox, extra: &str) -> String {
    format!(
        "{}/v26.0/dialog/oauth?client_id={APP}&redirect_uri=https%3A%2F%2Fvault.example%2Fcb&state=xyz\
         &scope=ads_read,ads_management{extra}",
        sandbox.url()
    )
}

pub(crate) fn pairs(location: &str) -> HashMap<String, String> {
    Url::parse(location).unwrap().query_pairs().into_owned().collect()
}

fn code(sandbox: &Sandbox, decision: Decision) -> String {
    let location = sandbox.consent(&dialog(sandbox, ""), "ana", decision).unwrap();
    pairs(&location)["code"].clone()
}

pub(crate) async fn redeem(sandbox: &Sandbox, code: &str, redirect_uri: &str) -> Reply {
    let query =
        [("client_id", APP), ("client_secret", SECRET), ("redirect_uri", redirect_uri), ("code", code)];
    get(sandbox, "/v26.0/oauth/access_token", &query).await
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
    let older = pairs(&sandbox.consent(&url, "ana", Decision::DenyOlder).unwrap());
    assert_eq!(older["error_description"], "The user denied your request.");
    let stranger = pairs(&sandbox.consent(&url, "ana", Decision::RoleMissing).unwrap());
    assert_eq!((stranger["error"].as_str(), stranger["error_code"].as_str()), ("access_denied", "200"));
}

#[tokio::test]
async fn a_code_that_is_no_good_is_refused_as_meta_refuses_it() {
    let sandbox = sandbox().await;
    for (decision, subcode, text) in [
        (Decision::ExpiredCode, None, "This authorization code has expired."),
        (Decision::UsedCode, Some(36_009), "This authorization code has been used."),
        (Decision::MalformedCode, Some(36_007), "Invalid verification code format."),
        (Decision::ForeignCode, Some(36_008), "Error validating verification code."),
    ] {
        let reply = redeem(&sandbox, &code(&sandbox, decision), REDIRECT).await;
        assert_eq!(reply.error(), (400, 100, subcode), "{text}");
        assert!(reply.message().starts_with(text), "{}", reply.message());
    }
}

#[tokio::test]
async fn scopes_and_ad_accounts_are_picked_together() {
    let sandbox = sandbox().await;
    let user = sandbox.user("ana").with_ad_accounts(3);
    let ids = user.ad_account_ids();
    let pick = |scopes: &[&str], ids: &[&String]| {
        let scopes = Some(scopes.iter().map(|&scope| scope.to_owned()).collect());
        let ad_accounts = Some(ids.iter().map(|id| format!("act_{id}")).collect());
        Decision::Pick(Pick { scopes, ad_accounts })
    };
    let some = code(&sandbox, pick(&["ads_read"], &[&ids[1]]));
    let token = redeem(&sandbox, &some, REDIRECT).await.token();
    let data = debug(&sandbox, &token).await;
    assert_eq!(data["granular_scopes"], json!([{ "scope": "ads_read", "target_ids": [ids[1]] }]));
    let seen = get(&sandbox, "/me/adaccounts", &[("access_token", &token)]).await;
    assert_eq!(seen.json["data"].as_array().unwrap().len(), 1);
    // All of them lifts the limit, so that an ad account of later is there too.
    code(&sandbox, pick(&["ads_read"], &ids.iter().collect::<Vec<_>>()));
    user.ad_account(AdAccountSpec::default());
    let seen = get(&sandbox, "/me/adaccounts", &[("access_token", &token)]).await;
    assert_eq!(seen.json["data"].as_array().unwrap().len(), 4);
    let as_json = json!({ "pick": { "scopes": ["ads_read"], "ad_accounts": null } });
    let decision: Decision = serde_json::from_value(as_json).unwrap();
    let left = Decision::Pick(Pick { scopes: Some(vec!["ads_read".to_owned()]), ad_accounts: None });
    assert_eq!(decision, left);
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
    let data = debug(&sandbox, &token).await;
    assert_eq!(data["scopes"], json!(["ads_read", "public_profile"]));
    assert!(data["data_access_expires_at"].as_i64().unwrap() > sandbox.clock().now());
    let id = &user.ad_account_ids()[0];
    user.ad_account(AdAccountSpec::default());
    for (ids, seen) in [("none", 0), (&format!("act_{id}"), 1), ("", 1)] {
        let url = dialog(&sandbox, &format!("&sandbox_user=ana&sandbox_ad_accounts={ids}"));
        assert_eq!(read(http().get(&url).send().await.unwrap()).await.status, 302);
        let listed = get(&sandbox, "/me/adaccounts", &[("access_token", &token)]).await;
        assert_eq!(listed.json["data"].as_array().unwrap().len(), seen, "{ids}");
    }
    let nonsense = dialog(&sandbox, "&sandbox_user=ana&sandbox_decision=perhaps");
    let reply = read(http().get(&nonsense).send().await.unwrap()).await;
    assert!(reply.status == 400 && reply.text.contains("perhaps"), "{}", reply.text);
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
