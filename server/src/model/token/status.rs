//! What a token is worth now: it follows from its facts and the clock, and is never stored.

use std::time::Duration;

use strum::VariantArray;

use super::{Connection, Expiry, Standing};
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
}
