//! The sweep, job `meta-token-expiry`: asks each provider about its tokens once a day, and logs one line for each
//! token.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;

use crate::model::{Connection, ConnectionId, Schedule, Status, Timestamp};
use crate::provider::Provider;
use crate::store::{Abort, DueValidation, JobRun, Needs};
use crate::vault::error::VaultError;
use crate::vault::jobs::run::{Progress, RunFailed};
use crate::vault::state::Vault;
use crate::vault::token::inspection::{Applied, Findings, is_death};
use crate::vault::token::judges;

/// The position of a run that makes nothing due by itself.
pub(in crate::vault) const ONLY_DUE: &str = "due";
/// Progress is noted after this many connections.
const PAGE: i64 = 100;
/// Connections that are made due in one transaction.
const MADE_DUE_AT_ONCE: i64 = 1_000;
/// From this utilisation on, the sweep waits, because the callers' own calls come first.
const BUSY_PERCENT: f64 = 80.0;
/// How often a waiting sweep looks again.
const PAUSE: Duration = Duration::from_secs(1);
/// The wait before a row that can't be read is tried again.
const UNREADABLE: Duration = Duration::from_secs(60 * 60);

enum Swept {
    /// The provider replied. The connection's facts hold the reply.
    Asked(Box<Connection>),
    /// There was nothing to ask.
    Skipped(Box<Connection>),
    /// The provider could not be asked.
    Failed(Box<Connection>),
}

impl Vault {
    /// Asks the providers about every connection that is due. A run that was not begun for what is due makes all
    /// connections due first.
    pub(super) async fn sweep(
        self: &Arc<Self>,
        run: &mut JobRun,
        progress: &Progress<'_>,
    ) -> Result<(), RunFailed> {
        if self.providers.names().is_empty() {
            return Ok(());
        }
        if run.position != ONLY_DUE {
            self.make_all_due(run.started_at).await?;
            run.position = ONLY_DUE.to_owned();
        }
        let mut tally: BTreeMap<String, u64> = BTreeMap::new();
        // One whose schedule can't be written must not be asked about for ever.
        let mut seen = HashSet::new();
        loop {
            let now = self.clock.now();
            let mut session = self.store.read().await?;
            let due = session.count_due_validations(now).await?;
            let mut page = session.due_validations(now, PAGE).await?;
            drop(session);
            page.retain(|due| seen.insert((due.id, due.due_at)));
            if page.is_empty() {
                break;
            }
            run.total = run.done + due;
            progress.note(run).await?;
            let mut readable = Vec::with_capacity(page.len());
            for due in page {
                match &due.connection {
                    Some(connection) => readable.push(connection.clone()),
                    None => {
                        (run.done, run.failed) = (run.done + 1, run.failed + 1);
                        self.put_off_unreadable(&due).await?;
                    }
                }
            }
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
                    Swept::Skipped(connection) => {
                        self.reschedule(connection, |connection, _| {
                            connection.schedule.next_validation_at = None;
                        })
                        .await?;
                        (connection.clone(), "left")
                    }
                    Swept::Failed(connection) => {
                        run.failed += 1;
                        self.reschedule(connection, Connection::note_not_validated).await?;
                        (connection.clone(), "failed")
                    }
                };
                *tally.entry(self.log_token(&connection, outcome)).or_default() += 1;
            }
        }
        run.total = run.done;
        tracing::info!(job = run.job, done = run.done, failed = run.failed, tokens = ?tally, "every token was checked");
        Ok(())
    }

    /// Makes every connection due that has not been validated since `since`.
    async fn make_all_due(&self, since: Timestamp) -> Result<(), VaultError> {
        loop {
            let now = self.clock.now();
            let made = self
                .store
                .write_with(Needs { alone: true, ..Needs::default() }, move |tx| {
                    Box::pin(async move {
                        Ok::<_, Abort<VaultError>>(tx.make_due(since, now, MADE_DUE_AT_ONCE).await?)
                    })
                })
                .await?
                .0;
            if made == 0 {
                return Ok(());
            }
        }
    }

    /// Changes when a connection is validated next, unless it was made due meanwhile.
    async fn reschedule(
        &self,
        connection: &Connection,
        change: impl FnOnce(&mut Connection, Timestamp),
    ) -> Result<(), VaultError> {
        let Some(due_at) = connection.schedule.next_validation_at else { return Ok(()) };
        let mut after = connection.clone();
        change(&mut after, self.clock.now());
        self.write_schedule(connection.id, due_at, after.schedule).await
    }

    async fn put_off_unreadable(&self, due: &DueValidation) -> Result<(), VaultError> {
        let next_validation_at = Some(self.clock.now() + UNREADABLE);
        let schedule = Schedule { next_validation_at, ..Schedule::default() };
        self.write_schedule(due.id, due.due_at, schedule).await
    }

    async fn write_schedule(
        &self,
        id: ConnectionId,
        due_at: Timestamp,
        schedule: Schedule,
    ) -> Result<(), VaultError> {
        self.store
            .write(move |tx| {
                Box::pin(async move {
                    Ok::<_, Abort<VaultError>>(tx.reschedule_validation(id, due_at, &schedule).await?)
                })
            })
            .await?;
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
            let findings = match &word {
                Ok(inspected) => {
                    let (listed, data) = judges::list_or_try(&*provider, &secret, &inspected.facts).await;
                    Findings { accounts: listed.ok(), data, ..Findings::default() }
                }
                Err(_) => Findings::default(),
            };
            match self.apply_inspection(&held.connection, word, findings).await {
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
