//! What follows from the vault's own data calls, beside what the provider's inspector says of a token. Each of these two
//! judges may be wrong: an inspector calls a token valid while every data call is refused, and a data call is refused once
//! for no reason. So the inspector's word is enough for a death, and a refused data call only if it is refused again.

use std::time::Duration;

use super::{Connection, DataRefusal, Standing};
use crate::model::{Refusal, RefusalKind, RefusalReason, Timestamp};

/// The least time between two refused data calls that condemn a token.
const APART: Duration = Duration::from_secs(10);
/// How soon a data call is made again that the provider did not answer, or that was one too many.
const UNANSWERED: Duration = Duration::from_secs(60 * 60);
/// The same while the token is in doubt.
const IN_DOUBT: Duration = Duration::from_secs(60);
/// A token that data calls condemned is asked about every hour for a day, then once a day.
const OFTEN: Duration = Duration::from_secs(60 * 60);
const OFTEN_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// What a data call of the vault's own says about a token.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DataWord {
    #[default]
    NotAsked,
    /// The token works.
    Works,
    /// The provider refuses it for the token's or the person's sake.
    Refused { reason: RefusalReason, provider_code: String },
    /// Nothing: the refusal is about our app, the provider, or the number of calls.
    Silent(Refusal),
}

impl DataWord {
    pub fn of<T>(outcome: &Result<T, Refusal>) -> Self {
        match outcome {
            Ok(_) => Self::Works,
            Err(refusal) => match refusal.of_token() {
                Some(reason) => Self::Refused { reason, provider_code: refusal.provider_code() },
                None => Self::Silent(refusal.clone()),
            },
        }
    }

    /// The refusal, if it would be the same for every token, or no time was left: the data call has yet to be made.
    pub fn unanswered(&self) -> Option<&Refusal> {
        match self {
            Self::Silent(refusal)
                if refusal.is_not_about_the_token() || refusal.kind == RefusalKind::OutOfTime =>
            {
                Some(refusal)
            }
            _ => None,
        }
    }
}

impl Connection {
    /// Applies a data call's word about a token that the inspector calls valid.
    pub fn weigh(&mut self, data: &DataWord, now: Timestamp) {
        // After the clock was set back, the first refusal counts as if it were now.
        let first = self.seen.data_refusal.map(|first| DataRefusal { at: first.at.min(now), ..first });
        self.seen.data_refusal = match data {
            DataWord::Works => None,
            DataWord::NotAsked | DataWord::Silent(_) => first,
            DataWord::Refused { reason, .. } => first.or(Some(DataRefusal { at: now, reason: *reason })),
        };
        let ran_out = self.facts.expiry.at().is_some_and(|end| end <= now);
        match (self.seen.data_refusal, data, &self.standing) {
            (None, _, Standing::Live | Standing::Invalid { .. }) => {
                self.standing = Standing::Live;
                self.seen.last_known_good = Some(now);
            }
            (Some(first), DataWord::Refused { reason, provider_code }, Standing::Live)
                if now.since(first.at) >= APART && !ran_out =>
            {
                self.standing = Standing::Invalid {
                    since: first.at,
                    reason: *reason,
                    provider_code: provider_code.clone(),
                };
            }
            _ => {}
        }
    }

