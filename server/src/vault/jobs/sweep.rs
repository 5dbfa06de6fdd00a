//! The sweep, job `meta-token-expiry`: asks each provider about the tokens that are due, and logs one line for each
//! token. Each slot makes all tokens due; between the slots, a run examines those that became due.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;

use crate::model::{Connection, ConnectionId, ProviderId, Refusal, Schedule, Status, Timestamp};
use crate::provider::{Provider, Work};
use crate::store::{Abort, DueValidation, JobRun, Needs};
use crate::vault::error::VaultError;
use crate::vault::jobs::run::{Progress, RunFailed};
use crate::vault::pass::{Answer, Hearing, Passes, Tried};
use crate::vault::provider_health::DOUBTED_FOR;
use crate::vault::state::Vault;
use crate::vault::token::inspection::{Applied, Findings, is_death};
use crate::vault::token::judges;

/// The position of a run that makes nothing due by itself.
pub(in crate::vault) const ONLY_DUE: &str = "due";
/// Progress is noted after this many connections.
const PAGE: i64 = 100;
/// Connections that are made due in one transaction.
const MADE_DUE_AT_ONCE: i64 = 1_000;
/// The longest wait of a connection that could not be examined: all of them are found among what is due by then.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);
/// From this utilisation on, the sweep waits, because the callers' own calls come first.
const BUSY_PERCENT: f64 = 80.0;
/// How often a waiting sweep looks again.
const PAUSE: Duration = Duration::from_secs(1);

/// What became of one connection.
enum Outcome {
    /// The provider replied. The connection's facts hold the reply.
    Asked,
    /// There is nothing to ask, and will not be.
    Ended,
    /// The token seems dead, but too many died at once to believe it.
    Doubted,
    /// The provider's refusal says nothing about the token.
    Refused(Refusal),
    /// Something of the vault's own is in the way.
    Failed,
}

struct Swept {
    connection: Box<Connection>,
    outcome: Outcome,
}

impl Swept {
    fn new(connection: Connection, outcome: Outcome) -> Self {
        Self { connection: Box::new(connection), outcome }
    }

