//! What users of the Graph API have reported and Meta does not document: each is a state of the sandbox.

use serde_json::{Value, json};
use token_vault_sandbox::{
    AdAccountSpec, AppBlock, BusinessSpec, Decision, OwnerFields, Sandbox, TokenOrder, User,
};

use crate::client::{APP, Reply, ana, app_token, debug, debug_reply, exchange, get, me, sandbox};

async fn accounts(sandbox: &Sandbox, token: &str, fields: &str, limit: &str) -> Reply {
    let query = [("access_token", token), ("fields", fields), ("limit", limit)];
    get(sandbox, "/v26.0/me/adaccounts", &query).await
}

fn ids(reply: &Reply) -> Vec<String> {
    let rows = reply.json["data"].as_array().unwrap();
    rows.iter().map(|row| row["id"].as_str().unwrap().trim_start_matches("act_").to_owned()).collect()
}

async fn list(sandbox: &Sandbox, path: &str, token: &str) -> Reply {
    get(sandbox, path, &[("access_token", token)]).await
}

#[tokio::test]
async fn a_field_beyond_the_scopes_refuses_the_whole_request() {
    let sandbox = sandbox().await;
    let user = sandbox.user("ana").grants(["ads_read"]).with_ad_accounts(2);
    let token = user.long_lived_token();
    let one = format!("/v26.0/act_{}", user.ad_account_ids()[0]);
    for (switch, error) in
        [(OwnerFields::Refused100, (400, 100, None)), (OwnerFields::Refused200, (403, 200, None))]
    {
        sandbox.switch(|switches| switches.owner_fields = switch);
        for field in ["business", "owner", "funding_source_details", "business{id,name}"] {
            let fields = format!("id,name,{field}");
            let reply = accounts(&sandbox, &token, &fields, "25").await;
            assert_eq!(reply.error(), error, "{field}");
            let text = format!("(#{}) Requires business_management permission to access the field.", error.1);
            assert_eq!(reply.message(), text);
            let query = [("access_token", token.as_str()), ("fields", &fields)];
            assert_eq!(get(&sandbox, &one, &query).await.error(), error, "{field}");
        }
        assert_eq!(accounts(&sandbox, &token, "id,name,currency", "25").await.status, 200);
    }
    user.grants(["business_management"]);
    let reply = accounts(&sandbox, &token, "id,business,owner,funding_source_details", "25").await;
    assert_eq!(reply.json["data"][0]["business"]["id"], "777000111");
    assert!(reply.json["data"][0]["funding_source_details"]["id"].is_string());
    let narrow = user.order(TokenOrder::long().scopes(&["ads_read"]));
    assert_eq!(accounts(&sandbox, &narrow, "id,business", "25").await.error(), (403, 200, None));
}

#[tokio::test]
async fn an_owner_that_is_hidden_refuses_the_page_whatever_the_scopes() {
    let sandbox = sandbox().await;
    let hidden = AdAccountSpec { owner_hidden: true, ..AdAccountSpec::default() };
    let user = ana(&sandbox).with_ad_accounts(2).ad_account(hidden);
    let token = user.long_lived_token();
    let first = accounts(&sandbox, &token, "id,business", "2").await;
    assert_eq!((first.status, ids(&first).len()), (200, 2), "only the page of that account is refused");
    let after = first.json["paging"]["cursors"]["after"].as_str().unwrap();
    let page =
        [("access_token", token.as_str()), ("fields", "id,business"), ("limit", "2"), ("after", after)];
    assert_eq!(get(&sandbox, "/v26.0/me/adaccounts", &page).await.error(), (400, 100, None));
    assert_eq!(accounts(&sandbox, &token, "id,business", "25").await.error(), (400, 100, None));
    assert_eq!(accounts(&sandbox, &token, "id,name", "25").await.status, 200);
}

