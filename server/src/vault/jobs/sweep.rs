//! The sweep, job `meta-token-expiry`: asks each provider about its tokens once a day, and logs one line for each
//! token.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;

use crate::model::{Connection, ConnectionId, Status};
use crate::provider::Provider;
use crate::store::JobRun;
use crate::vault::error::VaultError;
use crate::vault::jobs::run::{Progress, RunFailed};
use crate::vault::state::Vault;
use crate::vault::token::inspection::{Applied, Findings, is_death};

/// Progress is noted after this many connections.
const PAGE: i64 = 100;
/// From this utilisation on, the sweep waits, because the callers' own calls come first.
const BUSY_PERCENT: f64 = 80.0;
/// How often a waiting sweep looks again.
const PAUSE: Duration = Duration::from_secs(1);

enum Swept {
    /// The provider replied. The connection's facts hold the reply.
    Asked(Box<Connection>),
    /// There was nothing to ask.
    Skipped(Box<Connection>),
    /// The provider could not be asked.
    Failed(Box<Connection>),
}

impl Vault {
    /// Asks the providers about every connection that is not revoked, from the run's position on.
    pub(super) async fn sweep(
        self: &Arc<Self>,
        run: &mut JobRun,
        progress: &Progress<'_>,
    ) -> Result<(), RunFailed> {
        if self.providers.names().is_empty() {
            return Ok(());
        }
        let mut tally: BTreeMap<String, u64> = BTreeMap::new();
        run.total = self.store.read().await.map_err(VaultError::from)?.count_unrevoked().await?;
        loop {
            let after = ConnectionId::parse(&run.position).ok();
            let page =
                self.store.read().await.map_err(VaultError::from)?.connections_after(after, PAGE).await?;
            let Some(last) = page.last().map(|(id, _)| *id) else { break };
            let found = i64::try_from(page.len()).unwrap_or(i64::MAX);
            let readable: Vec<_> = page.into_iter().filter_map(|(_, connection)| connection).collect();
            let lost = found - i64::try_from(readable.len()).unwrap_or(i64::MAX);
            (run.done, run.failed) = (run.done + lost, run.failed + lost);
            let mut swept = futures::stream::iter(readable)
                .map(|connection| {
                    let vault = Arc::clone(self);
                    async move { vault.sweep_one(connection).await }
                })
                .buffer_unordered(self.jobs.timetable.sweep_concurrency);
            while let Some(swept) = swept.next().await {
                run.done += 1;
                let (connection, outcome) = match &swept? {
                    Swept::Asked(connection) => (connection.clone(), "asked"),
                    Swept::Skipped(connection) => (connection.clone(), "left"),
                    Swept::Failed(connection) => {
                        run.failed += 1;
                        (connection.clone(), "failed")
                    }
                };
                *tally.entry(self.log_token(&connection, outcome)).or_default() += 1;
            }
            run.position = last.to_string();
            progress.note(run).await?;
        }
        tracing::info!(job = run.job, done = run.done, failed = run.failed, tokens = ?tally, "every token was checked");
        Ok(())
    }

    fn log_token(&self, connection: &Connection, outcome: &str) -> String {
        let (now, policy) = (self.clock.now(), self.policy());
        let health = connection.health(now, &policy);
        let days_left = health.badge().days_left;
        let name = health.status.as_str().to_ascii_lowercase();
        tracing::info!(connection = %connection.id, workspace = %connection.workspace, status = name, days_left, outcome, "token checked");
        name
    }

    async fn sweep_one(self: &Arc<Self>, connection: Connection) -> Result<Swept, RunFailed> {
        let status = connection.status(self.clock.now(), &self.policy());
        // An expired token can't come back, so asking would only cost calls.
        if status == Status::Expired {
            return Ok(Swept::Skipped(Box::new(connection)));
        }
        let Some(provider) = self.providers.get(&connection.provider).cloned() else {
            return Ok(Swept::Failed(Box::new(connection)));
        };
        for _ in 0..2 {
            self.may_change()?;
            self.wait_for_room(&provider).await?;
            let Some(held) =
                self.store.read().await.map_err(VaultError::from)?.held_token(connection.id).await?
            else {
                return Ok(Swept::Skipped(Box::new(connection)));
            };
            if held.sealed.is_none() || self.provider_of(&held.connection).is_err() {
                return Ok(Swept::Failed(Box::new(held.connection)));
            }
            let secret = match self.open_secret(&held).await {
                Ok(secret) => secret,
                Err(error) if error.is_outage() => return Err(error.into()),
                Err(_) => return Ok(Swept::Failed(Box::new(held.connection))),
            };
            let word = provider.inspect(&secret).await;
            let verdict = match &word {
                Ok(_) => true,
                Err(refusal) => is_death(refusal),
            };
            if !verdict {
                return Ok(Swept::Failed(Box::new(held.connection)));
            }
            let accounts = match &word {
                Ok(_) => provider.ad_accounts(&secret).await.ok(),
                Err(_) => None,
            };
            match self.apply_inspection(&held.connection, word, Findings::accounts(accounts)).await {
                Ok(Applied::Updated(connection)) => return Ok(Swept::Asked(connection)),
                Ok(Applied::Doubted) => return Ok(Swept::Failed(Box::new(held.connection))),
                // The connection changed meanwhile, so the reply is about an old token: ask again, once.
                Ok(Applied::Superseded) => {}
                Err(error) if error.is_outage() => return Err(error.into()),
                // One connection that can't be written must not end the sweep for all others.
                Err(error) => {
                    tracing::error!(connection = %connection.id, %error, "what the provider said about a token could not be written");
                    return Ok(Swept::Failed(Box::new(held.connection)));
                }
            }
        }
        Ok(Swept::Failed(Box::new(connection)))
    }

    /// Waits while the provider does not answer, or its rate limit is near.
    async fn wait_for_room(&self, provider: &Arc<dyn Provider>) -> Result<(), RunFailed> {
        loop {
            if self.work.stopping.is_cancelled() {
                return Err(RunFailed::Stopped);
            }
            let busy = provider.usage().is_some_and(|usage| {
                usage.utilization_percent >= BUSY_PERCENT || !usage.retry_after.is_zero()
            });
            if !busy && !self.is_held_back(provider) {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = self.work.stopping.cancelled() => {}
            }
        }
    }
}
