//! Monitors the providers: their circuits, alarms and recoveries.

use std::sync::Arc;

use crate::model::{ProviderId, ProviderTrouble, Refusal, RefusalKind, Timestamp};
use crate::provider::{Found, Gate, Pace, Provider, Work};
use crate::store::{Abort, Needs, ProviderHealth, RunCause, Scope};
use crate::vault::error::VaultError;
use crate::vault::pass::Tried;
use crate::vault::provider_health::{is_news, probe, raise, trouble_of};
use crate::vault::state::Vault;
use crate::vault::timetable::JobKind;

/// The most renewals that are tried again at once after a provider works again.
const REARMED: i64 = 1_000;

impl Vault {
    /// Keeps every provider's health up to date: adopts what other replicas found, announces what this one found, and
    /// probes a provider in trouble. Called every second.
    ///
    /// # Errors
    /// `StorageUnavailable`.
    pub async fn tend_providers(self: &Arc<Self>) -> Result<(), VaultError> {
        for (provider, gate) in self.providers.iter() {
            let found = gate.found();
            let (id, app_id) = (provider.id(), provider.app_id());
            let health = self.store.read().await?.provider_health(id, app_id).await?;
            gate.set_open(health.as_ref().is_some_and(|health| health.open));
            let known = health.as_ref().and_then(|health| Some((trouble_of(health)?, health.changed_at)));
            match (found, known) {
                (Some(found), _) => {
                    self.note_trouble(provider, gate, &found).await?;
                    gate.has_noted(&found);
                }
                (None, None) => gate.adopt(None, []),
                (None, Some((ProviderTrouble::ManyDeaths, since))) => {
                    gate.adopt(Some(since), []);
                    self.end_doubts(provider, gate, health).await?;
                }
                (None, Some((trouble, since))) => {
                    gate.adopt(Some(since), Work::ALL);
                    if gate.is_time_to_probe() {
                        self.look_again(provider, gate, trouble).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Announces what this process found. Calls are held back only if the provider does not reply at all.
    async fn note_trouble(
        &self,
        provider: &Arc<dyn Provider>,
        gate: &Gate,
        found: &Found,
    ) -> Result<(), VaultError> {
        let (id, app_id) = (provider.id(), provider.app_id());
        let silent = found.trouble == ProviderTrouble::Unreachable
            && (found.work.is_none() || is_outage(&probe(&**provider).await));
        let Found { trouble, provider_code, work } = found;
        let since = self.alarm(id, app_id, *trouble, provider_code.clone(), silent).await?;
        gate.adopt(Some(since), []);
        if let Some(work) = work {
            gate.hold(*work);
        }
        if silent {
            gate.set_open(true);
        }
        Ok(())
    }

    /// Finds out whether a provider works again.
    async fn look_again(
        self: &Arc<Self>,
        provider: &Arc<dyn Provider>,
        gate: &Gate,
        trouble: ProviderTrouble,
    ) -> Result<(), VaultError> {
        // Calls before the time that the provider named would prolong the block.
        if trouble == ProviderTrouble::Throttled
            && provider.usage().is_some_and(|usage| !usage.retry_after.is_zero())
        {
            return Ok(());
        }
        if let Err(refusal) = probe(&**provider).await {
            tracing::warn!(provider = %provider.id(), trouble = trouble.as_str(), detail = %refusal.detail, "the provider is still in trouble");
            return Ok(());
        }
        if gate.is_open() {
            self.close_circuit(provider.id(), provider.app_id()).await?;
            gate.set_open(false);
        }
        let has_worked = self.release_what_works(provider, gate).await?;
        // A probe can't clear a problem that only calls with a token run into; work that succeeds can.
        if gate.held().is_empty() && (has_worked || !gate.met_lately(trouble)) {
            self.recover(provider.id(), provider.app_id()).await?;
            gate.adopt(None, []);
        }
        Ok(())
    }

    /// A probe is about the app. Whether work succeeds shows only when it is tried. Work that nothing waits for is not
    /// held. Returns whether some work has succeeded.
    async fn release_what_works(
        self: &Arc<Self>,
        provider: &Arc<dyn Provider>,
        gate: &Gate,
    ) -> Result<bool, VaultError> {
        let mut has_worked = false;
        for work in gate.held() {
            let pace = Pace::of_a_probe();
            let tried = match work {
                Work::Validation => pace.keep(Box::pin(self.try_validation(provider.id()))).await?,
                Work::Renewal => pace.keep(Box::pin(self.try_renewal(provider.id()))).await?,
            };
            if tried != Tried::Fails {
                gate.release(work);
            }
            has_worked |= tried == Tried::Works;
        }
        Ok(has_worked)
    }

    /// Ends the time in which too many deaths are not believed.
    async fn end_doubts(
        self: &Arc<Self>,
        provider: &Arc<dyn Provider>,
        gate: &Gate,
        health: Option<ProviderHealth>,
    ) -> Result<(), VaultError> {
        let over = health.and_then(|health| health.held_until).is_none_or(|until| until <= self.clock.now());
        if (!over && gate.held().is_empty()) || !gate.is_time_to_probe() || probe(&**provider).await.is_err()
        {
            return Ok(());
        }
        self.release_what_works(provider, gate).await?;
        // What the provider still refuses is no matter of deaths: its own trouble lasts.
        if over && gate.held().is_empty() {
            self.recover(provider.id(), provider.app_id()).await?;
            gate.adopt(None, []);
            // The sweep asks again about the tokens whose verdicts were held back.
            self.begin_run(JobKind::MetaTokenExpiry, self.clock.now(), RunCause::Request).await?;
        }
        Ok(())
    }

    /// Announces a trouble, unless another one is known that matters no less, and opens the circuit where calls are to
    /// be held back. Returns since when a trouble is known.
    async fn alarm(
        &self,
        provider: &ProviderId,
        app_id: &str,
        trouble: ProviderTrouble,
        provider_code: String,
        hold_back: bool,
    ) -> Result<Timestamp, VaultError> {
        let (unit_provider, app_id, now) = (provider.clone(), app_id.to_owned(), self.clock.now());
        let code = provider_code.clone();
        let (since, is_news) = self
            .store
            .write(move |tx| {
                let (provider, app_id, code) = (unit_provider.clone(), app_id.clone(), code.clone());
                Box::pin(async move {
                    let mut health = tx.lock_provider_health(&provider, &app_id, now).await?;
                    let opens = hold_back && !health.open;
                    health.open |= hold_back;
                    let is_worse = is_news(&health, trouble);
                    let since = if is_worse { now } else { health.changed_at };
                    if is_worse {
                        raise(tx, &provider, &app_id, health, (trouble, &code), now).await?;
                    } else if opens {
                        tx.put_provider_health(&provider, &app_id, &health).await?;
                    }
                    Ok::<_, Abort<VaultError>>((since, is_worse || opens))
                })
            })
            .await?;
        if is_news {
            tracing::error!(%provider, trouble = trouble.as_str(), provider_code, hold_back, "something is wrong with a provider; see the feed");
        }
        Ok(since)
    }

    /// Lets calls through again. Whether the trouble is over shows afterwards.
    async fn close_circuit(&self, provider: &ProviderId, app_id: &str) -> Result<(), VaultError> {
        let (provider, app_id, now) = (provider.clone(), app_id.to_owned(), self.clock.now());
        self.store
            .write(move |tx| {
                let (provider, app_id) = (provider.clone(), app_id.clone());
                Box::pin(async move {
                    let mut health = tx.lock_provider_health(&provider, &app_id, now).await?;
                    health.open = false;
                    tx.put_provider_health(&provider, &app_id, &health).await?;
                    Ok::<_, Abort<VaultError>>(())
                })
            })
            .await?;
        Ok(())
    }

    async fn recover(&self, provider: &ProviderId, app_id: &str) -> Result<(), VaultError> {
        let (unit_provider, app_id, now) = (provider.clone(), app_id.to_owned(), self.clock.now());
        let recovered = self
            .store
            .write(move |tx| {
                let (provider, app_id) = (unit_provider.clone(), app_id.clone());
                Box::pin(async move {
                    let mut health = tx.lock_provider_health(&provider, &app_id, now).await?;
                    if health.problem.is_empty() {
                        return Ok(false);
                    }
                    health.open = false;
                    health.problem.clear();
                    health.changed_at = now;
                    tx.put_provider_health(&provider, &app_id, &health).await?;
                    let scope = Scope::Provider(provider.clone(), app_id);
                    let mut announced = tx.announced(&scope).await?;
                    announced.provider_recovered(&provider, now);
                    tx.announce(vec![(scope, announced.into_drafts())]).await?;
                    Ok::<_, Abort<VaultError>>(true)
                })
            })
            .await?;
        let rearmed = if recovered { self.rearm(provider, now).await? } else { 0 };
        tracing::info!(%provider, rearmed, "the provider works again");
        // Validations go on by themselves. Renewals would wait for their next slot.
        if self.jobs.timetable.rotation.is_some()
            && !self.store.read().await?.due_renewals(now, &[], 1).await?.is_empty()
        {
            self.begin_run(JobKind::Rotation, now, RunCause::Request).await?;
        }
        Ok(())
    }

    /// Lets work that waits after failures be tried again; returns for how many renewals. These lock many connections,
    /// which whoever believes a death locks before the provider's health: so each is a transaction of its own.
    async fn rearm(&self, provider: &ProviderId, now: Timestamp) -> Result<u64, VaultError> {
        let alone = || Needs { alone: true, ..Needs::default() };
        let of = provider.clone();
        self.store
            .write_with(alone(), move |tx| {
                let of = of.clone();
                Box::pin(async move { Ok::<_, Abort<VaultError>>(tx.rearm_validations(&of, now).await?) })
            })
            .await?;
        let of = provider.clone();
        let (renewals, _) = self
            .store
            .write_with(alone(), move |tx| {
                let of = of.clone();
                Box::pin(
                    async move { Ok::<_, Abort<VaultError>>(tx.rearm_renewals(&of, now, REARMED).await?) },
                )
            })
            .await?;
        Ok(renewals)
    }
}

fn is_outage(probed: &Result<(), Refusal>) -> bool {
    matches!(probed, Err(refusal) if matches!(refusal.kind, RefusalKind::Transient { .. }))
}
