//! One SQL text for two databases: a thin enum over the two sqlx drivers. Only this file (and the
//! few `query_for`) names a backend.

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::query::Query as SqlxQuery;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Encode, FromRow, PgPool, Postgres, Sqlite, SqlitePool, Type};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::store::StoreError;

/// A value that both databases can take as a parameter.
pub(in crate::store) trait Value:
    for<'q> Encode<'q, Sqlite> + Type<Sqlite> + for<'q> Encode<'q, Postgres> + Type<Postgres> + Send + 'static
{
}
impl<T> Value for T where
    T: for<'q> Encode<'q, Sqlite>
        + Type<Sqlite>
        + for<'q> Encode<'q, Postgres>
        + Type<Postgres>
        + Send
        + 'static
{
}

/// A row that both databases can give back. `#[derive(FromRow)]` is enough.
pub(in crate::store) trait Record:
    for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}
impl<T> Record for T where T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Embedded.
    Sqlite,
    /// A server, for many replicas.
    Postgres,
}

impl Backend {
    /// Its name in status and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

/// Where the database is, parsed. Holds a password: no `Debug`.
pub(in crate::store) enum Address {
    Sqlite { path: PathBuf, options: Box<SqliteConnectOptions> },
    Postgres { options: Box<PgConnectOptions> },
}

impl Address {
    /// Parses `sqlite:PATH` or `postgres://…`. The error never repeats the URL: it may hold a password.
    pub(in crate::store) fn parse(url: &str) -> Result<Self, StoreError> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path == ":memory:" || path.contains('?') {
                return Err(StoreError::Config(
                    "storage.url: sqlite:PATH wants the path of a file, and no options".into(),
                ));
            }
            let options = SqliteConnectOptions::new()
                .filename(path)
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .foreign_keys(true)
                .busy_timeout(Duration::from_secs(5))
                .pragma("secure_delete", "ON")
                .disable_statement_logging();
            return Ok(Self::Sqlite { path: Path::new(path).to_path_buf(), options: Box::new(options) });
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let options = PgConnectOptions::from_str(url)
                .map_err(|_| StoreError::Config("storage.url: not a valid postgres:// URL".into()))?
                .application_name("token-vault")
                .options([
                    ("idle_in_transaction_session_timeout", "3s"),
                    ("lock_timeout", "3s"),
                    ("statement_timeout", "5s"),
                    ("default_transaction_isolation", "read committed"),
                ])
                .disable_statement_logging();
            return Ok(Self::Postgres { options: Box::new(options) });
        }
        Err(StoreError::Config("storage.url: must start with sqlite: or postgres://".into()))
    }
}

