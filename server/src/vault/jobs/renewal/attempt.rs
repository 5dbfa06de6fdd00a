//! One attempt to renew one token, and when to try again.

use std::sync::Arc;
use std::time::Duration;

use super::Attempt;
use crate::model::{
    Connection, ConnectionId, Expiry, Refusal, RefusalKind, RenewalFailure, Standing, Timestamp, TokenVersion,
};
use crate::provider::Provider;
use crate::store::{Abort, HeldToken, Needs, Scope};
use crate::vault::error::VaultError;
use crate::vault::once::claims::Fence;
use crate::vault::once::idempotency::RequestClaim;
use crate::vault::state::Vault;
use crate::vault::token::change;
use crate::vault::token::exchange::settle::{Exchanging, Offered, Settled, is_about_token};
use crate::vault::token::exchange::weigh::{Aim, Drawback};
use crate::vault::token::inspection::{Applied, Findings, is_death};

/// The wait before the next attempt while the operator corrects our configuration.
const LONG_WAIT: Duration = Duration::from_secs(15 * 60);
/// The wait before the next attempt if the provider could not be asked.
const SHORT_WAIT: Duration = Duration::from_secs(5 * 60);
/// The wait before asking the provider again for an expiry that it did not name. We promise to ask every hour.
const ASK_AGAIN: Duration = Duration::from_secs(50 * 60);

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

impl Setback {
    fn of(drawback: &Drawback) -> Self {
        match drawback {
            Drawback::AtCeiling => Self::Ceiling,
            Drawback::Shortened
            | Drawback::FewerScopes(_)
            | Drawback::Foreign
            | Drawback::Dead
            | Drawback::Refused => Self::Unfit,
        }
    }
}

impl ParentSeen {
    fn of(parent: &Connection) -> Self {
        Self { version: parent.version, lives: parent.standing == Standing::Live }
    }
}

impl Vault {
    /// Makes one attempt, under a claim that only one task on all replicas can hold.
    pub(super) async fn renew(self: &Arc<Self>, id: ConnectionId) -> Result<Attempt, VaultError> {
        let Some(claimed) = self.claim_exchange(id).await? else { return Ok(Attempt::Busy) };
        let outcome = Box::pin(self.renew_claimed(id, &claimed.fence)).await;
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
        let mut session = self.store.read().await?;
        let Some(held) = session.held_token(id).await? else { return Ok(Attempt::Done) };
        // An exchange that was left behind is finished first.
        let unfinished = session.pending_secret(id).await?.is_some();
        drop(session);
        let (connection, now) = (&held.connection, self.clock.now());
        let due = connection.schedule.next_renewal_at.is_some_and(|at| at <= now);
        if !due && !unfinished {
            return Ok(Attempt::Done);
        }
        let provider = match self.provider_of(connection) {
            Ok(provider) => provider,
            Err(error) => {
                self.set_back(&held, fence, Setback::NotTried(Some(now + LONG_WAIT))).await?;
                return Err(error);
            }
        };
        if unfinished {
            return Box::pin(self.rotate(&held, &*provider, fence, due)).await;
        }
        if connection.parent.is_some() {
            return Box::pin(self.follow_parent(&held, &*provider, fence)).await;
        }
        if connection.facts.expiry == Expiry::Unknown {
            return Box::pin(self.ask_for_end(&held, &*provider, fence)).await;
        }
        if connection.renewable_end().is_none_or(|end| end <= now) {
            self.set_back(&held, fence, Setback::NotTried(None)).await?;
            return Ok(Attempt::Done);
        }
        Box::pin(self.rotate(&held, &*provider, fence, due)).await
    }

