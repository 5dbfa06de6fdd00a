//! An attacker who can write to the database, row by row: each edit is refused, or does what SECURITY.md says and no
//! more. The tests in `keys` cover ciphertexts and wrapped keys, byte by byte.

use token_vault_tests::prelude::*;
use token_vault_tests::{Database, request_id};

const OTHER: &str = "globex";

/// Edits exactly one row; otherwise the test proves nothing.
async fn edit(database: &Database, sql: String) {
    assert_eq!(database.execute(sql.clone()).await, 1, "{sql}");
}

/// Edits a connection's row.
async fn edit_connection(database: &Database, id: &str, set: &str) {
    let id = database.uuid(id);
    edit(database, format!("UPDATE ad_platform_connections SET {set} WHERE connection_id = {id}")).await;
}

async fn new_key(admin: &Caller, name: &str, role: Role, world: &World) -> (Caller, String) {
    let request = pb::CreateApiKeyRequest {
        principal: name.to_owned(),
        role: role.into(),
        workspaces: Some(pb::create_api_key_request::Workspaces::Named(pb::WorkspaceList {
            workspace_ids: vec![ACME.to_owned()],
        })),
        expires_at: Some(prost_types::Timestamp { seconds: 4_000_000_000, nanos: 0 }),
        request_id: request_id(),
    };
    let made = admin.create_api_key(request).await.expect("the admin makes keys");
    let id = made.api_key.expect("a key").key_id;
    (world.caller_with(&made.key, &id), id)
}

