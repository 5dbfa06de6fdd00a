//! What a token is worth now: it follows from its facts and the clock, and is never stored.

use std::time::Duration;

use strum::VariantArray;

use super::expiry::{days_left, in_days};
use super::{Connection, Expiry, Standing, TokenKind};
use crate::model::{Policy, Timestamp};

#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::EnumString, strum::VariantArray,
)]
#[strum(const_into_str, serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// Works, and its end is not near.
    Active,
    /// Works, and ends within the warning window.
    Expiring,
    /// Its time has run out.
    Expired,
    /// The provider refuses it.
    Invalid,
    /// A caller ended the connection.
    Revoked,
}

impl Status {
    pub const ALL: &[Self] = Self::VARIANTS;

    /// The name in the database.
    pub const fn as_str(self) -> &'static str {
        self.into_str()
    }

    /// Whether a token of this status can be handed out.
    pub const fn is_usable(self) -> bool {
        matches!(self, Self::Active | Self::Expiring)
    }
}

/// Who or what can renew a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    ByVault,
    /// The vault tries; the provider promises nothing.
    MaybeByVault,
    ByPerson,
    /// The token has no end.
    NotNeeded,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadgeColor {
    /// In order.
    Green,
    /// Act soon.
    Amber,
    /// Act now.
    Red,
    /// Ended on purpose.
    Grey,
}

/// What a person sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Badge {
    pub color: BadgeColor,
    pub text: String,
    /// Days to the end, rounded up; `None` when there is no end.
    pub days_left: Option<i32>,
}

impl Connection {
    /// The only place that decides what a token is worth. `now` is an argument, so that a test can stand on either
    /// side of every edge.
    pub fn status(&self, now: Timestamp, policy: &Policy) -> Status {
        match (&self.standing, self.facts.expiry) {
            (Standing::Revoked { .. }, _) => Status::Revoked,
            (Standing::Invalid { .. }, _) => Status::Invalid,
            (Standing::Live, Expiry::At(end, _)) if end <= now => Status::Expired,
            (Standing::Live, Expiry::At(end, _)) if end <= now + policy.warning_window => Status::Expiring,
            (Standing::Live, _) => Status::Active,
        }
    }

    pub fn badge(&self, now: Timestamp, policy: &Policy) -> Badge {
        let status = self.status(now, policy);
        let days = self.facts.expiry.at().map(|end| days_left(end, now));
        let (color, text) = match status {
            Status::Active if self.facts.expiry == Expiry::Unknown => {
                (BadgeColor::Amber, "Expiry unknown".to_owned())
            }
            Status::Active => (BadgeColor::Green, "Active".to_owned()),
            Status::Expiring => (BadgeColor::Amber, format!("Expiring in {}", in_days(days.unwrap_or(0)))),
            Status::Expired => (BadgeColor::Red, "Token expired".to_owned()),
            Status::Invalid => (BadgeColor::Red, "Reconnect needed".to_owned()),
            Status::Revoked => (BadgeColor::Grey, "Revoked".to_owned()),
        };
        let days_left = if status == Status::Revoked { None } else { days };
        Badge { color, text, days_left }
    }

    pub fn renewal(&self) -> Renewal {
        match (self.facts.expiry, self.facts.kind) {
            (Expiry::Never, _) => Renewal::NotNeeded,
            (_, TokenKind::SystemUser) => Renewal::ByVault,
            (_, TokenKind::LongLivedUser | TokenKind::ShortLivedUser) => Renewal::MaybeByVault,
            (_, TokenKind::Page) => Renewal::ByPerson,
        }
    }

    /// Time until the end; `None` when there is no known end.
    pub fn life_left(&self, now: Timestamp) -> Option<Duration> {
        self.facts.expiry.at().map(|end| end.since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RefusalReason;
    use crate::model::token::fixture::{DAY, NOW, at, connection};

    #[test]
    fn status_changes_exactly_at_its_edges() {
        let policy = Policy::default();
        let micro = Duration::from_micros(1);
        let invalid = Standing::Invalid {
            since: NOW,
            reason: RefusalReason::PasswordChanged,
            provider_code: "190/460".into(),
        };
        let revoked = Standing::Revoked { at: NOW, by: "ops".into() };
        for (expiry, standing, expected) in [
            (at(NOW + 7 * DAY + micro), Standing::Live, Status::Active),
            (at(NOW + 7 * DAY), Standing::Live, Status::Expiring),
            (at(NOW + micro), Standing::Live, Status::Expiring),
            (at(NOW), Standing::Live, Status::Expired),
            (Expiry::Never, Standing::Live, Status::Active),
            (Expiry::Unknown, Standing::Live, Status::Active),
            (at(NOW), invalid.clone(), Status::Invalid),
            (Expiry::Never, invalid, Status::Invalid),
            (at(NOW), revoked, Status::Revoked),
        ] {
            let connection = connection(expiry, standing);
            assert_eq!(connection.status(NOW, &policy), expected, "{expiry:?} {:?}", connection.standing);
        }
    }

    #[test]
    fn badges_count_days_upwards() {
        let policy = Policy::default();
        let badge = |left: Duration| connection(at(NOW + left), Standing::Live).badge(NOW, &policy);
        assert_eq!(badge(7 * DAY).text, "Expiring in 7 days");
        assert_eq!(badge(6 * DAY + Duration::from_secs(1)).text, "Expiring in 7 days");
        assert_eq!(badge(Duration::from_secs(1)).text, "Expiring in 1 day");
        assert_eq!(badge(8 * DAY).text, "Active");
        assert_eq!(connection(at(NOW), Standing::Live).badge(NOW, &policy).text, "Token expired");
        assert_eq!(connection(Expiry::Unknown, Standing::Live).badge(NOW, &policy).color, BadgeColor::Amber);
    }
}
