//! Writes an inspection of a token into its connection, if the connection still holds the inspected secret. Every dead
//! token is confirmed here, no matter who met the refusal; the other tokens of its subject are then inspected at once.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    AccountChange, AdAccountList, Cause, Connection, DataWord, Refusal, RefusalKind, RefusalReason, Standing,
    Subject, Timestamp,
};
use crate::provider::Inspected;
use crate::store::{Abort, HeldToken, Needs, Origin, Tx};
use crate::vault::error::VaultError;
use crate::vault::provider_health::believes_death;
use crate::vault::state::Vault;
use crate::vault::token::{change, judges};

/// Deaths of one subject within this time have one cause.
const TOGETHER: Duration = Duration::from_secs(10 * 60);

/// What an inspection changed.
pub(in crate::vault) enum Applied {
    Updated(Box<Connection>),
    /// Nothing: the connection changed meanwhile, so the inspection is about an old token or old facts.
    Superseded,
    /// Nothing: the token seems dead, but too many died at once to believe it.
    Doubted,
}

/// What was found besides the inspection.
#[derive(Default)]
pub(in crate::vault) struct Findings {
    /// The ad accounts that the token reaches, if they were listed.
    pub(in crate::vault) accounts: Option<AdAccountList>,
    /// What a data call of the vault's own said, if the inspector calls the token valid.
    pub(in crate::vault) data: DataWord,
    /// Whether everything was asked that a validation asks: the data call, and the list of the ad accounts.
    pub(in crate::vault) whole: bool,
    /// The subject's name, if it was not known and was asked for.
    pub(in crate::vault) name: Option<String>,
    /// When a caller last saw the token work.
    pub(in crate::vault) last_success_at: Option<Timestamp>,
    /// The refusal that a caller met, if it names the cause of death better than the inspection. Whether the token is
    /// dead depends on the inspection alone.
    pub(in crate::vault) better_cause: Option<Refusal>,
}

impl Findings {
    /// What [`judges::list_or_try`] found.
    pub(in crate::vault) fn of_all((listed, data): (Result<AdAccountList, Refusal>, DataWord)) -> Self {
        Self { accounts: listed.ok(), data, whole: true, ..Self::default() }
    }
}

/// Writes into a connection what both judges of its token said. `whole`: they were asked everything that a validation
/// asks. Otherwise what is due stays due, since it may be due for what was not asked.
pub(in crate::vault) fn learn(
    connection: &mut Connection,
    inspection: &Result<Inspected, Refusal>,
    (data, whole): (&DataWord, bool),
    now: Timestamp,
) {
    match inspection {
        Ok(inspected) => {
            connection.facts = inspected.facts.onto(&connection.facts);
            connection.weigh(data, now);
            // Of a dead token there is nothing to list.
            let condemned =
                matches!((&connection.standing, data), (Standing::Invalid { .. }, DataWord::Refused { .. }));
            let soon = connection.next_hearing(data, now);
            if condemned || (whole && data.unanswered().is_none()) {
                connection.note_validated(now);
                connection.schedule.next_validation_at = soon.or(connection.schedule.next_validation_at);
            } else {
                connection.note_inspected(now);
                let due = connection.schedule.next_validation_at;
                connection.schedule.next_validation_at = due.into_iter().chain(soon).min();
            }
        }
        Err(refusal) if is_death(refusal) => {
            connection.note_validated(now);
            let ran_out = connection.facts.expiry.at().is_some_and(|end| end <= now);
            let known = matches!(connection.standing, Standing::Invalid { .. });
            // An expired token is dead anyway; a refusal adds nothing.
            if !(known || ran_out) {
                learn_death(connection, refusal, now);
            }
        }
        // Any other refusal says nothing about the token, so the provider is soon asked again.
        Err(_) => {
            if let (Standing::Live, Some(due)) =
                (&connection.standing, connection.schedule.next_validation_at)
            {
                connection.note_not_validated(now);
                connection.schedule.next_validation_at =
                    connection.schedule.next_validation_at.min(Some(due));
            }
        }
    }
}

/// Whether a refusal means that the token is dead.
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

