//! Table `provider_health`: one row for each provider and app, shared by all replicas.

use sqlx::types::Json;

use crate::model::{ConnectionId, ProviderId, Timestamp};
use crate::store::sql::{Session, StoreError, Tx};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderHealth {
    /// Whether calls are held back.
    pub open: bool,
    /// The name of what is wrong; empty while all is well.
    pub problem: String,
    pub changed_at: Timestamp,
    /// Until this time, deaths are not believed. It is kept for a while afterwards, when they are believed.
    pub held_until: Option<Timestamp>,
}

#[derive(sqlx::FromRow)]
struct Row {
    circuit: String,
    problem: String,
    changed_at: i64,
    held_until: Option<i64>,
}

impl From<Row> for ProviderHealth {
    fn from(row: Row) -> Self {
        Self {
            open: row.circuit == "OPEN",
            problem: row.problem,
            changed_at: Timestamp::from_micros(row.changed_at),
            held_until: row.held_until.map(Timestamp::from_micros),
        }
    }
}

impl Session {
    /// `None` if nothing was ever recorded for this app.
    pub async fn provider_health(
        &mut self,
        provider: &ProviderId,
        app_id: &str,
    ) -> Result<Option<ProviderHealth>, StoreError> {
        let row: Option<Row> = self
            .query(
                "SELECT circuit, problem, changed_at, held_until FROM provider_health
                  WHERE provider = $1 AND app_id = $2",
            )
            .bind(provider.as_str().to_owned())
            .bind(app_id.to_owned())
            .fetch_optional()
            .await?;
        Ok(row.map(ProviderHealth::from))
    }

    /// Whose tokens of an app are not revoked. Stops counting at `at_most` subjects and as many workspaces.
    pub async fn spread_of_app(
        &mut self,
        provider: &ProviderId,
        app_id: &str,
        at_most: i64,
    ) -> Result<Spread, StoreError> {
        self.query(
            "SELECT (SELECT count(*) FROM (
                         SELECT DISTINCT subject_key FROM ad_platform_connections
                          WHERE provider = $1 AND app_id = $2 AND standing <> 'REVOKED' LIMIT $3) AS a) AS subjects,
                    (SELECT count(*) FROM (
                         SELECT DISTINCT workspace_id FROM ad_platform_connections
                          WHERE provider = $1 AND app_id = $2 AND standing <> 'REVOKED' LIMIT $3) AS b) AS workspaces",
        )
        .bind(provider.as_str().to_owned())
        .bind(app_id.to_owned())
        .bind(at_most)
        .fetch_one()
        .await
    }
}

/// Over how many subjects and workspaces some connections are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Spread {
    /// A connection whose provider names no subject counts as one.
    pub subjects: i64,
    pub workspaces: i64,
}

impl Tx {
    /// Whose tokens of an app died before their end: those recorded since an instant, those that this transaction
    /// announces, and `dying`. Tokens that a data call refused once since then count too: if the whole app is refused,
    /// all of them are refused once before the first one dies.
    pub async fn spread_of_deaths(
        &mut self,
        provider: &ProviderId,
        app_id: &str,
        since: Timestamp,
        dying: ConnectionId,
    ) -> Result<Spread, StoreError> {
        let here = self.deaths_so_far().chain(std::iter::once(dying));
        let here: Vec<String> = here.map(|id| id.as_uuid().simple().to_string()).collect();
        self.query_for(
            "SELECT count(DISTINCT subject_key) AS subjects, count(DISTINCT workspace_id) AS workspaces
               FROM ad_platform_connections
              WHERE provider = $1 AND app_id = $2 AND connection_id IN (
                    SELECT connection_id FROM events
                     WHERE recorded_at >= $3 AND kind = 'INVALIDATED' AND provider = $1
                    UNION SELECT connection_id FROM ad_platform_connections
                     WHERE data_refused_at >= $3 AND standing = 'LIVE'
                    UNION SELECT unhex(value) FROM json_each($4))",
            "SELECT count(DISTINCT subject_key) AS subjects, count(DISTINCT workspace_id) AS workspaces
               FROM ad_platform_connections
              WHERE provider = $1 AND app_id = $2 AND connection_id IN (
                    SELECT connection_id FROM events
                     WHERE recorded_at >= $3 AND kind = 'INVALIDATED' AND provider = $1
                    UNION SELECT connection_id FROM ad_platform_connections
                     WHERE data_refused_at >= $3 AND standing = 'LIVE'
                    UNION SELECT value::uuid FROM jsonb_array_elements_text($4) AS here (value))",
        )
        .bind(provider.as_str().to_owned())
        .bind(app_id.to_owned())
        .bind(since.as_micros())
        .bind(Json(here))
        .fetch_one()
        .await
    }

