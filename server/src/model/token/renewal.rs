//! When to renew a token. Pure: every replica computes the same moment without asking the others.

use std::time::Duration;

use crate::model::{Connection, Expiry, Policy, Standing, Timestamp, TokenKind};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The wait after the first failed attempt; it doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_secs(60);
/// The longest wait after a failed attempt.
const LONGEST_WAIT: Duration = Duration::from_secs(6 * 60 * 60);
/// How soon the provider is asked again when it did not say when a token ends.
const ASK_AGAIN: Duration = Duration::from_secs(50 * 60);
/// After this many failed attempts near the end, a person is asked.
const PATIENCE: u32 = 3;

impl Connection {
    /// The token's end, if the vault may try to move it.
    pub fn renewable_end(&self) -> Option<Timestamp> {
        let renewable = match self.facts.kind {
            TokenKind::LongLivedUser | TokenKind::SystemUser => true,
            TokenKind::ShortLivedUser | TokenKind::Page => false,
        };
        match (&self.standing, self.facts.expiry) {
            (Standing::Live, Expiry::At(end, _)) if renewable => Some(end),
            _ => None,
        }
    }

    /// The moment of the first attempt on this version: when the token is old enough and within the window, spread
    /// over the window's first half. It may lie in the past.
    pub fn first_renewal(&self, policy: &Policy) -> Option<Timestamp> {
        if self.standing == Standing::Live && self.facts.expiry == Expiry::Unknown {
            // This is not a renewal: the provider is asked again for the end.
            return Some(self.seen.last_validated_at.unwrap_or(self.created_at) + ASK_AGAIN);
        }
        let end = self.renewable_end().filter(|_| policy.renewal.enabled)?;
        let born = self.facts.issued_at.max(self.seen.last_rotated_at).unwrap_or(self.created_at);
        let opens = (born + policy.renewal.min_age).max(end - policy.renewal.window);
        let latest = end - policy.warning_window;
        let spread = latest.since(opens) / 2;
        let moment = opens + spread.mul_f64(self.fraction());
        (moment < end).then_some(moment)
    }

    /// When to try again after the provider did not reply. `None`: the token ends before.
    pub fn retry_after_failure(&self, now: Timestamp) -> Option<Timestamp> {
        let end = self.renewable_end()?;
        let doubled = FIRST_WAIT.saturating_mul(1 << self.schedule.attempts.saturating_sub(1).min(12));
        let jittered = doubled.min(LONGEST_WAIT).mul_f64(0.75 + self.fraction() / 2.0);
        let next = now + jittered.min(end.since(now) / 4).max(Duration::from_secs(1));
        (next < end).then_some(next)
    }

    /// When to try again after the provider replied and did not move the end. `None`: not again.
    pub fn retry_at_ceiling(&self, now: Timestamp) -> Option<Timestamp> {
        let end = self.renewable_end()?;
        let next = now + (end.since(now) / 4).max(DAY);
        (next + DAY < end).then_some(next)
    }

    /// Whether it is time to ask a person although the provider did not refuse.
    pub fn renewal_is_hopeless(&self, now: Timestamp, policy: &Policy) -> bool {
        let near = self.renewable_end().is_some_and(|end| end <= now + policy.warning_window);
        near && self.schedule.attempts >= PATIENCE
    }

    /// Between 0 and 1: the same on every replica for a connection and version, and evenly spread over connections.
    fn fraction(&self) -> f64 {
        let (_, low) = self.id.as_uuid().as_u64_pair();
        let version = u64::from(self.version.get().unsigned_abs());
        let mixed = (low ^ version.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        f64::from(u32::try_from(mixed >> 32).unwrap_or(0)) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::token::fixture::connection;
    use crate::model::{ConnectionId, ExpirySource};

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

    fn of_life(days: u32) -> Connection {
        let expiry = Expiry::At(NOW + DAY * days, ExpirySource::Provider);
        Connection { created_at: NOW, ..connection(expiry, Standing::Live) }
    }

    #[test]
    fn attempts_lie_within_the_window_and_spread() {
        let policy = Policy::default();
        let mut moments = Vec::new();
        for n in 0..200 {
            let id = ConnectionId::generate(NOW + Duration::from_secs(n));
            let connection = Connection { id, ..of_life(60) };
            let moment = connection.first_renewal(&policy).unwrap();
            assert!(moment >= NOW + DAY * 30 && moment <= NOW + DAY * 42, "{moment}");
            assert_eq!(
                connection.first_renewal(&policy),
                Some(moment),
                "it does not depend on when it is asked"
            );
            moments.push(moment);
        }
        moments.sort();
        moments.dedup();
        assert!(moments.len() > 190, "{}", moments.len());
        assert!(moments.last().unwrap().since(moments[0]) > DAY * 8);
    }

    #[test]
    fn a_young_token_waits_and_a_short_one_is_tried_as_soon_as_it_may() {
        let policy = Policy::default();
        let moment = of_life(5).first_renewal(&policy).unwrap();
        assert_eq!(moment, NOW + DAY);
        assert_eq!(Connection { created_at: NOW, ..of_life(0) }.first_renewal(&policy), None);
    }

    #[test]
    fn what_does_not_end_or_is_dead_is_not_renewed() {
        let policy = Policy::default();
        assert_eq!(connection(Expiry::Never, Standing::Live).first_renewal(&policy), None);
        assert_eq!(
            connection(Expiry::Unknown, Standing::Live).first_renewal(&policy),
            Some(connection(Expiry::Unknown, Standing::Live).created_at + ASK_AGAIN)
        );
        let mut dead = of_life(60);
        dead.standing = Standing::Revoked { at: NOW, by: "web".into() };
        assert_eq!(dead.first_renewal(&policy), None);
    }

    #[test]
    fn waits_double_and_never_pass_a_quarter_of_what_is_left() {
        let mut connection = of_life(20);
        let mut last = Duration::ZERO;
        for attempts in 1..8 {
            connection.schedule.attempts = attempts;
            let wait = connection.retry_after_failure(NOW).unwrap().since(NOW);
            assert!(wait > last && wait <= LONGEST_WAIT.mul_f64(1.25), "{attempts}: {wait:?}");
            last = wait;
        }
        let close = NOW + DAY * 20 - Duration::from_secs(400);
        assert!(connection.retry_after_failure(close).unwrap().since(close) <= Duration::from_secs(100));
    }

    #[test]
    fn a_ceiling_is_not_tried_for_ever() {
        let connection = of_life(30);
        let (mut now, mut tries) = (NOW, 0);
        while let Some(next) = connection.retry_at_ceiling(now) {
            assert!(next.since(now) >= DAY);
            (now, tries) = (next, tries + 1);
        }
        assert!((5..=20).contains(&tries), "{tries}");
    }
}