#[tokio::test]
async fn too_many_rows_are_refused_for_ever_and_fewer_are_shown() {
    let sandbox = sandbox().await;
    let user = ana(&sandbox).with_ad_accounts(60);
    for page in 0..12 {
        user.page(&format!("Shop {page}"));
    }
    let token = user.long_lived_token();
    sandbox.switch(|switches| switches.most_rows = Some(10));
    for _ in 0..3 {
        let reply = accounts(&sandbox, &token, "id", "25").await;
        assert_eq!(reply.error(), (500, 1, None));
        assert!(reply.message().starts_with("Please reduce the amount of data"), "{}", reply.text);
    }
    assert_eq!(ids(&accounts(&sandbox, &token, "id", "10").await).len(), 10);
    assert_eq!(list(&sandbox, "/me/accounts", &token).await.error(), (500, 1, None));
    let small = sandbox.user("bob").grants(["ads_read"]).with_ad_accounts(10).long_lived_token();
    assert_eq!(accounts(&sandbox, &small, "id", "200").await.status, 200, "few accounts are never too many");
}

#[tokio::test]
async fn the_inspector_can_be_wrong_in_both_directions_until_the_person_heals() {
    let sandbox = sandbox().await;
    let user = ana(&sandbox);
    let token = user.long_lived_token();
    let account = format!("/act_{}/insights", user.ad_account_ids()[0]);
    for subcode in [459, 493, 460] {
        user.falls_into(subcode);
        user.inspector_says_valid();
        let seen = debug(&sandbox, &token).await;
        assert_eq!((&seen["is_valid"], seen.get("error")), (&json!(true), None));
        let refused = (400, 190, Some(i64::from(subcode)));
        assert_eq!(me(&sandbox, &token).await.error(), refused);
        for path in ["/me/adaccounts", "/me/permissions", &account] {
            assert_eq!(list(&sandbox, path, &token).await.error(), refused, "{path}");
        }
        user.heals();
        assert_eq!(me(&sandbox, &token).await.status, 200);
    }
    user.inspector_says_dead(Some(460));
    let seen = debug(&sandbox, &token).await;
    assert_eq!((&seen["is_valid"], &seen["error"]["subcode"]), (&json!(false), &json!(460)));
    assert_eq!(list(&sandbox, &account, &token).await.status, 200);
    user.heals();
    assert_eq!(debug(&sandbox, &token).await["is_valid"], true);
}

#[tokio::test]
async fn a_blocked_app_is_refused_everything_and_its_tokens_live_on() {
    let sandbox = sandbox().await;
    let token = ana(&sandbox).long_lived_token();
    for (block, text) in
        [(AppBlock::Blocked, "API access blocked."), (AppBlock::Disrupted, "API access disrupted")]
    {
        sandbox.block_app(APP, block);
        let replies = [
            me(&sandbox, &token).await,
            debug_reply(&sandbox, &token, &app_token()).await,
            exchange(&sandbox, &token).await,
        ];
        for reply in replies {
            assert_eq!((reply.error(), reply.message()), ((400, 200, None), text));
        }
        sandbox.block_app(APP, None);
        assert_eq!(me(&sandbox, &token).await.status, 200);
        assert_eq!(debug(&sandbox, &token).await["is_valid"], true);
    }
}

#[tokio::test]
async fn an_exchange_of_a_dead_token_may_look_as_if_it_had_worked() {
    let sandbox = sandbox().await;
    let user = ana(&sandbox);
    let token = user.long_lived_token();
    user.changes_password();
    assert_eq!(exchange(&sandbox, &token).await.error(), (400, 190, Some(460)));
    sandbox.switch(|switches| switches.dead_exchange_succeeds = true);
    assert_eq!(exchange(&sandbox, &token).await.token(), token);
    assert_eq!(debug(&sandbox, &token).await["error"]["subcode"], 460);
}

#[tokio::test]
async fn an_exchange_may_end_the_token_that_went_in() {
    let sandbox = sandbox().await;
    let token = ana(&sandbox).long_lived_token();
    sandbox.switch(|switches| switches.exchange_ends_input = true);
    let new = exchange(&sandbox, &token).await.token();
    assert_ne!(new, token);
    assert_eq!(me(&sandbox, &token).await.error(), (400, 190, Some(466)));
    assert_eq!(me(&sandbox, &new).await.status, 200);
}

