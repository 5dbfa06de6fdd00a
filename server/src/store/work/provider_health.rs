//! Table `provider_health`: one row for each provider and app, shared by all replicas.

use crate::model::{ProviderId, Timestamp};
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

    /// How many tokens of a provider died before their end, as recorded since an instant.
    pub async fn count_deaths(&mut self, provider: &ProviderId, since: Timestamp) -> Result<i64, StoreError> {
        let row: Count = self
            .query(
                "SELECT count(DISTINCT connection_id) AS n FROM events
                  WHERE recorded_at >= $1 AND kind = 'INVALIDATED' AND provider = $2",
            )
            .bind(since.as_micros())
            .bind(provider.as_str().to_owned())
            .fetch_one()
            .await?;
        Ok(row.n)
    }

    /// How many connections of an app are not revoked. Stops counting at `at_most`.
    pub async fn count_connections_of_app(
        &mut self,
        provider: &ProviderId,
        app_id: &str,
        at_most: i64,
    ) -> Result<i64, StoreError> {
        let row: Count = self
            .query(
                "SELECT count(*) AS n FROM (
                     SELECT 1 FROM ad_platform_connections
                      WHERE provider = $1 AND app_id = $2 AND standing <> 'REVOKED' LIMIT $3) AS counted",
            )
            .bind(provider.as_str().to_owned())
            .bind(app_id.to_owned())
            .bind(at_most)
            .fetch_one()
            .await?;
        Ok(row.n)
    }
}

#[derive(sqlx::FromRow)]
struct Count {
    n: i64,
}

impl Tx {
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
        self.query(
            "UPDATE ad_platform_connections SET next_validation_at = $2
              WHERE provider = $1 AND failed_validations > 0 AND next_validation_at > $2",
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
