//! How providers stand: the circuit, which all replicas share, and the brake on deaths that come too many at once.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    Announced, Connection, Misconfiguration, ProviderId, ProviderTrouble, RefusalReason, Timestamp,
};
use crate::provider::Provider;
use crate::store::{Abort, ProviderHealth, RunCause, Scope, Tx};
use crate::vault::error::VaultError;
use crate::vault::jobs::schedule::JobKind;
use crate::vault::state::Vault;

/// How one provider stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderState {
    /// Its name.
    pub provider: String,
    /// The version of its API that the vault speaks.
    pub api_version: String,
    /// Calls are held back, as the provider is at fault.
    pub circuit_open: bool,
    /// What is wrong, and since when.
    pub trouble: Option<(ProviderTrouble, Timestamp)>,
}

/// More deaths than this within [`DEATHS_WITHIN`], and more than one token in [`ONE_IN`]: no longer believed.
const DEATHS: i64 = 20;
const DEATHS_WITHIN: Duration = Duration::from_secs(10 * 60);
const ONE_IN: i64 = 20;
/// How long verdicts are then held back; after it they are believed for an hour.
const HELD: Duration = Duration::from_secs(15 * 60);
const BELIEVED: Duration = Duration::from_secs(60 * 60);

/// Every trouble that has a name in the database.
const TROUBLES: [ProviderTrouble; 8] = [
    ProviderTrouble::Unreachable,
    ProviderTrouble::ManyDeaths,
    ProviderTrouble::Misconfigured(Misconfiguration::AppSecret),
    ProviderTrouble::Misconfigured(Misconfiguration::AppId),
    ProviderTrouble::Misconfigured(Misconfiguration::AppSecretProof),
    ProviderTrouble::Misconfigured(Misconfiguration::ApiVersion),
    ProviderTrouble::Misconfigured(Misconfiguration::AppCapability),
    ProviderTrouble::Misconfigured(Misconfiguration::NotConfigured),
];

fn trouble_of(health: &ProviderHealth) -> Option<ProviderTrouble> {
    TROUBLES.into_iter().find(|trouble| trouble.as_str() == health.problem)
}

impl Vault {
    /// Looks after every provider: takes over what other replicas found, tells what this one found, and probes
    /// one that is in trouble. Called every second.
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
                // Whatever else is known to be wrong, calls to one that is away are held back.
                (Some(ProviderTrouble::Unreachable), Some(_)) if !open => {
                    self.hold_back(id, app_id).await?;
                    gate.set_open(true);
                }
                (_, Some(ProviderTrouble::ManyDeaths)) => {
                    let over =
                        health.and_then(|h| h.held_until).is_none_or(|until| until <= self.clock.now());
                    if over && provider.probe().await.is_ok() {
                        self.recover(id, app_id).await?;
                        // The verdicts that were held are confirmed again, and believed now.
                        let now = self.clock.now();
                        self.begin_run(JobKind::MetaTokenExpiry, now, RunCause::Request).await?;
                    }
                }
                // A probe that passes says nothing of a trouble that only calls with a token meet.
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

    /// Opens the circuit of a provider about which something else is known already.
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
        tracing::info!(%provider, rearmed, "the provider is well again");
        Ok(())
    }

    /// How every provider stands, for status.
    pub(super) async fn provider_states(&self) -> Result<Vec<ProviderState>, VaultError> {
        let mut states = Vec::new();
        for (provider, gate) in self.providers.iter() {
            let health = self.store.read().await?.provider_health(provider.id(), provider.app_id()).await?;
            states.push(ProviderState {
                provider: provider.id().to_string(),
                api_version: provider.api_version().to_owned(),
                circuit_open: gate.is_open(),
                trouble: health.as_ref().and_then(|h| trouble_of(h).map(|trouble| (trouble, h.changed_at))),
            });
        }
        Ok(states)
    }

    /// Whether calls to a provider are held back.
    pub(super) fn is_held_back(&self, provider: &Arc<dyn Provider>) -> bool {
        self.providers.gate(provider.id()).is_some_and(|gate| gate.is_open())
    }
}

async fn raise(
    tx: &mut Tx,
    provider: &ProviderId,
    app_id: &str,
    health: ProviderHealth,
    trouble: ProviderTrouble,
    now: Timestamp,
) -> Result<(), Abort<VaultError>> {
    let health = ProviderHealth {
        open: trouble == ProviderTrouble::Unreachable,
        problem: trouble.as_str().to_owned(),
        changed_at: now,
        ..health
    };
    tx.put_provider_health(provider, app_id, &health).await?;
    let scope = Scope::Provider(provider.clone(), app_id.to_owned());
    let mut announced: Announced = tx.announced(&scope).await?;
    announced.provider_alarm(provider, trouble, now);
    tx.announce(vec![(scope, announced.into_drafts())]).await?;
    Ok(())
}

/// Whether a death is believed now. One wrong app secret must not condemn every customer: with too many at once,
/// verdicts are held back for a while, and then believed.
pub(super) async fn believes_death(
    tx: &mut Tx,
    connection: &Connection,
    reason: RefusalReason,
    now: Timestamp,
) -> Result<bool, Abort<VaultError>> {
    if reason == RefusalReason::Expired {
        return Ok(true);
    }
    let (provider, app_id) = (&connection.provider, connection.app_id.as_str());
    let held_until = tx.provider_health(provider, app_id).await?.and_then(|health| health.held_until);
    match held_until {
        Some(until) if now < until => return Ok(false),
        Some(until) if now < until + BELIEVED => return Ok(true),
        _ => {}
    }
    // The events of this transaction count too: they have no row yet.
    let here = i64::try_from(tx.deaths_so_far()).unwrap_or(i64::MAX);
    let deaths = tx.count_deaths(provider, now - DEATHS_WITHIN).await?.saturating_add(here) + 1;
    if deaths <= DEATHS {
        return Ok(true);
    }
    let enough = deaths.saturating_mul(ONE_IN);
    if tx.count_connections_of_app(provider, app_id, enough).await? >= enough {
        return Ok(true);
    }
    let mut health = tx.lock_provider_health(provider, app_id, now).await?;
    health.held_until = Some(now + HELD);
    if health.problem.is_empty() {
        raise(tx, provider, app_id, health, ProviderTrouble::ManyDeaths, now).await?;
    } else {
        tx.put_provider_health(provider, app_id, &health).await?;
    }
    tracing::error!(%provider, deaths, "too many tokens died at once; verdicts are held back for 15 minutes");
    Ok(false)
}
