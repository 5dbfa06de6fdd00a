//! Where a provider's word on a token lands: on the very secret that it is about, or nowhere. A death is told of
//! here, whoever met it first, and those who share the dead token's subject are asked about at once.

use std::sync::Arc;

use crate::model::{
    AccountChange, AdAccount, Cause, Connection, Expiry, Refusal, RefusalKind, RefusalReason, Standing,
    Timestamp,
};
use crate::provider::Inspected;
use crate::store::{Abort, HeldToken, Needs, Origin};
use crate::vault::error::VaultError;
use crate::vault::provider_health::believes_death;
use crate::vault::state::Vault;
use crate::vault::token::change;

/// What became of what was learned.
pub(in crate::vault) enum Recorded {
    /// It stands in the connection's facts.
    Kept(Box<Connection>),
    /// The connection changed meanwhile: the answer is about a token that is no longer held, or facts that are no
    /// longer so.
    Changed,
    /// A death that is not believed yet: too many died at once.
    Held,
}

/// What was learned beside the provider's word.
#[derive(Default)]
pub(in crate::vault) struct Learned {
    /// The ad accounts that the token reaches, if they were listed.
    pub(in crate::vault) accounts: Option<Vec<AdAccount>>,
    /// When a caller last saw it work.
    pub(in crate::vault) last_success_at: Option<Timestamp>,
    /// A confirmed death's better name, as a caller met it. Whether the death is believed rests on the provider's
    /// own word alone.
    pub(in crate::vault) named: Option<Refusal>,
}

impl Learned {
    /// These ad accounts.
    pub(in crate::vault) fn accounts(accounts: Option<Vec<AdAccount>>) -> Self {
        Self { accounts, ..Self::default() }
    }
}

/// Writes what the provider said into a connection's facts.
pub(in crate::vault) fn learn(
    connection: &mut Connection,
    word: &Result<Inspected, Refusal>,
    now: Timestamp,
) {
    match word {
        Ok(inspected) => {
            let held = connection.facts.expiry;
            connection.facts = inspected.facts.clone();
            // An end that was told once is not forgotten because the provider is silent now.
            if connection.facts.expiry == Expiry::Unknown {
                connection.facts.expiry = held;
            }
            connection.standing = Standing::Live;
            connection.seen.last_validated_at = Some(now);
            connection.seen.last_known_good = Some(now);
        }
        Err(refusal) if is_death(refusal) => {
            connection.seen.last_validated_at = Some(now);
            let ran_out = connection.facts.expiry.at().is_some_and(|end| end <= now);
            let known = matches!(connection.standing, Standing::Invalid { .. });
            // A death by time follows from expiry and clock; what the provider says of a dead token adds nothing.
            if !(known || ran_out) {
                learn_death(connection, refusal, now);
            }
        }
        // No verdict on the token: nothing is learned.
        Err(_) => {}
    }
}

/// Whether a refusal says that the token is dead.
pub(in crate::vault) fn is_death(refusal: &Refusal) -> bool {
    matches!(refusal.kind, RefusalKind::Dead { .. } | RefusalKind::OtherApp)
}

fn learn_death(connection: &mut Connection, refusal: &Refusal, now: Timestamp) {
    let reason = match refusal.kind {
        RefusalKind::Dead { reason } => reason,
        _ => RefusalReason::WrongApp,
    };
    connection.standing = Standing::Invalid { since: now, reason, provider_code: refusal.provider_code() };
}

impl Vault {
    /// Writes what was learned, if the connection still holds the token that it was learned of. The news of a
    /// death spreads: other connections of the same subject are asked about, in the background.
    pub(in crate::vault) async fn record(
        self: &Arc<Self>,
        seen: &Connection,
        word: Result<Inspected, Refusal>,
        learned: Learned,
    ) -> Result<Recorded, VaultError> {
        let recorded = self.note(seen, word, learned).await?;
        if let Recorded::Kept(connection) = &recorded
            && seen.standing == Standing::Live
            && matches!(connection.standing, Standing::Invalid { .. })
        {
            self.ask_about_siblings(connection);
        }
        Ok(recorded)
    }

