//! API keys: what each role and workspace allows.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use token_vault_proto::v1::create_api_key_request::Workspaces;
use token_vault_tests::prelude::*;
use token_vault_tests::{eventually_async, request_id, secret_part};

fn new_key(principal: &str) -> pb::CreateApiKeyRequest {
    pb::CreateApiKeyRequest {
        principal: principal.into(),
        role: Role::Viewer.into(),
        workspaces: Some(Workspaces::AllWorkspaces(true)),
        ..Default::default()
    }
}

on_both_databases! {
    async fn a_key_past_its_end_is_refused_as_such(world: World) {
        let end = world.sandbox.clock().now() + 5;
        let expires_at = Some(prost_types::Timestamp { seconds: end, nanos: 0 });
        let made = world
            .admin()
            .create_api_key(pb::CreateApiKeyRequest { expires_at, ..new_key("brief") })
            .await
            .unwrap();
        let brief = world.caller_with(&made.key, "");
        assert!(brief.list().await.is_ok());
        let limit = Duration::from_secs(60);
        let no = eventually_async("the key ends", limit, || async { brief.list().await.err() }).await;
        no.is(Code::Unauthenticated, Reason::ApiKeyExpired);
        assert!(no.fact("expired_at").is_some(), "{no:?}");
        let past = Some(prost_types::Timestamp { seconds: 1_000_000_000, nanos: 0 });
        world
            .admin()
            .create_api_key(pb::CreateApiKeyRequest { expires_at: past, ..new_key("dead-born") })
            .await
            .unwrap_err()
            .is(Code::InvalidArgument, Reason::FieldInvalid)
            .field("expires_at");
    }

    async fn a_revoked_key_is_refused_within_a_second(world: World) {
        let viewer = world.caller(Role::Viewer, &[]).await;
        assert!(viewer.list().await.is_ok());
        let request = pb::RevokeApiKeyRequest { key_id: viewer.key_id().into(), request_id: request_id() };
        let revoked = world.admin().revoke_api_key(request.clone()).await.unwrap().api_key.unwrap();
        assert!(revoked.revoked_at.is_some());
        // It does not matter how long a call takes: one that begins a second after the revocation is refused.
        let revoked_at = Instant::now();
        let no = loop {
            let begun = revoked_at.elapsed();
            match viewer.list().await {
                Err(no) => break no,
                Ok(_) => assert!(begun < Duration::from_secs(1), "it was let in after {begun:?}"),
            }
        };
        no.is(Code::Unauthenticated, Reason::ApiKeyInvalid);
        let again = pb::RevokeApiKeyRequest { request_id: String::new(), ..request };
        assert_eq!(
            world.admin().revoke_api_key(again).await.unwrap().api_key.unwrap().revoked_at,
            revoked.revoked_at
        );
        let unknown = pb::RevokeApiKeyRequest { key_id: "a".repeat(16), ..Default::default() };
        world
            .admin()
            .revoke_api_key(unknown)
            .await
            .unwrap_err()
            .is(Code::NotFound, Reason::ApiKeyNotFound)
            .says("key_id", "a".repeat(16));
    }

    async fn another_tenants_connection_is_as_one_that_does_not_exist(world: World) {
        let ours = world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
        let theirs = world.connector().await.connect("globex", &world.person("bob").long_lived_token()).await;
        let admin = world.caller(Role::Admin, &["globex"]).await;
        let before = world.database.contents().await;
        let reconnect = pb::StoreTokenRequest {
            connection_id: Some(ours.clone()),
            ..world.pasted("globex", &world.person("ana").short_lived_token())
        };
        let refusals = [
            admin.get(&ours).await.map(drop),
            admin.fetch(&ours).await.map(drop),
            admin.validate(&ours).await.map(drop),
            admin.exchange(&ours).await.map(drop),
            admin.revoke(&ours).await.map(drop),
            admin.report(&ours, 1, 400, r#"{"error":{"code":190}}"#).await.map(drop),
            admin.store_with(reconnect).await.map(drop),
        ];
        let nobody = request_id();
        let unknown = admin.get(&nobody).await.unwrap_err();
        for refusal in refusals {
            let refusal = refusal.unwrap_err();
            refusal.is(Code::NotFound, Reason::ConnectionNotFound).says("connection_id", &ours);
            assert_eq!(
                refusal.message().replace(&ours, &nobody),
                unknown.message(),
                "told apart from one that does not exist"
            );
        }
        assert_eq!(world.database.contents().await, before);
        let listed: Vec<_> =
            admin.list().await.unwrap().tokens.into_iter().map(|token| token.connection_id).collect();
        assert_eq!(listed, [theirs]);
        admin
            .store(ACME, &world.person("eve").short_lived_token())
            .await
            .unwrap_err()
            .is(Code::NotFound, Reason::WorkspaceNotFound);
    }

    async fn a_caller_of_some_workspaces_is_told_nothing_of_the_whole_vault(world: World) {
        let run = pb::RunJobRequest { job: "meta-token-expiry".into(), ..Default::default() };
        world.admin().connect(ACME, &world.person("ana").long_lived_token()).await;
        world.admin().run_job(run).await.unwrap();
        let ended = eventually_async("the run ends", Duration::from_secs(60), async || {
            world.admin().runs("meta-token-expiry").await.into_iter().find(|run| run.ended_at.is_some())
        });
        assert_eq!(ended.await.done, 1);
        let (limited, whole) = (world.caller(Role::Viewer, &["globex"]).await, world.viewer().await);
        let status = limited.get_vault_status(Default::default()).await.unwrap();
        assert!(status.master_keys.is_empty() && status.replicas.is_empty() && status.replica.is_empty(), "{status:?}");
        let status = whole.get_vault_status(Default::default()).await.unwrap();
        assert!(!status.master_keys.is_empty() && !status.replicas.is_empty(), "{status:?}");
        let run = limited.runs("meta-token-expiry").await.remove(0);
        assert_eq!((run.done, run.total, run.replica.as_str()), (0, 0, ""), "{run:?}");
        let job = limited.list_jobs(Default::default()).await.unwrap().jobs.into_iter().find_map(|job| job.last_run);
        assert_eq!(job.map(|run| (run.done, run.replica)), Some((0, String::new())));
        assert_eq!(whole.runs("meta-token-expiry").await.remove(0).done, 1);
    }

    async fn a_limited_admin_makes_no_key_that_reaches_further(world: World) {
        let limited = world.caller(Role::Admin, &["globex"]).await;
        let before = world.database.contents().await;
        let wider = limited.create_api_key(new_key("everywhere")).await;
        assert!(wider.is_err(), "a key for one workspace made one for all");
        let list = pb::WorkspaceList { workspace_ids: vec![ACME.into()] };
        let sideways =
            pb::CreateApiKeyRequest { workspaces: Some(Workspaces::Named(list)), ..new_key("sideways") };
        limited.create_api_key(sideways).await.unwrap_err().is(Code::NotFound, Reason::WorkspaceNotFound);
        assert_eq!(world.database.contents().await, before);
    }

    async fn a_limited_admin_neither_sees_nor_ends_keys_that_reach_further(world: World) {
        let (limited, viewer) =
            (world.caller(Role::Admin, &["globex"]).await, world.caller(Role::Viewer, &[]).await);
        let listed = limited.list_api_keys(Default::default()).await.unwrap().api_keys;
        let ids: Vec<_> = listed.iter().map(|key| key.key_id.as_str()).collect();
        assert_eq!(ids, [limited.key_id()]);
        let revoke = pb::RevokeApiKeyRequest { key_id: viewer.key_id().into(), ..Default::default() };
        limited.revoke_api_key(revoke).await.unwrap_err().is(Code::NotFound, Reason::ApiKeyNotFound);
        assert!(viewer.list().await.is_ok());
    }

    async fn keys_must_say_who_what_and_where(world: World) {
        let cases: [(pb::CreateApiKeyRequest, &str); 6] = [
            (pb::CreateApiKeyRequest { principal: String::new(), ..new_key("") }, "principal"),
            (new_key("no spaces"), "principal"),
            (pb::CreateApiKeyRequest { role: 0, ..new_key("p") }, "role"),
            (pb::CreateApiKeyRequest { role: 99, ..new_key("p") }, "role"),
            (
                pb::CreateApiKeyRequest {
                    workspaces: Some(Workspaces::AllWorkspaces(false)),
                    ..new_key("p")
                },
                "all_workspaces",
            ),
            (
                pb::CreateApiKeyRequest {
                    workspaces: Some(Workspaces::Named(Default::default())),
                    ..new_key("p")
                },
                "named.workspace_ids",
            ),
        ];
        for (request, field) in cases {
            world
                .admin()
                .create_api_key(request)
                .await
                .unwrap_err()
                .is(Code::InvalidArgument, Reason::FieldInvalid)
                .field(field);
        }
    }

    async fn keys_are_shown_once_kept_hashed_and_listed_without_their_secret(world: World) {
        let viewer = world.caller(Role::Viewer, &[]).await;
        let listed = world.admin().list_api_keys(Default::default()).await.unwrap().api_keys;
        let ours = listed.iter().find(|key| key.key_id == viewer.key_id()).expect("the key is listed");
        assert_eq!((ours.principal.as_str(), ours.role()), ("viewer-", Role::Viewer));
        let secret = secret_part(viewer.key());
        assert!(!format!("{listed:?}").contains(secret));
        let rows = world.database.rows("api_keys").await.join("\n");
        assert!(rows.contains(viewer.key_id()) && !rows.contains(secret), "{rows}");
        viewer.list().await.unwrap();
        let limit = Duration::from_secs(5);
        eventually_async("its use is noted", limit, || async {
            let keys = world.admin().list_api_keys(Default::default()).await.unwrap().api_keys;
            keys.into_iter().find(|key| key.key_id == viewer.key_id()).and_then(|key| key.last_used_at)
        })
        .await;
    }

    async fn who_can_write_to_the_database_still_cannot_let_himself_in(world: World) {
        let viewer = world.caller(Role::Viewer, &[]).await;
        world.stop();
        let raised = format!("UPDATE api_keys SET role = 'admin' WHERE api_key_id = '{}'", viewer.key_id());
        let roles = world.database.texts("SELECT role FROM api_keys ORDER BY role").await;
        let admin =
            roles.iter().find(|role| role.eq_ignore_ascii_case("admin")).expect("the bootstrap key's role");
        assert_eq!(world.database.execute(raised.replace("'admin'", &format!("'{admin}'"))).await, 1);
        world.start_again();
        world
            .caller_with(viewer.key(), "")
            .list()
            .await
            .unwrap_err()
            .is(Code::Unauthenticated, Reason::ApiKeyInvalid);
        assert!(world.logs().contains("altered outside the vault"));
    }

    async fn the_bootstrap_key_is_made_once_in_a_private_file_and_never_printed(world: World) {
        let file = world.data().join("bootstrap-admin.key");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let key = world.bootstrap_key();
        assert!(world.logs().contains("bootstrap-admin.key"), "the log says where it is");
        assert!(!world.logs().contains(secret_part(&key)));
        let rows = world.database.rows("api_keys").await;
        assert_eq!(rows.len(), 1);
        assert!(!rows[0].contains(secret_part(&key)));

        std::fs::remove_file(&file).unwrap();
        world.restart();
        assert!(!file.exists(), "a second start makes no second key");
        assert!(world.caller_with(&key, "").list().await.is_ok());
        world.stop();
        world.database.execute("DELETE FROM api_keys").await;
        world.start_again();
        assert!(!file.exists(), "deleting every key brings no bootstrap key back");
        world
            .caller_with(&key, "")
            .list()
            .await
            .unwrap_err()
            .is(Code::Unauthenticated, Reason::ApiKeyInvalid);
    }
}
