//! When refusals end a pass, and what that means for the tokens over ninety days.

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
