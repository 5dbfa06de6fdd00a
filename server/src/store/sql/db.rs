//! One SQL text for two databases: a thin enum over the two sqlx drivers. Only this file, `address.rs` and the few
//! calls of `query_for` name a backend.

use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgPoolOptions, PgRow};
use sqlx::query::Query as SqlxQuery;
use sqlx::sqlite::{SqliteArguments, SqlitePoolOptions, SqliteRow};
use sqlx::{Encode, FromRow, PgPool, Postgres, Sqlite, SqlitePool, Type};

use super::circuit::Circuit;
use super::{Address, StoreError};

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

/// A row that both databases can return. `#[derive(FromRow)]` is enough.
pub(in crate::store) trait Record:
    for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}
impl<T> Record for T where T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// A file, for one process.
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

/// Connections to one database.
#[derive(Clone)]
pub(in crate::store) struct Pool {
    pub(in crate::store) driver: Driver,
    address: Arc<Address>,
    circuit: Option<Circuit>,
}

#[derive(Clone)]
pub(in crate::store) enum Driver {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// How long a caller waits for a connection.
const PATIENCE: Duration = Duration::from_secs(3);

impl Pool {
    /// Opens lazily: the first session finds out whether the database can be reached.
    pub(in crate::store) fn new(address: &Arc<Address>, size: u32) -> Self {
        let driver = match &**address {
            Address::Sqlite { options, .. } => Driver::Sqlite(
                SqlitePoolOptions::new()
                    .max_connections(size)
                    .acquire_timeout(PATIENCE)
                    .idle_timeout(None)
                    .max_lifetime(None)
                    .connect_lazy_with((**options).clone()),
            ),
            Address::Postgres { options } => Driver::Postgres(
                PgPoolOptions::new()
                    .max_connections(size)
                    .acquire_timeout(PATIENCE)
                    .connect_lazy_with((**options).clone()),
            ),
        };
        Self { driver, address: Arc::clone(address), circuit: None }
    }

    /// Nobody waits for this pool while `circuit` is open.
    pub(in crate::store) fn behind(self, circuit: &Circuit) -> Self {
        Self { circuit: Some(circuit.clone()), ..self }
    }

    pub(in crate::store) const fn backend(&self) -> Backend {
        match self.driver {
            Driver::Sqlite(_) => Backend::Sqlite,
            Driver::Postgres(_) => Backend::Postgres,
        }
    }

    pub(in crate::store) fn address(&self) -> &Address {
        &self.address
    }

    /// Whether the database is known to be away.
    pub(in crate::store) fn is_away(&self) -> bool {
        self.circuit.as_ref().is_some_and(Circuit::is_open)
    }

    pub(in crate::store) async fn session(&self) -> Result<Session, StoreError> {
        let connection = async {
            match &self.driver {
                Driver::Sqlite(pool) => pool.acquire().await.map(Connection::Sqlite),
                Driver::Postgres(pool) => pool.acquire().await.map(Connection::Postgres),
            }
        };
        let connection = match &self.circuit {
            None => connection.await.map_err(StoreError::from),
            Some(circuit) => match circuit.check() {
                Ok(()) => circuit.guard(connection).await,
                Err(error) => Err(error),
            },
        };
        let connection = connection.map_err(|error| match error {
            // A server that does not let us in now is away too; at the start, `reach` says what to correct.
            StoreError::Unexpected(why) => StoreError::Unavailable(why),
            other => other,
        });
        let connection = connection.map_err(|error| error.at(&self.address.name()))?;
        Ok(Session { connection, circuit: self.circuit.clone() })
    }

    pub(in crate::store) async fn close(&self) {
        match &self.driver {
            Driver::Sqlite(pool) => pool.close().await,
            Driver::Postgres(pool) => pool.close().await,
        }
    }
}

/// One connection to the database, for reads. Writes need a [`Tx`](super::Tx).
pub struct Session {
    connection: Connection,
    circuit: Option<Circuit>,
}

enum Connection {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(PoolConnection<Postgres>),
}

impl Session {
    /// Starts a statement. `&'static str` only: SQL is never built from input.
    pub(in crate::store) fn query(&mut self, sql: &'static str) -> Query<'_> {
        self.query_for(sql, sql)
    }

    /// A statement whose text must differ.
    pub(in crate::store) fn query_for(&mut self, sqlite: &'static str, postgres: &'static str) -> Query<'_> {
        let circuit = self.circuit.as_ref();
        let statement = match &mut self.connection {
            Connection::Sqlite(session) => Statement::Sqlite(sqlx::query(sqlite), session),
            Connection::Postgres(session) => Statement::Postgres(sqlx::query(postgres), session),
        };
        Query { statement, circuit }
    }

