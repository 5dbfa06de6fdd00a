//! A person asks Meta for the deletion of their data, and Meta tells the app.

use std::time::Duration;

use serde_json::Value;
use token_vault_proto::v1::report_provider_callback_response::DeletionState;
use token_vault_sandbox::CallbackKind;
use token_vault_tests::eventually_async;

use super::*;
use crate::keys::erasure::{hunter_of, named, written};

const LIMIT: Duration = Duration::from_secs(60);
const PAGE: &str = "https://connect.example/callbacks/meta/data-deletion";

fn deletion(name: &str) -> Callback {
    Callback::new(CallbackKind::DataDeletion).about(name)
}

/// The confirmation code that the answer names, and with it the URL.
fn code_of(answer: &Answer) -> String {
    assert_eq!(
        (answer.status, answer.content_type.as_deref()),
        (200, Some("application/json")),
        "{answer:?}"
    );
    let body: Value = serde_json::from_str(&answer.body).expect("JSON");
    let code = body["confirmation_code"].as_str().expect("a code");
    assert_eq!(body, serde_json::json!({"url": format!("{PAGE}/{code}"), "confirmation_code": code}));
    assert!(code.len() == 32 && code.bytes().all(|byte| byte.is_ascii_hexdigit()), "{code}");
    code.to_owned()
}

/// What somebody with this code is shown.
async fn shown(caller: &Caller, code: &str) -> pb::ReportProviderCallbackResponse {
    let request = message("data-deletion", "GET", &format!("code={code}"), Vec::new(), Bytes::new());
    caller.report_provider_callback(request).await.expect("a page")
}

async fn is_done(caller: &Caller, code: &str) {
    eventually_async("it is done", LIMIT, async || {
        (shown(caller, code).await.deletion_state() == DeletionState::Done).then_some(())
    })
    .await;
}

