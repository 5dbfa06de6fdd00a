//! The database's address: parsing and naming it, probing whether it can be reached, and locking SQLite's file.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};

use super::StoreError;

/// How many bytes of its write-ahead log SQLite keeps for later use after it has written them back.
const LOG_KEPT: &str = "4194304";
/// How long SQLite waits while another process locks its file: every call is refused within three seconds.
pub(super) const BUSY: Duration = Duration::from_secs(2);
/// How long PostgreSQL lets a write wait for a lock: less than other sessions wait, because all writes wait with it.
const WRITE_LOCK: &str = "2s";
/// How long finding out why a database can't be reached may take.
const PROBE: Duration = Duration::from_secs(2);

/// Where the database is. Holds a password: no `Debug`.
pub(in crate::store) enum Address {
    Sqlite { path: PathBuf, options: Box<SqliteConnectOptions> },
    Postgres { options: Box<PgConnectOptions> },
}

impl Address {
    /// Parses `sqlite:PATH` or `postgres://…`. The error never repeats the URL: it may hold a password.
    pub(in crate::store) fn parse(url: &str) -> Result<Arc<Self>, StoreError> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path == ":memory:" || path.contains('?') {
                return Err(StoreError::Config(
                    "storage.url: sqlite:PATH needs the path of a file, without options".into(),
                ));
            }
            let options = SqliteConnectOptions::new()
                .filename(path)
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .foreign_keys(true)
                .busy_timeout(BUSY)
                .pragma("secure_delete", "ON")
                .pragma("journal_size_limit", LOG_KEPT)
                .disable_statement_logging();
            return Ok(Arc::new(Self::Sqlite {
                path: Path::new(path).to_path_buf(),
                options: Box::new(options),
            }));
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
            return Ok(Arc::new(Self::Postgres { options: Box::new(options) }));
        }
        Err(StoreError::Config("storage.url: must start with sqlite: or postgres://".into()))
    }

    /// The same database for those connections over which everything is written.
    pub(in crate::store) fn for_writes(&self) -> Arc<Self> {
        Arc::new(match self {
            Self::Sqlite { path, options } => Self::Sqlite { path: path.clone(), options: options.clone() },
            Self::Postgres { options } => {
                let options = (**options).clone().options([("lock_timeout", WRITE_LOCK)]);
                Self::Postgres { options: Box::new(options) }
            }
        })
    }

    /// The folder of SQLite's file.
    pub(in crate::store) fn folder(&self) -> Option<PathBuf> {
        let Self::Sqlite { path, .. } = self else { return None };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        Some(folder.map_or_else(|| PathBuf::from("."), Path::to_path_buf))
    }

    /// Which database this is, for log lines and errors: never its password.
    pub(in crate::store) fn name(&self) -> String {
        match self {
            Self::Sqlite { path, .. } => format!("SQLite file {}", path.display()),
            Self::Postgres { options } => {
                let server = match options.get_socket() {
                    Some(socket) => format!("{} (port {})", socket.display(), options.get_port()),
                    None => format!("{}:{}", options.get_host(), options.get_port()),
                };
                // PostgreSQL takes the user's name where the URL names no database.
                let database = options.get_database().unwrap_or_else(|| options.get_username());
                format!("PostgreSQL at {server}, database {database}")
            }
        }
    }

    /// Connects once without a pool and returns why that fails: a pool retries until it times out, and then reports
    /// only the time-out.
    pub(in crate::store) async fn probe(&self) -> Result<(), StoreError> {
        let connected = async {
            match self {
                Self::Sqlite { options, .. } => options.connect().await?.close().await,
                Self::Postgres { options } => options.connect().await?.close().await,
            }
        };
        match tokio::time::timeout(PROBE, connected).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(StoreError::from(error).at(&self.name())),
            Err(_) => {
                Err(StoreError::Unavailable("no reply to a connection attempt".into()).at(&self.name()))
            }
        }
    }

    /// Locks SQLite's file, because a second process would have a cache and a writer of its own. On PostgreSQL, many
    /// processes may share a database.
    pub(in crate::store) fn lock(&self) -> Result<Option<File>, StoreError> {
        let Self::Sqlite { path: database, .. } = self else { return Ok(None) };
        let mut path = database.as_os_str().to_owned();
        path.push(".lock");
        let path = Path::new(&path);
        let file = File::options().create(true).truncate(false).write(true).open(path).map_err(|error| {
            StoreError::Config(format!(
                "cannot open {}: {error}; see that its folder exists and can be written, or correct storage.url",
                path.display()
            ))
        })?;
        file.try_lock().map_err(|_| {
            StoreError::Config(format!(
                "{} is in use by another token-vault process; stop it, or talk to it through gRPC",
                database.display()
            ))
        })?;
        Ok(Some(file))
    }
}
