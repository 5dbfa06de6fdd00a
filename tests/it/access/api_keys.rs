//! The life of an API key: creation, expiry, rotation with an overlap.

use std::time::Duration;

use serde_json::Value;
use token_vault_proto::v1::create_api_key_request::Workspaces;
use token_vault_tests::prelude::*;
use token_vault_tests::{Ended, days, eventually_async, request_id, seconds, secret_part};

const LIMIT: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

fn rotate(key_id: &str) -> pb::RotateApiKeyRequest {
    pb::RotateApiKeyRequest { key_id: key_id.into(), ..Default::default() }
}

/// Seconds from now, by the vault's clock.
fn after(world: &World, seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: world.sandbox.clock().now() + seconds, nanos: 0 })
}

fn length(from: Option<prost_types::Timestamp>, to: Option<prost_types::Timestamp>) -> i64 {
    to.expect("an end").seconds - from.expect("a beginning").seconds
}

async fn listed(world: &World, key_id: &str) -> pb::ApiKey {
    let keys = world.admin().list_api_keys(Default::default()).await.expect("keys are listed").api_keys;
    keys.into_iter().find(|key| key.key_id == key_id).expect("the key is listed")
}

async fn ends(caller: &Caller) -> Denial {
    eventually_async("the key ends", LIMIT, || async { caller.list().await.err() }).await
}

