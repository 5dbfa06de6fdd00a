//! The health of each provider: its circuit, which all replicas share, and the limit on how many tokens may die at
//! once.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{Announced, Connection, ProviderId, ProviderTrouble, Refusal, RefusalReason, Timestamp};
use crate::provider::{GUIDE, Pace, Provider};
use crate::store::{Abort, ProviderHealth, Scope, Spread, Tx};
use crate::vault::error::VaultError;
use crate::vault::state::Vault;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderState {
    pub provider: ProviderId,
    /// The version of its API that the vault asks for.
    pub api_version: String,
    /// Another version that it served this process instead, and since when.
    pub other_api_version: Option<(String, Timestamp)>,
    /// Whether calls are held back because the provider does not answer.
    pub circuit_open: bool,
    /// How many values of its replies this process ignored, because they could not be true.
    pub implausible_values: u64,
    /// What is wrong, and since when.
    pub trouble: Option<(ProviderTrouble, Timestamp)>,
}

/// If the tokens of more subjects than this die within [`DEATHS_WITHIN`], and more than one in [`ONE_IN`], in more than one
/// customer's workspace, the vault doubts it at first.
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
                other_api_version: provider.other_api_version(),
                circuit_open: gate.is_open(),
                implausible_values: provider.implausible_values(),
                trouble: health.as_ref().and_then(|h| trouble_of(h).map(|trouble| (trouble, h.changed_at))),
            });
        }
        Ok(states)
    }

    pub(super) fn is_held_back(&self, provider: &Arc<dyn Provider>) -> bool {
        self.providers.gate(provider.id()).is_some_and(|gate| gate.is_open())
    }
}

/// Whether a trouble is to be announced: none is known, or only one that matters less.
pub(super) fn is_news(health: &ProviderHealth, trouble: ProviderTrouble) -> bool {
    trouble_of(health).is_none_or(|known| known.severity() < trouble.severity())
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
    let dead = tx.spread_of_deaths(provider, app_id, now - DEATHS_WITHIN, connection.id).await?;
    if dead.subjects <= DEATHS {
        return Ok(true);
    }
    // To count further would change nothing.
    let at_most = dead.subjects.max(dead.workspaces).saturating_mul(ONE_IN);
    let of_app = tx.spread_of_app(provider, app_id, at_most).await?;
    if !looks_like_an_outage(dead, of_app) {
        return Ok(true);
    }
    let mut health = tx.lock_provider_health(provider, app_id, now).await?;
    health.held_until = Some(now + DOUBTED_FOR);
    if is_news(&health, ProviderTrouble::ManyDeaths) {
        raise(tx, provider, app_id, health, (ProviderTrouble::ManyDeaths, ""), now).await?;
    } else {
        tx.put_provider_health(provider, app_id, &health).await?;
    }
    let (subjects, workspaces) = (dead.subjects, dead.workspaces);
    tracing::error!(%provider, subjects, workspaces, "too many tokens died at once; verdicts are held back for 15 minutes");
    Ok(false)
}

/// Whether so many deaths are more likely a mistake of ours or the provider's than what they seem. All connections of
/// one subject die together, which is one death; and one customer may well end many people's access at once.
const fn looks_like_an_outage(dead: Spread, of_app: Spread) -> bool {
    const fn is_much(dead: i64, of: i64) -> bool {
        dead.saturating_mul(ONE_IN) > of
    }
    let one_customer = of_app.workspaces > 1 && dead.workspaces <= 1;
    dead.subjects > DEATHS
        && is_much(dead.subjects, of_app.subjects)
        && is_much(dead.workspaces, of_app.workspaces)
        && !one_customer
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn spread(subjects: i64, workspaces: i64) -> Spread {
        Spread { subjects, workspaces }
    }

    #[test]
    fn the_brake_counts_subjects_and_customers_over_the_whole_space() {
        let sizes = [1, 2, 3, 5, 19, 20, 21, 22, 30, 100, 419, 420, 421, 1_000, 10_000];
        let pairs = || sizes.iter().flat_map(|&subjects| sizes.iter().map(move |&w| spread(subjects, w)));
        let mut held = 0;
        for of_app in pairs() {
            for dead in pairs() {
                let possible = dead.subjects <= of_app.subjects && dead.workspaces <= of_app.workspaces;
                if !possible {
                    continue;
                }
                let outage = looks_like_an_outage(dead, of_app);
                held += u32::from(outage);
                let case = format!("{dead:?} of {of_app:?}");
                assert!(!outage || dead.subjects > 20, "a few people: {case}");
                assert!(!outage || dead.subjects * 20 > of_app.subjects, "few of many people: {case}");
                assert!(!outage || of_app.workspaces == 1 || dead.workspaces > 1, "one customer: {case}");
                // A wrong app secret ends everybody's tokens everywhere.
                assert!(outage || dead != of_app || dead.subjects <= 20, "everybody: {case}");
                // Worse is never believed more readily.
                if outage {
                    let worse = spread(
                        (dead.subjects + 1).min(of_app.subjects),
                        (dead.workspaces + 1).min(of_app.workspaces),
                    );
                    assert!(looks_like_an_outage(worse, of_app), "{case}");
                }
            }
        }
        assert!(held > 100, "{held}");
    }

    #[test]
    fn only_what_matters_more_than_what_is_known_is_news() {
        use ProviderTrouble::{ManyDeaths, Throttled, Unreachable};
        let known = |problem: &str| ProviderHealth {
            open: false,
            problem: problem.to_owned(),
            changed_at: Timestamp::from_micros(0),
            held_until: None,
        };
        for (problem, trouble, expected) in [
            ("", ManyDeaths, true),
            ("", Throttled, true),
            (Throttled.as_str(), ManyDeaths, true),
            (Throttled.as_str(), Throttled, false),
            (Unreachable.as_str(), ManyDeaths, false),
            (ManyDeaths.as_str(), Throttled, false),
        ] {
            assert_eq!(is_news(&known(problem), trouble), expected, "{trouble:?} after {problem:?}");
        }
    }

    #[test]
    fn deaths_of_one_person_are_one_death() {
        for workspaces in 1..200 {
            assert!(!looks_like_an_outage(spread(1, workspaces), spread(1, workspaces)));
            assert!(!looks_like_an_outage(spread(20, workspaces), spread(20, workspaces)));
        }
    }
}
