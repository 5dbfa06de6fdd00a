//! One exchange of the token that a connection holds, from the call to the provider to the decision which token is held
//! afterwards. An exchange may end the token that it is given, so the new one is stored as pending before anything is
//! known about it, and the old one is looked at before the new one is thrown away.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::save::{Decided, ExchangeOutcome, Waiting, movement};
use super::weigh::{Aim, Decision, Drawback, Health, Living, Offer, weigh};
use crate::model::{
    Connection, Expiry, ExpirySource, Refusal, RefusalKind, Secret, SecretId, Standing, Timestamp,
};
use crate::provider::Provider;
use crate::store::{Abort, HeldToken, Needs};
use crate::vault::error::VaultError;
use crate::vault::once::claims::Fence;
use crate::vault::once::idempotency::RequestClaim;
use crate::vault::state::Vault;
use crate::vault::state::keyring::TRIES;
use crate::vault::token::inspection::{Applied, Findings};
use crate::vault::token::secret;

/// When a pending token is weighed again if the provider could not be asked about it.
const WEIGH_AGAIN: Duration = Duration::from_secs(60);
/// A pending token about which the provider says nothing for so long is dropped.
const GIVE_UP: Duration = Duration::from_secs(24 * 60 * 60);

/// An exchange in progress, under a claim that only one task on all replicas holds.
pub(in crate::vault) struct Exchanging<'a> {
    pub(in crate::vault) held: &'a HeldToken,
    pub(in crate::vault) provider: &'a dyn Provider,
    pub(in crate::vault) fence: &'a Fence,
    pub(in crate::vault) claim: &'a RequestClaim,
}

/// What the provider offers in place of the token held.
pub(in crate::vault) enum Offered {
    /// A token that can be had again, such as a page's; it may be the one held.
    Again(Secret),
    /// A token that an exchange gave, stored as pending at this time, or nowhere if it is the one held.
    Exchanged { secret: Arc<Secret>, expires_in: Option<Duration>, pending: Option<Timestamp> },
    /// It refuses to exchange the token held.
    Nothing,
}

/// How an exchange ended.
pub(in crate::vault) enum Settled {
    /// The offered token is held now. `drawback`: it is no better, but the one held before is dead.
    Replaced { connection: Connection, outcome: ExchangeOutcome, drawback: Option<Drawback> },
    /// The token held works and stays, because of the offer's drawback.
    Kept { connection: Connection, drawback: Drawback },
    /// The token held is dead, and so is what was offered.
    Buried(Connection),
    /// As `Buried`, but so many tokens died at once that nobody believes it yet.
    Doubted,
    /// The provider could not be asked about one of them, and nothing was said about either.
    Open(Refusal),
}

/// Whether a refusal speaks about the token, and not about the provider's or our own state.
pub(in crate::vault) const fn is_about_token(refusal: &Refusal) -> bool {
    match &refusal.kind {
        RefusalKind::Dead { .. }
        | RefusalKind::OtherApp
        | RefusalKind::Permission { .. }
        | RefusalKind::Blocked => true,
        RefusalKind::Transient { .. }
        | RefusalKind::OutOfTime
        | RefusalKind::Throttled { .. }
        | RefusalKind::Ours(_) => false,
    }
}

impl Vault {
    /// Exchanges the token held, or finishes an exchange that was left behind.
    pub(in crate::vault) async fn exchange(
        self: &Arc<Self>,
        exchanging: &Exchanging<'_>,
    ) -> Result<Settled, VaultError> {
        let Exchanging { held, provider, fence, .. } = exchanging;
        if let Some(pending) = self.pending_offer(held).await? {
            return self.settle(exchanging, pending, Aim::Lengthen).await;
        }
        let secret = self.open_secret(held).await?;
        self.confirm_claim(fence, held.connection.id).await?;
        let offered = match provider.exchange(&secret, held.connection.facts.kind).await {
            Ok(exchanged) => {
                let secret = Arc::new(exchanged.secret);
                let pending = self.keep_pending(held, &secret, fence).await?;
                Offered::Exchanged { secret, expires_in: exchanged.expires_in, pending }
            }
            Err(refusal) if is_about_token(&refusal) => Offered::Nothing,
            Err(refusal) => return Ok(Settled::Open(refusal)),
        };
        drop(secret);
        self.settle(exchanging, offered, Aim::Lengthen).await
    }

