//! The circuit breaker in front of a provider. Errors of the provider open it; throttling, dead tokens and our own
//! mistakes do not. While it is open, calls fail here at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{
    Callback, CallbackFault, CallbackMeaning, ConsentRequest, Exchanged, HttpAnswer, Inspected, PageToken,
    Patience, Provider, ProviderCallback, ReportedRefusal, RequestPart, Revocation, SmokeTest, Usage,
};
use crate::model::{
    AdAccountList, Listing, Misconfiguration, ProviderId, ProviderTrouble, Refusal, RefusalKind, Secret,
    Subject, Timestamp, TokenFacts, TokenKind,
};
use parking_lot::Mutex;
use url::Url;

/// How many operations in a row must fail before the circuit opens.
const STREAK: u32 = 5;
/// The least time that these failures must span, so that a burst of parallel calls is not mistaken for an outage.
const SPAN: Duration = Duration::from_secs(5);
/// The time after which a misconfiguration that only some calls meet counts as over, if no call has met it again.
const LATELY: Duration = Duration::from_secs(10 * 60);
/// The wait that the caller of a held-back call is asked for.
const WAIT: Duration = Duration::from_secs(15);
/// The wait before a provider in trouble is probed for the first time; it doubles with each further time.
const FIRST_PROBE: Duration = Duration::from_secs(5);
/// The longest wait between two probes. Work must go on within a minute after the provider works again.
const LONGEST_PROBE: Duration = Duration::from_secs(40);

/// Failures in a row.
#[derive(Clone, Copy)]
struct Streak {
    since: Instant,
    count: u32,
}

/// Work on many connections that asks a provider about each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    Validation,
    Renewal,
}

impl Work {
    pub const ALL: [Self; 2] = [Self::Validation, Self::Renewal];
}

/// A trouble that this process found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub trouble: ProviderTrouble,
    /// The code of the refusal, for people: `4`, or empty.
    pub provider_code: String,
    /// The work that met it, if it was not a single call.
    pub work: Option<Work>,
}

/// A trouble that is announced, and what waits for its end.
struct Ongoing {
    since: Timestamp,
    /// The work that is held until an attempt of it succeeds.
    held: BTreeSet<Work>,
    next_probe: Instant,
    wait: Duration,
}

/// What this process knows about a provider's health, and whether calls are held back.
#[derive(Default)]
pub struct Gate {
    open: AtomicBool,
    streak: Mutex<Option<Streak>>,
    /// What is to be announced: one trouble for each kind of work that met one, and one for single calls.
    found: Mutex<BTreeMap<Option<Work>, Found>>,
    ongoing: Mutex<Option<Ongoing>>,
    /// The last misconfiguration that a call met, and when.
    met: Mutex<Option<(Misconfiguration, Instant)>>,
}