    pub(in crate::store) const fn backend(&self) -> Backend {
        match self.connection {
            Connection::Sqlite(_) => Backend::Sqlite,
            Connection::Postgres(_) => Backend::Postgres,
        }
    }

    /// Closes the connection: its transaction, if any, ends with it.
    pub(in crate::store) fn abandon(self) {
        match self.connection {
            Connection::Sqlite(session) => drop(session.detach()),
            Connection::Postgres(session) => drop(session.detach()),
        }
    }
}

/// A statement with its parameters.
pub(in crate::store) struct Query<'c> {
    statement: Statement<'c>,
    circuit: Option<&'c Circuit>,
}

enum Statement<'c> {
    Sqlite(SqlxQuery<'static, Sqlite, SqliteArguments>, &'c mut PoolConnection<Sqlite>),
    Postgres(SqlxQuery<'static, Postgres, PgArguments>, &'c mut PoolConnection<Postgres>),
}

/// Runs a statement unless the circuit is open, or opens meanwhile. Its connection is then of no use to others: a reply
/// may still be under way.
macro_rules! run {
    ($self:ident, |$query:ident, $session:ident| $run:expr) => {{
        let Query { statement, circuit } = $self;
        if let Some(circuit) = circuit {
            circuit.check()?;
        }
        match statement {
            Statement::Sqlite($query, $session) => run!(circuit, $session, $run),
            Statement::Postgres($query, $session) => run!(circuit, $session, $run),
        }
    }};
    ($circuit:ident, $session:ident, $run:expr) => {
        match $circuit {
            None => $run.await?,
            Some(circuit) => {
                let outcome = circuit.guard($run).await;
                if circuit.is_open() {
                    $session.close_on_drop();
                }
                outcome?
            }
        }
    };
}

impl Query<'_> {
    pub(in crate::store) fn bind(self, value: impl Value) -> Self {
        let statement = match self.statement {
            Statement::Sqlite(query, session) => Statement::Sqlite(query.bind(value), session),
            Statement::Postgres(query, session) => Statement::Postgres(query.bind(value), session),
        };
        Self { statement, ..self }
    }

    /// Makes PostgreSQL plan it for these parameters, instead of once for all.
    pub(in crate::store) fn planned_anew(self) -> Self {
        let statement = match self.statement {
            Statement::Sqlite(query, session) => Statement::Sqlite(query, session),
            Statement::Postgres(query, session) => Statement::Postgres(query.persistent(false), session),
        };
        Self { statement, ..self }
    }

    /// Returns how many rows it touched.
    pub(in crate::store) async fn execute(self) -> Result<u64, StoreError> {
        Ok(run!(self, |query, session| async {
            query.execute(&mut **session).await.map(|done| done.rows_affected())
        }))
    }

    pub(in crate::store) async fn fetch_optional<T: Record>(self) -> Result<Option<T>, StoreError> {
        Ok(run!(self, |query, session| async {
            query.fetch_optional(&mut **session).await?.map(|row| T::from_row(&row)).transpose()
        }))
    }

    pub(in crate::store) async fn fetch_one<T: Record>(self) -> Result<T, StoreError> {
        Ok(run!(self, |query, session| async { T::from_row(&query.fetch_one(&mut **session).await?) }))
    }

    pub(in crate::store) async fn fetch_all<T: Record>(self) -> Result<Vec<T>, StoreError> {
        Ok(run!(self, |query, session| async {
            query
                .fetch_all(&mut **session)
                .await?
                .iter()
                .map(|row| T::from_row(row))
                .collect::<Result<Vec<T>, sqlx::Error>>()
        }))
    }
}