    /// The token of an exchange that was not weighed to the end: its process died, or the provider could not be asked.
    async fn pending_offer(&self, held: &HeldToken) -> Result<Option<Offered>, VaultError> {
        let Some((secret, since)) = self.open_pending_secret(&held.connection).await? else {
            return Ok(None);
        };
        Ok(Some(Offered::Exchanged { secret: Arc::new(secret), expires_in: None, pending: Some(since) }))
    }

    /// Stores an exchanged token as pending, unless it is the one held. Returns since when it is pending.
    async fn keep_pending(
        &self,
        held: &HeldToken,
        secret: &Arc<Secret>,
        fence: &Fence,
    ) -> Result<Option<Timestamp>, VaultError> {
        if self.is_held(&held.connection, secret).await? {
            return Ok(None);
        }
        let now = self.clock.now();
        let mut tries = 0;
        loop {
            tries += 1;
            match self.keep_pending_once(&held.connection, Arc::clone(secret), fence, now).await {
                Err(VaultError::KeysChanged(workspace)) if tries < TRIES => {
                    self.store.forget_workspace(&workspace);
                }
                outcome => return outcome.map(|()| Some(now)),
            }
        }
    }

    async fn keep_pending_once(
        &self,
        seen: &Connection,
        secret: Arc<Secret>,
        fence: &Fence,
        now: Timestamp,
    ) -> Result<(), VaultError> {
        let keys = self.workspace_keys_or_new(&seen.workspace).await?;
        let (id, secret_id, fence) = (seen.id, seen.secret_id, fence.clone());
        self.store
            .write_with(Needs { connections: vec![id], alone: false }, move |tx| {
                let (keys, secret, fence) = (Arc::clone(&keys), Arc::clone(&secret), fence.clone());
                Box::pin(async move {
                    let held = tx.lock_connection(id).await?.filter(|held| held.secret_id == secret_id);
                    let held = held.ok_or(Abort::Work(VaultError::ConcurrentChange(id)))?;
                    if matches!(held.standing, Standing::Revoked { .. }) {
                        return Err(Abort::Work(VaultError::ConcurrentChange(id)));
                    }
                    fence.check(tx, id).await?;
                    let next =
                        Connection { version: held.version.next(), secret_id: SecretId::generate(), ..held };
                    secret::put_pending(tx, &keys, &next, &secret, now).await
                })
            })
            .await?;
        Ok(())
    }

    /// Whether a secret is the one that the connection holds.
    async fn is_held(&self, connection: &Connection, secret: &Secret) -> Result<bool, VaultError> {
        let keys = self.workspace_keys_or_new(&connection.workspace).await?;
        Ok(connection.fingerprint == Some(keys.index.fingerprint(&connection.provider, secret)))
    }

    /// Decides between the token held and the one offered, and writes the decision.
    pub(in crate::vault) async fn settle(
        self: &Arc<Self>,
        exchanging: &Exchanging<'_>,
        offered: Offered,
        aim: Aim,
    ) -> Result<Settled, VaultError> {
        let Exchanging { held, provider, .. } = exchanging;
        let (secret, expires_in, pending) = match offered {
            Offered::Again(secret) => (Some(Arc::new(secret)), None, None),
            Offered::Exchanged { secret, expires_in, pending } => (Some(secret), expires_in, pending),
            Offered::Nothing => (None, None, None),
        };
        let mut health = None;
        let mut offer = match secret {
            None => Offer::Useless(Drawback::Refused),
            Some(secret) => {
                let mut inspection = provider.inspect(&secret).await;
                let now = self.clock.now();
                // If the inspection names no expiry, the reply to the exchange may.
                if let (Ok(inspected), Some(life)) = (&mut inspection, expires_in)
                    && inspected.facts.expiry == Expiry::Unknown
                {
                    inspected.facts.expiry = Expiry::At(now + life, ExpirySource::Reply);
                }
                let same = self.is_held(&held.connection, &secret).await?;
                if same {
                    health = Some(Health::from(inspection.clone()));
                }
                match inspection {
                    Ok(inspected) => {
                        let living = Living { secret, inspected };
                        Offer::of(living, &held.connection, same, aim, now, &self.policy())
                    }
                    Err(refusal) => refusal.into(),
                }
            }
        };
        let decision = loop {
            match weigh(offer, health.take()) {
                ControlFlow::Break(decision) => break decision,
                ControlFlow::Continue(unsure) => {
                    offer = unsure;
                    let old = self.open_secret(held).await?;
                    health = Some(Health::from(provider.inspect(&old).await));
                }
            }
        };
        self.carry_out(exchanging, decision, pending).await
    }