on_both_databases! {
    async fn an_api_keys_row_that_was_edited_in_any_column_lets_nobody_in(world: World) {
        let admin = world.admin();
        let (reaching, source) = new_key(&admin, "reaching", Role::Admin, &world).await;
        let of_source = |column: &str| format!("(SELECT k.{column} FROM api_keys k WHERE k.api_key_id = '{source}')");
        let cases = [
            ("another role", format!("role = {}", of_source("role"))),
            ("another principal", "principal = 'operator'".to_owned()),
            ("more workspaces", "workspaces = NULL".to_owned()),
            ("no end", "expires_at = NULL".to_owned()),
            ("a later end", "expires_at = expires_at + 1".to_owned()),
            ("another time of making", "created_at = created_at - 1".to_owned()),
            ("another key's hash", format!("hash = {}", of_source("hash"))),
            ("another key's MAC", format!("mac = {}", of_source("mac"))),
            (
                "another key's role, hash and MAC",
                format!("role = {}, hash = {}, mac = {}", of_source("role"), of_source("hash"), of_source("mac")),
            ),
        ];
        let mut callers = Vec::new();
        for (number, (case, change)) in cases.into_iter().enumerate() {
            let (caller, id) = new_key(&admin, &format!("viewer-{number}"), Role::Viewer, &world).await;
            caller.list().await.expect("the key works");
            callers.push((case, change, caller, id));
        }
        let (ended, ended_id) = new_key(&admin, "ended", Role::Viewer, &world).await;
        let (alone, _) = new_key(&admin, "alone", Role::Viewer, &world).await;
        let revoke = pb::RevokeApiKeyRequest { key_id: ended_id.clone(), request_id: request_id() };
        admin.revoke_api_key(revoke).await.expect("the key is ended");
        world.stop();
        for (_, change, _, id) in &callers {
            edit(&world.database, format!("UPDATE api_keys SET {change} WHERE api_key_id = '{id}'")).await;
        }
        let back = format!("UPDATE api_keys SET revoked_at = NULL WHERE api_key_id = '{ended_id}'");
        edit(&world.database, back).await;
        world.start_again();
        for (case, _, caller, id) in &callers {
            let no = world.caller_with(caller.key(), id).list().await.expect_err(case);
            no.is(Code::Unauthenticated, Reason::ApiKeyInvalid);
        }
        let no = world.caller_with(ended.key(), &ended_id).list().await.expect_err("revoked_at cleared");
        assert_eq!(no.code(), Code::Unauthenticated, "{no:?}");
        // The vault refuses the other key as well, although the row has its hash.
        world.caller_with(reaching.key(), "").list().await.expect("its own row is whole");
        world.caller_with(alone.key(), "").list().await.expect("a row that nobody edited");
    }

    async fn a_connection_that_is_moved_or_renumbered_does_not_open(world: World) {
        let connector = world.connector().await;
        connector.connect(OTHER, &world.person("eve").long_lived_token()).await;
        let mut ids = Vec::new();
        for name in ["moved", "renumbered", "whole", "elsewhere"] {
            ids.push(connector.connect(ACME, &world.person(name).long_lived_token()).await);
        }
        let [moved, renumbered, whole, elsewhere] = ids.try_into().expect("four");
        let database = &world.database;
        world.stop();
        edit_connection(database, &moved, &format!("workspace_id = '{OTHER}'")).await;
        edit_connection(database, &renumbered, "token_version = token_version + 1").await;
        let id = database.uuid(&renumbered);
        let secret = format!("UPDATE connection_secrets SET token_version = token_version + 1 WHERE connection_id = {id}");
        edit(database, secret).await;
        edit_connection(database, &elsewhere, "provider = 'other'").await;
        world.start_again();
        let ingestion = world.ingestion().await;
        for (id, case) in [(&moved, "another workspace"), (&renumbered, "another version")] {
            ingestion.fetch(id).await.expect_err(case).is(Code::DataLoss, Reason::CiphertextCorrupt);
        }
        let no = ingestion.fetch(&elsewhere).await.expect_err("another provider");
        assert_ne!(no.code(), Code::Ok, "{no:?}");
        ingestion.fetch(&whole).await.expect("a row that nobody edited");
    }

    async fn facts_that_were_edited_are_put_right_by_the_next_validation(world: World) {
        let (ana, bob) = (world.person("ana"), world.person("bob"));
        let connector = world.connector().await;
        let live = connector.connect(ACME, &ana.long_lived_token()).await;
        let dead = connector.connect(ACME, &bob.long_lived_token()).await;
        let before = connector.get(&live).await.unwrap();
        bob.changes_password();
        connector.validate(&dead).await.expect("it is asked about");
        let verdict = connector.get(&dead).await.unwrap();
        assert!(!verdict.usable, "{verdict:?}");
        world.stop();
        let day = 86_400_000_000_i64;
        let later = format!(
            "expires_at = expires_at + {day}, expires_sort = expires_sort + {day}, scopes = '[\"ads_read\"]'"
        );
        edit_connection(&world.database, &live, &later).await;
        let alive = "standing = 'LIVE', standing_since = NULL, standing_reason = '', provider_code = ''";
        edit_connection(&world.database, &dead, alive).await;
        world.start_again();
        let connector = world.connector().await;
        // Facts are not authenticated: the vault believes them until it asks the provider.
        let edited = connector.get(&live).await.unwrap();
        assert_ne!(edited.scopes, before.scopes);
        for id in [&live, &dead] {
            connector.validate(id).await.expect("it is asked about");
        }
        let after = connector.get(&live).await.unwrap();
        assert_eq!((&after.scopes, after.status), (&before.scopes, before.status));
        // The remaining time is shown in days.
        assert_eq!(after.badge.unwrap().days_left, before.badge.unwrap().days_left);
        let after = connector.get(&dead).await.unwrap();
        assert_eq!((after.usable, after.status), (false, verdict.status));
    }

    async fn an_older_whole_row_opens_as_what_it_was_and_gives_nobody_elses_secret(world: World) {
        let ana = world.person("ana");
        let id = world.connector().await.connect(ACME, &ana.long_lived_token()).await;
        let old = world.ingestion().await.secret(&id).await;
        world.database.execute("CREATE TABLE kept_facts AS SELECT * FROM ad_platform_connections").await;
        world.database.execute("CREATE TABLE kept_secrets AS SELECT * FROM connection_secrets").await;
        world.connector().await.store(ACME, &ana.long_lived_token()).await.expect("a newer token");
        let new = world.ingestion().await.secret(&id).await;
        assert_ne!(old, new);
        world.stop();
        for (table, kept, columns) in [
            ("ad_platform_connections", "kept_facts", ["token_version", "secret_id", "fingerprint", "revision"].as_slice()),
            ("connection_secrets", "kept_secrets", ["token_version", "secret_id", "sealed", "data_key_version"].as_slice()),
        ] {
            let set: Vec<_> = columns.iter().map(|column| format!("{column} = (SELECT {column} FROM {kept})")).collect();
            edit(&world.database, format!("UPDATE {table} SET {}", set.join(", "))).await;
        }
        world.database.execute("DROP TABLE kept_facts; DROP TABLE kept_secrets").await;
        world.start_again();
        assert_eq!(world.ingestion().await.secret(&id).await, old, "out of scope, and said so in SECURITY.md");
    }

    async fn an_older_whole_row_of_an_api_key_lets_in_whom_it_let_in_then_and_no_further(world: World) {
        let admin = world.admin();
        let (viewer, id) = new_key(&admin, "viewer", Role::Viewer, &world).await;
        let connection = admin.connect(ACME, &world.person("ana").long_lived_token()).await;
        world.database.execute("CREATE TABLE kept AS SELECT * FROM api_keys").await;
        admin.revoke_api_key(pb::RevokeApiKeyRequest { key_id: id.clone(), request_id: request_id() }).await.unwrap();
        world.stop();
        let back = format!(
            "UPDATE api_keys SET revoked_at = NULL, mac = (SELECT k.mac FROM kept k WHERE k.api_key_id = '{id}')
              WHERE api_key_id = '{id}'"
        );
        edit(&world.database, back).await;
        world.database.execute("DROP TABLE kept").await;
        world.start_again();
        let viewer = world.caller_with(viewer.key(), &id);
        viewer.list().await.expect("out of scope, and said so in SECURITY.md");
        let no = viewer.fetch(&connection).await.expect_err("a viewer gets no secret");
        assert_eq!(no.code(), Code::PermissionDenied, "{no:?}");
    }

    async fn a_vault_row_that_was_edited_is_no_start(world: World) {
        let id = match world.database.backend() {
            Backend::Sqlite => "randomblob(16)",
            Backend::Postgres => "gen_random_uuid()",
        };
        for (case, change) in [("another vault", format!("vault_id = {id}")), ("another master key", "active_master_key = 'mine'".to_owned())] {
            world.stop();
            world.database.execute("CREATE TABLE kept AS SELECT * FROM vault").await;
            edit(&world.database, format!("UPDATE vault SET {change}")).await;
            let ended = world.try_start().expect_err(case);
            assert_eq!(ended.code, Some(1), "{case}: {ended:?}");
            let back = "UPDATE vault SET vault_id = (SELECT vault_id FROM kept),
                        active_master_key = (SELECT active_master_key FROM kept)";
            edit(&world.database, back.to_owned()).await;
            world.database.execute("DROP TABLE kept").await;
            world.start_again();
            world.admin().list().await.expect("put right again");
        }
    }

    async fn a_blob_of_rubbish_in_any_table_gives_nobody_a_secret(world: World) {
        // Columns without secrets are not authenticated. Rubbish in such a column may only break what its row is for.
        let id = world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
        let viewer = world.viewer().await;
        viewer.fetch(&id).await.expect_err("a viewer gets no secret");
        world.stop();
        world.database.execute("UPDATE requests SET outcome = '{}' WHERE outcome IS NOT NULL").await;
        world.database.execute("UPDATE events SET body = '{}'").await;
        world.database.execute("UPDATE job_runs SET position = 'rubbish', error = 'rubbish'").await;
        world.database.execute("UPDATE subscriptions SET identity = 1").await;
        world.database.execute("UPDATE replicas SET name = 'rubbish', master_key_ids = '[]' WHERE ended_at IS NOT NULL").await;
        world.start_again();
        let no = world.caller_with(viewer.key(), "").fetch(&id).await.expect_err("still a viewer");
        assert_eq!(no.code(), Code::PermissionDenied, "{no:?}");
        world.ingestion().await.fetch(&id).await.expect("who may still may");
    }
}
