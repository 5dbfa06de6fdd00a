//! The vault starts only with the right master key, and a secret that was tampered with does not decrypt.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use token_vault_tests::prelude::*;
use token_vault_tests::{Database, eventually_async, master_key_line};

use super::rotation::with_key_file;
use super::rotation_under_load::plant;

const MASTER: &str = "TOKEN_VAULT_MASTER_KEY";

async fn key_id(database: &Database) -> String {
    database.texts("SELECT active_master_key FROM vault").await.remove(0)
}

/// The sealed secret of a connection, in hexadecimal.
async fn sealed(database: &Database, connection: &str) -> String {
    let hex = match database.backend() {
        Backend::Sqlite => "hex(sealed)",
        Backend::Postgres => "encode(sealed, 'hex')",
    };
    let id = database.uuid(connection);
    let sql = format!("SELECT {hex} FROM connection_secrets WHERE connection_id = {id}");
    database.texts(sql).await.remove(0).to_lowercase()
}

async fn put_sealed(database: &Database, connection: &str, hex: &str) {
    let (literal, id) = match database.backend() {
        Backend::Sqlite => (format!("x'{hex}'"), database.uuid(connection)),
        Backend::Postgres => (format!("'\\x{hex}'"), database.uuid(connection)),
    };
    let sql = format!("UPDATE connection_secrets SET sealed = {literal} WHERE connection_id = {id}");
    assert_eq!(database.execute(sql).await, 1);
}

async fn is_corrupt(world: &World, connection: &str, case: &str) {
    let no = world.ingestion().await.fetch(connection).await.expect_err(case);
    no.is(Code::DataLoss, Reason::CiphertextCorrupt).says("connection_id", connection);
}

