//! Renewal, job `rotation`: exchanges a token before it ends, and replaces it once the new one has proved to live
//! longer. If the provider does not renew it, a person is asked in time. `model/token/renewal.rs` computes when a
//! renewal is due.

mod attempt;

use std::collections::HashSet;
use std::sync::Arc;

use futures::StreamExt;

use crate::model::{ConnectionId, Expiry, ProviderId, Refusal};
use crate::provider::Work;
use crate::store::{Abort, JobRun};
use crate::vault::error::VaultError;
use crate::vault::jobs::run::{Progress, RunFailed};
use crate::vault::pass::{Answer, Passes, Tried};
use crate::vault::state::Vault;

/// Due connections taken in one batch.
const BATCH: i64 = 64;
/// The most exchanges at once in this process.
const AT_ONCE: usize = 4;

/// How an attempt ended.
#[derive(Debug, PartialEq, Eq)]
enum Attempt {
    /// The expiry moved, or there was nothing to do.
    Done,
    /// The provider replied, and the expiry did not move.
    Failed,
    /// Something of the vault's own is in the way.
    Broken,
    /// The provider's refusal says nothing about the token.
    Refused(Refusal),
    /// Another task or replica is renewing the token.
    Busy,
}

/// The first call of an attempt. That one of them is answered says nothing about the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RenewalCall {
    Exchange,
    Pages,
    Inspection,
}

impl Attempt {
    fn answer(&self) -> Answer<'_> {
        match self {
            Self::Done | Self::Failed => Answer::Given,
            Self::Refused(refusal) => Answer::Refused(refusal),
            Self::Broken | Self::Busy => Answer::None,
        }
    }
}

impl Vault {
    /// Renews every token that is due.
    pub(in crate::vault::jobs) async fn renew_due(
        self: &Arc<Self>,
        run: &mut JobRun,
        progress: &Progress<'_>,
    ) -> Result<(), RunFailed> {
        let passes = Passes::begin(self, Work::Renewal, AT_ONCE).await?;
        // Try each token once per run. Otherwise a token whose next attempt can't be written would be retried forever.
        let mut seen = HashSet::new();
        loop {
            let mut due =
                self.store.read().await?.due_renewals(self.clock.now(), &passes.held(), BATCH).await?;
            due.retain(|(id, _)| seen.insert(*id));
            if due.is_empty() {
                break;
            }
            for attempt in self.renew_all(&passes, due).await {
                match attempt {
                    Attempt::Done => run.done += 1,
                    Attempt::Failed => (run.done, run.failed) = (run.done + 1, run.failed + 1),
                    Attempt::Refused(_) | Attempt::Broken => {
                        (run.done, run.failed) = (run.done + 1, run.failed + 1);
                        run.remaining += 1;
                    }
                    Attempt::Busy => {}
                }
            }
            run.total = run.done;
            progress.note(run).await?;
        }
        let why = passes.end().await;
        if !passes.held().is_empty() {
            let left = self.store.read().await?.count_due_renewals(self.clock.now()).await?;
            (run.remaining, run.total) = (run.remaining + left, run.total + left);
        }
        if run.remaining == 0 { Ok(()) } else { Err(RunFailed::Incomplete(why)) }
    }

    /// Tries to renew these connections' tokens, and returns how each attempt ended.
    async fn renew_all(
        self: &Arc<Self>,
        passes: &Passes,
        due: Vec<(ConnectionId, ProviderId)>,
    ) -> Vec<Attempt> {
        futures::stream::iter(due)
            .map(|(id, provider)| async move {
                let work = |_| Box::pin(self.renew_or_log(id));
                passes.work_on(&provider, id, work, Attempt::answer).await.unwrap_or(Attempt::Busy)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await
    }

    async fn renew_or_log(self: &Arc<Self>, id: ConnectionId) -> Attempt {
        let mut attempt = self.renew(id).await;
        // Another task, perhaps the sweep, changed the connection meanwhile: try once more.
        if let Err(VaultError::ConcurrentChange(_)) = attempt {
            attempt = self.renew(id).await;
        }
        match attempt {
            Ok(attempt) => attempt,
            // If it is still due, the next run tries again.
            Err(VaultError::ConcurrentChange(_)) => Attempt::Busy,
            Err(error) => {
                tracing::warn!(connection = %id, %error, "a token could not be renewed");
                Attempt::Broken
            }
        }
    }

    /// Tries to renew tokens that wait after a failure, or are due: one for each kind of call that they need.
    pub(in crate::vault::jobs) async fn try_renewal(
        self: &Arc<Self>,
        provider: &ProviderId,
    ) -> Result<Tried, VaultError> {
        let (unit_provider, now) = (provider.clone(), self.clock.now());
        self.store
            .write(move |tx| {
                let provider = unit_provider.clone();
                Box::pin(
                    async move { Ok::<_, Abort<VaultError>>(tx.rearm_renewals(&provider, now, 1).await?) },
                )
            })
            .await?;
        let others: Vec<_> =
            self.providers.iter().map(|(other, _)| other.id().clone()).filter(|id| id != provider).collect();
        let due = self.store.read().await?.due_renewals(self.clock.now(), &others, BATCH).await?;
        let mut works = Vec::new();
        let mut all = i64::try_from(due.len()).is_ok_and(|count| count < BATCH);
        for (id, _) in due {
            let call = self.call_for_renewal(id).await?;
            if works.contains(&call) {
                continue;
            }
            match (self.renew_or_log(id).await, call) {
                (Attempt::Refused(_), _) => return Ok(Tried::Fails),
                (Attempt::Done | Attempt::Failed, Some(_)) => works.push(call),
                (Attempt::Busy, _) => all = false,
                (Attempt::Done | Attempt::Failed | Attempt::Broken, _) => {}
            }
        }
        Ok(match (works.is_empty(), all) {
            (false, _) => Tried::Works,
            (true, true) => Tried::NothingToTry,
            (true, false) => Tried::Fails,
        })
    }

    /// The call that an attempt to renew a token makes; `None` if it makes none.
    async fn call_for_renewal(&self, id: ConnectionId) -> Result<Option<RenewalCall>, VaultError> {
        let mut session = self.store.read().await?;
        let Some(connection) = session.connection(id).await? else { return Ok(None) };
        let unfinished = session.pending_secret(id).await?.is_some();
        drop(session);
        if self.provider_of(&connection).is_err() {
            return Ok(None);
        }
        if let Some(parent) = connection.parent {
            let parent = self.store.read().await?.connection(parent).await?;
            let reads = !unfinished && parent.is_some_and(|parent| self.check_usable(&parent).is_ok());
            return Ok(Some(if reads { RenewalCall::Pages } else { RenewalCall::Inspection }));
        }
        if unfinished || connection.facts.expiry == Expiry::Unknown {
            return Ok(Some(RenewalCall::Inspection));
        }
        let ends_later = connection.renewable_end().is_some_and(|end| end > self.clock.now());
        Ok(ends_later.then_some(RenewalCall::Exchange))
    }
}
