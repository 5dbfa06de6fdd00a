//! The health of each provider: its circuit, which all replicas share, and the limit on how many tokens may die at
//! once.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{Announced, Connection, ProviderId, ProviderTrouble, Refusal, RefusalReason, Timestamp};
use crate::provider::{GUIDE, Pace, Provider};
use crate::store::{Abort, ProviderHealth, Scope, Tx};
use crate::vault::error::VaultError;
use crate::vault::state::Vault;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderState {
    pub provider: ProviderId,
    /// The version of its API that the vault speaks.
    pub api_version: String,
    /// Whether calls are held back because the provider does not answer.
    pub circuit_open: bool,
    /// What is wrong, and since when.
    pub trouble: Option<(ProviderTrouble, Timestamp)>,
}

/// If more tokens than this die within [`DEATHS_WITHIN`], and more than one in [`ONE_IN`], the vault doubts it at
/// first.
const DEATHS: i64 = 20;
const DEATHS_WITHIN: Duration = Duration::from_secs(10 * 60);
const ONE_IN: i64 = 20;
/// How long the vault then holds verdicts back. Afterwards it believes them for [`BELIEVED`].
pub(super) const DOUBTED_FOR: Duration = Duration::from_secs(15 * 60);
const BELIEVED: Duration = Duration::from_secs(60 * 60);

pub(super) fn trouble_of(health: &ProviderHealth) -> Option<ProviderTrouble> {
    ProviderTrouble::from_name(&health.problem)
}

impl Vault {
    pub(super) async fn provider_states(&self) -> Result<Vec<ProviderState>, VaultError> {
        let mut states = Vec::new();
        for (provider, gate) in self.providers.iter() {
            let health = self.store.read().await?.provider_health(provider.id(), provider.app_id()).await?;
            states.push(ProviderState {
                provider: provider.id().clone(),
                api_version: provider.api_version().to_owned(),
                circuit_open: gate.is_open(),
                trouble: health.as_ref().and_then(|h| trouble_of(h).map(|trouble| (trouble, h.changed_at))),
            });
        }
        Ok(states)
    }

    pub(super) fn is_held_back(&self, provider: &Arc<dyn Provider>) -> bool {
        self.providers.gate(provider.id()).is_some_and(|gate| gate.is_open())
    }
}

/// Asks about our app itself, once.
pub(super) async fn probe(provider: &dyn Provider) -> Result<(), Refusal> {
    Pace::of_a_probe().keep(provider.probe()).await
}

/// Announces a trouble and writes it down. `provider_code` is that of the refusal, or empty.
pub(super) async fn raise(
    tx: &mut Tx,
    provider: &ProviderId,
    app_id: &str,
    health: ProviderHealth,
    (trouble, provider_code): (ProviderTrouble, &str),
    now: Timestamp,
) -> Result<(), Abort<VaultError>> {
    let health = ProviderHealth { problem: trouble.as_str().to_owned(), changed_at: now, ..health };
    tx.put_provider_health(provider, app_id, &health).await?;
    let scope = Scope::Provider(provider.clone(), app_id.to_owned());
    let mut announced: Announced = tx.announced(&scope).await?;
    announced.provider_alarm(provider, trouble, (GUIDE, provider_code), now);
    tx.announce(vec![(scope, announced.into_drafts())]).await?;
    Ok(())
}

/// Whether to believe now that a token is dead. One wrong app secret must not invalidate every customer's token: when
/// too many tokens seem to die at once, the vault holds verdicts back for a while, and then believes them.
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
    // Events of this transaction count too, although they have no rows yet.
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
    health.held_until = Some(now + DOUBTED_FOR);
    if health.problem.is_empty() {
        raise(tx, provider, app_id, health, (ProviderTrouble::ManyDeaths, ""), now).await?;
    } else {
        tx.put_provider_health(provider, app_id, &health).await?;
    }
    tracing::error!(%provider, deaths, "too many tokens died at once; verdicts are held back for 15 minutes");
    Ok(false)
}