on_both_databases! {
    async fn who_asks_for_deletion_is_erased_everywhere(world: World) {
        let admin = world.admin();
        let (ana, ben) = (world.person("Persephone Erasable"), world.person("Benjamin Remaining"));
        ana.with_ad_accounts(2);
        let here = admin.connect(ACME, &ana.long_lived_token()).await;
        let there = admin.connect("globex", &ana.long_lived_token()).await;
        ana.page("Persephone's Shop");
        let options = pb::IntakeOptions { connect_pages: true, ..Default::default() };
        let request = pb::StoreTokenRequest { options: Some(options), ..world.pasted("umbrella", &ana.long_lived_token()) };
        let with_page = admin.store_with(request).await.unwrap();
        let page = with_page.page_connection_ids[0].clone();
        let parent = with_page.token.unwrap().connection_id;
        let ended = admin.connect("initech", &ana.long_lived_token()).await;
        admin.revoke(&ended).await.unwrap();
        let his = admin.connect(ACME, &ben.long_lived_token()).await;
        let (mut hunted, kept) = (hunter_of(&ana), hunter_of(&ben));
        hunted.add("the page", "Persephone's Shop");
        let ids = [&here, &there, &ended, &parent, &page];
        assert!(!named(&admin, &hunted, &ids).await.is_empty());
        let open = admin.watch_all().await;
        open.caught_up().await;

        let platform = Platform::start(world.caller(Role::Connector, &[ACME]).await).await;
        let twice = Callback { times: Some(2), ..deletion(&ana.name()) };
        let answers = platform.gets_all(&world, twice, "data-deletion").await;
        assert_eq!(answers[0], answers[1], "the same callback gets the same answer");
        let code = code_of(&answers[0]);
        is_done(&admin, &code).await;
        for id in [&here, &there, &parent, &page] {
            open.first(id, Kind::Revoked).await;
            admin.fetch(id).await.unwrap_err().is(Code::FailedPrecondition, Reason::TokenRevoked);
        }
        assert_eq!(named(&admin, &hunted, &ids).await, [""; 0]);
        assert_eq!(written(&world, &hunted).await, [""; 0]);
        assert!(!named(&admin, &kept, &[&his]).await.is_empty(), "nobody else is erased");
        let page = shown(&admin, &code).await;
        assert_eq!((page.http_status, page.body.as_str()), (200, "Done. Your data is deleted.\n"));
        assert_eq!((page.connections, page.content_type.as_str()), (0, "text/plain; charset=utf-8"));

        // She comes back, and the same callback comes again, late: it was about what she had before.
        let again = admin.connect(ACME, &ana.long_lived_token()).await;
        let late = admin.report_provider_callback(platform.last_sent()).await.unwrap();
        assert_eq!((late.body.as_str(), late.deletion_state()), (answers[0].body.as_str(), DeletionState::Done));
        assert!(admin.fetch(&again).await.is_ok());
        let newer = Callback { age_seconds: -1, ..deletion(&ana.name()) };
        let newer = code_of(&platform.gets(&world, newer, "data-deletion").await);
        assert_ne!(newer, code, "another request");
        is_done(&admin, &newer).await;
        open.first(&again, Kind::Revoked).await;
        assert_eq!(named(&admin, &hunted, &[&again]).await, [""; 0]);
    }

    async fn a_request_outlives_the_process_that_took_it(world: World) {
        let admin = world.admin();
        let ana = world.person("Persephone Erasable");
        let mut ids = Vec::new();
        for n in 0..12 {
            ids.push(admin.connect(&format!("brand-{n}"), &ana.long_lived_token()).await);
        }
        let platform = Platform::start(admin).await;
        let code = code_of(&platform.gets(&world, deletion(&ana.name()), "data-deletion").await);
        world.kill();
        world.start_again();
        is_done(&world.admin(), &code).await;
        let ids: Vec<_> = ids.iter().collect();
        assert_eq!(named(&world.admin(), &hunter_of(&ana), &ids).await, [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_shows_the_state_and_nothing_else() {
    let world = World::start(Backend::Sqlite).await;
    let admin = world.admin();
    let platform = Platform::start(admin.clone()).await;
    // Nobody whom the vault knows.
    let stranger = Callback { user: None, user_id: Some("10158000000000009".into()), ..deletion("") };
    let code = code_of(&platform.gets(&world, stranger, "data-deletion").await);
    assert_eq!(platform.last().unwrap().deletion_state(), DeletionState::Done, "there is nothing to do");
    assert_eq!(shown(&admin, &code).await.deletion_state(), DeletionState::Done);
    for other in ["", "x", &"a".repeat(32), &"a".repeat(5_000), "%00", "%27--", &format!("{code}0")] {
        let page = shown(&admin, other).await;
        assert_eq!((page.http_status, page.deletion_state()), (404, DeletionState::Unspecified), "{other}");
    }
    let rows = world.database.rows("data_deletions").await.join("\n");
    assert!(rows.contains(&code) && !rows.contains("10158000000000009"), "{rows}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_page_a_request_is_not_taken_and_the_error_says_what_to_set() {
    let world = World::builder(Backend::Sqlite).without("portal.url").prepare().await;
    world.start_again();
    let admin = world.admin();
    let ana = world.person("Persephone Erasable");
    let id = admin.connect(ACME, &ana.long_lived_token()).await;
    let platform = Platform::start(admin.clone()).await;
    platform.gets(&world, deletion(&ana.name()), "data-deletion").await;
    let no = platform.last().unwrap_err();
    no.is(Code::FailedPrecondition, Reason::PortalNotConfigured)
        .says("keys", "portal.url, providers.meta.data_deletion_url");
    assert!(admin.fetch(&id).await.is_ok(), "nothing has changed");
    world.stop();
    let key = "TOKEN_VAULT__PROVIDERS__META__DATA_DELETION_URL";
    world.try_start_as(&world.launch().env(key, PAGE)).expect("the vault starts");
    let platform = Platform::start(world.admin()).await;
    let code = code_of(&platform.gets(&world, deletion(&ana.name()), "data-deletion").await);
    is_done(&world.admin(), &code).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_can_not_be_ended_holds_up_nobody_else() {
    let world = World::start(Backend::Sqlite).await;
    let admin = world.admin();
    let (ana, ben) = (world.person("Persephone Erasable"), world.person("Benjamin Erasable"));
    let broken = admin.connect(ACME, &ana.long_lived_token()).await;
    let hers = admin.connect("globex", &ana.long_lived_token()).await;
    let his = admin.connect(ACME, &ben.long_lived_token()).await;
    // A row that can't be read.
    let set = |version: u8| {
        let id = broken.replace('-', "").to_uppercase();
        format!(
            "UPDATE ad_platform_connections SET token_version = {version} WHERE hex(connection_id) = '{id}'"
        )
    };
    world.stop();
    world.database.execute(set(0)).await;
    world.start_again();
    let (admin, feed) = (world.admin(), world.admin().watch_all().await);
    let platform = Platform::start(admin.clone()).await;
    let of_ana = code_of(&platform.gets(&world, deletion(&ana.name()), "data-deletion").await);
    let of_ben = code_of(&platform.gets(&world, deletion(&ben.name()), "data-deletion").await);
    is_done(&admin, &of_ben).await;
    for id in [&hers, &his] {
        feed.first(id, Kind::Revoked).await;
    }
    let run = eventually_async("the run says so", LIMIT, async || {
        admin.runs("data-deletion").await.into_iter().find(|run| run.failed > 0 && run.ended_at.is_some())
    })
    .await;
    assert!(run.error.contains("could not be ended"), "{run:?}");
    assert_eq!(shown(&admin, &of_ana).await.deletion_state(), DeletionState::Received, "it is not done");
    world.database.execute(set(1)).await;
    admin.run("data-deletion").await;
    is_done(&admin, &of_ana).await;
    assert!(named(&admin, &hunter_of(&ana), &[&broken, &hers]).await.is_empty());
}