#[tokio::test]
async fn other_ticks_at_a_second_login_shrink_the_reach_of_every_token_of_the_app() {
    let sandbox = sandbox().await;
    sandbox.add_app(token_vault_sandbox::App { id: "999".to_owned(), ..sandbox.app() });
    let user = ana(&sandbox).with_ad_accounts(3);
    let (first, other_app) = (user.long_lived_token(), user.token_of_app("999"));
    let all = user.ad_account_ids();
    assert_eq!(ids(&list(&sandbox, "/me/adaccounts", &first).await), all);
    let url = format!(
        "{}/dialog/oauth?client_id={APP}&redirect_uri=https%3A%2F%2Fx.example&scope=ads_read",
        sandbox.url()
    );
    sandbox.consent(&url, "ana", Decision::AllowAdAccounts(vec![all[2].clone()])).unwrap();
    assert_eq!(ids(&list(&sandbox, "/me/adaccounts", &first).await), all[2..]);
    let gone = list(&sandbox, &format!("/act_{}/insights", all[0]), &first).await;
    assert_eq!(gone.error(), (400, 100, Some(33)));
    let scopes = debug(&sandbox, &first).await["granular_scopes"].clone();
    let ads = scopes.as_array().unwrap().iter().find(|one| one["scope"] == "ads_read").unwrap();
    assert_eq!(ads["target_ids"], json!([all[2]]));
    assert_eq!(ids(&list(&sandbox, "/me/adaccounts", &other_app).await), all, "another app keeps its own");
    user.ticks(Vec::<String>::new());
    assert_eq!(list(&sandbox, "/me/adaccounts", &first).await.json, json!({ "data": [] }));
    user.changes_password();
    for token in [first, other_app] {
        assert_eq!(me(&sandbox, &token).await.error(), (400, 190, Some(460)));
    }
}

#[tokio::test]
async fn wrong_tokens_may_be_refused_as_if_meta_were_away() {
    let sandbox = sandbox().await;
    let user = ana(&sandbox);
    let token = user.long_lived_token();
    sandbox.switch(|switches| switches.code_2_for_bad_tokens = true);
    assert_eq!(me(&sandbox, &token).await.status, 200);
    user.logs_out();
    for wrong in [token.as_str(), "EAAnonsense"] {
        assert_eq!(me(&sandbox, wrong).await.error(), (503, 2, None));
        assert_eq!(debug(&sandbox, wrong).await["is_valid"], false, "debug_token knows better");
    }
}

/// A person in two businesses, each with accounts that only it lists.
fn with_businesses(sandbox: &Sandbox) -> User {
    let account = |id: &str| AdAccountSpec { id: Some(id.to_owned()), ..AdAccountSpec::default() };
    let business = |id: &str, owned: &[&str], clients: &[&str]| BusinessSpec {
        id: id.to_owned(),
        name: format!("Business {id}"),
        owned: owned.iter().copied().map(account).collect(),
        clients: clients.iter().copied().map(account).collect(),
    };
    ana(sandbox)
        .with_ad_accounts(0)
        .ad_account(account("11"))
        .in_business(business("888", &["21", "22"], &["31"]))
        .in_business(business("999", &[], &["31"]))
}

#[tokio::test]
async fn accounts_that_only_a_business_owns_are_behind_its_edges() {
    let sandbox = sandbox().await;
    let user = with_businesses(&sandbox);
    let token = user.long_lived_token();
    assert_eq!(ids(&list(&sandbox, "/me/adaccounts", &token).await), ["11"]);
    let businesses = list(&sandbox, "/me/businesses", &token).await;
    assert_eq!(ids(&businesses), ["777000111", "888", "999"]);
    for (path, expected) in [
        ("/777000111/owned_ad_accounts", &["11"][..]),
        ("/888/owned_ad_accounts", &["21", "22"]),
        ("/888/client_ad_accounts", &["31"]),
        ("/999/owned_ad_accounts", &[]),
        ("/999/client_ad_accounts", &["31"]),
    ] {
        assert_eq!(ids(&list(&sandbox, path, &token).await), expected, "{path}");
    }
    assert_eq!(list(&sandbox, "/act_21/insights", &token).await.status, 200);
    assert_eq!(list(&sandbox, "/1234/owned_ad_accounts", &token).await.error(), (400, 100, Some(33)));
    let narrow = user.order(TokenOrder::long().scopes(&["ads_read"]));
    for path in ["/me/businesses", "/888/owned_ad_accounts"] {
        assert_eq!(list(&sandbox, path, &narrow).await.error(), (400, 200, None), "{path}");
    }
}