/// Learns what was not known of the subject so far. An id that another connection of the workspace has stays unknown.
async fn learn_subject(
    tx: &mut Tx,
    connection: &mut Connection,
    inspected: &Inspected,
    findings: &Findings,
) -> Result<(), Abort<VaultError>> {
    let mut told = Subject { name: findings.name.clone().unwrap_or_default(), ..inspected.subject.clone() };
    if connection.subject.id.is_empty() && !told.id.is_empty() {
        let Connection { workspace, provider, app_id, .. } = &*connection;
        if tx.connection_of_subject(workspace, provider, app_id, &told.id).await?.is_some() {
            told.id.clear();
        }
    }
    connection.subject.learn(&told);
    Ok(())
}

impl Vault {
    /// Writes an inspection and further findings, if the connection is still the one that was `seen`. After a death,
    /// the other connections of the same subject are inspected in the background.
    pub(in crate::vault) async fn apply_inspection(
        self: &Arc<Self>,
        seen: &Connection,
        inspection: Result<Inspected, Refusal>,
        mut findings: Findings,
    ) -> Result<Applied, VaultError> {
        if inspection.is_ok() && seen.subject.name.is_empty() && findings.name.is_none() {
            findings.name = self.missing_name(seen).await;
        }
        let applied = self.write_inspection(seen, inspection, findings).await?;
        if let Applied::Updated(connection) = &applied
            && seen.standing == Standing::Live
            && matches!(connection.standing, Standing::Invalid { .. })
        {
            self.inspect_siblings(connection);
        }
        Ok(applied)
    }

    async fn write_inspection(
        &self,
        seen: &Connection,
        inspection: Result<Inspected, Refusal>,
        findings: Findings,
    ) -> Result<Applied, VaultError> {
        let (id, secret_id, revision, now) = (seen.id, seen.secret_id, seen.revision, self.clock.now());
        let was_due = seen.schedule.next_validation_at;
        let (found, policy) = (Arc::new((inspection, findings)), self.policy());
        let (updated, numbers) = self
            .store
            .write_with(Needs { connections: vec![id], alone: false }, move |tx| {
                let (found, policy) = (Arc::clone(&found), Arc::clone(&policy));
                Box::pin(async move {
                    let (inspection, findings) = &*found;
                    let Some(before) = tx.lock_connection(id).await? else { return Ok(Applied::Superseded) };
                    if before.secret_id != secret_id || before.revision != revision {
                        return Ok(Applied::Superseded);
                    }
                    let mut after = before.clone();
                    learn(&mut after, inspection, (&findings.data, findings.whole), now);
                    // It was made due during the inspection, for something that the inspection may not have seen.
                    if before.schedule.next_validation_at != was_due {
                        after.schedule.next_validation_at = before.schedule.next_validation_at;
                    }
                    if let Ok(inspected) = inspection {
                        learn_subject(tx, &mut after, inspected, findings).await?;
                    }
                    if let (Standing::Live, Standing::Invalid { reason, .. }) =
                        (&before.standing, &after.standing)
                    {
                        // Only the inspector knows that a token's time is over; a data call merely says so.
                        let reason = if inspection.is_ok() { RefusalReason::Unknown } else { *reason };
                        if !believes_death(tx, &before, reason, now).await? {
                            return Ok(Applied::Doubted);
                        }
                    }
                    if let (Standing::Live, Standing::Invalid { .. }, Some(cause)) =
                        (&before.standing, &after.standing, &findings.better_cause)
                    {
                        learn_death(&mut after, cause, now);
                    } else if before.standing == Standing::Live {
                        share_cause(tx, &mut after, inspection, now).await?;
                    }
                    // The last success shows when the gap began. Ignore a time in the future.
                    if matches!(after.standing, Standing::Invalid { .. })
                        && let Some(at) = findings.last_success_at.filter(|at| *at <= now)
                    {
                        after.seen.last_known_good = after.seen.last_known_good.max(Some(at));
                    }
                    let mut change = AccountChange::default();
                    if let Some(list) = &findings.accounts {
                        let reach = tx.record_ad_accounts(id, list, now).await?;
                        // The first listing is no change, because nothing was known before.
                        if before.seen.ad_accounts.is_some() {
                            change = reach.change;
                        }
                        if list.is_complete() || reach.reached > 0 {
                            after.seen.ad_accounts = Some(reach.reached);
                        }
                        after.seen.unreachable_ad_accounts = reach.unreachable;
                        after.seen.listing = list.listing;
                    }
                    change::apply(tx, &before, &mut after, Cause::Observation, change, now, &policy).await?;
                    Ok::<_, Abort<VaultError>>(Applied::Updated(Box::new(after)))
                })
            })
            .await?;
        let Applied::Updated(connection) = updated else { return Ok(updated) };
        let connection = change::numbered(*connection, numbers);
        if let (Standing::Live, Standing::Invalid { reason, .. }) = (&seen.standing, &connection.standing) {
            tracing::warn!(connection = %connection.id, workspace = %connection.workspace, ?reason, "the provider refuses the token");
        }
        Ok(Applied::Updated(Box::new(connection)))
    }

