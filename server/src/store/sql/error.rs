//! How storage fails.

use sqlx::error::DatabaseError;

/// A failure of storage. Texts are for the log; none holds a parameter's value.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database can't be reached now; nothing is known to have changed.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The transaction lost a race (deadlock, serialization, lock timeout) and may run again.
    #[error("the transaction lost a race: {0}")]
    Race(String),
    /// A row holds a value that no release wrote.
    #[error("{table}.{column} of {row} holds what no release wrote")]
    Inconsistent {
        table: &'static str,
        column: &'static str,
        /// The row's key.
        row: String,
    },
    /// The configuration or the database's settings are not acceptable.
    #[error("{0}")]
    Config(String),
    /// A bug of ours, or a database that behaves unlike any that we know.
    #[error("the database refused a statement: {0}")]
    Unexpected(String),
}

impl StoreError {
    /// Says which database is unavailable.
    pub(in crate::store) fn at(self, database: &str) -> Self {
        match self {
            Self::Unavailable(why) => Self::Unavailable(format!("{database}: {why}")),
            other => other,
        }
    }

    /// Whether the whole transaction is lost, not only the statement's own unit.
    pub(in crate::store) const fn ends_transaction(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => from_database(&*error),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => Self::Unavailable(error.to_string()),
            sqlx::Error::PoolTimedOut => Self::Unavailable(
                "no connection in time: it can't be reached, or all connections are busy".into(),
            ),
            other => Self::Unexpected(other.to_string()),
        }
    }
}

fn from_database(error: &dyn DatabaseError) -> StoreError {
    let code = error.code().unwrap_or_default();
    // A constraint's message may quote values, as PostgreSQL's detail does; its name is enough.
    let text = match error.constraint() {
        Some(constraint) => format!("constraint {constraint} ({code})"),
        None => format!("{} ({code})", error.message()),
    };
    // PostgreSQL's classes are five characters; SQLite's (extended) result codes are numbers.
    match code.as_ref() {
        "40001" | "40P01" | "55P03" => StoreError::Race(text),
        "25P02" | "25P03" | "57014" => StoreError::Unavailable(text),
        code if code.len() == 5
            && (code.starts_with("08") || code.starts_with("53") || code.starts_with("57P")) =>
        {
            StoreError::Unavailable(text)
        }
        code => match code.parse::<u32>().map(|code| code & 0xff) {
            // BUSY, LOCKED, NOMEM, READONLY, INTERRUPT, IOERR, FULL, CANTOPEN
            Ok(5..=10 | 13 | 14) if code.len() < 5 => StoreError::Unavailable(text),
            _ => StoreError::Unexpected(text),
        },
    }
}
