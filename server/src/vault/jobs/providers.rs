//! Monitors the providers: their circuits, alarms and recoveries.

use crate::model::{ProviderId, ProviderTrouble};
use crate::store::{Abort, RunCause, Scope};
use crate::vault::error::VaultError;
use crate::vault::provider_health::{raise, trouble_of};
use crate::vault::state::Vault;
use crate::vault::timetable::JobKind;

impl Vault {
    /// Keeps every provider's health up to date: adopts what other replicas found, announces what this one found, and
    /// probes a provider in trouble. Called every second.
    ///
    /// # Errors
    /// `StorageUnavailable`.
    pub async fn tend_providers(&self, probe: bool) -> Result<(), VaultError> {
        for (provider, gate) in self.providers.iter() {
            let (id, app_id) = (provider.id(), provider.app_id());
            let health = self.store.read().await?.provider_health(id, app_id).await?;
            gate.set_open(health.as_ref().is_some_and(|health| health.open));
            let known = health.as_ref().and_then(trouble_of);
            let open = health.as_ref().is_some_and(|health| health.open);
            match (gate.take_trouble(), known) {
                (Some(found), None) => {
                    self.alarm(id, app_id, found).await?;
                    gate.set_open(found == ProviderTrouble::Unreachable);
                }
                // Hold calls back while the provider does not answer, whatever else is wrong with it.
                (Some(ProviderTrouble::Unreachable), Some(_)) if !open => {
                    self.hold_back(id, app_id).await?;
                    gate.set_open(true);
                }
                (_, Some(ProviderTrouble::ManyDeaths)) => {
                    let over =
                        health.and_then(|h| h.held_until).is_none_or(|until| until <= self.clock.now());
                    if over && provider.probe().await.is_ok() {
                        self.recover(id, app_id).await?;
                        // The sweep asks again about the tokens whose verdicts were held back.
                        let now = self.clock.now();
                        self.begin_run(JobKind::MetaTokenExpiry, now, RunCause::Request).await?;
                    }
                }
                // A probe can't clear a problem that only calls with a token run into.
                (_, Some(trouble)) if probe && !open && gate.met_lately(trouble) => {}
                (_, Some(trouble)) if probe => match provider.probe().await {
                    Ok(()) => {
                        self.recover(id, app_id).await?;
                        gate.set_open(false);
                    }
                    Err(refusal) => {
                        tracing::warn!(provider = %id, trouble = trouble.as_str(), detail = %refusal.detail, "the provider is still in trouble");
                    }
                },
                _ => {}
            }
        }
        Ok(())
    }

    async fn alarm(
        &self,
        provider: &ProviderId,
        app_id: &str,
        trouble: ProviderTrouble,
    ) -> Result<(), VaultError> {
        tracing::error!(%provider, trouble = trouble.as_str(), "something is wrong with a provider; see the feed");
        let (unit_provider, app_id, now) = (provider.clone(), app_id.to_owned(), self.clock.now());
        self.store
            .write(move |tx| {
                let (provider, app_id) = (unit_provider.clone(), app_id.clone());
                Box::pin(async move {
                    let health = tx.lock_provider_health(&provider, &app_id, now).await?;
                    if health.problem.is_empty() {
                        raise(tx, &provider, &app_id, health, trouble, now).await?;
                    }
                    Ok::<_, Abort<VaultError>>(())
                })
            })
            .await?;
        Ok(())
    }

    /// Opens the circuit of a provider that is known to have another problem.
    async fn hold_back(&self, provider: &ProviderId, app_id: &str) -> Result<(), VaultError> {
        tracing::error!(%provider, "the provider can't be reached either; calls are held back");
        let (unit_provider, app_id, now) = (provider.clone(), app_id.to_owned(), self.clock.now());
        self.store
            .write(move |tx| {
                let (provider, app_id) = (unit_provider.clone(), app_id.clone());
                Box::pin(async move {
                    let mut health = tx.lock_provider_health(&provider, &app_id, now).await?;
                    health.open = true;
                    tx.put_provider_health(&provider, &app_id, &health).await?;
                    Ok::<_, Abort<VaultError>>(())
                })
            })
            .await?;
        Ok(())
    }

    async fn recover(&self, provider: &ProviderId, app_id: &str) -> Result<(), VaultError> {
        let (unit_provider, app_id, now) = (provider.clone(), app_id.to_owned(), self.clock.now());
        let rearmed = self
            .store
            .write(move |tx| {
                let (provider, app_id) = (unit_provider.clone(), app_id.clone());
                Box::pin(async move {
                    let mut health = tx.lock_provider_health(&provider, &app_id, now).await?;
                    if health.problem.is_empty() {
                        return Ok(0);
                    }
                    health.open = false;
                    health.problem.clear();
                    health.changed_at = now;
                    tx.put_provider_health(&provider, &app_id, &health).await?;
                    let scope = Scope::Provider(provider.clone(), app_id);
                    let mut announced = tx.announced(&scope).await?;
                    announced.provider_recovered(&provider, now);
                    tx.announce(vec![(scope, announced.into_drafts())]).await?;
                    Ok::<_, Abort<VaultError>>(tx.rearm_renewals(&provider, now).await?)
                })
            })
            .await?;
        tracing::info!(%provider, rearmed, "the provider works again");
        Ok(())
    }
}