    /// When both judges must be asked again after a data call said this, if that is sooner than a day later.
    pub fn next_hearing(&self, data: &DataWord, now: Timestamp) -> Option<Timestamp> {
        let silent = match data {
            DataWord::Silent(refusal) => Some(&refusal.kind),
            _ => None,
        };
        let wait = match silent {
            Some(RefusalKind::Throttled { retry_after, .. }) => *retry_after,
            Some(RefusalKind::Transient { retry_after }) => retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        };
        match (self.seen.data_refusal, &self.standing, silent) {
            (_, Standing::Revoked { .. }, _) => None,
            (Some(_), Standing::Invalid { since, .. }, _) => {
                (now.since(*since) < OFTEN_FOR).then(|| now + wait.max(OFTEN))
            }
            (Some(_), Standing::Live, Some(_)) => Some(now + wait.max(IN_DOUBT)),
            (Some(first), Standing::Live, _) => Some(now.max(first.at + APART)),
            (
                None,
                _,
                Some(RefusalKind::Transient { .. } | RefusalKind::Throttled { .. } | RefusalKind::OutOfTime),
            ) => Some(now + wait.max(UNANSWERED)),
            (None, ..) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::token::fixture::{DAY, NOW, connection};
    use crate::model::{Expiry, Misconfiguration};

    fn refused(reason: RefusalReason) -> DataWord {
        DataWord::Refused { reason, provider_code: "190/1".into() }
    }

    fn words() -> Vec<DataWord> {
        let silent = [
            RefusalKind::Transient { retry_after: None },
            RefusalKind::Throttled { scope: "app".into(), retry_after: 2 * OFTEN },
            RefusalKind::Blocked,
            RefusalKind::Ours(Misconfiguration::AppSecretProof),
        ];
        let mut all = vec![DataWord::NotAsked, DataWord::Works, refused(RefusalReason::Checkpoint)];
        all.extend(silent.map(|kind| DataWord::Silent(Refusal::new(kind, "no"))));
        all
    }

    fn standings() -> [Standing; 3] {
        let (since, reason) = (NOW - DAY, RefusalReason::PasswordChanged);
        [
            Standing::Live,
            Standing::Invalid { since, reason, provider_code: "190/460".into() },
            Standing::Revoked { at: since, by: "ops".into() },
        ]
    }

    /// Every standing, with and without an earlier refusal that lies this far back, and every word.
    #[test]
    fn a_token_falls_by_a_second_refusal_ten_seconds_later_and_rises_by_a_call_that_works() {
        let ages = [None, Some(0), Some(9_999), Some(10_000), Some(86_400_000 * 3)];
        for standing in standings() {
            for age in ages {
                for word in words() {
                    let mut after = connection(Expiry::Never, standing.clone());
                    let reason = RefusalReason::DataAccessLapsed;
                    let first = age.map(|age| DataRefusal { at: NOW - Duration::from_millis(age), reason });
                    after.seen.data_refusal = first;
                    after.weigh(&word, NOW);
                    let case = format!("{standing:?}, {age:?} ms ago, {word:?}");
                    let now_refused = DataRefusal { at: NOW, reason: RefusalReason::Checkpoint };
                    let (expected, doubt) = match (&standing, first, &word) {
                        (Standing::Revoked { .. }, _, DataWord::Works) => (standing.clone(), None),
                        (_, _, DataWord::Works) => (Standing::Live, None),
                        (Standing::Live, Some(first), DataWord::Refused { .. }) if age >= Some(10_000) => {
                            let (since, reason) = (first.at, RefusalReason::Checkpoint);
                            let provider_code = "190/1".to_owned();
                            (Standing::Invalid { since, reason, provider_code }, Some(first))
                        }
                        (_, None, DataWord::Refused { .. }) => (standing.clone(), Some(now_refused)),
                        (Standing::Invalid { .. }, None, _) => (Standing::Live, None),
                        (_, first, _) => (standing.clone(), first),
                    };
                    assert_eq!((&after.standing, after.seen.data_refusal), (&expected, doubt), "{case}");
                    let lives = after.standing == Standing::Live && doubt.is_none();
                    assert_eq!(after.seen.last_known_good, lives.then_some(NOW), "{case}");
                }
            }
        }
    }

    #[test]
    fn the_second_call_is_made_ten_seconds_later_and_a_condemned_token_is_asked_about_hourly_then_daily() {
        let mut it = connection(Expiry::Never, Standing::Live);
        assert_eq!(it.next_hearing(&DataWord::Works, NOW), None);
        let word = refused(RefusalReason::Checkpoint);
        it.weigh(&word, NOW);
        assert_eq!(it.next_hearing(&word, NOW), Some(NOW + APART));
        let later = NOW + Duration::from_secs(3);
        it.weigh(&word, later);
        assert_eq!(
            it.next_hearing(&word, later),
            Some(NOW + APART),
            "another refusal too soon changes nothing"
        );
        assert_eq!(it.next_hearing(&DataWord::NotAsked, NOW + DAY), Some(NOW + DAY), "it waits for nothing");
        let away = DataWord::Silent(Refusal::new(RefusalKind::Transient { retry_after: None }, "away"));
        assert_eq!(it.next_hearing(&away, NOW), Some(NOW + IN_DOUBT));
        it.weigh(&word, NOW + APART);
        assert!(matches!(it.standing, Standing::Invalid { .. }));
        for (age, wait) in [(APART, Some(OFTEN)), (DAY - OFTEN, Some(OFTEN)), (DAY, None), (3 * DAY, None)] {
            let now = NOW + age;
            assert_eq!(it.next_hearing(&word, now), wait.map(|wait| now + wait), "{age:?}");
        }
        it.weigh(&DataWord::Works, NOW + DAY);
        assert_eq!((&it.standing, it.seen.data_refusal), (&Standing::Live, None));
    }

    #[test]
    fn a_clock_that_was_set_back_begins_the_ten_seconds_anew() {
        let mut it = connection(Expiry::Never, Standing::Live);
        let word = refused(RefusalReason::Checkpoint);
        it.weigh(&word, NOW + DAY);
        it.weigh(&word, NOW);
        assert_eq!(it.standing, Standing::Live);
        assert_eq!(it.next_hearing(&word, NOW), Some(NOW + APART));
    }

    #[test]
    fn a_refusal_of_a_token_whose_time_is_over_adds_nothing() {
        let mut it = connection(crate::model::token::fixture::at(NOW + APART), Standing::Live);
        let word = refused(RefusalReason::Expired);
        it.weigh(&word, NOW);
        it.weigh(&word, NOW + APART);
        assert_eq!(it.standing, Standing::Live);
    }
}