    /// A provider's health, locked until the transaction ends.
    pub async fn lock_provider_health(
        &mut self,
        provider: &ProviderId,
        app_id: &str,
        now: Timestamp,
    ) -> Result<ProviderHealth, StoreError> {
        self.query(
            "INSERT INTO provider_health (provider, app_id, circuit, problem, changed_at)
             VALUES ($1, $2, 'CLOSED', '', $3) ON CONFLICT (provider, app_id) DO NOTHING",
        )
        .bind(provider.as_str().to_owned())
        .bind(app_id.to_owned())
        .bind(now.as_micros())
        .execute()
        .await?;
        let row: Row = self
            .query_for(
                "SELECT circuit, problem, changed_at, held_until FROM provider_health
                  WHERE provider = $1 AND app_id = $2",
                "SELECT circuit, problem, changed_at, held_until FROM provider_health
                  WHERE provider = $1 AND app_id = $2 FOR UPDATE",
            )
            .bind(provider.as_str().to_owned())
            .bind(app_id.to_owned())
            .fetch_one()
            .await?;
        Ok(row.into())
    }

    pub async fn put_provider_health(
        &mut self,
        provider: &ProviderId,
        app_id: &str,
        health: &ProviderHealth,
    ) -> Result<(), StoreError> {
        self.query(
            "UPDATE provider_health SET circuit = $3, problem = $4, changed_at = $5, held_until = $6
              WHERE provider = $1 AND app_id = $2",
        )
        .bind(provider.as_str().to_owned())
        .bind(app_id.to_owned())
        .bind(if health.open { "OPEN" } else { "CLOSED" })
        .bind(health.problem.clone())
        .bind(health.changed_at.as_micros())
        .bind(health.held_until.map(Timestamp::as_micros))
        .execute()
        .await?;
        Ok(())
    }

    /// Lets validations that wait after failures be tried again.
    pub async fn rearm_validations(
        &mut self,
        provider: &ProviderId,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        // The rows are locked in the order that every transaction uses.
        self.query_for(
            "UPDATE ad_platform_connections SET next_validation_at = $2
              WHERE provider = $1 AND failed_validations > 0 AND next_validation_at > $2",
            "UPDATE ad_platform_connections SET next_validation_at = $2
              WHERE connection_id IN (
                    SELECT connection_id FROM ad_platform_connections
                     WHERE provider = $1 AND failed_validations > 0 AND next_validation_at > $2
                     ORDER BY connection_id FOR UPDATE)",
        )
        .bind(provider.as_str().to_owned())
        .bind(now.as_micros())
        .execute()
        .await
    }

    /// Lets renewals that wait after failures be tried again, those with the nearest end first, ten a second. Others
    /// that are due within a quarter of an hour are not told from them.
    pub async fn rearm_renewals(
        &mut self,
        provider: &ProviderId,
        now: Timestamp,
        limit: i64,
    ) -> Result<u64, StoreError> {
        self.query(
            "UPDATE ad_platform_connections AS c SET next_renewal_at = $2 + (w.place - 1) * 100000
               FROM (SELECT connection_id, row_number() OVER (ORDER BY expires_sort) AS place
                       FROM ad_platform_connections
                      WHERE provider = $1 AND standing = 'LIVE' AND next_renewal_at > $2
                        AND (renewal_attempts > 0 OR next_renewal_at <= $2 + 900000000)
                      ORDER BY expires_sort LIMIT $3) AS w
              WHERE c.connection_id = w.connection_id AND c.next_renewal_at > $2 + (w.place - 1) * 100000",
        )
        .bind(provider.as_str().to_owned())
        .bind(now.as_micros())
        .bind(limit)
        .execute()
        .await
    }
}