    fn answer(&self) -> Answer<'_> {
        match &self.outcome {
            Outcome::Asked | Outcome::Doubted => Answer::Given,
            Outcome::Refused(refusal) => Answer::Refused(refusal),
            Outcome::Ended | Outcome::Failed => Answer::None,
        }
    }
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
        let passes = Passes::begin(self, Work::Validation, self.jobs.timetable.sweep_concurrency).await?;
        let mut tally: BTreeMap<String, u64> = BTreeMap::new();
        // One whose schedule can't be written must not be asked about for ever.
        let mut seen = HashSet::new();
        let mut put_off = 0;
        loop {
            let now = self.clock.now();
            let mut session = self.store.read().await?;
            let due = session.count_due_validations(now).await?;
            let mut page = session.due_validations(now, &passes.held(), PAGE).await?;
            drop(session);
            page.retain(|due| seen.insert((due.id, due.due_at)));
            run.total = run.total.max(run.done + due);
            progress.note(run).await?;
            if page.is_empty() {
                break;
            }
            let passes = &passes;
            let mut swept = futures::stream::iter(page)
                .map(|due| async move { self.sweep_due(passes, due).await })
                .buffer_unordered(passes.at_once());
            while let Some(swept) = swept.next().await {
                let Some(swept) = swept? else { continue };
                let (status, is_put_off) = swept;
                run.done += 1;
                if is_put_off {
                    (run.failed, put_off) = (run.failed + 1, put_off + 1);
                }
                *tally.entry(status).or_default() += 1;
            }
        }
        let why = passes.end().await;
        let left = self.store.read().await?.count_due_validations(self.clock.now()).await?;
        // What became due just now is the next run's.
        if passes.held().is_empty() {
            // What a killed process had done since its last note was not counted.
            (run.remaining, run.done) = (put_off, run.total);
        } else {
            run.remaining = put_off + left;
            run.total = run.total.max(run.done + left);
        }
        if run.remaining == 0 {
            tracing::info!(job = run.job, done = run.done, tokens = ?tally, "every token was checked");
            return Ok(());
        }
        tracing::warn!(job = run.job, done = run.done, remaining = run.remaining, tokens = ?tally, why, "not every token was checked");
        Err(RunFailed::Incomplete(why))
    }

    /// Works on one due connection. Returns its status, and whether it was put off; `None` if its provider is in trouble
    /// and nothing was done.
    async fn sweep_due(
        self: &Arc<Self>,
        passes: &Passes,
        due: DueValidation,
    ) -> Result<Option<(String, bool)>, RunFailed> {
        let Some(connection) = due.connection else {
            let next_validation_at = Some(self.clock.now() + LONGEST_WAIT);
            let schedule = Schedule { next_validation_at, ..Schedule::default() };
            self.write_schedule(due.id, due.due_at, schedule).await?;
            return Ok(Some(("unreadable".to_owned(), true)));
        };
        let provider = connection.provider.clone();
        let work = |hearing| Box::pin(self.sweep_one(connection, hearing));
        let swept = passes
            .work_on(&provider, due.id, work, |swept| swept.as_ref().map_or(Answer::None, Swept::answer))
            .await;
        let Some(swept) = swept.transpose()? else { return Ok(None) };
        self.reschedule(&swept).await?;
        let is_put_off = !matches!(swept.outcome, Outcome::Asked | Outcome::Ended);
        Ok(Some((self.log_token(&swept), is_put_off)))
    }

    /// Tries to validate one connection that waits after a failure, or is due: the first about which the provider can be
    /// asked.
    pub(super) async fn try_validation(self: &Arc<Self>, provider: &ProviderId) -> Result<Tried, VaultError> {
        let now = self.clock.now();
        let others: Vec<_> =
            self.providers.iter().map(|(other, _)| other.id().clone()).filter(|id| id != provider).collect();
        // This must not wait for room: nobody else would look after the providers meanwhile.
        if self.providers.get(provider).is_some_and(|provider| is_busy(&**provider)) {
            return Ok(Tried::Fails);
        }
        let waiting = self.store.read().await?.due_validations(now + LONGEST_WAIT, &others, PAGE).await?;
        let all = i64::try_from(waiting.len()).is_ok_and(|count| count < PAGE);
        for connection in waiting.into_iter().filter_map(|due| due.connection) {
            let swept = match Box::pin(self.sweep_one(connection, Arc::default())).await {
                Ok(swept) => swept,
                Err(RunFailed::Error(error)) => return Err(error),
                Err(RunFailed::Stopped | RunFailed::Incomplete(_)) => return Ok(Tried::Fails),
            };
            self.reschedule(&swept).await?;
            match swept.outcome {
                Outcome::Asked | Outcome::Doubted => return Ok(Tried::Works),
                Outcome::Refused(_) => return Ok(Tried::Fails),
                // Nobody was asked.
                Outcome::Ended | Outcome::Failed => {}
            }
        }
        Ok(if all { Tried::NothingToTry } else { Tried::Fails })
    }

    /// Writes when a connection is due again. The provider's reply has done so already.
    async fn reschedule(&self, swept: &Swept) -> Result<(), VaultError> {
        let now = self.clock.now();
        let Some(due_at) = swept.connection.schedule.next_validation_at else { return Ok(()) };
        let mut after = (*swept.connection).clone();
        match &swept.outcome {
            Outcome::Asked => return Ok(()),
            Outcome::Ended => after.schedule.next_validation_at = None,
            Outcome::Doubted => after.schedule.next_validation_at = Some(now + DOUBTED_FOR),
            Outcome::Refused(_) | Outcome::Failed => after.note_not_validated(now),
        }
        self.write_schedule(after.id, due_at, after.schedule).await
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

    fn log_token(&self, swept: &Swept) -> String {
        let (now, policy) = (self.clock.now(), self.policy());
        let connection = &swept.connection;
        let health = connection.health(now, &policy);
        let days_left = health.badge().days_left;
        let name = health.status.as_str().to_ascii_lowercase();
        let outcome = match &swept.outcome {
            Outcome::Asked => "asked",
            Outcome::Ended => "left",
            Outcome::Doubted => "doubted",
            Outcome::Refused(_) | Outcome::Failed => "failed",
        };
        tracing::info!(connection = %connection.id, workspace = %connection.workspace, status = name, days_left, outcome, "token checked");
        if let Outcome::Refused(refusal) = &swept.outcome {
            tracing::warn!(connection = %connection.id, provider_code = refusal.provider_code(), detail = %refusal.detail, "the provider could not be asked about a token; it stays due");
        }
        name
    }

    async fn sweep_one(
        self: &Arc<Self>,
        connection: Connection,
        hearing: Arc<Hearing>,
    ) -> Result<Swept, RunFailed> {
        let status = connection.status(self.clock.now(), &self.policy());
        // An expired token can't come back, so asking would only cost calls.
        if matches!(status, Status::Expired | Status::Revoked) {
            return Ok(Swept::new(connection, Outcome::Ended));
        }
        let Some(provider) = self.providers.get(&connection.provider).cloned() else {
            return Ok(Swept::new(connection, Outcome::Failed));
        };
        for _ in 0..2 {
            self.may_change()?;
            self.wait_for_room(&provider).await?;
            let Some(held) = self.store.read().await?.held_token(connection.id).await? else {
                return Ok(Swept::new(connection, Outcome::Ended));
            };
            if held.sealed.is_none() {
                return Ok(Swept::new(held.connection, Outcome::Ended));
            }
            if self.provider_of(&held.connection).is_err() {
                return Ok(Swept::new(held.connection, Outcome::Failed));
            }
            let secret = match self.open_secret(&held).await {
                Ok(secret) => secret,
                Err(error) if error.is_outage() => return Err(error.into()),
                Err(_) => return Ok(Swept::new(held.connection, Outcome::Failed)),
            };
            let word = provider.inspect(&secret).await;
            if let Err(refusal) = &word
                && !is_death(refusal)
            {
                let refusal = refusal.clone();
                return Ok(Swept::new(held.connection, Outcome::Refused(refusal)));
            }
            let findings = match &word {
                Ok(inspected) => {
                    let (facts, known) =
                        (inspected.facts.onto(&held.connection.facts), held.connection.seen.listing);
                    Findings::of_all(judges::list_or_try(&*provider, &secret, &facts, known).await)
                }
                Err(_) => Findings::default(),
            };
            // The inspector alone may answer while nobody's data can be read.
            let unanswered = findings.data.unanswered().cloned();
            if unanswered.is_none() {
                hearing.replied();
            }
            match self.apply_inspection(&held.connection, word, findings).await {
                Ok(Applied::Updated(connection)) => {
                    let outcome = unanswered.map_or(Outcome::Asked, Outcome::Refused);
                    return Ok(Swept::new(*connection, outcome));
                }
                Ok(Applied::Doubted) => return Ok(Swept::new(held.connection, Outcome::Doubted)),
                // The connection changed meanwhile, so the reply is about an old token: ask again, once.
                Ok(Applied::Superseded) => {}
                Err(error) if error.is_outage() => return Err(error.into()),
                // One connection that can't be written must not end the sweep for all others.
                Err(error) => {
                    tracing::error!(connection = %connection.id, %error, "what the provider said about a token could not be written");
                    return Ok(Swept::new(held.connection, Outcome::Failed));
                }
            }
        }
        Ok(Swept::new(connection, Outcome::Failed))
    }

    /// Waits while the provider's rate limit is near, because the callers' own calls come first.
    async fn wait_for_room(&self, provider: &Arc<dyn Provider>) -> Result<(), RunFailed> {
        loop {
            if self.work.stopping.is_cancelled() {
                return Err(RunFailed::Stopped);
            }
            if !is_busy(&**provider) || self.is_held_back(provider) {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = self.work.stopping.cancelled() => {}
            }
        }
    }
}

/// Whether a limit of the provider is reached or near.
fn is_busy(provider: &dyn Provider) -> bool {
    provider
        .usage()
        .is_some_and(|usage| usage.utilization_percent >= BUSY_PERCENT || !usage.retry_after.is_zero())
}