    /// The name of a subject whose name could not be read so far.
    async fn missing_name(&self, seen: &Connection) -> Option<String> {
        let held = self.store.read().await.ok()?.held_token(seen.id).await.ok()??;
        if held.connection.secret_id != seen.secret_id {
            return None;
        }
        let (provider, secret) = (self.provider_of(seen).ok()?, self.open_secret(&held).await.ok()?);
        match provider.subject_name(&secret, &seen.subject).await {
            Ok(name) => Some(name).filter(|name| !name.is_empty()),
            Err(refusal) => {
                tracing::debug!(connection = %seen.id, detail = %refusal.detail, "the subject's name could not be read");
                None
            }
        }
    }

    /// Other connections of the same subject and app may be dead too. They are inspected one after the other. Their
    /// deaths spread no further, because they have the same siblings.
    fn inspect_siblings(self: &Arc<Self>, dead: &Connection) {
        let (vault, dead) = (Arc::clone(self), dead.clone());
        let origin = Arc::new(Origin::system("sibling-check"));
        self.work.tasks.spawn(origin.scope(async move {
            if let Err(error) = vault.inspect_each_sibling(&dead).await {
                tracing::warn!(connection = %dead.id, %error, "the other connections of a dead token's subject could not be listed");
            }
        }));
    }

    async fn inspect_each_sibling(&self, dead: &Connection) -> Result<(), VaultError> {
        let siblings = self.store.read().await?.siblings(dead).await?;
        for sibling in siblings {
            if self.work.stopping.is_cancelled() {
                break;
            }
            match self.inspect_sibling(&sibling).await {
                Ok(true) => {}
                // They are due for validation, too.
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!(connection = %sibling.connection.id, %error, "a token of a dead token's subject could not be inspected");
                }
            }
        }
        Ok(())
    }

    /// Asks both judges, because either may have condemned the other token. `false`: the provider could not be asked.
    async fn inspect_sibling(&self, held: &HeldToken) -> Result<bool, VaultError> {
        let (provider, connection) = (self.provider_of(&held.connection)?, &held.connection);
        let secret = self.open_secret(held).await?;
        let inspection = provider.inspect(&secret).await;
        let (asked, findings) = match &inspection {
            Ok(inspected) => {
                let (facts, known) = (inspected.facts.onto(&connection.facts), connection.seen.listing);
                let heard = judges::list_or_try(&*provider, &secret, &facts, known).await;
                (heard.1.unanswered().is_none(), Findings::of_all(heard))
            }
            Err(refusal) => (is_death(refusal), Findings::default()),
        };
        self.write_inspection(connection, inspection, findings).await?;
        Ok(asked)
    }
}

/// Tokens of one subject that die together die of one cause, also those of which the provider does not say it.
async fn share_cause(
    tx: &mut Tx,
    dead: &mut Connection,
    inspection: &Result<Inspected, Refusal>,
    now: Timestamp,
) -> Result<(), Abort<VaultError>> {
    let unsaid = inspection.as_ref().is_err_and(|refusal| refusal.subcode.is_none());
    if let Standing::Invalid { reason, provider_code, .. } = &mut dead.standing
        && unsaid
        && let Some(cause) =
            tx.cause_of_subject(&dead.provider, &dead.app_id, &dead.subject, now - TOGETHER).await?
    {
        (*reason, *provider_code) = cause;
    }
    Ok(())
}