on_both_databases! {
    async fn without_its_master_key_the_vault_refuses_to_start_and_names_it(world: World) {
        world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
        world.stop();
        let id = key_id(&world.database).await;
        let file = world.data().join("master.key");
        if file.exists() {
            fs::rename(&file, file.with_extension("away")).unwrap();
        }
        let before = world.database.contents().await;
        let refused = |launch, why: &str| {
            let ended = world.try_start_as(&launch).expect_err(why);
            assert_eq!(ended.code, Some(1), "{why}: {ended:?}");
            assert!(ended.stderr.contains(&id), "{why} does not name {id}: {}", ended.stderr);
            ended.stderr
        };
        refused(world.launch().env(MASTER, ""), "no key");
        let other = refused(world.launch().env(MASTER, master_key_line("other-id")), "another key");
        assert!(other.contains("other-id"), "it says what is configured: {other}");
        let same = refused(world.launch().env(MASTER, master_key_line(&id)), "other bytes under the same id");
        assert!(same.contains("same id"), "{same}");
        assert_eq!(world.database.contents().await, before, "a refused start changes nothing");
        if file.with_extension("away").exists() {
            assert!(!file.exists(), "no new key was made");
            fs::rename(file.with_extension("away"), &file).unwrap();
        }
        world.start_again();
        let connection = world.viewer().await.list().await.unwrap().tokens.remove(0).connection_id;
        assert!(world.ingestion().await.fetch(&connection).await.is_ok());
    }

    async fn a_master_key_that_is_no_key_is_refused_without_repeating_it(world: World) {
        world.stop();
        for bad in ["tvk1:k:c2hvcnQ=", "tvk2:k:AAAA", "nonsense-nonsense-nonsense", "tvk1::AAAA"] {
            let ended = world.try_start_as(&world.launch().env(MASTER, bad)).unwrap_err();
            assert_ne!(ended.code, Some(0));
            assert!(
                ended.stderr.contains(MASTER) && !ended.stderr.contains("nonsense-nonsense"),
                "{}",
                ended.stderr
            );
        }
        world.start_again();
    }

    async fn more_master_keys_than_needed_do_no_harm(world: World) {
        world.stop();
        let own = fs::read_to_string(world.data().join("master.key")).ok();
        let Some(own) = own else {
            world.start_again();
            assert_eq!(
                world.viewer().await.get_vault_status(Default::default()).await.unwrap().master_keys.len(),
                1
            );
            return;
        };
        let both = format!("{}\n{}\n", master_key_line("spare"), own.trim());
        fs::write(world.data().join("master.key"), &both).unwrap();
        world.start_again();
        let status = world.viewer().await.get_vault_status(Default::default()).await.unwrap();
        let active: Vec<_> =
            status.master_keys.iter().filter(|key| key.active).map(|key| key.key_id.as_str()).collect();
        assert_eq!((status.master_keys.len(), active), (2, vec![own.split(':').nth(1).unwrap()]));
    }

    async fn a_secret_with_any_byte_flipped_does_not_open(world: World) {
        let connector = world.connector().await;
        let id = connector.connect(ACME, &world.person("ana").long_lived_token()).await;
        let good = sealed(&world.database, &id).await;
        // The head (version, nonce), the middle (ciphertext) and the end (tag), and a short one.
        let places = [0, 1, 2, 14, good.len() / 4, good.len() / 2 - 1];
        for place in places {
            world.stop();
            let mut bytes = hex::decode(&good).unwrap();
            bytes[place] ^= 1;
            put_sealed(&world.database, &id, &hex::encode(bytes)).await;
            world.start_again();
            is_corrupt(&world, &id, &format!("byte {place} flipped")).await;
        }
        world.stop();
        put_sealed(&world.database, &id, &good[..good.len() - 2]).await;
        world.start_again();
        is_corrupt(&world, &id, "cut short").await;
        let token = world.viewer().await.get(&id).await.unwrap();
        assert_eq!(token.connection_id, id, "metadata still answers");
        let back =
            world.connector().await.store(ACME, &world.person("ana").long_lived_token()).await.unwrap();
        assert_eq!(back.token.unwrap().connection_id, id, "a reconnect heals it");
        assert!(world.ingestion().await.fetch(&id).await.is_ok());
    }

    async fn secrets_that_are_swapped_between_connections_do_not_open(world: World) {
        let connector = world.connector().await;
        let ana = connector.connect(ACME, &world.person("ana").long_lived_token()).await;
        let bob = connector.connect(ACME, &world.person("bob").long_lived_token()).await;
        let eve = connector.connect("globex", &world.person("eve").long_lived_token()).await;
        world.stop();
        let all = [
            sealed(&world.database, &ana).await,
            sealed(&world.database, &bob).await,
            sealed(&world.database, &eve).await,
        ];
        for (id, other) in [(&ana, &all[1]), (&bob, &all[2]), (&eve, &all[0])] {
            put_sealed(&world.database, id, other).await;
        }
        world.start_again();
        for id in [&ana, &bob, &eve] {
            is_corrupt(&world, id, "swapped").await;
        }
    }

    async fn key_rows_that_are_edited_or_exchanged_open_nothing(world: World) {
        let connector = world.connector().await;
        let ana = connector.connect(ACME, &world.person("ana").long_lived_token()).await;
        let eve = connector.connect("globex", &world.person("eve").long_lived_token()).await;
        let database = &world.database;
        let (flip, fresh_id) = match database.backend() {
            Backend::Sqlite => ("CAST(unhex('02') || substr(wrapped, 2) AS BLOB)", "randomblob(16)"),
            Backend::Postgres => ("'\\x02'::bytea || substr(wrapped, 2)", "gen_random_uuid()"),
        };
        let data = |workspace: &str| format!("workspace_id = '{workspace}' AND purpose = 'data'");
        let other = |column: &str, from: &str| format!("(SELECT k.{column} FROM workspace_keys k WHERE k.{})", from.replace("AND ", "AND k."));
        let index = "workspace_id = 'acme' AND purpose = 'index'";
        let both = |from: &str| format!("wrapped = {}, key_id = {}", other("wrapped", from), other("key_id", from));
        let cases = [
            ("its first byte", format!("wrapped = {flip}")),
            ("another id", format!("key_id = {fresh_id}")),
            ("another version", "version = 2".to_owned()),
            ("the ciphertext of another workspace's key", format!("wrapped = {}", other("wrapped", &data("globex")))),
            ("another workspace's key", both(&data("globex"))),
            ("its own index key", both(index)),
        ];
        for (case, change) in cases {
            world.stop();
            database.execute("CREATE TABLE kept AS SELECT * FROM workspace_keys").await;
            let changed = database.execute(format!("UPDATE workspace_keys SET {change} WHERE {}", data(ACME))).await;
            assert_eq!(changed, 1, "{case}");
            world.start_again();
            is_corrupt(&world, &ana, case).await;
            let no = world.connector().await.store(ACME, &world.person("bob").long_lived_token()).await.expect_err(case);
            no.is(Code::DataLoss, Reason::CiphertextCorrupt);
            assert!(world.ingestion().await.fetch(&eve).await.is_ok(), "{case}: globex is left alone");
            world.stop();
            database.execute(
                "DELETE FROM workspace_keys; INSERT INTO workspace_keys SELECT * FROM kept; DROP TABLE kept",
            ).await;
            world.start_again();
            assert!(world.ingestion().await.fetch(&ana).await.is_ok(), "{case}: put right again");
        }
        // After a key was deleted, it is missing. After the vault's own key was edited, no caller gets in.
        world.stop();
        database.execute(format!("DELETE FROM workspace_keys WHERE {}", data(ACME))).await;
        world.start_again();
        is_corrupt(&world, &ana, "deleted").await;
        world.stop();
        database.execute(format!("UPDATE vault_keys SET wrapped = {flip} WHERE purpose = 'authorization'")).await;
        let ended = world.try_start().unwrap_err();
        assert!(ended.stderr.contains("authorization") && ended.stderr.contains("altered"), "{}", ended.stderr);
    }

    async fn an_older_secret_that_is_put_back_does_not_open(world: World) {
        let ana = world.person("ana");
        let connector = world.connector().await;
        let id = connector.connect(ACME, &ana.long_lived_token()).await;
        let old = sealed(&world.database, &id).await;
        connector.store(ACME, &ana.long_lived_token()).await.unwrap();
        world.stop();
        put_sealed(&world.database, &id, &old).await;
        world.start_again();
        is_corrupt(&world, &id, "rolled back").await;
    }
}

