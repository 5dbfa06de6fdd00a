//! What every job does that asks a provider about many connections. A refusal that is not about the token leaves its
//! connection due. After the first one, the job goes on with one call at a time. Three connections refused in a row, or
//! half of the last twenty, make it a matter of the provider: the job ends, the trouble is announced, and the job goes
//! on when the provider works again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::model::{ConnectionId, ProviderId, ProviderTrouble, Refusal, RefusalKind};
use crate::provider::{GUIDE, Gate, Pace, Provider, Work};
use crate::vault::error::VaultError;
use crate::vault::provider_health::{probe, trouble_of};
use crate::vault::state::Vault;

/// This many different connections refused in a row are a matter of the provider.
const IN_A_ROW: usize = 3;
/// So are this many of the last [`RECENT`].
const OF_RECENT: usize = 10;
const RECENT: usize = 20;

/// The refusals of one pass.
#[derive(Debug, Default)]
struct Tally {
    /// Different connections that were refused since the last one that was not.
    row: Vec<ConnectionId>,
    /// Whether the last connections were refused, the newest last.
    recent: VecDeque<bool>,
    answered: bool,
}

impl Tally {
    /// Counts a connection. `true`: the refusals are a matter of the provider.
    fn count(&mut self, id: ConnectionId, refusal: Option<&Refusal>) -> bool {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(refusal.is_some());
        match refusal {
            None => {
                self.row.clear();
                self.answered = true;
            }
            Some(_) if self.row.contains(&id) => {}
            Some(_) => self.row.push(id),
        }
        let many = || {
            self.row.len() >= IN_A_ROW || self.recent.iter().filter(|refused| **refused).count() >= OF_RECENT
        };
        refusal.is_some_and(|refusal| refusal.limits_the_app() || many())
    }
}

/// One job's way through the connections of one provider.
struct Pass {
    work: Work,
    provider: Arc<dyn Provider>,
    gate: Arc<Gate>,
    pace: Arc<Pace>,
    tally: Arc<Mutex<Tally>>,
    /// The last refusal that was not about a token. One with a code says more than a later one without.
    last: Mutex<Option<Refusal>>,
    /// Why no more connections are asked about.
    over: Mutex<Option<String>>,
}

impl Pass {
    fn is_over(&self) -> bool {
        self.over.lock().is_some()
    }

    fn note(&self, id: ConnectionId, refusal: Option<&Refusal>) {
        let is_matter_of_provider = self.tally.lock().count(id, refusal);
        let Some(refusal) = refusal else { return };
        let mut last = self.last.lock();
        if last.is_none() || !refusal.provider_code().is_empty() {
            *last = Some(refusal.clone());
        }
        if let Some(last) = last.as_ref().filter(|_| is_matter_of_provider) {
            self.end(last);
        }
    }

    /// Ends the pass. Work in flight goes on, and makes no more calls.
    fn end(&self, refusal: &Refusal) {
        let mut over = self.over.lock();
        if over.is_some() {
            return;
        }
        let provider = self.provider.id();
        let trouble = trouble(refusal);
        let what = trouble.remedy(provider, GUIDE).message;
        *over = Some(format!("{what} It said: {}", in_words(refusal)));
        self.pace.stop();
        self.gate.report(self.work, trouble, refusal.provider_code());
        tracing::error!(%provider, work = ?self.work, trouble = trouble.as_str(), provider_code = refusal.provider_code(), detail = %refusal.detail, "the provider refuses one connection after the other; the job goes on when it works again");
    }
}

fn trouble(refusal: &Refusal) -> ProviderTrouble {
    use crate::model::Misconfiguration;
    match refusal.kind {
        RefusalKind::Transient { .. } => ProviderTrouble::Unreachable,
        RefusalKind::Throttled { .. } => ProviderTrouble::Throttled,
        RefusalKind::Ours(problem) => ProviderTrouble::Misconfigured(problem),
        _ => ProviderTrouble::Misconfigured(Misconfiguration::Request),
    }
}

/// A refusal for people, with its code.
fn in_words(refusal: &Refusal) -> String {
    match refusal.provider_code().as_str() {
        "" => refusal.detail.clone(),
        code => format!("code {code}, {}", refusal.detail),
    }
}

/// Lets work tell that the provider replied about its connection, before the work ends. Replies count in the order in
/// which they came: work whose reply came before an outage may end after it began.
#[derive(Default)]
pub(in crate::vault) struct Hearing {
    connection: Option<(ConnectionId, Arc<Mutex<Tally>>)>,
    replied: AtomicBool,
}