    /// `due`: this is the renewal's own attempt. Otherwise it finishes an exchange that a caller asked for, which says
    /// nothing about the renewal.
    async fn rotate(
        self: &Arc<Self>,
        held: &HeldToken,
        provider: &dyn Provider,
        fence: &Fence,
        due: bool,
    ) -> Result<Attempt, VaultError> {
        let exchanging = Exchanging { held, provider, fence, claim: &RequestClaim::default() };
        match Box::pin(self.exchange(&exchanging)).await? {
            Settled::Replaced { connection, drawback: None, .. } => {
                tracing::info!(connection = %connection.id, workspace = %connection.workspace, version = %connection.version, "token rotated");
                Ok(Attempt::Done)
            }
            Settled::Replaced { connection, drawback: Some(drawback), .. } => {
                let held = HeldToken { connection, sealed: None };
                self.set_back(&held, fence, Setback::of(&drawback)).await?;
                Ok(Attempt::Failed)
            }
            Settled::Kept { drawback, .. } if due => {
                self.set_back(held, fence, Setback::of(&drawback)).await?;
                Ok(Attempt::Failed)
            }
            Settled::Open(refusal) if due => self.setback_of(held, fence, &refusal).await,
            Settled::Open(refusal) => Ok(Attempt::Refused(refusal)),
            Settled::Kept { .. } => Ok(Attempt::Done),
            Settled::Buried(_) => Ok(Attempt::Failed),
            Settled::Doubted => {
                self.put_off(held.connection.id, fence, LONG_WAIT).await?;
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
        let read_again = match parent {
            Some(parent) if self.check_usable(&parent.connection).is_ok() => {
                let parent_secret = self.open_secret(&parent).await?;
                match provider.pages(&parent_secret).await {
                    Ok(pages) => pages.into_iter().find(|page| page.id == connection.subject.id),
                    Err(refusal) if is_about_token(&refusal) => None,
                    Err(refusal) => return self.setback_of(held, fence, &refusal).await,
                }
            }
            _ => None,
        };
        let offered = match read_again {
            Some(page) => page.secret,
            // The parent does not work, or the person no longer manages the page. Ask whether this one still works.
            None => self.open_secret(held).await?,
        };
        let exchanging = Exchanging { held, provider, fence, claim: &RequestClaim::default() };
        let (attempt, setback) =
            match Box::pin(self.settle(&exchanging, Offered::Again(offered), Aim::Refresh)).await? {
                Settled::Replaced { connection, .. } => {
                    let held = HeldToken { connection, sealed: None };
                    self.set_back(&held, fence, Setback::Asleep(seen)).await?;
                    return Ok(Attempt::Done);
                }
                Settled::Kept { drawback, .. } => (Attempt::Failed, Setback::of(&drawback)),
                Settled::Buried(_) => (Attempt::Failed, Setback::Asleep(seen)),
                Settled::Doubted => (Attempt::Failed, Setback::NotTried(Some(self.clock.now() + LONG_WAIT))),
                Settled::Open(refusal) => return self.setback_of(held, fence, &refusal).await,
            };
        self.set_back(held, fence, setback).await?;
        Ok(attempt)
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
        if let Err(refusal) = &word
            && !is_death(refusal)
        {
            self.set_back(held, fence, Setback::NotTried(Some(self.clock.now() + SHORT_WAIT))).await?;
            return Ok(Attempt::Refused(refusal.clone()));
        }
        let wait = match self.apply_inspection(&held.connection, word, Findings::default()).await? {
            Applied::Updated(now_known) if now_known.facts.expiry != Expiry::Unknown => {
                return Ok(Attempt::Done);
            }
            Applied::Updated(_) => ASK_AGAIN,
            Applied::Superseded | Applied::Doubted => SHORT_WAIT,
        };
        self.put_off(held.connection.id, fence, wait).await?;
        Ok(Attempt::Done)
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
                Setback::NotTried(Some(now + (*retry_after).clamp(Duration::from_secs(1), LONG_WAIT)))
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
        Ok(if refusal.is_not_about_the_token() { Attempt::Refused(refusal.clone()) } else { Attempt::Failed })
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
                    if let Setback::NotTried(Some(next)) = setback {
                        // An exchange that waits to be finished waits as long.
                        tx.postpone_pending_secret(id, next).await?;
                    }
                    match setback {
                        Setback::NotTried(next) => {
                            // An attempt that was not due stays where it is.
                            if before.schedule.next_renewal_at.is_some_and(|at| at <= now) {
                                after.schedule.next_renewal_at = next;
                            }
                        }
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