/// Flips every byte of a ciphertext, one byte per connection. It also swaps rows and puts them back.
async fn no_tampered_row_opens(backend: Backend) {
    let world = World::builder(backend).config("log.level", "info").prepare().await;
    let line = master_key_line("k1");
    let (_, launch) = with_key_file(&world, "keys", &[&line]);
    world.try_start_as(&launch).unwrap();
    let ana = world.admin().connect(ACME, &world.person("ana").long_lived_token()).await;
    let planted = plant(&world, 100, &line).await;
    world.stop();
    let mut flipped = 0;
    for (at, (id, _)) in planted.iter().enumerate() {
        let mut bytes = hex::decode(sealed(&world.database, id).await).unwrap();
        // One row is left unchanged, and still decrypts.
        if at > 0
            && let Some(byte) = bytes.get_mut(at - 1)
        {
            *byte ^= 1 << (at % 8);
            flipped += 1;
            put_sealed(&world.database, id, &hex::encode(&bytes)).await;
        }
    }
    assert!(flipped >= 64, "only {flipped} bytes");
    world.try_start_as(&launch).unwrap();
    let admin = world.admin();
    for (at, (id, secret)) in planted.iter().enumerate() {
        match at {
            0 => assert_eq!(admin.secret(id).await, *secret),
            at if at <= flipped => {
                admin.fetch(id).await.unwrap_err().is(Code::DataLoss, Reason::CiphertextCorrupt);
            }
            _ => assert!(admin.fetch(id).await.is_ok()),
        }
    }
    // The old ciphertext of a rotated data key, with the version that sealed it.
    let old = sealed(&world.database, &ana).await;
    let key = Some(pb::rotate_key_request::Key::WorkspaceId(ACME.into()));
    admin.rotate_key(pb::RotateKeyRequest { key, ..Default::default() }).await.unwrap();
    // Secrets that do not decrypt count as failed and keep their old key; the others are re-encrypted.
    let run = eventually_async("the rotation ends", Duration::from_secs(60), async || {
        admin.runs("data-key-rotation").await.into_iter().find(|run| run.ended_at.is_some())
    })
    .await;
    assert_eq!((run.done, run.failed), (101, flipped as i64), "{run:?}");
    assert!(admin.fetch(&ana).await.is_ok());
    world.stop();
    put_sealed(&world.database, &ana, &old).await;
    world.try_start_as(&launch).unwrap();
    is_corrupt_to(&world.admin(), &ana, "an old ciphertext under the new version").await;
}

async fn is_corrupt_to(caller: &Caller, connection: &str, case: &str) {
    let no = caller.fetch(connection).await.expect_err(case);
    no.is(Code::DataLoss, Reason::CiphertextCorrupt).says("connection_id", connection);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_no_tampered_byte_opens() {
    no_tampered_row_opens(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_no_tampered_byte_opens() {
    no_tampered_row_opens(Backend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_the_first_start_makes_a_private_key_file_and_says_so() {
    let world = World::start(Backend::Sqlite).await;
    let file = world.data().join("master.key");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(world.logs().contains("master.key"));
    let line = fs::read_to_string(&file).unwrap();
    assert!(line.starts_with("tvk1:"), "the documented form");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_a_master_key_must_be_given() {
    let world = World::builder(Backend::Postgres).prepare().await;
    let ended = world.try_start_as(&world.launch().env(MASTER, "")).unwrap_err();
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains(MASTER) && ended.stderr.contains("keys.master_key_file"),
        "{}",
        ended.stderr
    );
    assert!(!world.data().join("master.key").exists() && !world.data().join("bootstrap-admin.key").exists());
}
