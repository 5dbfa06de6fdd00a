//! Migrations: both databases get the same schema, and applying the migrations again changes nothing.

use std::collections::BTreeMap;

use token_vault_tests::prelude::*;

/// Whether a column may be NULL, and its type.
type Columns = BTreeMap<String, (bool, String)>;

/// Every column, read from the live database: `table.column`.
async fn columns(world: &World) -> Columns {
    let sql = match world.database.backend() {
        Backend::Sqlite => {
            "SELECT t.name || '.' || c.name || ' ' || c.\"notnull\" || ' ' || c.type || ' ' || (c.pk > 0)
               FROM sqlite_schema t, pragma_table_info(t.name) c WHERE t.type = 'table'"
        }
        Backend::Postgres => {
            "SELECT c.table_name || '.' || c.column_name || ' ' || (c.is_nullable = 'NO')::int || ' ' || c.data_type
                    || ' ' || (k.column_name IS NOT NULL)::int
               FROM information_schema.columns c
               LEFT JOIN (SELECT u.table_name, u.column_name
                            FROM information_schema.key_column_usage u
                            JOIN information_schema.table_constraints t USING (constraint_schema, constraint_name)
                           WHERE t.constraint_type = 'PRIMARY KEY') k USING (table_name, column_name)
              WHERE c.table_schema = 'public'"
        }
    };
    let lines = world.database.texts(sql).await;
    let read = lines.iter().map(|line| {
        let mut words = line.split(' ');
        let name = words.next().expect("a name").to_owned();
        let required = words.next() == Some("1");
        (name, (required, words.collect::<Vec<_>>().join(" ")))
    });
    // The table of the migrations belongs to the library.
    read.filter(|(name, _)| !name.starts_with("_sqlx_migrations.") && !name.starts_with("sqlite_")).collect()
}

/// The names of all indexes and constraints, except those that the database creates by itself.
async fn indexes(world: &World) -> Vec<String> {
    let mut names = world
        .database
        .texts(match world.database.backend() {
            Backend::Sqlite => "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL",
            Backend::Postgres => {
                "SELECT i.indexname::text FROM pg_indexes i WHERE i.schemaname = 'public'
                    AND NOT EXISTS (SELECT 1 FROM pg_constraint c WHERE c.conname = i.indexname)"
            }
        })
        .await;
    names.sort();
    names
}

/// Whether a type of SQLite and a type of PostgreSQL hold the same kind of value.
fn same_kind(sqlite: &str, postgres: &str) -> bool {
    let (Some((sqlite, sqlite_key)), Some((postgres, postgres_key))) =
        (sqlite.rsplit_once(' '), postgres.rsplit_once(' '))
    else {
        return false;
    };
    let pairs: &[&str] = match sqlite {
        "INTEGER" => &["bigint", "smallint", "integer"],
        "TEXT" => &["text", "jsonb"],
        "BLOB" => &["bytea", "uuid"],
        _ => &[],
    };
    sqlite_key == postgres_key && pairs.contains(&postgres)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_databases_have_the_same_tables_columns_and_indexes_after_the_first_start() {
    let (sqlite, postgres) = (World::start(Backend::Sqlite).await, World::start(Backend::Postgres).await);
    let (here, there) = (columns(&sqlite).await, columns(&postgres).await);
    assert!(here.len() > 80 && here.contains_key("ad_platform_connections.expires_sort"), "{here:#?}");
    let names = |columns: &Columns| columns.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&here), names(&there));
    for (name, (required, kind)) in &here {
        let (required_there, kind_there) = &there[name];
        assert_eq!(required, required_there, "{name} may be NULL in one database only");
        assert!(same_kind(kind, kind_there), "{name} is {kind} in SQLite and {kind_there} in PostgreSQL");
    }
    let made = indexes(&sqlite).await;
    assert!(made.iter().any(|name| name == "connections_by_end"), "{made:?}");
    assert_eq!(made, indexes(&postgres).await);
}

/// The migrations that the database has recorded.
async fn applied(world: &World) -> Vec<String> {
    world.database.texts("SELECT description FROM _sqlx_migrations ORDER BY version").await
}

