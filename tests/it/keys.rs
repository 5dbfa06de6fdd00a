//! Keys: the vault starts with the right master key or not at all, and a secret that was tampered with does not open.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use token_vault_tests::prelude::*;
use token_vault_tests::{Database, master_key_line};

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