    /// Writes what was learned, and asks about nobody else.
    async fn note(
        &self,
        seen: &Connection,
        word: Result<Inspected, Refusal>,
        learned: Learned,
    ) -> Result<Recorded, VaultError> {
        let (id, secret_id, revision, now) = (seen.id, seen.secret_id, seen.revision, self.clock.now());
        let (learned, policy) = (Arc::new((word, learned)), self.policy());
        let (updated, numbers) = self
            .store
            .write_with(Needs { connections: vec![id], alone: false }, move |tx| {
                let (learned, policy) = (Arc::clone(&learned), Arc::clone(&policy));
                Box::pin(async move {
                    let (word, learned) = &*learned;
                    let Some(before) = tx.lock_connection(id).await? else { return Ok(Recorded::Changed) };
                    if before.secret_id != secret_id || before.revision != revision {
                        return Ok(Recorded::Changed);
                    }
                    let mut after = before.clone();
                    learn(&mut after, word, now);
                    if let (Standing::Live, Standing::Invalid { reason, .. }) =
                        (&before.standing, &after.standing)
                        && !believes_death(tx, &before, *reason, now).await?
                    {
                        return Ok(Recorded::Held);
                    }
                    if let (Standing::Live, Standing::Invalid { .. }, Some(named)) =
                        (&before.standing, &after.standing, &learned.named)
                    {
                        learn_death(&mut after, named, now);
                    }
                    // When it was last seen to work makes the gap's start honest; a claim about the future is none.
                    if matches!(after.standing, Standing::Invalid { .. })
                        && let Some(at) = learned.last_success_at.filter(|at| *at <= now)
                    {
                        after.seen.last_known_good = after.seen.last_known_good.max(Some(at));
                    }
                    let mut change = AccountChange::default();
                    if let Some(accounts) = &learned.accounts {
                        let (unreachable, moved) = tx.record_ad_accounts(id, accounts, now).await?;
                        // The first listing is no change: nothing was known before.
                        if before.seen.ad_accounts.is_some() {
                            change = moved;
                        }
                        after.seen.ad_accounts = u32::try_from(accounts.len()).ok();
                        after.seen.unreachable_ad_accounts = unreachable;
                    }
                    change::apply(tx, &before, &mut after, Cause::Observation, change, now, &policy).await?;
                    Ok::<_, Abort<VaultError>>(Recorded::Kept(Box::new(after)))
                })
            })
            .await?;
        let Recorded::Kept(connection) = updated else { return Ok(updated) };
        let connection = change::numbered(*connection, numbers);
        if let (Standing::Live, Standing::Invalid { reason, .. }) = (&seen.standing, &connection.standing) {
            tracing::warn!(connection = %connection.id, workspace = %connection.workspace, ?reason, "the provider refuses the token");
        }
        Ok(Recorded::Kept(Box::new(connection)))
    }

    /// The same subject and app in other workspaces may share the fate. Those are asked about one after the other,
    /// and what they say spreads no further: each has the same siblings.
    fn ask_about_siblings(self: &Arc<Self>, dead: &Connection) {
        let (vault, dead) = (Arc::clone(self), dead.clone());
        let origin = Arc::new(Origin::system("sibling-check"));
        self.work.tasks.spawn(origin.scope(async move {
            if let Err(error) = vault.ask_about_each_sibling(&dead).await {
                tracing::warn!(connection = %dead.id, %error, "who shares a dead token's subject could not be looked up");
            }
        }));
    }

    async fn ask_about_each_sibling(&self, dead: &Connection) -> Result<(), VaultError> {
        let siblings = self.store.read().await?.siblings(dead).await?;
        for sibling in siblings {
            if self.work.stopping.is_cancelled() {
                break;
            }
            if let Err(error) = self.ask_about(&sibling).await {
                tracing::warn!(connection = %sibling.connection.id, %error, "a token that shares a dead one's subject could not be asked about");
            }
        }
        Ok(())
    }

    async fn ask_about(&self, held: &HeldToken) -> Result<(), VaultError> {
        let provider = self.provider_of(&held.connection)?;
        let secret = self.open_secret(held).await?;
        let word = provider.inspect(&secret).await;
        self.note(&held.connection, word, Learned::default()).await.map(drop)
    }
}