    async fn carry_out(
        self: &Arc<Self>,
        exchanging: &Exchanging<'_>,
        decision: Decision,
        pending: Option<Timestamp>,
    ) -> Result<Settled, VaultError> {
        let held = &exchanging.held.connection;
        match decision {
            Decision::Replace { new, drawback } => {
                if let Some(drawback) = &drawback {
                    tracing::warn!(connection = %held.id, ?drawback, "an exchange ended the token that it was given; the new one is kept");
                }
                let outcome = movement(new.inspected.facts.expiry, held.facts.expiry);
                let decided = Decided::Replace { new, outcome };
                let connection = self.save_exchanged(exchanging, decided).await?;
                Ok(Settled::Replaced { connection, outcome, drawback })
            }
            Decision::Keep { held: inspected, drawback } => {
                tracing::warn!(connection = %held.id, ?drawback, "an exchange gave no better token; the old one works and stays");
                let offer = self.waiting(pending, false);
                let decided = Decided::Keep { inspection: Ok(inspected), offer, outcome: drawback.outcome() };
                let connection = self.save_exchanged(exchanging, decided).await?;
                Ok(Settled::Kept { connection, drawback })
            }
            Decision::KeepBoth { held: inspected, refusal } => {
                let offer = self.waiting(pending, true);
                let decided = Decided::Keep { inspection: Ok(inspected), offer, outcome: None };
                self.save_exchanged(exchanging, decided).await?;
                Ok(Settled::Open(refusal))
            }
            Decision::Bury { refusal, keep_offer } => {
                let settled = match self.apply_inspection(held, Err(refusal), Findings::default()).await? {
                    Applied::Updated(connection) => Settled::Buried(*connection),
                    Applied::Doubted => Settled::Doubted,
                    Applied::Superseded => return Err(VaultError::ConcurrentChange(held.id)),
                };
                self.set_offer_aside(exchanging, self.waiting(pending, keep_offer)).await?;
                Ok(settled)
            }
            Decision::Wait { refusal, keep_offer } => {
                self.set_offer_aside(exchanging, self.waiting(pending, keep_offer)).await?;
                Ok(Settled::Open(refusal))
            }
        }
    }

    /// What becomes of an offered token that is not taken, and was pending since a time.
    fn waiting(&self, pending: Option<Timestamp>, keep: bool) -> Waiting {
        let now = self.clock.now();
        match pending {
            None => Waiting::Nowhere,
            Some(since) if keep && now < since + GIVE_UP => Waiting::Until(now + WEIGH_AGAIN),
            Some(_) => Waiting::Drop,
        }
    }

    async fn set_offer_aside(&self, exchanging: &Exchanging<'_>, offer: Waiting) -> Result<(), VaultError> {
        if offer == Waiting::Nowhere {
            return Ok(());
        }
        let (id, fence) = (exchanging.held.connection.id, exchanging.fence.clone());
        self.store
            .write(move |tx| {
                let fence = fence.clone();
                Box::pin(async move {
                    fence.check(tx, id).await?;
                    offer.write(tx, id).await
                })
            })
            .await?;
        Ok(())
    }
}