#[tokio::test]
async fn who_leaves_a_business_keeps_the_token_and_loses_its_accounts() {
    let sandbox = sandbox().await;
    let user = with_businesses(&sandbox);
    let token = user.long_lived_token();
    user.leaves_business("888");
    assert_eq!(debug(&sandbox, &token).await["is_valid"], true);
    assert_eq!(list(&sandbox, "/888/owned_ad_accounts", &token).await.error(), (400, 100, Some(33)));
    assert_eq!(list(&sandbox, "/act_21/insights", &token).await.error(), (400, 100, Some(33)));
    user.leaves_business("777000111");
    assert_eq!(list(&sandbox, "/me/adaccounts", &token).await.json, json!({ "data": [] }));
    assert_eq!(ids(&list(&sandbox, "/me/businesses", &token).await), ["999"]);
}

#[tokio::test]
async fn every_report_is_in_reach_over_http() {
    let sandbox = sandbox().await;
    let tell = async |path: &str, body: Value| {
        let url = format!("{}/_sandbox{path}", sandbox.url());
        let response = crate::client::http().post(url).body(body.to_string()).send().await.unwrap();
        let reply = crate::client::read(response).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        reply.json
    };
    let new = json!({ "name": "ana", "grants": ["ads_read", "business_management"],
        "ad_accounts": [{ "id": "1", "owner_hidden": true }, { "id": "2" }],
        "businesses": [{ "id": "888", "name": "Agency", "owned": [{ "id": "21" }] }] });
    let token = tell("/users", new).await["tokens"]["long_lived"].as_str().unwrap().to_owned();
    let act = async |body: Value| tell("/users/ana/actions", body).await;
    assert_eq!(accounts(&sandbox, &token, "id,owner", "5").await.error(), (400, 100, None));
    assert_eq!(ids(&list(&sandbox, "/888/owned_ad_accounts", &token).await), ["21"]);
    act(json!({ "action": "ticks", "names": ["2"] })).await;
    assert_eq!(ids(&list(&sandbox, "/me/adaccounts", &token).await), ["2"]);
    act(json!({ "action": "leaves_business", "names": ["888", "777000111"] })).await;
    assert_eq!(list(&sandbox, "/me/businesses", &token).await.json, json!({ "data": [] }));
    act(json!({ "action": "inspector_says_dead", "subcode": 463 })).await;
    assert_eq!(debug(&sandbox, &token).await["error"]["subcode"], 463);
    act(json!({ "action": "inspector_says_valid" })).await;
    act(json!({ "action": "falls_into", "subcode": 493 })).await;
    assert_eq!(debug(&sandbox, &token).await["is_valid"], true);
    act(json!({ "action": "heals" })).await;
    let app = json!({ "id": APP, "secrets": [crate::client::SECRET], "blocked": "disrupted" });
    tell("/apps", app).await;
    assert_eq!(me(&sandbox, &token).await.message(), "API access disrupted");
    tell("/apps", json!({ "id": APP, "secrets": [crate::client::SECRET] })).await;
    let reports = json!({ "owner_fields": "refused200", "most_rows": 50, "code_2_for_bad_tokens": true,
        "dead_exchange_succeeds": true, "exchange_ends_input": true });
    tell("/switches", reports.clone()).await;
    let switches = get(&sandbox, "/_sandbox/switches", &[]).await.json;
    let help = get(&sandbox, "/_sandbox", &[]).await.text;
    for (name, value) in reports.as_object().unwrap() {
        assert_eq!(switches[name], *value);
        assert!(help.contains(name), "the help names {name}");
    }
    assert_eq!(me(&sandbox, "EAAnonsense").await.error(), (503, 2, None));
}
