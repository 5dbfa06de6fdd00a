//! Renewal, job `rotation`: exchanges a token before it ends, and replaces it once the new one has proved to live
//! longer. If the provider does not renew it, a person is asked in time. `model/token/renewal.rs` computes when a
//! renewal is due.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;

use crate::model::{
    Connection, ConnectionId, Expiry, Refusal, RefusalKind, RenewalFailure, Standing, Timestamp, TokenVersion,
};
use crate::provider::Provider;
use crate::store::{Abort, HeldToken, JobRun, Needs, Scope};
use crate::vault::error::VaultError;
use crate::vault::jobs::run::{Progress, RunFailed};
use crate::vault::once::claims::Fence;
use crate::vault::once::idempotency::RequestClaim;
use crate::vault::state::Vault;
use crate::vault::token::change;
use crate::vault::token::exchange::save::{ExchangeOutcome, movement};
use crate::vault::token::inspection::{Applied, Findings, is_death};
use crate::vault::token::store::accept::{Accepted, IntakeOptions};
use crate::vault::token::store::save::check_replaces;

/// Due connections taken in one batch.
const BATCH: i64 = 64;
/// The most exchanges at once in this process.
const AT_ONCE: usize = 4;
/// The wait before the next attempt while the operator corrects our configuration.
const LONG_WAIT: Duration = Duration::from_secs(15 * 60);
/// The wait before the next attempt if the provider could not be asked.
const SHORT_WAIT: Duration = Duration::from_secs(5 * 60);
/// The wait before asking the provider again for an expiry that it did not name. We promise to ask every hour.
const ASK_AGAIN: Duration = Duration::from_secs(50 * 60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    /// The expiry moved, or there was nothing to do.
    Done,
    Failed,
    /// Another task or replica is renewing the token.
    Busy,
}

/// Why the expiry did not move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Setback {
    /// The provider could not be asked, or had an error.
    Failed,
    /// The exchange worked, but the expiry did not move.
    Ceiling,
    /// The new token can't replace the one held.
    Unfit,
    /// No attempt was made. The next one is due at this time; `None` means never.
    NotTried(Option<Timestamp>),
    /// A page token, which is not tried again before its parent has changed from this state.
    Asleep(Option<ParentSeen>),
}

/// The state of a parent that its children follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ParentSeen {
    version: TokenVersion,
    lives: bool,
}

impl ParentSeen {
    fn of(parent: &Connection) -> Self {
        Self { version: parent.version, lives: parent.standing == Standing::Live }
    }
}

impl Vault {
    /// Renews every token that is due.
    pub(super) async fn renew_due(
        self: &Arc<Self>,
        run: &mut JobRun,
        progress: &Progress<'_>,
    ) -> Result<(), RunFailed> {
        // Try each token once per run. Otherwise a token whose next attempt can't be written would be retried forever.
        let mut seen = HashSet::new();
        loop {
            let mut due = self.store.read().await?.due_renewals(self.clock.now(), BATCH).await?;
            due.retain(|id| seen.insert(*id));
            if due.is_empty() {
                return Ok(());
            }
            let attempts = self.renew_all(due).await;
            let count = |wanted: Attempt| {
                i64::try_from(attempts.iter().filter(|attempt| **attempt == wanted).count()).unwrap_or(0)
            };
            let (done, failed) = (count(Attempt::Done), count(Attempt::Failed));
            run.done += done + failed;
            run.failed += failed;
            run.total = run.done;
            progress.note(run).await?;
        }
    }