impl Gate {
    /// Whether the circuit is open, which means that calls are held back.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    pub fn set_open(&self, open: bool) {
        if self.open.swap(open, Ordering::AcqRel) != open {
            *self.streak.lock() = None;
            self.found.lock().remove(&None);
        }
    }

    /// A trouble that this process found and that is not yet announced. What work on many connections met says more,
    /// and comes first.
    pub fn found(&self) -> Option<Found> {
        self.found.lock().values().next_back().cloned()
    }

    /// Takes note that a trouble is announced. A newer one remains.
    pub fn has_noted(&self, noted: &Found) {
        let mut found = self.found.lock();
        if found.get(&noted.work) == Some(noted) {
            found.remove(&noted.work);
        }
    }

    /// Work on many connections met refusals that are not about tokens: it is held until the trouble is over.
    pub fn report(&self, work: Work, trouble: ProviderTrouble, provider_code: String) {
        self.found.lock().insert(Some(work), Found { trouble, provider_code, work: Some(work) });
    }

    /// Whether this work waits until the provider works again.
    pub fn holds(&self, work: Work) -> bool {
        self.is_open()
            || self.found.lock().contains_key(&Some(work))
            || self.ongoing.lock().as_ref().is_some_and(|ongoing| ongoing.held.contains(&work))
    }

    /// The work that waits until an attempt of it succeeds.
    pub fn held(&self) -> Vec<Work> {
        self.ongoing.lock().as_ref().map(|ongoing| ongoing.held.iter().copied().collect()).unwrap_or_default()
    }

    pub fn hold(&self, work: Work) {
        if let Some(ongoing) = &mut *self.ongoing.lock() {
            ongoing.held.insert(work);
        }
    }

    pub fn release(&self, work: Work) {
        if let Some(ongoing) = &mut *self.ongoing.lock() {
            ongoing.held.remove(&work);
        }
    }

    /// Takes note of a trouble that is announced since an instant, or that there is none. `held` is the work that waits
    /// if this process did not know of it.
    pub fn adopt(&self, since: Option<Timestamp>, held: impl IntoIterator<Item = Work>) {
        let mut ongoing = self.ongoing.lock();
        let Some(since) = since else {
            *ongoing = None;
            return;
        };
        if ongoing.as_ref().is_none_or(|known| known.since != since) {
            let (held, next_probe) = (held.into_iter().collect(), Instant::now() + FIRST_PROBE);
            *ongoing = Some(Ongoing { since, held, next_probe, wait: FIRST_PROBE });
        }
    }

    /// Whether to probe a provider in trouble now. If so, the next probe is due after twice the wait.
    pub fn is_time_to_probe(&self) -> bool {
        let mut ongoing = self.ongoing.lock();
        let Some(ongoing) = ongoing.as_mut().filter(|ongoing| ongoing.next_probe <= Instant::now()) else {
            return false;
        };
        ongoing.wait = (ongoing.wait * 2).min(LONGEST_PROBE);
        ongoing.next_probe = Instant::now() + ongoing.wait;
        true
    }

    /// Whether calls met this trouble recently. Never true for a wrong app id or secret, which a probe checks.
    pub fn met_lately(&self, trouble: ProviderTrouble) -> bool {
        use Misconfiguration::{AppId, AppSecret};
        if matches!(trouble, ProviderTrouble::Misconfigured(AppId | AppSecret)) {
            return false;
        }
        let met = self.met.lock();
        matches!((*met, trouble), (Some((met, at)), ProviderTrouble::Misconfigured(asked))
            if met == asked && at.elapsed() < LATELY)
    }

    fn observe<T>(&self, outcome: &Result<T, Refusal>) {
        let kind = outcome.as_ref().err().map(|refusal| &refusal.kind);
        let mut streak = self.streak.lock();
        let trouble = match kind {
            Some(RefusalKind::Transient { .. }) => {
                let now = Instant::now();
                let failures = streak.get_or_insert(Streak { since: now, count: 0 });
                failures.count += 1;
                let tripped = failures.count >= STREAK && failures.since.elapsed() >= SPAN;
                tripped.then_some(ProviderTrouble::Unreachable)
            }
            // These may be about a single call. Work on many connections finds out whether they are about the app.
            Some(RefusalKind::Ours(
                Misconfiguration::Request | Misconfiguration::RedirectUri | Misconfiguration::AppBlocked,
            )) => None,
            Some(RefusalKind::Ours(problem)) => {
                *streak = None;
                *self.met.lock() = Some((*problem, Instant::now()));
                Some(ProviderTrouble::Misconfigured(*problem))
            }
            _ => {
                *streak = None;
                None
            }
        };
        drop(streak);
        if let (Some(trouble), Err(refusal)) = (trouble, outcome) {
            let found = Found { trouble, provider_code: refusal.provider_code(), work: None };
            self.found.lock().entry(None).or_insert(found);
        }
    }
}

/// A provider with its gate in front, for one operation or for all of the vault's own.
pub(super) struct Guarded {
    inner: Arc<dyn Provider>,
    gate: Arc<Gate>,
    patience: Patience,
    /// Whether the operation has changed something at the provider. From then on it goes on to its end, however long
    /// its callers wait: the change must not get lost.
    begun: AtomicBool,
}

impl Guarded {
    pub(super) fn new(inner: Arc<dyn Provider>, gate: Arc<Gate>, patience: Patience) -> Self {
        Self { inner, gate, patience, begun: AtomicBool::new(false) }
    }

    /// Makes a call unless calls are held back, and notes its outcome. The call is cut off, and says nothing about the
    /// provider, once nobody waits for it.
    async fn through<T>(&self, call: impl Future<Output = Result<T, Refusal>> + Send) -> Result<T, Refusal> {
        if self.begun.load(Ordering::Acquire) {
            return self.to_the_end(call).await;
        }
        tokio::select! {
            biased;
            () = self.patience.ended() => Err(out_of_time()),
            outcome = self.to_the_end(call) => outcome,
        }
    }

    /// Makes a call that changes something at the provider, if somebody waits for it when it begins.
    async fn begin<T>(&self, call: impl Future<Output = Result<T, Refusal>> + Send) -> Result<T, Refusal> {
        if self.patience.has_ended() && !self.begun.load(Ordering::Acquire) {
            return Err(out_of_time());
        }
        self.begun.store(true, Ordering::Release);
        self.to_the_end(call).await
    }

