//! The vault's database as an outsider sees it: to compare rows, and to tamper with them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row, SqliteConnection};

use crate::machine::postgres::{Cluster, shared_cluster};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    Postgres,
}

impl Backend {
    pub const ALL: [Self; 2] = [Self::Sqlite, Self::Postgres];
}

/// Every row of the tables that a call may change, as text.
pub type Contents = BTreeMap<&'static str, Vec<String>>;

/// The database of one test.
#[derive(Debug, Clone)]
pub struct Database {
    backend: Backend,
    url: String,
    name: String,
}

fn output(command: &mut Command) -> String {
    let done = command.output().expect("the program runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("SQL is text")
}

impl Database {
    /// A SQLite file in `folder`, which the vault will create.
    pub fn sqlite(folder: &Path) -> Self {
        let file = folder.join("token-vault.db");
        Self { backend: Backend::Sqlite, url: format!("sqlite:{}", file.display()), name: String::new() }
    }

    /// A new database in the cluster.
    pub async fn postgres(cluster: &Cluster) -> Self {
        let name = format!("t{}", uuid::Uuid::new_v4().simple());
        let mut admin = PgConnection::connect(&cluster.url("postgres")).await.expect("the cluster runs");
        let sql = AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::query(sql).execute(&mut admin).await.expect("a superuser makes databases");
        admin.close().await.expect("a connection closes");
        Self { backend: Backend::Postgres, url: cluster.url(&name), name }
    }

    /// The only database of a cluster that one test owns.
    pub fn postgres_of_its_own(url: &str) -> Self {
        Self { backend: Backend::Postgres, url: url.to_owned(), name: "postgres".into() }
    }

    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// The value for `storage.url`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its name in the cluster; empty for SQLite.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn file(&self) -> PathBuf {
        PathBuf::from(self.url.trim_start_matches("sqlite:"))
    }

    /// The statements that recreate it, with all its rows.
    pub fn dump(&self) -> String {
        let text = match self.backend {
            Backend::Sqlite => {
                let mut sqlite = Command::new("sqlite3");
                output(sqlite.arg(self.file()).arg(".dump"))
            }
            Backend::Postgres => {
                let options = ["--inserts", "--no-owner", "--no-privileges", "--no-comments", "--dbname"];
                output(shared_cluster().command("pg_dump").args(options).arg(&self.url))
            }
        };
        // Lines with a leading backslash are commands for psql.
        let lines = text
            .lines()
            .filter(|line| !line.starts_with('\\') && !line.starts_with("--") && !line.is_empty());
        lines.map(|line| format!("{line}\n")).collect()
    }

    pub async fn sqlite_connection(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.file()).busy_timeout(Duration::from_secs(10));
        options.connect().await.expect("the file opens")
    }

    pub async fn postgres_connection(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.expect("the database answers")
    }

    /// Runs a statement, and returns the number of rows that it changed.
    pub async fn execute(&self, sql: impl Into<String>) -> u64 {
        let sql = AssertSqlSafe(sql.into());
        match self.backend {
            Backend::Sqlite => {
                let mut session = self.sqlite_connection().await;
                let done = sqlx::raw_sql(sql).execute(&mut session).await.expect("good SQL");
                session.close().await.expect("a connection closes");
                done.rows_affected()
            }
            Backend::Postgres => {
                let mut session = self.postgres_connection().await;
                let done = sqlx::raw_sql(sql).execute(&mut session).await.expect("good SQL");
                session.close().await.expect("a connection closes");
                done.rows_affected()
            }
        }
    }

    /// The first column of every row, which must hold text.
    pub async fn texts(&self, sql: impl Into<String>) -> Vec<String> {
        let sql = AssertSqlSafe(sql.into());
        match self.backend {
            Backend::Sqlite => {
                let mut session = self.sqlite_connection().await;
                let rows = sqlx::query(sql).fetch_all(&mut session).await.expect("good SQL");
                session.close().await.expect("a connection closes");
                rows.iter().map(|row| row.get(0)).collect()
            }
            Backend::Postgres => {
                let mut session = self.postgres_connection().await;
                let rows = sqlx::query(sql).fetch_all(&mut session).await.expect("good SQL");
                session.close().await.expect("a connection closes");
                rows.iter().map(|row| row.get(0)).collect()
            }
        }
    }

    pub async fn count(&self, sql: &str) -> u64 {
        let texts = self.texts(format!("SELECT CAST(({sql}) AS TEXT)")).await;
        texts.first().and_then(|number| number.parse().ok()).expect("a count is one number")
    }

    /// Writes a UUID as a literal of this database.
    pub fn uuid(&self, id: &str) -> String {
        match self.backend {
            Backend::Sqlite => format!("x'{}'", id.replace('-', "")),
            Backend::Postgres => format!("'{id}'::uuid"),
        }
    }

    /// The expression that converts a UUID column to 32 hexadecimal characters.
    pub fn hex_of(&self, column: &str) -> String {
        match self.backend {
            Backend::Sqlite => format!("lower(hex({column}))"),
            Backend::Postgres => format!("replace({column}::text, '-', '')"),
        }
    }

    /// `table.column` of every column, except those of the migrations' own table.
    pub async fn columns(&self) -> Vec<String> {
        let sql = match self.backend {
            Backend::Sqlite => {
                "SELECT t.name || '.' || c.name FROM sqlite_schema t, pragma_table_info(t.name) c
                  WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%' AND t.name <> '_sqlx_migrations' ORDER BY 1"
            }
            Backend::Postgres => {
                "SELECT table_name || '.' || column_name FROM information_schema.columns
                  WHERE table_schema = 'public' AND table_name <> '_sqlx_migrations'
                  ORDER BY (table_name || '.' || column_name) COLLATE \"C\""
            }
        };
        let mut columns = self.texts(sql).await;
        columns.sort();
        columns
    }

    /// Every row of a table as text, in a fixed order.
    pub async fn rows(&self, table: &str) -> Vec<String> {
        let mut rows = match self.backend {
            Backend::Sqlite => {
                let names = self.texts(format!("SELECT name FROM pragma_table_info('{table}')")).await;
                let quoted: Vec<_> = names.iter().map(|name| format!("quote(\"{name}\")")).collect();
                self.texts(format!("SELECT {} FROM {table}", quoted.join(" || '|' || "))).await
            }
            Backend::Postgres => self.texts(format!("SELECT t::text FROM {table} t")).await,
        };
        rows.sort();
        rows
    }

    /// Every row that a call may change. A denied call must leave them unchanged.
    pub async fn contents(&self) -> Contents {
        let tables = [
            "vault",
            "workspaces",
            "workspace_keys",
            "ad_platform_connections",
            "connection_secrets",
            "connection_ad_accounts",
            "requests",
            "changes",
        ];
        let mut contents = Contents::new();
        for table in tables {
            contents.insert(table, self.rows(table).await);
        }
        // A provider's own troubles are announced whenever they occur, even during a call that is denied.
        contents.insert("incidents", self.rows("incidents").await);
        contents.entry("incidents").and_modify(|rows| rows.retain(|row| !row.contains("provider:")));
        let keys = "SELECT api_key_id || ' ' || principal || ' ' || role || ' ' || coalesce(revoked_at, 0)
                      FROM api_keys ORDER BY 1";
        contents.insert("api_keys", self.texts(keys).await);
        contents
    }
}