/// Connections to one database.
#[derive(Clone)]
pub(in crate::store) enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl Pool {
    /// Opens lazily: the first session finds out whether the database is there.
    pub(in crate::store) fn new(address: &Address, size: u32) -> Self {
        match address {
            Address::Sqlite { options, .. } => Self::Sqlite(
                SqlitePoolOptions::new()
                    .max_connections(size)
                    .acquire_timeout(Duration::from_secs(3))
                    .idle_timeout(None)
                    .max_lifetime(None)
                    .connect_lazy_with((**options).clone()),
            ),
            Address::Postgres { options } => Self::Postgres(
                PgPoolOptions::new()
                    .max_connections(size)
                    .acquire_timeout(Duration::from_secs(3))
                    .connect_lazy_with((**options).clone()),
            ),
        }
    }

    pub(in crate::store) const fn backend(&self) -> Backend {
        match self {
            Self::Sqlite(_) => Backend::Sqlite,
            Self::Postgres(_) => Backend::Postgres,
        }
    }

    pub(in crate::store) async fn session(&self) -> Result<Session, StoreError> {
        Ok(match self {
            Self::Sqlite(pool) => Session::Sqlite(pool.acquire().await?),
            Self::Postgres(pool) => Session::Postgres(pool.acquire().await?),
        })
    }

    pub(in crate::store) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// One connection to the database: reads. Writes want a [`Tx`](crate::store::Tx).
pub enum Session {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(PoolConnection<Postgres>),
}

impl Session {
    /// Starts a statement. `&'static str` only: SQL is never built from input.
    pub(in crate::store) fn query(&mut self, sql: &'static str) -> Query<'_> {
        match self {
            Self::Sqlite(session) => Query::Sqlite(sqlx::query(sql), session),
            Self::Postgres(session) => Query::Postgres(sqlx::query(sql), session),
        }
    }

    /// A statement whose text must differ.
    pub(in crate::store) fn query_for(&mut self, sqlite: &'static str, postgres: &'static str) -> Query<'_> {
        match self {
            Self::Sqlite(session) => Query::Sqlite(sqlx::query(sqlite), session),
            Self::Postgres(session) => Query::Postgres(sqlx::query(postgres), session),
        }
    }

    pub(in crate::store) const fn backend(&self) -> Backend {
        match self {
            Self::Sqlite(_) => Backend::Sqlite,
            Self::Postgres(_) => Backend::Postgres,
        }
    }

    /// Drops the connection for good: its transaction, if any, ends with it.
    pub(in crate::store) fn abandon(self) {
        match self {
            Self::Sqlite(session) => drop(session.detach()),
            Self::Postgres(session) => drop(session.detach()),
        }
    }
}

/// A statement with its parameters.
pub(in crate::store) enum Query<'c> {
    Sqlite(SqlxQuery<'static, Sqlite, SqliteArguments>, &'c mut PoolConnection<Sqlite>),
    Postgres(SqlxQuery<'static, Postgres, PgArguments>, &'c mut PoolConnection<Postgres>),
}

impl Query<'_> {
    pub(in crate::store) fn bind(self, value: impl Value) -> Self {
        match self {
            Self::Sqlite(query, session) => Self::Sqlite(query.bind(value), session),
            Self::Postgres(query, session) => Self::Postgres(query.bind(value), session),
        }
    }

    /// Has it planned for its very parameters each time, instead of once for any.
    pub(in crate::store) fn planned_anew(self) -> Self {
        match self {
            Self::Sqlite(..) => self,
            Self::Postgres(query, session) => Self::Postgres(query.persistent(false), session),
        }
    }

    /// Runs it and says how many rows it touched.
    pub(in crate::store) async fn execute(self) -> Result<u64, StoreError> {
        Ok(match self {
            Self::Sqlite(query, session) => query.execute(&mut **session).await?.rows_affected(),
            Self::Postgres(query, session) => query.execute(&mut **session).await?.rows_affected(),
        })
    }

    pub(in crate::store) async fn fetch_optional<T: Record>(self) -> Result<Option<T>, StoreError> {
        Ok(match self {
            Self::Sqlite(query, session) => {
                query.fetch_optional(&mut **session).await?.map(|row| T::from_row(&row)).transpose()?
            }
            Self::Postgres(query, session) => {
                query.fetch_optional(&mut **session).await?.map(|row| T::from_row(&row)).transpose()?
            }
        })
    }

    pub(in crate::store) async fn fetch_one<T: Record>(self) -> Result<T, StoreError> {
        Ok(match self {
            Self::Sqlite(query, session) => T::from_row(&query.fetch_one(&mut **session).await?)?,
            Self::Postgres(query, session) => T::from_row(&query.fetch_one(&mut **session).await?)?,
        })
    }

    pub(in crate::store) async fn fetch_all<T: Record>(self) -> Result<Vec<T>, StoreError> {
        let rows: Result<Vec<T>, sqlx::Error> = match self {
            Self::Sqlite(query, session) => {
                query.fetch_all(&mut **session).await?.iter().map(|row| T::from_row(row)).collect()
            }
            Self::Postgres(query, session) => {
                query.fetch_all(&mut **session).await?.iter().map(|row| T::from_row(row)).collect()
            }
        };
        Ok(rows?)
    }
}
