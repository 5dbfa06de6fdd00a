//! Ad accounts with their cursors, and insights.

use serde_json::json;
use token_vault_sandbox::{AdAccountSpec, Sandbox};

use crate::client::{Reply, ana, get, http, read, sandbox};

async fn insights(sandbox: &Sandbox, account: &str, token: &str, more: &[(&str, &str)]) -> Reply {
    let mut query = vec![("access_token", token)];
    query.extend(more);
    get(sandbox, &format!("/v26.0/act_{account}/insights"), &query).await
}

#[tokio::test]
async fn insights_have_string_numbers_and_are_empty_without_delivery() {
    let sandbox = sandbox().await;
    let user = ana(&sandbox);
    let (token, account) = (user.long_lived_token(), user.ad_account_ids()[0].clone());
    let query =
        [("date_preset", "last_7d"), ("fields", "account_id,spend,impressions"), ("level", "account")];
    let reply = insights(&sandbox, &account, &token, &query).await;
    let row = &reply.json["data"][0];
    assert_eq!((row["spend"].as_str(), row["impressions"].as_str()), (Some("5339.46"), Some("361319")));
    assert!(row["date_start"].is_string() && row["date_stop"].is_string());
    assert_eq!(reply.json["paging"]["cursors"]["after"], "MAZDZD");
    user.delivery(false);
    let reply = insights(&sandbox, &account, &token, &query).await;
    assert_eq!((reply.status, reply.json), (200, json!({ "data": [] })));
}

#[tokio::test]
async fn insights_refuse_foreign_accounts_missing_scopes_and_bad_ranges() {
    let sandbox = sandbox().await;
    let user = ana(&sandbox);
    let (token, account) = (user.long_lived_token(), user.ad_account_ids()[0].clone());
    let foreign = insights(&sandbox, "1", &token, &[]).await;
    assert_eq!(foreign.error(), (400, 100, Some(33)));
    assert!(foreign.message().starts_with("Unsupported get request. Object with ID 'act_1' does not exist"));
    assert_eq!(
        insights(&sandbox, &account, &token, &[("date_preset", "last_8d")]).await.error(),
        (400, 100, None)
    );
    assert_eq!(
        insights(&sandbox, &account, &token, &[("fields", "nonsense")]).await.error(),
        (400, 100, None)
    );
    let long_ago = [("time_range", r#"{"since":"2015-01-01","until":"2015-01-02"}"#)];
    assert_eq!(insights(&sandbox, &account, &token, &long_ago).await.error(), (400, 3018, None));
    user.forgets(["ads_read", "ads_management"]);
    assert_eq!(insights(&sandbox, &account, &token, &[]).await.error(), (400, 200, None));
}

#[tokio::test]
async fn ad_accounts_come_in_pages_with_an_empty_one_in_the_middle() {
    let sandbox = sandbox().await;
    let user = ana(&sandbox).with_ad_accounts(5).empty_page(2);
    let token = user.long_lived_token();
    let query = [("access_token", token.as_str()), ("fields", "id,name"), ("limit", "2")];
    let mut reply = get(&sandbox, "/v26.0/me/adaccounts", &query).await;
    let mut sizes = Vec::new();
    let mut ids = Vec::new();
    loop {
        let data = reply.json["data"].as_array().unwrap();
        sizes.push(data.len());
        ids.extend(data.iter().map(|account| account["id"].as_str().unwrap().to_owned()));
        assert!(reply.json["paging"]["cursors"]["after"].is_string());
        let Some(next) = reply.json["paging"]["next"].as_str() else { break };
        assert!(next.contains(&token), "Meta puts the token in");
        reply = read(http().get(next).send().await.unwrap()).await;
    }
    assert_eq!(sizes, [2, 0, 2, 1]);
    let known: Vec<String> = user.ad_account_ids().iter().map(|id| format!("act_{id}")).collect();
    assert_eq!(ids, known);
    let stale = [("access_token", token.as_str()), ("after", "bm9uc2Vuc2UZD")];
    assert_eq!(get(&sandbox, "/me/adaccounts", &stale).await.error(), (400, 100, None));
}

#[tokio::test]
async fn no_ad_account_is_a_bare_empty_list() {
    let sandbox = sandbox().await;
    let token = ana(&sandbox).with_ad_accounts(0).long_lived_token();
    let reply = get(&sandbox, "/me/adaccounts", &[("access_token", &token)]).await;
    assert_eq!((reply.status, reply.json), (200, json!({ "data": [] })));
}

#[tokio::test]
async fn accounts_show_the_fields_asked_for() {
    let sandbox = sandbox().await;
    let user = ana(&sandbox).with_ad_accounts(0);
    user.ad_account(AdAccountSpec {
        id: Some("77".to_owned()),
        status: 2,
        business: None,
        ..Default::default()
    });
    user.ad_account(AdAccountSpec {
        id: Some("78".to_owned()),
        name: "Łódź".to_owned(),
        ..Default::default()
    });
    let token = user.long_lived_token();
    let plain = get(&sandbox, "/act_77", &[("access_token", &token)]).await;
    assert_eq!(plain.json, json!({ "id": "act_77", "account_id": "77" }));
    let query = [("access_token", token.as_str()), ("fields", "name,account_status,business{id}")];
    let reply = get(&sandbox, "/me/adaccounts", &query).await;
    assert_eq!(
        reply.json["data"],
        json!([{ "id": "act_77", "name": "Shop EU", "account_status": 2 },
               { "id": "act_78", "name": "Łódź", "account_status": 1, "business": { "id": "777000111" } }])
    );
    let wrong = [("access_token", token.as_str()), ("fields", "nonsense")];
    assert_eq!(get(&sandbox, "/act_77", &wrong).await.error(), (400, 100, None));
}

#[tokio::test]
async fn pages_come_with_tokens_as_lasting_as_their_parent() {
    let sandbox = sandbox().await;
    let user = ana(&sandbox);
    user.page("Shop");
    for (parent, lasting) in [(user.long_lived_token(), true), (user.short_lived_token(), false)] {
        let reply = get(&sandbox, "/me/accounts", &[("access_token", &parent)]).await;
        let page = reply.json["data"][0]["access_token"].as_str().unwrap();
        assert_eq!(sandbox.expiry_of(page) == Some(0), lasting);
        let named = [("access_token", parent.as_str()), ("fields", "name")];
        let reply = get(&sandbox, "/me/accounts", &named).await;
        assert!(reply.json["data"][0].get("access_token").is_none());
    }
}
