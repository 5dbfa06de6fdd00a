//! Exchange, `debug_token`, permissions, dead tokens, proofs.

use std::time::Duration;

use token_vault_sandbox::{
    App, Endpoint, ExchangeMood, Fault, FaultKind, LONG_LIFE, TokenOrder, appsecret_proof, appsecret_proof_at,
};

use crate::client::{
    APP, SECRET, ana, app_token, debug, debug_reply, exchange, exchange_with, get, me, post, sandbox,
};

const DAY: Duration = Duration::from_hours(24);

#[tokio::test]
async fn an_exchange_gives_a_new_token_of_60_days_and_leaves_the_old_one_alive() {
    let sandbox = sandbox().await;
    let short = ana(&sandbox).short_lived_token();
    let reply = exchange(&sandbox, &short).await;
    let long = reply.token();
    assert_eq!((reply.status, reply.json["token_type"].as_str()), (200, Some("bearer")));
    assert_eq!(reply.json["expires_in"], LONG_LIFE);
    assert!(long != short && long.starts_with("EAA") && long.ends_with("ZD") && long.len() > 200);
    assert_eq!(me(&sandbox, &short).await.status, 200);
    assert_eq!(me(&sandbox, &long).await.status, 200);
    let (before, after) = (debug(&sandbox, &short).await, debug(&sandbox, &long).await);
    assert!(before.get("issued_at").is_none() && after.get("issued_at").is_some());
    assert_eq!(before["data_access_expires_at"], after["data_access_expires_at"]);
}

#[tokio::test]
async fn an_exchange_works_by_post_too() {
    let sandbox = sandbox().await;
    let token = ana(&sandbox).short_lived_token();
    let form = [
        ("grant_type", "fb_exchange_token"),
        ("client_id", APP),
        ("client_secret", SECRET),
        ("fb_exchange_token", &token),
    ];
    assert_eq!(post(&sandbox, "/oauth/access_token", &form).await.status, 200);
}

