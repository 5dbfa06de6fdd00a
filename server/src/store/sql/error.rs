//! How storage fails.

use sqlx::error::DatabaseError;

/// A failure of storage. Texts are for the log; none holds a parameter's value.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database can't be reached now; nothing is known to have changed.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The transaction lost a race (deadlock, serialization) and may run again at once.
    #[error("the transaction lost a race: {0}")]
    Race(String),
    /// Somebody else held a lock for too long.
    #[error("a lock was not free in time: {0}")]
    Locked(String),
    /// One statement took too long. That says nothing about others.
    #[error("a statement took too long: {0}")]
    Slow(String),
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
    from_code(&code)(text)
}

/// What a code means. PostgreSQL's are five characters, SQLite's (extended) result codes are numbers.
fn from_code(code: &str) -> fn(String) -> StoreError {
    match code {
        "40001" | "40P01" => StoreError::Race,
        "55P03" => StoreError::Locked,
        "57014" => StoreError::Slow,
        // The transaction failed or timed out; the database only reads, as a standby does.
        "25P02" | "25P03" | "25006" => StoreError::Unavailable,
        // No connection, no resources (a full disk), shutting down, errors of the system (of a disk).
        code if code.len() == 5 && ["08", "53", "57P", "58"].iter().any(|class| code.starts_with(class)) => {
            StoreError::Unavailable
        }
        code => match code.parse::<u32>().map(|code| code & 0xff) {
            // BUSY, LOCKED, NOMEM, READONLY, INTERRUPT, IOERR, FULL, CANTOPEN
            Ok(5..=10 | 13 | 14) if code.len() < 5 => StoreError::Unavailable,
            _ => StoreError::Unexpected,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_our_fault_may_be_tried_again() {
        let word = |code| match from_code(code)(String::new()) {
            StoreError::Unavailable(_) => "away",
            StoreError::Race(_) => "race",
            StoreError::Locked(_) => "locked",
            StoreError::Slow(_) => "slow",
            StoreError::Unexpected(_) => "bug",
            other => panic!("{other}"),
        };
        let table = [
            // PostgreSQL: connections, resources, shutdowns, the system, a standby, the transaction itself.
            ("08006 08003 53100 53200 53300 57P01 57P02 57P03 57P05 58000 58030 58P01", "away"),
            ("25006 25P02 25P03", "away"),
            ("40001 40P01", "race"),
            ("55P03", "locked"),
            ("57014", "slow"),
            ("22001 23505 25001 42703 42P01 54000 XX000 XX001", "bug"),
            // SQLite: locked by another process, read-only, an error of the disk (of its shared memory), full.
            ("5 261 517 6 7 8 264 1032 9 10 266 4874 8458 13 14 270", "away"),
            ("1 11 19 787 2067 26", "bug"),
        ];
        for (codes, means) in table {
            for code in codes.split(' ') {
                assert_eq!(word(code), means, "{code}");
            }
        }
    }
}