on_both_databases! {
    with |builder| builder.moving_time();

    async fn a_rotated_key_and_its_successor_both_work_until_the_overlap_is_over(world: World) {
        let old = world.caller(Role::Ingestion, &[ACME]).await;
        let id = world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
        let made = world.admin().rotate_api_key(rotate(old.key_id())).await.unwrap();
        let (key, replaced) = (made.api_key.clone().unwrap(), made.replaced.clone().unwrap());
        assert_eq!((key.principal.as_str(), key.role()), ("ingestion-acme", Role::Ingestion));
        assert_eq!(key.workspaces, listed(&world, old.key_id()).await.workspaces);
        assert_eq!((key.expires_at, key.replaced_by), (None, None), "the old one had no end either");
        assert_eq!(replaced.replaced_by.as_deref(), Some(key.key_id.as_str()));
        assert!((86_390..=86_410).contains(&length(key.created_at, replaced.expires_at)), "{replaced:?}");

        let new = world.caller_with(&made.key, &key.key_id);
        assert!(old.fetch(&id).await.is_ok() && new.fetch(&id).await.is_ok(), "both work");
        let rows = world.database.rows("api_keys").await.join("\n");
        assert!(!rows.contains(secret_part(&made.key)), "only its hash is kept");
        world.restart();
        let (old, new) = (world.caller_with(old.key(), ""), world.caller_with(new.key(), ""));
        world.advance(23 * HOUR).await;
        assert!(old.fetch(&id).await.is_ok(), "an hour is left");
        world.advance(2 * HOUR).await;
        let no = ends(&old).await;
        no.is(Code::Unauthenticated, Reason::ApiKeyExpired);
        assert!(new.fetch(&id).await.is_ok(), "its successor goes on");
        let shown = listed(&world, old.key().split('_').nth(1).unwrap()).await;
        assert!(shown.last_used_at.is_some() && shown.expires_at.is_some() && shown.replaced_by.is_some(), "{shown:?}");
    }

    async fn without_an_overlap_the_old_key_ends_at_once_and_with_it_its_watch(world: World) {
        let old = world.caller(Role::Viewer, &[]).await;
        let feed = old.watch_all().await;
        let made =
            world.admin().rotate_api_key(pb::RotateApiKeyRequest { overlap: seconds(0), ..rotate(old.key_id()) }).await.unwrap();
        let no = ends(&old).await;
        no.is(Code::Unauthenticated, Reason::ApiKeyExpired);
        feed.ended().await.expect("the watch ends with its key").is(Code::Unauthenticated, Reason::ApiKeyExpired);
        assert!(world.caller_with(&made.key, "").list().await.is_ok());
    }

    async fn an_overlap_never_prolongs_a_key_and_the_successor_lives_as_long_as_it_was_made_to(world: World) {
        let request = pb::CreateApiKeyRequest {
            principal: "brief".into(),
            role: Role::Viewer.into(),
            workspaces: Some(Workspaces::AllWorkspaces(true)),
            expires_at: after(&world, 3_600),
            request_id: request_id(),
        };
        let brief = world.admin().create_api_key(request).await.unwrap().api_key.unwrap();
        world.advance(HOUR / 2).await;
        let made =
            world.admin().rotate_api_key(pb::RotateApiKeyRequest { overlap: days(30), ..rotate(&brief.key_id) }).await.unwrap();
        assert_eq!(made.replaced.unwrap().expires_at, brief.expires_at, "its own end comes first");
        let key = made.api_key.unwrap();
        assert!((3_590..=3_610).contains(&length(key.created_at, key.expires_at)), "{key:?}");
        let end = after(&world, 7_200);
        let next = pb::RotateApiKeyRequest { expires_at: end, ..rotate(&key.key_id) };
        assert_eq!(world.admin().rotate_api_key(next).await.unwrap().api_key.unwrap().expires_at, end);
    }

    async fn a_repeated_rotation_makes_no_second_key_and_shows_none(world: World) {
        let old = world.caller(Role::Viewer, &[]).await;
        let request = pb::RotateApiKeyRequest { request_id: request_id(), ..rotate(old.key_id()) };
        let first = world.admin().rotate_api_key(request.clone()).await.unwrap();
        let before = world.database.rows("api_keys").await.len();
        let again = world.admin().rotate_api_key(request.clone()).await.unwrap();
        assert_eq!(again.key, "", "it is shown once");
        assert_eq!((again.api_key, again.replaced), (first.api_key, first.replaced));
        assert_eq!(world.database.rows("api_keys").await.len(), before);
        let other = pb::RotateApiKeyRequest { overlap: days(2), ..request };
        world.admin().rotate_api_key(other).await.unwrap_err().is(Code::InvalidArgument, Reason::RequestIdReused);
    }

    async fn of_two_rotations_at_once_one_makes_the_key(world: World) {
        let old = world.caller(Role::Viewer, &[]).await;
        let (admin, before) = (world.admin(), world.database.rows("api_keys").await.len());
        let both = futures::future::join_all((0..8).map(|_| admin.rotate_api_key(rotate(old.key_id())))).await;
        let (made, refused): (Vec<_>, Vec<_>) = both.into_iter().partition(Result::is_ok);
        assert_eq!((made.len(), refused.len()), (1, 7));
        for no in refused {
            no.unwrap_err().is(Code::FailedPrecondition, Reason::ApiKeyNotRotatable);
        }
        assert_eq!(world.database.rows("api_keys").await.len(), before + 1);
    }

    async fn a_key_that_has_ended_is_not_rotated_and_the_error_says_why(world: World) {
        let admin = world.admin();
        let revoked = world.caller(Role::Viewer, &[]).await;
        let revoke = pb::RevokeApiKeyRequest { key_id: revoked.key_id().into(), ..Default::default() };
        admin.revoke_api_key(revoke).await.unwrap();
        let expired = world.caller(Role::Viewer, &[ACME]).await;
        let at_once = pb::RotateApiKeyRequest { overlap: seconds(60), ..rotate(expired.key_id()) };
        let successor = admin.rotate_api_key(at_once).await.unwrap().api_key.unwrap();
        let mortal = pb::RotateApiKeyRequest { expires_at: after(&world, 60), ..rotate(&successor.key_id) };
        let mortal = admin.rotate_api_key(mortal).await.unwrap().api_key.unwrap();
        world.advance(HOUR).await;
        let before = world.database.contents().await;
        let cases = [
            (revoked.key_id(), "REVOKED", ""),
            (expired.key_id(), "REPLACED", successor.key_id.as_str()),
            (mortal.key_id.as_str(), "EXPIRED", ""),
        ];
        for (key_id, state, by) in cases {
            let no = admin.rotate_api_key(rotate(key_id)).await.unwrap_err();
            no.is(Code::FailedPrecondition, Reason::ApiKeyNotRotatable)
                .says("key_id", key_id)
                .says("state", state);
            assert_eq!(no.fact("replaced_by").unwrap_or_default(), by, "{no:?}");
        }
        let nobody = "a".repeat(16);
        admin.rotate_api_key(rotate(&nobody)).await.unwrap_err()
            .is(Code::NotFound, Reason::ApiKeyNotFound).says("key_id", &nobody);
        let good = world.viewer().await.key_id().to_owned();
        let wrong = [
            (pb::RotateApiKeyRequest { overlap: seconds(30 * 86_400 + 1), ..rotate(&good) }, "overlap"),
            (pb::RotateApiKeyRequest { overlap: seconds(-1), ..rotate(&good) }, "overlap"),
            (pb::RotateApiKeyRequest { expires_at: after(&world, -1), ..rotate(&good) }, "expires_at"),
            (rotate(""), "key_id"),
        ];
        for (request, field) in wrong {
            admin.rotate_api_key(request).await.unwrap_err()
                .is(Code::InvalidArgument, Reason::FieldInvalid).field(field);
        }
        let keys = |contents: &token_vault_tests::Contents| format!("{contents:?}").matches("tva_").count();
        assert_eq!(keys(&before), 0, "no key stands in the database");
    }

    async fn a_limited_admin_rotates_no_key_and_no_name_that_reaches_further(world: World) {
        let limited = world.caller(Role::Admin, &["globex"]).await;
        let (wide, sideways) =
            (world.caller(Role::Viewer, &[]).await, world.caller(Role::Viewer, &[ACME]).await);
        let shared = |workspaces| pb::CreateApiKeyRequest {
            principal: "shared".into(),
            role: Role::Viewer.into(),
            workspaces: Some(workspaces),
            ..Default::default()
        };
        let globex = Workspaces::Named(pb::WorkspaceList { workspace_ids: vec!["globex".into()] });
        let narrow = world.admin().create_api_key(shared(globex)).await.unwrap().api_key.unwrap();
        world.admin().create_api_key(shared(Workspaces::AllWorkspaces(true))).await.unwrap();
        let before = world.database.rows("api_keys").await.len();
        for caller in [&wide, &sideways] {
            limited.rotate_api_key(rotate(caller.key_id())).await.unwrap_err()
                .is(Code::NotFound, Reason::ApiKeyNotFound);
        }
        limited.rotate_api_key(rotate(&narrow.key_id)).await.unwrap_err()
            .is(Code::InvalidArgument, Reason::FieldInvalid).field("principal");
        assert_eq!(world.database.rows("api_keys").await.len(), before);
        assert!(wide.list().await.is_ok() && sideways.list().await.is_ok());
        let own = limited.rotate_api_key(rotate(limited.key_id())).await.unwrap();
        assert!(world.caller_with(&own.key, "").list().await.is_ok(), "its own key it may rotate");
    }

    async fn who_can_write_to_the_database_can_not_undo_a_rotation(world: World) {
        let old = world.caller(Role::Viewer, &[]).await;
        let request = pb::RotateApiKeyRequest { overlap: seconds(0), ..rotate(old.key_id()) };
        world.admin().rotate_api_key(request).await.unwrap();
        ends(&old).await.is(Code::Unauthenticated, Reason::ApiKeyExpired);
        world.stop();
        let undone = "UPDATE api_keys SET expires_at = NULL, replaced_by = NULL WHERE replaced_by IS NOT NULL";
        assert_eq!(world.database.execute(undone).await, 1);
        world.start_again();
        world.caller_with(old.key(), "").list().await.unwrap_err()
            .is(Code::Unauthenticated, Reason::ApiKeyInvalid);
        world.admin().rotate_api_key(rotate(old.key_id())).await.unwrap_err()
            .is(Code::NotFound, Reason::ApiKeyNotFound);
        assert!(world.logs().contains("altered outside the vault"));
    }

    async fn the_rotate_command_prints_the_new_key_alone_and_the_list_shows_what_replaced_the_old(world: World) {
        let viewer = world.caller(Role::Viewer, &[]).await;
        let made = command(&world, &["api-key", "rotate", viewer.key_id(), "--overlap", "2h", "--expires-in", "90d"]);
        assert_eq!((made.code, made.stdout.lines().count()), (Some(0), 1), "{made:?}");
        let key = made.stdout.trim().to_owned();
        assert!(!made.stderr.contains(&key) && made.stderr.contains(viewer.key_id()), "{}", made.stderr);
        let new = world.caller_with(&key, "");
        assert!(new.list().await.is_ok() && viewer.list().await.is_ok());
        let new_id = key.split('_').nth(1).unwrap();
        let printed = command(&world, &["api-key", "list", "--json"]).stdout;
        let printed: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let of = |id: &str| printed.iter().find(|key| key["key_id"] == id).unwrap_or_else(|| panic!("{id}: {printed:?}"));
        assert_eq!(of(viewer.key_id())["replaced_by"], new_id);
        assert!(of(viewer.key_id())["expires_at"].is_string() && of(new_id)["expires_at"].is_string(), "{printed:?}");
        let table = command(&world, &["api-key", "list", "--wide"]).stdout;
        assert!(table.lines().next().unwrap().ends_with("REPLACED BY"), "{table}");
        assert!(table.lines().any(|line| line.starts_with(viewer.key_id()) && line.ends_with(new_id)), "{table}");
        let again = command(&world, &["api-key", "rotate", viewer.key_id()]);
        assert!(again.code == Some(1) && again.stderr.contains(new_id), "it names the successor: {again:?}");
        let long = command(&world, &["api-key", "rotate", new_id, "--overlap", "31d"]);
        assert!(long.code == Some(1) && long.stderr.contains("30 days"), "{long:?}");
        let json = command(&world, &["api-key", "rotate", new_id, "--json", "--overlap", "0s"]);
        let printed: Value = serde_json::from_str(json.stdout.trim()).unwrap_or_else(|_| panic!("{json:?}"));
        assert_eq!(printed["replaced"]["key_id"], new_id, "{printed}");
        assert!(world.caller_with(printed["key"].as_str().unwrap(), "").list().await.is_ok());
        ends(&new).await.is(Code::Unauthenticated, Reason::ApiKeyExpired);
    }
}

fn command(world: &World, words: &[&str]) -> Ended {
    world.launch().instead(words.iter().copied()).env("TOKEN_VAULT_ENDPOINT", world.endpoint()).run()
}
