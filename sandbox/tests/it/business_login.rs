//! Facebook Login for Business: the dialog with a `config_id`.

use serde_json::json;
use token_vault_sandbox::{Decision, LONG_LIFE, LoginConfig, LoginToken, Pick, Sandbox};

use crate::client::{APP, REDIRECT, debug, get, http, me, read, sandbox};
use crate::dialog::{pairs, redeem};

async fn with_configs() -> Sandbox {
    let sandbox = sandbox().await;
    let config = |id: &str, token| LoginConfig {
        id: id.to_owned(),
        scopes: vec!["ads_read".to_owned(), "business_management".to_owned()],
        token,
        ..LoginConfig::default()
    };
    sandbox.switch(|switches| {
        switches.login_configs = vec![
            config("77", LoginToken::User),
            config("78", LoginToken::SystemUser),
            config("79", LoginToken::SystemUser60Days),
            LoginConfig { app_id: Some("999".to_owned()), ..config("80", LoginToken::User) },
        ];
    });
    sandbox
}

fn dialog(sandbox: &Sandbox, config: &str, extra: &str) -> String {
    format!(
        "{}/v26.0/dialog/oauth?client_id={APP}&redirect_uri=https%3A%2F%2Fvault.example%2Fcb&state=xyz\
         &config_id={config}{extra}",
        sandbox.url()
    )
}

const CODE: &str = "&response_type=code&override_default_response_type=true";

#[tokio::test]
async fn a_configuration_takes_the_place_of_the_scopes_and_is_all_or_nothing() {
    let sandbox = with_configs().await;
    sandbox.user("ana").declines(["ads_read"]);
    let url = dialog(&sandbox, "77", &format!("{CODE}&scope=email&return_scopes=true"));
    let page = read(http().get(format!("{url}&sandbox_person=ana")).send().await.unwrap()).await;
    assert!(page.text.contains("id=\"scope-business_management\"") && !page.text.contains("sandbox_grant"));
    let part = Decision::AllowExcept(vec!["business_management".to_owned()]);
    assert_eq!(pairs(&sandbox.consent(&url, "ana", part).unwrap())["error"], "access_denied");
    let back = pairs(&sandbox.consent(&url, "ana", Decision::Allow).unwrap());
    assert_eq!(back["granted_scopes"], "ads_read,business_management", "also what was declined before");
    let token = redeem(&sandbox, &back["code"], REDIRECT).await.token();
    let data = debug(&sandbox, &token).await;
    assert_eq!(data["type"], "USER");
    assert_eq!(data["scopes"], json!(["ads_read", "business_management", "public_profile"]));
}

#[tokio::test]
async fn the_form_of_a_configuration_offers_ad_accounts_only() {
    let sandbox = with_configs().await;
    let ids = sandbox.user("ana").with_ad_accounts(2).ad_account_ids();
    let form = [
        ("sandbox_form", "2"),
        ("sandbox_user", "ana"),
        ("sandbox_account", &ids[1]),
        ("sandbox_decision", "allow"),
    ];
    let reply = read(http().post(dialog(&sandbox, "77", CODE)).form(&form).send().await.unwrap()).await;
    let code = pairs(reply.header("location").unwrap())["code"].clone();
    let data = debug(&sandbox, &redeem(&sandbox, &code, REDIRECT).await.token()).await;
    assert_eq!(data["granular_scopes"][0], json!({ "scope": "ads_read", "target_ids": [ids[1]] }));
}

#[tokio::test]
async fn a_configuration_may_give_the_token_of_a_system_user() {
    let sandbox = with_configs().await;
    let ana = sandbox.user("ana").with_ad_accounts(2);
    let ids = ana.ad_account_ids();
    for (config, life) in [("78", None), ("79", Some(LONG_LIFE))] {
        let url = dialog(&sandbox, config, CODE);
        let pick = Pick { scopes: None, ad_accounts: Some(vec![ids[0].clone()]) };
        let back = pairs(&sandbox.consent(&url, "ana", Decision::Pick(pick)).unwrap());
        let reply = redeem(&sandbox, &back["code"], REDIRECT).await;
        assert_eq!(reply.json.get("expires_in").and_then(serde_json::Value::as_i64), life);
        let token = reply.token();
        let data = debug(&sandbox, &token).await;
        let expires_at = life.map_or(0, |life| sandbox.clock().now() + life);
        assert_eq!(
            (data["type"].as_str(), data["expires_at"].as_i64()),
            (Some("SYSTEM_USER"), Some(expires_at))
        );
        assert_eq!(data["scopes"], json!(["ads_read", "business_management"]));
        assert_eq!(data["data_access_expires_at"], 0);
        assert_eq!(data["user_id"], sandbox.system_user("ana-business").id());
        let query = [("access_token", token.as_str()), ("fields", "client_business_id")];
        assert_eq!(get(&sandbox, "/me", &query).await.json["client_business_id"], "777000111");
        let seen = get(&sandbox, "/me/adaccounts", &[("access_token", &token)]).await;
        assert_eq!(seen.json["data"], json!([{ "id": format!("act_{}", ids[0]), "account_id": ids[0] }]));
        sandbox.system_user("ana-business").removes_app();
        assert_eq!(me(&sandbox, &token).await.error(), (400, 190, Some(458)));
    }
    let own = debug(&sandbox, &ana.short_lived_token()).await;
    assert_eq!(own["scopes"], json!(["public_profile"]), "the person granted nothing of their own");
}

#[tokio::test]
async fn a_dialog_that_cannot_be_shown_sends_the_browser_back_without_asking() {
    let sandbox = with_configs().await;
    for (config, extra) in [
        ("99", CODE),
        ("80", CODE),
        ("78", "&response_type=token"),
        ("77", "&response_type=token&override_default_response_type=true"),
    ] {
        let reply = read(http().get(dialog(&sandbox, config, extra)).send().await.unwrap()).await;
        let back = pairs(reply.header("location").unwrap());
        assert!(back.contains_key("error_code") && back.contains_key("error_message"), "{config}");
        assert!(!back.contains_key("error") && !back.contains_key("code") && back["state"] == "xyz");
        let told = sandbox.consent(&dialog(&sandbox, config, extra), "ana", Decision::Allow).unwrap();
        assert_eq!(Some(told.as_str()), reply.header("location"));
    }
    let shown = read(http().get(dialog(&sandbox, "78", "")).send().await.unwrap()).await;
    assert_eq!(shown.status, 200, "code is the default");
}

#[tokio::test]
async fn configurations_are_switches() {
    let sandbox = sandbox().await;
    let body =
        json!({ "login_configs": [{ "id": "77", "scopes": ["ads_read"], "token": "system_user_60_days" }] });
    let url = format!("{}/_sandbox/switches", sandbox.url());
    let reply = read(http().post(&url).body(body.to_string()).send().await.unwrap()).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let shown = get(&sandbox, "/_sandbox/switches", &[]).await.json;
    assert_eq!(shown["login_configs"][0]["token"], "system_user_60_days");
    assert!(
        sandbox.consent(&dialog(&sandbox, "77", CODE), "ana", Decision::Allow).unwrap().contains("code=")
    );
}