impl Hearing {
    pub(in crate::vault) fn replied(&self) {
        if let Some((id, tally)) = &self.connection
            && !self.replied.swap(true, Ordering::Relaxed)
        {
            tally.lock().count(*id, None);
        }
    }
}

/// What became of one connection.
pub(in crate::vault) enum Answer<'a> {
    /// The provider replied about the token, or there was nothing to ask.
    Given,
    /// A refusal that is not about the token.
    Refused(&'a Refusal),
    /// The provider was not asked.
    None,
}

/// What became of work that was held and is tried on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vault) enum Tried {
    /// The provider answered a call of this kind of work.
    Works,
    /// The provider refuses it still, or something else is in the way.
    Fails,
    /// No connection waits for this work.
    NothingToTry,
}

/// One job's way through the connections of all providers.
pub(in crate::vault) struct Passes(BTreeMap<ProviderId, Pass>);

impl Passes {
    /// Begins passes over all providers. Those that are in trouble are over at once.
    pub(in crate::vault) async fn begin(
        vault: &Vault,
        work: Work,
        at_once: usize,
    ) -> Result<Self, VaultError> {
        let mut passes = BTreeMap::new();
        for (provider, gate) in vault.providers.iter() {
            let (id, app_id) = (provider.id(), provider.app_id());
            let over = match gate.holds(work) {
                false => None,
                true => {
                    let health = vault.store.read().await?.provider_health(id, app_id).await?;
                    let trouble =
                        health.as_ref().and_then(trouble_of).unwrap_or(ProviderTrouble::Unreachable);
                    Some(format!("{} The job waits for its end.", trouble.remedy(id, GUIDE).message))
                }
            };
            let pass = Pass {
                work,
                provider: Arc::clone(provider),
                gate: Arc::clone(gate),
                pace: Pace::new(at_once),
                tally: Arc::default(),
                last: Mutex::default(),
                over: Mutex::new(over),
            };
            passes.insert(id.clone(), pass);
        }
        Ok(Self(passes))
    }

    /// The providers about whose connections no more questions are asked.
    pub(in crate::vault) fn held(&self) -> Vec<ProviderId> {
        self.0.iter().filter(|(_, pass)| pass.is_over()).map(|(id, _)| id.clone()).collect()
    }

    /// How many connections to work on at once.
    pub(in crate::vault) fn at_once(&self) -> usize {
        self.0.values().map(|pass| pass.pace.at_once()).max().unwrap_or(1)
    }

    /// Works on one connection, at the pace of its provider. `None`: its provider's pass is over, and nothing was done.
    pub(in crate::vault) async fn work_on<T, F: Future<Output = T>>(
        &self,
        provider: &ProviderId,
        id: ConnectionId,
        work: impl FnOnce(Arc<Hearing>) -> F,
        answer: impl FnOnce(&T) -> Answer<'_>,
    ) -> Option<T> {
        // Work on a connection whose provider is not configured asks nobody.
        let Some(pass) = self.0.get(provider) else { return Some(work(Arc::default()).await) };
        if pass.is_over() {
            return None;
        }
        let hearing = Arc::new(Hearing {
            connection: Some((id, Arc::clone(&pass.tally))),
            replied: AtomicBool::new(false),
        });
        let outcome = pass.pace.keep(work(Arc::clone(&hearing))).await;
        match answer(&outcome) {
            Answer::Given => hearing.replied(),
            Answer::Refused(refusal) => pass.note(id, Some(refusal)),
            Answer::None => {}
        }
        Some(outcome)
    }

    /// Ends the passes. If a provider answered about no connection at all, a probe tells whether that is its matter.
    /// Returns why something may be left, for people.
    pub(in crate::vault) async fn end(&self) -> String {
        let mut reasons = Vec::new();
        for pass in self.0.values() {
            let answered = pass.tally.lock().answered;
            let last = pass.last.lock().clone();
            if let Some(last) = &last
                && !answered
                && !pass.is_over()
                && probe(&*pass.provider).await.is_err()
            {
                pass.end(last);
            }
            let refused = || last.as_ref().map(|last| format!("The provider said: {}", in_words(last)));
            reasons.extend(pass.over.lock().clone().or_else(refused));
        }
        match reasons.is_empty() {
            true => "The vault could not work on some tokens; see its log.".to_owned(),
            false => reasons.join(" "),
        }
    }
}

#[cfg(test)]
mod tests;
