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
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::fixture::connection;
    use crate::model::{Connection, Expiry, Misconfiguration, Standing, Timestamp};

    fn ids(count: usize) -> Vec<ConnectionId> {
        (0..count).map(|_| ConnectionId::generate(Timestamp::EPOCH)).collect()
    }

    fn refused() -> Refusal {
        Refusal::new(RefusalKind::Ours(Misconfiguration::Request), "no")
    }

    /// How many connections are counted before it is a matter of the provider.
    fn ends_after(refused_at: impl Fn(usize) -> bool) -> Option<usize> {
        let (mut tally, refusal) = (Tally::default(), refused());
        ids(100)
            .into_iter()
            .enumerate()
            .find(|(n, id)| tally.count(*id, refused_at(*n).then_some(&refusal)))
            .map(|(n, _)| n + 1)
    }

    #[test]
    fn three_connections_in_a_row_or_half_of_twenty_are_a_matter_of_the_provider() {
        assert_eq!(ends_after(|_| false), None);
        assert_eq!(ends_after(|n| n == 5), None, "one odd answer ends nothing");
        assert_eq!(ends_after(|n| n % 3 < 1), None, "nor does every third");
        assert_eq!(ends_after(|_| true), Some(3));
        assert_eq!(ends_after(|n| n >= 40), Some(43));
        assert_eq!(ends_after(|n| n % 2 == 0), Some(19), "the tenth of the last twenty");
    }

    proptest::proptest! {
        /// Any answers for any connections: the pass ends exactly where the rule, read from the whole history, says so.
        #[test]
        fn a_pass_ends_where_the_rule_says(
            answers in proptest::collection::vec((0_usize..6, proptest::bool::weighted(0.6)), 0..60)
        ) {
            let (mut tally, refusal, all) = (Tally::default(), refused(), ids(6));
            let mut history: Vec<(usize, bool)> = Vec::new();
            for (who, is_refused) in answers {
                history.push((who, is_refused));
                let in_a_row: std::collections::BTreeSet<_> =
                    history.iter().rev().take_while(|(_, refused)| *refused).map(|(who, _)| who).collect();
                let of_recent = history.iter().rev().take(20).filter(|(_, refused)| *refused).count();
                let expected = is_refused && (in_a_row.len() >= 3 || of_recent >= 10);
                proptest::prop_assert_eq!(tally.count(all[who], is_refused.then_some(&refusal)), expected);
            }
        }
    }

    #[test]
    fn replies_count_in_the_order_in_which_they_came() {
        let (tally, refusal) = (Arc::new(Mutex::new(Tally::default())), refused());
        let all = ids(6);
        let hearing =
            |id| Hearing { connection: Some((id, Arc::clone(&tally))), replied: AtomicBool::new(false) };
        let early: Vec<_> = all[..3].iter().map(|id| hearing(*id)).collect();
        early.iter().for_each(Hearing::replied);
        let mut ended = false;
        for (early, id) in early.iter().zip(&all[3..]) {
            ended = tally.lock().count(*id, Some(&refusal));
            // Its work ends now, and says nothing new.
            early.replied();
        }
        assert!(ended);
    }

    #[test]
    fn one_connection_is_one_however_often_it_is_refused() {
        let (mut tally, refusal, id) = (Tally::default(), refused(), ids(1)[0]);
        assert!((0..9).all(|_| !tally.count(id, Some(&refusal))));
    }

    #[test]
    fn a_limit_of_the_app_is_a_matter_of_the_provider_at_once() {
        let limit = |scope: &str| {
            let kind = RefusalKind::Throttled { scope: scope.into(), retry_after: Duration::ZERO };
            Tally::default().count(ids(1)[0], Some(&Refusal::new(kind, "slow down")))
        };
        assert!(limit("app") && !limit("token"));
    }

    #[test]
    fn every_refusal_becomes_a_trouble_with_a_fixer() {
        let trouble_of = |kind| trouble(&Refusal::new(kind, "no"));
        assert_eq!(trouble_of(RefusalKind::Transient { retry_after: None }), ProviderTrouble::Unreachable);
        let throttled = RefusalKind::Throttled { scope: "token".into(), retry_after: Duration::ZERO };
        assert_eq!(trouble_of(throttled), ProviderTrouble::Throttled);
        for problem in [Misconfiguration::AppBlocked, Misconfiguration::Request] {
            assert_eq!(trouble_of(RefusalKind::Ours(problem)), ProviderTrouble::Misconfigured(problem));
        }
        let odd = trouble_of(RefusalKind::Permission { object_only: true });
        assert_eq!(odd, ProviderTrouble::Misconfigured(Misconfiguration::Request));
    }

    /// Numbers that look random and are the same in every run.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % sides
        }
    }

    /// What a vault with these connections does, minute by minute, while its provider is away at random.
    struct Simulation {
        now: Timestamp,
        connections: Vec<Connection>,
        /// Minutes that the provider was away, ever.
        away: u64,
        /// The same when each connection was last validated, or the time began.
        away_then: Vec<u64>,
        held: bool,
        calls: u64,
    }

    impl Simulation {
        fn new(count: usize, now: Timestamp) -> Self {
            let connections: Vec<_> = (0..count)
                .map(|_| {
                    let mut new = connection(Expiry::Never, Standing::Live);
                    new.note_validated(now);
                    new
                })
                .collect();
            Self { now, away_then: vec![0; count], connections, away: 0, held: false, calls: 0 }
        }

        /// `true`: the provider answered.
        fn ask(&mut self, n: usize, answers: bool) -> bool {
            self.calls += 1;
            if answers {
                self.connections[n].note_validated(self.now);
                self.away_then[n] = self.away;
            } else {
                self.connections[n].note_not_validated(self.now);
            }
            answers
        }

        fn due(&self, by: Timestamp) -> Option<usize> {
            let due = |n: &usize| self.connections[*n].schedule.next_validation_at.expect("it is live");
            (0..self.connections.len()).filter(|n| due(n) <= by).min_by_key(due)
        }

        /// One minute: a probe if the provider is in trouble, a pass otherwise.
        fn minute(&mut self, answers: bool, odd: Option<usize>) {
            self.now = self.now + MINUTE;
            self.away += u64::from(!answers);
            if self.now.as_micros() % DAY_MICROS == 0 {
                for connection in &mut self.connections {
                    let next = &mut connection.schedule.next_validation_at;
                    *next = (*next).min(Some(self.now));
                }
            }
            if self.held {
                let tried = self.due(self.now + HOUR).is_none_or(|n| self.ask(n, answers && odd != Some(n)));
                if !tried {
                    return;
                }
                self.held = false;
                for connection in &mut self.connections {
                    if connection.schedule.failed_validations > 0 {
                        connection.schedule.next_validation_at = Some(self.now);
                    }
                }
            }
            let (mut tally, refusal) = (Tally::default(), refused());
            while let Some(n) = self.due(self.now) {
                let answered = self.ask(n, answers && odd != Some(n));
                if tally.count(self.connections[n].id, (!answered).then_some(&refusal)) {
                    self.held = true;
                    break;
                }
            }
            self.held |= !tally.answered && !answers && !tally.row.is_empty();
        }
    }

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(60 * 60);
    const DAY_MICROS: i64 = 86_400_000_000;

    #[test]
    fn over_ninety_days_with_outages_no_token_is_unchecked_for_longer_than_they_explain() {
        for (seed, count) in [(1, 1), (2, 2), (3, 12), (4, 50), (5, 80)] {
            let (mut dice, mut all) = (Dice(seed), Simulation::new(count, Timestamp::from_unix_seconds(0)));
            let (mut left, mut answers) = (0, true);
            let odd = (count > 12).then_some(0);
            for _ in 0..90 * 24 * 60 {
                if left == 0 {
                    answers = dice.roll(2) == 0;
                    left = 1 + if answers { dice.roll(4_000) } else { dice.roll(600) };
                }
                left -= 1;
                all.minute(answers, odd);
                for (n, connection) in all.connections.iter().enumerate().filter(|(n, _)| odd != Some(*n)) {
                    let last = connection.seen.last_validated_at.expect("it was validated");
                    let unchecked = all.now.since(last).as_secs() / 60;
                    let explained = 25 * 60 + all.away - all.away_then[n];
                    assert!(unchecked <= explained, "{seed}: {unchecked} minutes at {}", all.now);
                }
            }
            // A pass a day, and few calls for each minute of an outage.
            assert!(
                all.calls <= 92 * u64::try_from(count).unwrap() + 4 * all.away + 90 * 60,
                "{seed}: {} calls",
                all.calls
            );
        }
    }
}