async fn migrate_does_all_at_first_and_then_nothing(backend: Backend) {
    let world = World::builder(backend).prepare().await;
    std::fs::create_dir_all(world.data()).unwrap();
    let off = world.launch().env("TOKEN_VAULT__STORAGE__MIGRATE_ON_START", "false");
    let refused = world.try_start_as(&off).expect_err("there is no schema yet");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("token-vault migrate"), "it names the remedy: {}", refused.stderr);

    // This uses the same settings with another command.
    let migrate = world.launch().instead(["migrate"]);
    let first = migrate.run();
    assert_eq!(first.code, Some(0), "{first:?}");
    let done = applied(&world).await;
    assert!(!done.is_empty());
    assert_eq!(first.stdout.trim(), format!("applied {} migrations", done.len()));
    let made = columns(&world).await;
    let again = migrate.run();
    assert_eq!((again.code, again.stdout.trim()), (Some(0), "applied 0 migrations"), "{again:?}");
    assert_eq!((applied(&world).await, columns(&world).await), (done.clone(), made));

    world.try_start_as(&off).unwrap_or_else(|ended| panic!("a migrated database is enough: {ended:#?}"));
    let id = world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
    world.stop();
    let before = world.database.contents().await;
    assert_eq!(migrate.run().stdout.trim(), "applied 0 migrations");
    assert_eq!(world.database.contents().await, before, "migrating leaves what is stored");
    world.try_start_as(&off).unwrap_or_else(|ended| panic!("it starts again: {ended:#?}"));
    assert!(world.ingestion().await.fetch(&id).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrate_does_all_at_first_and_then_nothing_on_sqlite() {
    migrate_does_all_at_first_and_then_nothing(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrate_does_all_at_first_and_then_nothing_on_postgres() {
    migrate_does_all_at_first_and_then_nothing(Backend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_start_at_once_on_an_empty_database_migrate_it_once() {
    let world = World::builder(Backend::Postgres).prepare().await;
    let (launch, folder) = (world.launch(), world.folder());
    let processes: Vec<_> = std::thread::scope(|scope| {
        let start = |n| launch.serve(folder, &format!("replica-{n}")).expect("every replica starts");
        let starts: Vec<_> = (0..3).map(|n| scope.spawn(move || start(n))).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    assert_eq!(processes.len(), 3);
    let applied = applied(&world).await;
    let known = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations/postgres"))
        .expect("they are there");
    assert_eq!(applied.len(), known.count(), "each once: {applied:?}");
    assert_eq!(world.database.count("SELECT count(*) FROM vault").await, 1, "one vault");
}

/// What can be wrong with a database as SQL, how to undo it, and what the refusal says.
const UNFIT: [(&str, &str, [&str; 2]); 6] = [
    (
        "UPDATE vault SET min_binary = 9999",
        "UPDATE vault SET min_binary = 1",
        ["9999", "install the newer version"],
    ),
    (
        "UPDATE _sqlx_migrations SET checksum = (SELECT checksum FROM kept WHERE version = 1) WHERE version = 3",
        KEPT,
        ["migration 3 is not the one", "from a backup"],
    ),
    ("DELETE FROM _sqlx_migrations WHERE version = 4", KEPT, ["migration 4 is missing", "from a backup"]),
    (
        "UPDATE _sqlx_migrations SET success = false WHERE version = 2",
        KEPT,
        ["migration 2 was begun", "from a backup"],
    ),
    (
        "ALTER TABLE workspaces RENAME COLUMN created_at TO made_at",
        "ALTER TABLE workspaces RENAME COLUMN made_at TO created_at",
        ["workspaces.created_at", "from a backup"],
    ),
    (
        "ALTER TABLE incidents RENAME TO others",
        "ALTER TABLE others RENAME TO incidents",
        ["incidents.", "from a backup"],
    ),
];
const KEPT: &str = "DELETE FROM _sqlx_migrations; INSERT INTO _sqlx_migrations SELECT * FROM kept";

on_both_databases! {
    async fn a_database_that_this_binary_can_not_serve_is_refused_by_name(world: World) {
        let id = world.admin().connect(ACME, &world.person("ana").long_lived_token()).await;
        world.stop();
        world.database.execute("CREATE TABLE kept AS SELECT * FROM _sqlx_migrations").await;
        for (wrong, undo, words) in UNFIT {
            world.database.execute(wrong).await;
            for migrates in ["true", "false"] {
                let launch = world.launch().env("TOKEN_VAULT__STORAGE__MIGRATE_ON_START", migrates);
                let refused = world.try_start_as(&launch).expect_err(wrong);
                assert_eq!(refused.code, Some(1), "{refused:?}");
                for word in words {
                    assert!(refused.stderr.contains(word), "{wrong}: {word} is missing: {}", refused.stderr);
                }
            }
            world.database.execute(undo).await;
        }
        // A newer version may run beside this one, with migrations and columns of its own.
        let newer = "INSERT INTO _sqlx_migrations (version, description, installed_on, success, checksum, execution_time)
                     SELECT 9000, 'newer', installed_on, success, checksum, execution_time FROM kept WHERE version = 1";
        world.database.execute(newer).await;
        world.start_again();
        world.admin().fetch(&id).await.expect("all is there");
    }
}
