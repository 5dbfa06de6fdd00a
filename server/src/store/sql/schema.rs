//! Whether this binary can serve a database: its migrations, the version that it asks for, and its columns.

use std::collections::BTreeSet;

use sqlx::migrate::Migrator;
use sqlx::sqlite::SqlitePoolOptions;

use super::db::Pool;
use super::opening::{CloneParts, MIGRATIONS_OF_POSTGRES, MIGRATIONS_OF_SQLITE};
use super::{Backend, Session, StoreError};

/// The most columns that a message names.
const NAMED: usize = 5;
/// What helps where a database was altered.
const RESTORE: &str =
    "it was altered, or restored only in part: restore it from a backup, or run the version that wrote it";

#[derive(sqlx::FromRow)]
struct Applied {
    version: i64,
    success: bool,
    checksum: Vec<u8>,
}

#[derive(sqlx::FromRow)]
struct Column {
    name: String,
}

fn refused(why: String) -> StoreError {
    StoreError::Config(format!("this version can't serve the database: {why}"))
}

/// Fails if an applied migration is not as this version knows it, or is missing although a later one was applied.
/// `complete`: all of this version's migrations must have been applied.
pub(super) async fn check_migrations(pool: &Pool, complete: bool) -> Result<(), StoreError> {
    let mut session = pool.session().await?;
    let known = match session.backend() {
        Backend::Sqlite => &MIGRATIONS_OF_SQLITE,
        Backend::Postgres => &MIGRATIONS_OF_POSTGRES,
    };
    let applied = session.applied_migrations().await?;
    let newest = applied.iter().map(|applied| applied.version).max().unwrap_or_default();
    let mut missing = 0;
    for migration in known.iter() {
        let version = migration.version;
        match applied.iter().find(|applied| applied.version == version) {
            Some(applied) if !applied.success => {
                return Err(refused(format!("migration {version} was begun and not finished; {RESTORE}")));
            }
            Some(applied) if applied.checksum != *migration.checksum => {
                return Err(refused(format!(
                    "migration {version} is not the one of this version; {RESTORE}"
                )));
            }
            Some(_) => {}
            None if version < newest => {
                return Err(refused(format!(
                    "migration {version} is missing, although migration {newest} was applied; {RESTORE}"
                )));
            }
            None => missing += 1,
        }
    }
    if complete && missing > 0 {
        return Err(StoreError::Config(format!(
            "the database lacks {missing} migrations of this version, and storage.migrate_on_start is off; \
             run `token-vault migrate`"
        )));
    }
    Ok(())
}

/// Fails if the database asks for a newer binary, or lacks a column that this version's migrations make. A newer
/// version may have removed columns that this one no longer uses, and then only its wish for a newer binary counts.
pub(in crate::store) async fn check_schema(pool: &Pool) -> Result<(), StoreError> {
    let mut session = pool.session().await?;
    let ours = MIGRATIONS_OF_SQLITE.iter().map(|migration| migration.version).max().unwrap_or_default();
    let newest = session.applied_migrations().await?.iter().map(|applied| applied.version).max();
    if newest.is_none_or(|newest| newest <= ours) {
        let there: BTreeSet<_> = session.column_names().await?.into_iter().collect();
        let missing: Vec<_> =
            expected_columns().await?.into_iter().filter(|column| !there.contains(column)).collect();
        if !missing.is_empty() {
            let more = missing.len().saturating_sub(NAMED);
            let named = missing.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            return Err(refused(format!("it lacks {named}{more}; {RESTORE}")));
        }
    }
    match session.oldest_binary().await? {
        Some(oldest) if oldest > ours => Err(refused(format!(
            "a newer version of token-vault has upgraded it, and it asks for a version that knows migration {oldest}; \
             this one knows those up to {ours}: install the newer version, or restore a backup from before the upgrade"
        ))),
        _ => Ok(()),
    }
}

/// The columns that this version's migrations make, as `table.column`. Both databases have the same.
async fn expected_columns() -> Result<Vec<String>, StoreError> {
    let memory = SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await?;
    let migrations: Migrator = MIGRATIONS_OF_SQLITE.clone_parts();
    migrations.run(&memory).await.map_err(|error| StoreError::Unexpected(error.to_string()))?;
    let columns: Vec<Column> = sqlx::query_as(COLUMNS_OF_SQLITE).fetch_all(&memory).await?;
    memory.close().await;
    Ok(columns.into_iter().map(|column| column.name).collect())
}

const COLUMNS_OF_SQLITE: &str = "SELECT t.name || '.' || c.name AS name
       FROM sqlite_schema t, pragma_table_info(t.name) c WHERE t.type = 'table' AND t.name NOT LIKE '\\_sqlx%' ESCAPE '\\'";

impl Session {
    /// The migrations that were applied; none if the database is new.
    async fn applied_migrations(&mut self) -> Result<Vec<Applied>, StoreError> {
        let tables: Vec<Column> = self
            .query_for(
                "SELECT name FROM sqlite_schema WHERE type = 'table' AND name = '_sqlx_migrations'",
                "SELECT table_name::text AS name FROM information_schema.tables
                  WHERE table_schema = current_schema() AND table_name = '_sqlx_migrations'",
            )
            .fetch_all()
            .await?;
        if tables.is_empty() {
            return Ok(Vec::new());
        }
        self.query("SELECT version, success, checksum FROM _sqlx_migrations").fetch_all().await
    }

    async fn column_names(&mut self) -> Result<Vec<String>, StoreError> {
        let columns: Vec<Column> = self
            .query_for(
                COLUMNS_OF_SQLITE,
                "SELECT table_name || '.' || column_name AS name FROM information_schema.columns
                  WHERE table_schema = current_schema()",
            )
            .fetch_all()
            .await?;
        Ok(columns.into_iter().map(|column| column.name).collect())
    }

    /// The schema generation that a binary must know to serve this database; `None` before the first start.
    async fn oldest_binary(&mut self) -> Result<Option<i64>, StoreError> {
        let row: Option<(i64,)> = self.query("SELECT min_binary FROM vault").fetch_optional().await?;
        Ok(row.map(|(oldest,)| oldest))
    }
}
