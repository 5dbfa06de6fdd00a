//! When a token, or its access to data, ends.

use std::time::Duration;

use crate::model::Timestamp;

/// Where the end of a token was learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString)]
#[strum(const_into_str, serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum ExpirySource {
    /// The provider's inspection of the token.
    Provider,
    /// The reply to an exchange, which is less certain.
    Reply,
    /// The usual lifetime at this provider.
    Assumed,
}

impl ExpirySource {
    /// The name in the database.
    pub const fn as_str(self) -> &'static str {
        self.into_str()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    At(Timestamp, ExpirySource),
    Never,
    /// The provider did not say. This means neither "now" nor "never".
    Unknown,
}

impl Expiry {
    /// Two ends that differ by less are the same end, measured twice.
    const NOISE: Duration = Duration::from_secs(60);

    pub const fn at(self) -> Option<Timestamp> {
        match self {
            Self::At(end, _) => Some(end),
            Self::Never | Self::Unknown => None,
        }
    }

    /// Whether this end is later than `other`, noise aside. `Never` is later than every instant, and every known end
    /// is later than an unknown one.
    pub fn is_later(self, other: Self) -> bool {
        match (self, other) {
            (Self::At(end, _), Self::At(other, _)) => end > other + Self::NOISE,
            (Self::Never, Self::At(..)) | (Self::At(..) | Self::Never, Self::Unknown) => true,
            _ => false,
        }
    }

    /// Whether this end is another one than `other`, noise aside.
    pub fn differs(self, other: Self) -> bool {
        match (self, other) {
            (Self::At(..), Self::At(..)) => self.is_later(other) || other.is_later(self),
            (one, other) => std::mem::discriminant(&one) != std::mem::discriminant(&other),
        }
    }

    /// This end, or the one that was known before if the provider told none.
    pub const fn or(self, known: Self) -> Self {
        match self {
            Self::Unknown => known,
            told => told,
        }
    }

    /// The order of lists: unknown first, never last.
    pub const fn sort_key(self) -> i64 {
        match self {
            Self::At(end, _) => end.as_micros(),
            Self::Never => i64::MAX,
            Self::Unknown => 0,
        }
    }
}

/// Whole days from `now` to `end`, rounded up; 0 once it has passed.
pub(in crate::model) fn days_left(end: Timestamp, now: Timestamp) -> i32 {
    let day = 24 * 60 * 60 * 1_000_000_i64;
    let left = end.as_micros().saturating_sub(now.as_micros()).max(0);
    i32::try_from(left.saturating_add(day - 1) / day).unwrap_or(i32::MAX)
}

/// `1 day`, `3 days`.
pub(in crate::model) fn in_days(days: i32) -> String {
    format!("{days} day{}", if days == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

    fn at(end: Timestamp) -> Expiry {
        Expiry::At(end, ExpirySource::Provider)
    }

    #[test]
    fn an_unknown_end_sorts_first_and_no_end_last() {
        assert!(Expiry::Unknown.sort_key() < at(NOW).sort_key());
        assert!(at(NOW).sort_key() < Expiry::Never.sort_key());
    }

    #[test]
    fn an_end_is_later_only_past_the_noise() {
        let minute = Duration::from_secs(60);
        let (soon, noise, late) = (at(NOW), at(NOW + minute), at(NOW + minute + Duration::from_micros(1)));
        assert!(late.is_later(soon) && !noise.is_later(soon) && !soon.is_later(late));
        assert!(Expiry::Never.is_later(late) && !late.is_later(Expiry::Never));
        assert!(soon.is_later(Expiry::Unknown) && Expiry::Never.is_later(Expiry::Unknown));
        assert!(!Expiry::Unknown.is_later(soon) && !Expiry::Never.is_later(Expiry::Never));
    }
}