#[tokio::test]
async fn an_exchange_checks_app_secret_and_token() {
    let sandbox = sandbox().await;
    let token = ana(&sandbox).short_lived_token();
    let wrong_secret = exchange_with(&sandbox, APP, "no", &token).await;
    assert_eq!(wrong_secret.error(), (400, 1, None));
    assert_eq!(wrong_secret.message(), "Error validating client secret.");
    assert_eq!(exchange_with(&sandbox, "1", SECRET, &token).await.error(), (400, 101, None));
    let foreign = sandbox.user("ana").token_of_app("999");
    assert_eq!(exchange(&sandbox, &foreign).await.error(), (400, 190, None));
    sandbox.clock().advance(Duration::from_secs(5_400));
    let expired = exchange(&sandbox, &token).await;
    assert_eq!(expired.error(), (400, 190, Some(463)));
    assert!(expired.message().contains("Session has expired on "));
    let header = expired.header("www-authenticate").unwrap();
    assert!(header.starts_with(r#"OAuth "Facebook Platform" "invalid_token" "Error validating"#), "{header}");
}

#[tokio::test]
async fn a_second_exchange_keeps_the_expiry_on_the_same_day_and_extends_it_later() {
    let sandbox = sandbox().await;
    let first = ana(&sandbox).long_lived_token();
    sandbox.clock().advance(Duration::from_hours(3));
    let second = exchange(&sandbox, &first).await;
    assert_ne!(second.token(), first);
    assert_eq!(sandbox.expiry_of(&second.token()), sandbox.expiry_of(&first));
    sandbox.clock().advance(DAY);
    let third = exchange(&sandbox, &first).await.token();
    assert!(sandbox.expiry_of(&third) > sandbox.expiry_of(&first));
}

#[tokio::test]
async fn moods_change_what_an_exchange_gives() {
    let sandbox = sandbox().await;
    let token = ana(&sandbox).long_lived_token();
    let end = sandbox.expiry_of(&token).unwrap();
    sandbox.clock().advance(DAY * 2);

    sandbox.set_mood(ExchangeMood::SameExpiry);
    assert_eq!(sandbox.expiry_of(&exchange(&sandbox, &token).await.token()), Some(end));
    sandbox.set_mood(ExchangeMood::Extends);
    assert!(sandbox.expiry_of(&exchange(&sandbox, &token).await.token()).unwrap() > end);
    sandbox.set_mood(ExchangeMood::Shortens);
    assert!(sandbox.expiry_of(&exchange(&sandbox, &token).await.token()).unwrap() < end);
    sandbox.set_mood(ExchangeMood::SameString);
    assert_eq!(exchange(&sandbox, &token).await.token(), token);
    sandbox.set_mood(ExchangeMood::NoExpiresIn);
    let reply = exchange(&sandbox, &token).await;
    assert!(reply.json.get("expires_in").is_none());
    assert_ne!(debug(&sandbox, &reply.token()).await["expires_at"], 0);
    sandbox.set_mood(ExchangeMood::BecomesNever);
    let reply = exchange(&sandbox, &token).await;
    assert!(reply.json.get("expires_in").is_none());
    assert_eq!(debug(&sandbox, &reply.token()).await["expires_at"], 0);
}

#[tokio::test]
async fn debug_token_answers_200_for_every_fault_of_the_inspected_token() {
    let sandbox = sandbox().await;
    let user = ana(&sandbox);
    for (broken, message) in [
        ("garbage!", "Invalid OAuth access token - Cannot parse access token"),
        ("header.payload.signature", "Invalid OAuth access token - Cannot parse access token"),
        (&format!("EAA{}ZD", "x".repeat(200)), "The access token could not be decrypted"),
        (&format!("{APP}|wrong"), "Invalid OAuth access token signature."),
    ] {
        let data = debug(&sandbox, broken).await;
        assert_eq!(data["error"]["message"], message);
        assert_eq!((&data["is_valid"], &data["scopes"]), (&false.into(), &serde_json::json!([])));
        assert!(data.get("app_id").is_none() && data.get("expires_at").is_none());
    }
    let expired = user.long_lived_token();
    sandbox.expire(&expired);
    let data = debug(&sandbox, &expired).await;
    assert_eq!((&data["error"]["code"], &data["error"]["subcode"]), (&190.into(), &463.into()));
    assert!(data["error"].get("error_subcode").is_none() && data["error"].get("type").is_none());
    assert_eq!((&data["is_valid"], &data["app_id"]), (&false.into(), &APP.into()));
    assert_eq!(data["user_id"], user.id());

    let changed = user.long_lived_token();
    user.changes_password();
    let data = debug(&sandbox, &changed).await;
    assert_eq!((&data["error"]["subcode"], &data["expires_at"]), (&460.into(), &0.into()));
}

#[tokio::test]
async fn debug_token_answers_400_for_a_wrong_caller() {
    let sandbox = sandbox().await;
    let user = ana(&sandbox);
    let token = user.long_lived_token();
    let reply = debug_reply(&sandbox, &token, &format!("{APP}|wrong")).await;
    assert_eq!(reply.error(), (400, 190, None));
    assert_eq!(reply.message(), "Invalid OAuth access token signature.");
    let reply = debug_reply(&sandbox, &token, &user.short_lived_token()).await;
    assert_eq!(reply.error(), (400, 100, None));
    assert!(reply.message().starts_with("(#100) You must provide an app access token"));
    let foreign = user.token_of_app("999");
    let reply = debug_reply(&sandbox, &foreign, &app_token()).await;
    assert_eq!(reply.message(), "(#100) The App_id in the input_token did not match the Viewing App");
    assert_eq!(debug_reply(&sandbox, &token, &token).await.json["data"]["is_valid"], true);
    sandbox.roll_app_secret(APP, "fresh");
    assert_eq!(debug_reply(&sandbox, &token, &app_token()).await.error(), (400, 190, None));
    assert_eq!(debug_reply(&sandbox, &token, &format!("{APP}|fresh")).await.status, 200);
}

#[tokio::test]
async fn token_kinds_have_their_own_shape_in_debug_token() {
    let sandbox = sandbox().await;
    let user = ana(&sandbox).limits("ads_management", &["1020304050"]);
    let data = debug(&sandbox, &user.short_lived_token()).await;
    assert_eq!(data["type"], "USER");
    assert_eq!(data["granular_scopes"][0]["target_ids"][0], "1020304050");
    assert!(data["granular_scopes"][1].get("target_ids").is_none());

    let page = debug(&sandbox, &user.page_token("Shop")).await;
    assert_eq!((&page["type"], &page["expires_at"]), (&"PAGE".into(), &0.into()));
    assert_eq!(page["profile_id"], user.page("Shop"));

    let bot = sandbox.system_user("bot").grants(["ads_read"]);
    let data = debug(&sandbox, &bot.token_never()).await;
    assert_eq!(
        (&data["type"], &data["expires_at"], &data["data_access_expires_at"]),
        (&"SYSTEM_USER".into(), &0.into(), &0.into())
    );
    assert_ne!(debug(&sandbox, &bot.token_60_days()).await["expires_at"], 0);

    let listed = get(&sandbox, "/me/permissions", &[("access_token", &bot.token_never())]).await;
    assert_eq!(listed.json["data"].as_array().unwrap().len(), 1);
    sandbox.switch(|switches| switches.system_users_list_permissions = false);
    let listed = get(&sandbox, "/me/permissions", &[("access_token", &bot.token_never())]).await;
    assert_eq!(listed.json, serde_json::json!({ "data": [] }));

    let app = debug(&sandbox, &app_token()).await;
    assert_eq!((&app["type"], &app["is_valid"]), (&"APP".into(), &true.into()));
    assert!(app.get("expires_at").is_none());
}

#[tokio::test]
async fn permissions_agree_with_the_scopes_of_debug_token() {
    let sandbox = sandbox().await;
    let user = sandbox
        .user("ana")
        .grants(["ads_read", "ads_management"])
        .declines(["business_management"])
        .lets_expire(["pages_show_list"]);
    let token = user.short_lived_token();
    let reply = get(&sandbox, "/v26.0/me/permissions", &[("access_token", &token)]).await;
    let find = |name: &str| {
        let all = reply.json["data"].as_array().unwrap();
        all.iter().find(|one| one["permission"] == name).map(|one| one["status"].as_str().unwrap().to_owned())
    };
    assert_eq!(find("ads_read").as_deref(), Some("granted"));
    assert_eq!(find("business_management").as_deref(), Some("declined"));
    assert_eq!(find("pages_show_list").as_deref(), Some("expired"));
    assert_eq!(find("email"), None);
    let scopes = &debug(&sandbox, &token).await["scopes"];
    assert_eq!(*scopes, serde_json::json!(["ads_management", "ads_read", "public_profile"]));
}

#[tokio::test]
async fn every_190_subcode_comes_on_demand_and_without_subcode_too() {
    let sandbox = sandbox().await;
    let user = ana(&sandbox);
    for subcode in [452, 456, 457, 458, 459, 460, 461, 462, 463, 464, 465, 466, 467, 468, 490, 492, 493] {
        let token = user.long_lived_token();
        sandbox.kill(&token, Some(subcode));
        assert_eq!(me(&sandbox, &token).await.error(), (400, 190, Some(subcode.into())));
        assert_eq!(debug(&sandbox, &token).await["error"]["subcode"], subcode);
    }
    let token = user.long_lived_token();
    sandbox.kill(&token, None);
    assert_eq!(me(&sandbox, &token).await.error(), (400, 190, None));
    sandbox.revive(&token);
    assert_eq!(me(&sandbox, &token).await.status, 200);
    sandbox.switch(|switches| {
        switches.hide_subcodes = true;
        switches.auth_status = 401;
    });
    user.changes_password();
    let reply = me(&sandbox, &token).await;
    assert_eq!(reply.error(), (401, 190, None));
    assert!(reply.message().contains("changed their password"));
    assert!(debug(&sandbox, &token).await["error"].get("subcode").is_none());
}

#[tokio::test]
async fn what_a_person_does_ends_their_tokens() {
    let sandbox = sandbox().await;
    let user = ana(&sandbox);
    let acts: [(&dyn Fn(), i64); 3] =
        [(&|| user.changes_password(), 460), (&|| user.removes_app(), 458), (&|| user.logs_out(), 467)];
    for (act, subcode) in acts {
        let token = user.long_lived_token();
        assert_eq!(me(&sandbox, &token).await.status, 200);
        act();
        assert_eq!(me(&sandbox, &token).await.error(), (400, 190, Some(subcode)));
        assert_eq!(me(&sandbox, &user.short_lived_token()).await.status, 200, "a new login is good");
    }
}

#[tokio::test]
async fn a_token_can_die_right_after_a_good_inspection() {
    let sandbox = sandbox().await;
    let user = ana(&sandbox);
    let token = user.long_lived_token();
    sandbox.fault(Fault::on(Endpoint::DebugToken).token(&token).with(FaultKind::ThenKill(Some(460))));
    assert_eq!(debug(&sandbox, &token).await["is_valid"], true);
    let account = &user.ad_account_ids()[0];
    let path = format!("/v26.0/act_{account}/insights");
    let reply = get(&sandbox, &path, &[("access_token", &token)]).await;
    assert_eq!(reply.error(), (400, 190, Some(460)));
}

#[tokio::test]
async fn a_proof_is_checked_when_given_and_wanted_when_required() {
    let sandbox = sandbox().await;
    let token = ana(&sandbox).long_lived_token();
    let call = |proof: Option<String>, time: Option<String>| {
        let (sandbox, token) = (sandbox.clone(), token.clone());
        async move {
            let mut query = vec![("access_token", token.as_str())];
            query.extend(proof.as_deref().map(|proof| ("appsecret_proof", proof)));
            query.extend(time.as_deref().map(|time| ("appsecret_time", time)));
            get(&sandbox, "/v26.0/me", &query).await
        }
    };
    let right = appsecret_proof(SECRET, &token);
    assert_eq!(call(None, None).await.status, 200);
    assert_eq!(call(Some(right.clone()), None).await.status, 200);
    let wrong = call(Some("00".to_owned()), None).await;
    assert_eq!(
        (wrong.error(), wrong.json["error"]["type"].as_str()),
        ((400, 100, None), Some("GraphMethodException"))
    );
    assert_eq!(wrong.message(), "Invalid appsecret_proof provided in the API argument");

    sandbox.set_app(App { require_proof: true, ..sandbox.app() });
    let missing = call(None, None).await;
    assert_eq!(missing.message(), "API calls from the server require an appsecret_proof argument");
    assert_eq!(call(Some(right), None).await.status, 200);
    let unproved = debug_reply(&sandbox, &token, &app_token()).await;
    assert_eq!(unproved.error(), (400, 100, None), "the proof is of the calling token");

    let now = sandbox.clock().now();
    for (age, status) in [(0, 200), (290, 200), (310, 400)] {
        let proof = appsecret_proof_at(SECRET, &token, now - age);
        assert_eq!(call(Some(proof), Some((now - age).to_string())).await.status, status, "{age} s old");
    }
}

#[tokio::test]
async fn proofs_have_the_published_values() {
    let (key, token) = ("0123456789abcdef0123456789abcdef", "EAABsbCS1iHgBAKZCexampletoken");
    let known = "ab8e5ab5223668d5adbf137c67a1668d28499522dbf607bb323e34e0bcbff502";
    assert_eq!(appsecret_proof(key, token), known);
    let known = "236a9f7de132aad89b932dde5b730919f74d7f3ce5cb8336dfe5bedcd2c4d965";
    assert_eq!(appsecret_proof_at(key, token, 1_763_859_600), known);
}

#[tokio::test]
async fn a_token_comes_by_header_and_may_be_long() {
    let sandbox = sandbox().await;
    let user = ana(&sandbox).with_id("99999999999999999999999999").renamed("Žana Ąžuolė 東京");
    let token = user.order(TokenOrder::long().length(612));
    assert_eq!(token.len(), 612);
    let request = crate::client::http().get(format!("{}/me", sandbox.url())).bearer_auth(&token);
    let reply = crate::client::read(request.send().await.unwrap()).await;
    assert_eq!(reply.json["name"], "Žana Ąžuolė 東京");
    assert_eq!(reply.json["id"], "99999999999999999999999999");
    assert_eq!(get(&sandbox, "/me", &[]).await.error(), (400, 2500, None));
    let debug_only = user.debug_only_token();
    assert!(me(&sandbox, &debug_only).await.message().ends_with("Debug only access token"));
}
