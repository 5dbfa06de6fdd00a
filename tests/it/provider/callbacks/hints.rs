//! Callbacks that say where to look: what is told is what the provider then says about the token.

use std::time::Duration;

use serde_json::json;
use token_vault_sandbox::{App, CallbackKind, Sign};
use token_vault_tests::eventually_async;

use super::*;

const LIMIT: Duration = Duration::from_secs(60);
const DAY: i64 = 86_400;

fn deauthorized() -> Callback {
    Callback::new(CallbackKind::Deauthorize).about("ana")
}

fn webhook() -> Callback {
    Callback::new(CallbackKind::Webhook).about("ana")
}

/// When each connection is due, and when it was last asked about.
async fn schedule(world: &World) -> Vec<String> {
    world
        .database
        .texts("SELECT CAST(next_validation_at AS TEXT) || ' ' || CAST(last_validated_at AS TEXT) FROM ad_platform_connections")
        .await
}

/// Waits until everything was asked about that is due after `before`.
async fn was_asked(world: &World, before: &[String]) {
    eventually_async("the provider was asked", LIMIT, async || {
        (schedule(world).await != before).then_some(())
    })
    .await;
    world.nothing_is_due().await;
}

on_both_databases! {
    async fn who_removes_the_app_is_told_within_seconds_in_every_workspace(world: World) {
        let (connector, feed) = (world.connector().await, world.viewer().await.watch_all().await);
        let (ana, ben) = (world.person("ana"), world.person("ben"));
        let here = connector.connect(ACME, &ana.long_lived_token()).await;
        let there = connector.connect("globex", &ana.long_lived_token()).await;
        let his = connector.connect(ACME, &ben.long_lived_token()).await;
        world.nothing_is_due().await;
        // A key of one workspace is told of that one only, and Meta's word counts everywhere.
        let platform = Platform::start(world.caller(Role::Connector, &["globex"]).await).await;
        ana.removes_app();
        let thrice = Callback { times: Some(3), ..deauthorized() };
        let answers = platform.gets_all(&world, thrice, "deauthorize").await;
        assert!(answers.iter().all(|answer| answer.status == 200 && *answer == answers[0]), "{answers:?}");
        let told = platform.last().unwrap();
        assert_eq!((told.connections, told.http_status, told.deletion_state), (1, 200, 0));
        for id in [&here, &there] {
            let died = feed.first(id, Kind::Invalidated).await;
            assert_eq!(died.reason(), pb::RefusalReason::AppRemoved, "{died:?}");
        }
        // Again, when all is over: nothing is said twice.
        platform.gets(&world, deauthorized(), "deauthorize").await;
        world.nothing_is_due().await;
        assert_eq!(feed.caught_up().await.iter().filter(|event| event.kind() == Kind::Invalidated).count(), 2);
        assert!(world.ingestion().await.fetch(&his).await.is_ok(), "nobody else is concerned");
        let unseen = Platform::start(world.caller(Role::Connector, &["elsewhere"]).await).await;
        unseen.gets(&world, deauthorized(), "deauthorize").await;
        assert_eq!(unseen.last().unwrap().connections, 0);
    }

    async fn a_hint_about_a_living_token_changes_nothing(world: World) {
        let (connector, feed) = (world.connector().await, world.viewer().await.watch_all().await);
        let ana = world.person("ana");
        let id = connector.connect(ACME, &ana.long_lived_token()).await;
        let before = schedule(&world).await;
        let platform = Platform::start(connector.clone()).await;
        assert_eq!(platform.gets(&world, deauthorized(), "deauthorize").await.status, 200);
        was_asked(&world, &before).await;
        assert!(world.ingestion().await.fetch(&id).await.is_ok());
        assert_eq!(feed.kinds_of(&id), [Kind::Connected]);
        // Whoever was asked about since knows more than an old callback.
        let before = schedule(&world).await;
        let old = Callback { age_seconds: 3_600, ..deauthorized() };
        platform.gets(&world, old, "deauthorize").await;
        assert_eq!((platform.last().unwrap().connections, schedule(&world).await), (1, before));
    }

    async fn who_can_not_sign_says_nothing(world: World) {
        let connector = world.connector().await;
        let id = connector.connect(ACME, &world.person("ana").long_lived_token()).await;
        let ours = world.sandbox.app();
        world.sandbox.add_app(App { id: "999".into(), secrets: vec!["another app's secret".into()], ..App::default() });
        let platform = Platform::start(connector.clone()).await;
        world.nothing_is_due().await;
        let before = schedule(&world).await;
        for sign in [Sign::Wrong, Sign::App("999".into()), Sign::Missing] {
            for (callback, path) in [
                (deauthorized(), "deauthorize"),
                (Callback::new(CallbackKind::DataDeletion).about("ana"), "data-deletion"),
                (webhook(), "webhook"),
            ] {
                let answer = platform.gets(&world, Callback { sign: sign.clone(), ..callback }, path).await;
                let no = platform.last().unwrap_err();
                no.is(Code::InvalidArgument, Reason::CallbackSignatureInvalid).says("provider", "meta");
                assert_eq!(answer.status, 403);
            }
        }
        let named = Callback { algorithm: Some("none".into()), ..deauthorized() };
        platform.gets(&world, named, "deauthorize").await;
        platform.last().unwrap_err().is(Code::InvalidArgument, Reason::CallbackSignatureInvalid);
        for seconds in [8 * DAY, -600] {
            let late = Callback { age_seconds: seconds, ..deauthorized() };
            platform.gets(&world, late, "deauthorize").await;
            platform.last().unwrap_err().is(Code::InvalidArgument, Reason::FieldInvalid).field("body");
        }
        // One changed byte of a good one.
        platform.gets(&world, webhook(), "webhook").await;
        assert!(platform.last().is_ok());
        let mut changed = platform.last_sent();
        changed.body.push(b' ');
        let no = connector.report_provider_callback(changed).await.unwrap_err();
        no.is(Code::InvalidArgument, Reason::CallbackSignatureInvalid);
        world.nothing_is_due().await;
        assert_ne!(schedule(&world).await, before, "the good one made it due");
        assert!(world.ingestion().await.fetch(&id).await.is_ok());
        // The old secret stays good as long as it is configured.
        world.sandbox.change_app(&ours.id, |app| app.secrets = vec!["the newest of our secrets".into()]);
        platform.gets(&world, deauthorized(), "deauthorize").await;
        platform.last().unwrap_err().is(Code::InvalidArgument, Reason::CallbackSignatureInvalid);
    }

    async fn a_webhook_has_the_permissions_of_its_person_looked_at(world: World) {
        let (connector, feed) = (world.connector().await, world.viewer().await.watch_all().await);
        let ana = world.person("ana");
        let id = connector.connect(ACME, &ana.long_lived_token()).await;
        let platform = Platform::start(connector.clone()).await;
        ana.declines(["business_management"]);
        let changes = json!([{ "field": "business_management", "value": { "verb": "revoked", "note": "Žalgiris" } }]);
        let answer = platform.gets(&world, Callback { changes: Some(changes), ..webhook() }, "webhook").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""));
        let changed = feed.first(&id, Kind::ScopesChanged).await;
        assert!(format!("{changed:?}").contains("business_management"), "{changed:?}");
        world.nothing_is_due().await;
        let before = schedule(&world).await;
        // What comes all the time, or without a time, does not use up the token's calls.
        let now = world.sandbox.clock().now();
        for body in [
            json!({"object": "user", "entry": [{"id": ana.id(), "time": now}]}),
            json!({"object": "page", "entry": [{"id": ana.id(), "time": now}]}),
            json!({"object": "permissions", "entry": [{"id": ana.id()}]}),
        ] {
            let callback = Callback { body: Some(body.to_string()), ..webhook() };
            assert_eq!(platform.gets(&world, callback, "webhook").await.status, 200, "{body}");
            assert_eq!(platform.last().unwrap().connections, 1, "{body}");
            assert_eq!(schedule(&world).await, before, "{body}");
        }
        for body in [
            json!({"object": "instagram", "entry": [{"id": ana.id(), "time": 1}]}),
            json!({"object": "permissions", "entry": [{"id": "4", "changed_fields": ["connected"]}]}),
            json!({"object": "permissions"}),
        ] {
            let callback = Callback { body: Some(body.to_string()), ..webhook() };
            assert_eq!(platform.gets(&world, callback, "webhook").await.status, 200, "{body}");
            assert_eq!(platform.last().unwrap().connections, 0, "{body}");
        }
        assert_eq!(schedule(&world).await, before, "what is not known is nothing");
        let no_json = Callback { body: Some("removed".into()), ..webhook() };
        platform.gets(&world, no_json, "webhook").await;
        platform.last().unwrap_err().is(Code::InvalidArgument, Reason::FieldInvalid).field("body");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_configured_app_secret_is_good() {
    let world = World::builder(Backend::Sqlite).prepare().await;
    let ours = world.sandbox.app();
    let old = world.folder().join("app.secret");
    let new = world.secret_file("new.secret", "the-newest-of-our-app-secrets");
    let files = format!("[{new:?}, {old:?}]");
    let launch = world.launch().env("TOKEN_VAULT__PROVIDERS__META__APP_SECRET_FILES", files);
    world.try_start_as(&launch).expect("the vault starts");
    let platform = Platform::start(world.connector().await).await;
    for secret in [ours.secrets[0].as_str(), "the-newest-of-our-app-secrets", "a secret of before"] {
        world.sandbox.change_app(&ours.id, |app| app.secrets = vec![secret.to_owned()]);
        for (callback, path) in [(deauthorized().by_id(), "deauthorize"), (webhook().by_id(), "webhook")] {
            platform.gets(&world, callback, path).await;
            assert_eq!(platform.last().is_ok(), secret != "a secret of before", "{secret}");
        }
    }
}

/// Makes a callback about somebody whom the sandbox need not know.
trait ById {
    fn by_id(self) -> Callback;
}

impl ById for Callback {
    fn by_id(self) -> Callback {
        Callback { user: None, user_id: Some("10158000000000009".into()), ..self }
    }
}