    async fn to_the_end<T>(
        &self,
        call: impl Future<Output = Result<T, Refusal>> + Send,
    ) -> Result<T, Refusal> {
        if self.gate.is_open() {
            let kind = RefusalKind::Transient { retry_after: Some(WAIT) };
            return Err(Refusal::new(
                kind,
                "the provider has errors; calls are held back until it works again",
            ));
        }
        let outcome = call.await;
        self.gate.observe(&outcome);
        outcome
    }
}

fn out_of_time() -> Refusal {
    Refusal::new(RefusalKind::OutOfTime, "the provider did not reply within the time that the caller gave")
}

#[async_trait::async_trait]
impl Provider for Guarded {
    fn id(&self) -> &ProviderId {
        self.inner.id()
    }

    fn app_id(&self) -> &str {
        self.inner.app_id()
    }

    fn api_version(&self) -> &str {
        self.inner.api_version()
    }

    fn other_api_version(&self) -> Option<(String, Timestamp)> {
        self.inner.other_api_version()
    }

    /// Probes the provider even while the circuit is open. This is how the vault finds out that the provider works
    /// again.
    async fn probe(&self) -> Result<(), Refusal> {
        self.inner.probe().await
    }

    async fn inspect(&self, secret: &Secret) -> Result<Inspected, Refusal> {
        self.through(self.inner.inspect(secret)).await
    }

    async fn try_data(&self, secret: &Secret, facts: &TokenFacts) -> Result<(), Refusal> {
        self.through(self.inner.try_data(secret, facts)).await
    }

    fn consent_url(&self, request: &ConsentRequest<'_>) -> Url {
        self.inner.consent_url(request)
    }

    fn read_callback(&self, pairs: &[(String, String)]) -> Callback {
        self.inner.read_callback(pairs)
    }

    fn read_provider_callback(&self, callback: &ProviderCallback) -> Result<CallbackMeaning, CallbackFault> {
        self.inner.read_provider_callback(callback)
    }

    fn deletion_answer(&self, code: &str) -> Option<HttpAnswer> {
        self.inner.deletion_answer(code)
    }

    async fn exchange_code(
        &self,
        code: &Secret,
        redirect_uri: &str,
        verifier: &Secret,
    ) -> Result<Exchanged, Refusal> {
        if self.gate.is_open() {
            let detail = "calls to the provider are held back until it works again";
            return Err(Refusal::new(RefusalKind::OutOfTime, detail));
        }
        self.begin(self.inner.exchange_code(code, redirect_uri, verifier)).await
    }

    async fn exchange(&self, secret: &Secret, kind: TokenKind) -> Result<Exchanged, Refusal> {
        self.begin(self.inner.exchange(secret, kind)).await
    }

    async fn subject_name(&self, secret: &Secret, subject: &Subject) -> Result<String, Refusal> {
        self.through(self.inner.subject_name(secret, subject)).await
    }

    async fn ad_accounts(
        &self,
        secret: &Secret,
        scopes: &[String],
        known: Listing,
    ) -> Result<AdAccountList, Refusal> {
        self.through(self.inner.ad_accounts(secret, scopes, known)).await
    }

    async fn smoke_test(&self, secret: &Secret, ad_account_id: &str) -> Result<SmokeTest, Refusal> {
        self.through(self.inner.smoke_test(secret, ad_account_id)).await
    }

    async fn revoke(
        &self,
        secret: &Secret,
        subject: &Subject,
        kind: TokenKind,
    ) -> Result<Revocation, Refusal> {
        self.begin(self.inner.revoke(secret, subject, kind)).await
    }

    async fn pages(&self, secret: &Secret) -> Result<Vec<PageToken>, Refusal> {
        self.through(self.inner.pages(secret)).await
    }

    fn send_with(&self, secret: &Secret) -> Vec<RequestPart> {
        self.inner.send_with(secret)
    }

    fn classify(&self, report: &ReportedRefusal) -> Refusal {
        self.inner.classify(report)
    }

    fn observe_usage(&self, headers: &[(String, String)], ad_account_id: Option<&str>) {
        self.inner.observe_usage(headers, ad_account_id);
    }

    fn implausible_values(&self) -> u64 {
        self.inner.implausible_values()
    }

    fn usage(&self) -> Option<Usage> {
        self.inner.usage()
    }
}

#[cfg(test)]
mod tests;