    /// Tries to renew these connections' tokens, and returns how each attempt ended.
    async fn renew_all(self: &Arc<Self>, due: Vec<ConnectionId>) -> Vec<Attempt> {
        futures::stream::iter(due)
            .map(|id| {
                let vault = Arc::clone(self);
                async move {
                    let mut attempt = vault.renew(id).await;
                    // Another task, perhaps the sweep, changed the connection meanwhile: try once more.
                    if let Err(VaultError::ConcurrentChange(_)) = attempt {
                        attempt = vault.renew(id).await;
                    }
                    match attempt {
                        Ok(attempt) => attempt,
                        // If it is still due, the next run tries again.
                        Err(VaultError::ConcurrentChange(_)) => Attempt::Busy,
                        Err(error) => {
                            tracing::warn!(connection = %id, %error, "a token could not be renewed");
                            Attempt::Failed
                        }
                    }
                }
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await
    }

    /// Makes one attempt, under a claim that only one task on all replicas can hold.
    async fn renew(self: &Arc<Self>, id: ConnectionId) -> Result<Attempt, VaultError> {
        let Some(claimed) = self.claim_exchange(id).await? else { return Ok(Attempt::Busy) };
        let outcome = self.renew_claimed(id, &claimed.fence).await;
        if let Err(error) = &outcome
            && !matches!(error, VaultError::ConcurrentChange(_) | VaultError::StorageUnavailable)
        {
            // Otherwise this token would come first in every batch.
            self.put_off(id, &claimed.fence, SHORT_WAIT).await?;
        }
        self.release(claimed).await;
        outcome
    }

    /// Postpones the next attempt, whatever the outcome of this one.
    async fn put_off(&self, id: ConnectionId, fence: &Fence, wait: Duration) -> Result<(), VaultError> {
        let Some(held) = self.store.read().await?.held_token(id).await? else { return Ok(()) };
        self.set_back(&held, fence, Setback::NotTried(Some(self.clock.now() + wait))).await
    }

    async fn renew_claimed(self: &Arc<Self>, id: ConnectionId, fence: &Fence) -> Result<Attempt, VaultError> {
        let Some(held) = self.store.read().await?.held_token(id).await? else { return Ok(Attempt::Done) };
        let (connection, now) = (&held.connection, self.clock.now());
        if connection.schedule.next_renewal_at.is_none_or(|at| at > now) {
            return Ok(Attempt::Done);
        }
        let provider = match self.provider_of(connection) {
            Ok(provider) => provider,
            Err(error) => {
                self.set_back(&held, fence, Setback::NotTried(Some(now + LONG_WAIT))).await?;
                return Err(error);
            }
        };
        if self.is_held_back(&provider) {
            self.set_back(&held, fence, Setback::NotTried(Some(now + Duration::from_secs(15)))).await?;
            return Ok(Attempt::Busy);
        }
        if connection.parent.is_some() {
            return self.follow_parent(&held, &*provider, fence).await;
        }
        if connection.facts.expiry == Expiry::Unknown {
            return self.ask_for_end(&held, &*provider, fence).await;
        }
        if connection.renewable_end().is_none_or(|end| end <= now) {
            self.set_back(&held, fence, Setback::NotTried(None)).await?;
            return Ok(Attempt::Done);
        }
        self.rotate(&held, &*provider, fence).await
    }

    async fn rotate(
        self: &Arc<Self>,
        held: &HeldToken,
        provider: &dyn Provider,
        fence: &Fence,
    ) -> Result<Attempt, VaultError> {
        let connection = &held.connection;
        let secret = self.open_secret(held).await?;
        self.confirm_claim(fence, connection.id).await?;
        let exchanged = match provider.exchange(&secret, connection.facts.kind).await {
            Ok(exchanged) => exchanged,
            Err(refusal) => {
                // A refusal may be the first news that the token is dead. Inspection must confirm it.
                if matches!(refusal.kind, RefusalKind::Dead { .. }) {
                    let word = provider.inspect(&secret).await;
                    let died = match &word {
                        Ok(_) => false,
                        Err(word) if is_death(word) => true,
                        // Neither confirmed nor denied: try again later.
                        Err(word) => return self.setback_of(held, fence, word).await,
                    };
                    if matches!(
                        self.apply_inspection(connection, word, Findings::default()).await?,
                        Applied::Doubted
                    ) {
                        self.put_off(connection.id, fence, LONG_WAIT).await?;
                        return Ok(Attempt::Failed);
                    }
                    if died {
                        return Ok(Attempt::Failed);
                    }
                }
                return self.setback_of(held, fence, &refusal).await;
            }
        };
        let word = match provider.inspect(&exchanged.secret).await {
            Ok(word) => word,
            Err(refusal) => return self.setback_of(held, fence, &refusal).await,
        };
        let (now, policy) = (self.clock.now(), self.policy());
        if let Err(error) = check_replaces(connection, &word, IntakeOptions::default(), now, &policy) {
            tracing::error!(connection = %connection.id, %error, "an exchange gave a token that can't replace the one held; it was discarded");
            self.set_back(held, fence, Setback::Unfit).await?;
            return Ok(Attempt::Failed);
        }
        match movement(word.facts.expiry, connection.facts.expiry) {
            outcome @ (ExchangeOutcome::Extended | ExchangeOutcome::NowNeverExpires) => {
                let accepted = Accepted {
                    secret: exchanged.secret,
                    inspected: word,
                    pasted_expiry: connection.facts.expiry,
                };
                let kept = self
                    .save_exchanged(held, Some(accepted), outcome, &RequestClaim::default(), Some(fence))
                    .await?;
                tracing::info!(connection = %kept.id, workspace = %kept.workspace, version = %kept.version, "token rotated");
                Ok(Attempt::Done)
            }
            ExchangeOutcome::AtCeiling => {
                self.set_back(held, fence, Setback::Ceiling).await?;
                Ok(Attempt::Failed)
            }
            ExchangeOutcome::Shortened => {
                tracing::error!(connection = %connection.id, "an exchange gave a token that ends earlier; it was discarded");
                self.set_back(held, fence, Setback::Unfit).await?;
                Ok(Attempt::Failed)
            }
        }
    }

    /// Reads a page token again with its parent's token, which belongs to the person who manages the page. A page token
    /// is never exchanged.
    async fn follow_parent(
        self: &Arc<Self>,
        held: &HeldToken,
        provider: &dyn Provider,
        fence: &Fence,
    ) -> Result<Attempt, VaultError> {
        let connection = &held.connection;
        let parent = match connection.parent {
            Some(parent) => self.store.read().await?.held_token(parent).await?,
            None => None,
        };
        let seen = parent.as_ref().map(|parent| ParentSeen::of(&parent.connection));
        let secret = match parent {
            Some(parent) if self.check_usable(&parent.connection).is_ok() => {
                let parent_secret = self.open_secret(&parent).await?;
                let pages = match provider.pages(&parent_secret).await {
                    Ok(pages) => pages,
                    Err(refusal) => return self.setback_of(held, fence, &refusal).await,
                };
                match pages.into_iter().find(|page| page.id == connection.subject.id) {
                    Some(page) => page.secret,
                    // The person no longer manages the page. Ask whether the old token still works.
                    None => self.open_secret(held).await?,
                }
            }
            // The parent is dead, which does not always end its page tokens. Ask whether this one still works.
            _ => self.open_secret(held).await?,
        };
        let word = match provider.inspect(&secret).await {
            Ok(word) => word,
            Err(refusal) if is_death(&refusal) => {
                let setback =
                    match self.apply_inspection(connection, Err(refusal), Findings::default()).await? {
                        Applied::Doubted => Setback::NotTried(Some(self.clock.now() + LONG_WAIT)),
                        Applied::Updated(_) | Applied::Superseded => Setback::Asleep(seen),
                    };
                self.set_back(held, fence, setback).await?;
                return Ok(Attempt::Failed);
            }
            Err(refusal) => return self.setback_of(held, fence, &refusal).await,
        };
        let (now, policy) = (self.clock.now(), self.policy());
        if let Err(error) = check_replaces(connection, &word, IntakeOptions::default(), now, &policy) {
            tracing::error!(connection = %connection.id, %error, "a page token that was read again can't replace the one held");
            self.set_back(held, fence, Setback::Unfit).await?;
            return Ok(Attempt::Failed);
        }
        let accepted = Accepted { secret, inspected: word, pasted_expiry: connection.facts.expiry };
        let outcome = ExchangeOutcome::Extended;
        let connection =
            self.save_exchanged(held, Some(accepted), outcome, &RequestClaim::default(), Some(fence)).await?;
        let held = HeldToken { connection, sealed: None };
        self.set_back(&held, fence, Setback::Asleep(seen)).await?;
        Ok(Attempt::Done)
    }

    /// Asks the provider again for an expiry that it did not name.
    async fn ask_for_end(
        self: &Arc<Self>,
        held: &HeldToken,
        provider: &dyn Provider,
        fence: &Fence,
    ) -> Result<Attempt, VaultError> {
        let secret = self.open_secret(held).await?;
        let word = provider.inspect(&secret).await;
        let verdict = match &word {
            Ok(_) => true,
            Err(refusal) => is_death(refusal),
        };
        if verdict {
            let wait = match self.apply_inspection(&held.connection, word, Findings::default()).await? {
                Applied::Updated(now_known) if now_known.facts.expiry != Expiry::Unknown => {
                    return Ok(Attempt::Done);
                }
                Applied::Updated(_) => ASK_AGAIN,
                Applied::Superseded | Applied::Doubted => SHORT_WAIT,
            };
            self.put_off(held.connection.id, fence, wait).await?;
            return Ok(Attempt::Done);
        }
        self.set_back(held, fence, Setback::NotTried(Some(self.clock.now() + SHORT_WAIT))).await?;
        Ok(Attempt::Failed)
    }

    /// What the provider's refusal means for the next attempt.
    async fn setback_of(
        &self,
        held: &HeldToken,
        fence: &Fence,
        refusal: &Refusal,
    ) -> Result<Attempt, VaultError> {
        let now = self.clock.now();
        let setback = match &refusal.kind {
            RefusalKind::Transient { .. } | RefusalKind::OutOfTime => Setback::Failed,
            RefusalKind::Throttled { retry_after, .. } => {
                Setback::NotTried(Some(now + (*retry_after).max(Duration::from_secs(1))))
            }
            RefusalKind::Ours(_) => Setback::NotTried(Some(now + LONG_WAIT)),
            // The provider accepts the token and does not renew it.
            RefusalKind::Dead { .. }
            | RefusalKind::OtherApp
            | RefusalKind::Permission { .. }
            | RefusalKind::Blocked => Setback::Unfit,
        };
        tracing::warn!(connection = %held.connection.id, provider_code = refusal.provider_code(), detail = %refusal.detail, "a token was not renewed");
        self.set_back(held, fence, setback).await?;
        Ok(Attempt::Failed)
    }

    /// Writes when to try again. If trying again is useless, announces that a person is needed.
    async fn set_back(&self, held: &HeldToken, fence: &Fence, setback: Setback) -> Result<(), VaultError> {
        let (id, secret_id) = (held.connection.id, held.connection.secret_id);
        let (fence, now, policy) = (fence.clone(), self.clock.now(), self.policy());
        self.store
            .write_with(Needs { connections: vec![id], alone: false }, move |tx| {
                let (fence, policy) = (fence.clone(), Arc::clone(&policy));
                Box::pin(async move {
                    let Some(before) = tx.lock_connection(id).await? else { return Ok(()) };
                    if before.secret_id != secret_id || matches!(before.standing, Standing::Revoked { .. }) {
                        return Ok(());
                    }
                    fence.check(tx, id).await?;
                    let mut after = before.clone();
                    let scope = Scope::Connection(id);
                    let mut announced = tx.announced(&scope).await?;
                    announced.catch_up(&before, now, &policy);
                    match setback {
                        Setback::NotTried(next) => after.schedule.next_renewal_at = next,
                        Setback::Asleep(seen) => {
                            // If the parent changed meanwhile, its wake-up must not be lost.
                            let parent = match before.parent {
                                Some(parent) => tx.connection(parent).await?,
                                None => None,
                            };
                            let same = parent.as_ref().map(ParentSeen::of) == seen;
                            after.schedule.next_renewal_at = (!same).then_some(now);
                        }
                        Setback::Failed => {
                            after.schedule.attempts += 1;
                            after.schedule.next_renewal_at = after.retry_after_failure(now);
                        }
                        Setback::Ceiling | Setback::Unfit => {
                            after.schedule.attempts += 1;
                            after.schedule.next_renewal_at = after.retry_at_ceiling(now);
                        }
                    }
                    let next = after.schedule.next_renewal_at;
                    let hopeless = match setback {
                        Setback::NotTried(_) | Setback::Asleep(_) => false,
                        Setback::Failed => next.is_none() || after.renewal_is_hopeless(now, &policy),
                        Setback::Ceiling | Setback::Unfit => true,
                    };
                    if hopeless {
                        let at_ceiling = setback == Setback::Ceiling;
                        // The first failure was announced, with its reason.
                        after
                            .schedule
                            .renewal_failure
                            .get_or_insert(RenewalFailure { since: now, at_ceiling });
                        announced.rotation_failed(&after, now, &policy);
                    }
                    change::write(tx, scope, announced, &before, &mut after, now, &policy).await?;
                    Ok::<_, Abort<VaultError>>(())
                })
            })
            .await?;
        Ok(())
    }
}
