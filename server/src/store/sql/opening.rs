//! What happens when the database is opened: reaching it, migrating it, and checking its settings.

use super::address::BUSY;
use super::db::{Driver, Pool};
use super::schema::check_migrations;
use super::{Address, Backend, Session, StoreError, has_room};

/// Fails if the database can't be reached, and says why and what helps.
pub(in crate::store) async fn reach(pool: &Pool) -> Result<(), StoreError> {
    let Err(error) = pool.session().await else { return Ok(()) };
    Err(match pool.address().probe().await.err().unwrap_or(error) {
        StoreError::Unavailable(why) => {
            let full = pool.address().folder().is_some_and(|folder| !has_room(&folder));
            let remedy = match pool.backend() {
                Backend::Sqlite if full => "its disk is full: make room",
                Backend::Sqlite => "see that its folder exists and can be written",
                Backend::Postgres => "start it",
            };
            StoreError::Unavailable(format!("{why}; {remedy}, or correct storage.url"))
        }
        // The database is there, but does not accept us.
        StoreError::Unexpected(why) => {
            StoreError::Config(format!("{}: {why}; correct storage.url", pool.address().name()))
        }
        other => other,
    })
}

/// A session for reads while a vault may be running: it takes no lock and migrates nothing.
pub async fn open_for_reading(url: &str) -> Result<Session, StoreError> {
    let address = Address::parse(url)?;
    if let Address::Sqlite { path, .. } = &*address
        && !path.exists()
    {
        return Err(StoreError::Config(format!("there is no database {}", path.display())));
    }
    let pool = Pool::new(&address, 1);
    reach(&pool).await?;
    pool.session().await
}

/// Applies migrations and returns how many. For `token-vault migrate`.
pub async fn migrate_only(url: &str) -> Result<usize, StoreError> {
    let address = Address::parse(url)?;
    let _lock = address.lock()?;
    let pool = Pool::new(&address, 1);
    reach(&pool).await?;
    let before = applied_migrations(&pool).await;
    migrate(&pool, true).await?;
    let after = applied_migrations(&pool).await;
    pool.close().await;
    Ok(after.saturating_sub(before))
}

pub(super) static MIGRATIONS_OF_SQLITE: sqlx::migrate::Migrator = sqlx::migrate!("../migrations/sqlite");
pub(super) static MIGRATIONS_OF_POSTGRES: sqlx::migrate::Migrator = sqlx::migrate!("../migrations/postgres");

/// Accepts migrations that a newer release applied: release N runs on the schema of N+1.
pub(in crate::store) async fn migrate(pool: &Pool, apply: bool) -> Result<(), StoreError> {
    check_migrations(pool, !apply).await?;
    if !apply {
        return Ok(());
    }
    let outcome = match &pool.driver {
        Driver::Sqlite(pool) => {
            sqlx::migrate::Migrator { ignore_missing: true, ..MIGRATIONS_OF_SQLITE.clone_parts() }
                .run(pool)
                .await
        }
        Driver::Postgres(pool) => {
            sqlx::migrate::Migrator { ignore_missing: true, ..MIGRATIONS_OF_POSTGRES.clone_parts() }
                .run(pool)
                .await
        }
    };
    outcome.map_err(|error| match error {
        sqlx::migrate::MigrateError::Execute(error) => StoreError::from(error),
        other => StoreError::Config(format!("migration failed: {other}")),
    })
}

/// The embedded migrations are statics; a run needs its own copy with our settings.
pub(super) trait CloneParts {
    fn clone_parts(&self) -> sqlx::migrate::Migrator;
}

impl CloneParts for sqlx::migrate::Migrator {
    fn clone_parts(&self) -> sqlx::migrate::Migrator {
        sqlx::migrate::Migrator { migrations: self.migrations.clone(), ..sqlx::migrate::Migrator::DEFAULT }
    }
}

async fn applied_migrations(pool: &Pool) -> usize {
    #[derive(sqlx::FromRow)]
    struct Row {
        n: i64,
    }
    let Ok(mut session) = pool.session().await else { return 0 };
    let row: Result<Row, _> = session.query("SELECT count(*) AS n FROM _sqlx_migrations").fetch_one().await;
    row.ok().and_then(|row| usize::try_from(row.n).ok()).unwrap_or(0)
}

/// Fails if PostgreSQL is not durable: an acknowledged write must survive a loss of power.
pub(in crate::store) async fn check_settings(pool: &Pool) -> Result<(), StoreError> {
    #[derive(sqlx::FromRow)]
    struct Row {
        fsync: String,
        synchronous_commit: String,
    }
    if pool.backend() == Backend::Sqlite {
        return Ok(());
    }
    let row: Row = pool
        .session()
        .await?
        .query(
            "SELECT current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS synchronous_commit",
        )
        .fetch_one()
        .await?;
    if row.fsync == "off" || row.synchronous_commit == "off" {
        return Err(StoreError::Config(
            "PostgreSQL runs with fsync=off or synchronous_commit=off: an acknowledged token could be lost; turn both on"
                .into(),
        ));
    }
    Ok(())
}

/// Takes back the short time-out of a truncation.
const BUSY_AGAIN: &str = "PRAGMA busy_timeout = 2000";
const _: () = assert!(BUSY.as_millis() == 2_000, "both say the same");

impl Session {
    /// Writes SQLite's write-ahead log back and truncates it. `false`: another connection was reading or writing.
    pub(in crate::store) async fn truncate_log(&mut self) -> Result<bool, StoreError> {
        #[derive(sqlx::FromRow)]
        struct Row {
            busy: i64,
        }
        // Nobody can write while it waits for readers, such as a backup. So it waits briefly, and its caller tries again.
        self.query("PRAGMA busy_timeout = 50").execute().await?;
        let row: Result<Row, _> = self.query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one().await;
        self.query(BUSY_AGAIN).execute().await?;
        Ok(row?.busy == 0)
    }
}
