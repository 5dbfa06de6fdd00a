//! Identifiers. Each type checks its own rule, and no type can be used instead of another.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{BadValue, Timestamp};

/// Text ids differ only in their rule.
macro_rules! text_id {
    ($(#[doc = $doc:literal])* $name:ident, $rule:expr, $allowed:expr) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Takes `value` if it follows the rule.
            pub fn parse(value: impl Into<String>) -> Result<Self, BadValue> {
                let value = value.into();
                let allowed: fn(&str) -> bool = $allowed;
                if allowed(&value) { Ok(Self(value)) } else { Err(BadValue::new($rule)) }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadValue;

            fn try_from(value: String) -> Result<Self, BadValue> {
                Self::parse(value)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// A customer, by the caller's own id: the unit of tenancy.
    WorkspaceId,
    "must be 1 to 128 characters of A-Z a-z 0-9 . _ : -",
    |v| (1..=128).contains(&v.len())
        && v.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b))
);

text_id!(
    /// The ad platform, as in the API: `meta`.
    ProviderId,
    "must be 1 to 32 characters of a-z 0-9 _, starting with a letter",
    |v| (1..=32).contains(&v.len())
        && v.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
        && v.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
);

text_id!(
    /// A saved position in the feed, unique per principal.
    SubscriptionName,
    "must be 1 to 128 characters of A-Z a-z 0-9 . _ : -",
    |v| (1..=128).contains(&v.len())
        && v.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b))
);

text_id!(
    /// A caller's idempotency key.
    RequestId,
    "must be 1 to 128 printable ASCII characters",
    |v| (1..=128).contains(&v.len()) && v.bytes().all(|b| (b' '..=b'~').contains(&b))
);

text_id!(
    /// The part of an API key before its secret.
    ApiKeyId,
    "must be 16 characters of a-z 2-7",
    |v| v.len() == 16 && v.bytes().all(|b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b))
);

text_id!(
    /// The part of a connect link's token before its secret.
    ConnectLinkId,
    "must be 16 characters of a-z 2-7",
    |v| v.len() == 16 && v.bytes().all(|b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b))
);

/// UUID ids differ only in how they are made.
macro_rules! uuid_id {
    ($(#[doc = $doc:literal])* $name:ident) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Uuid);

        impl $name {
            /// Takes only the hyphenated form, so that an id has one spelling.
            pub fn parse(value: &str) -> Result<Self, BadValue> {
                if value.len() != 36 {
                    return Err(BadValue::new("must be a UUID of 36 characters, such as 0193…-…-7…-…-…"));
                }
                Uuid::try_parse(value)
                    .map(Self)
                    .map_err(|_| BadValue::new("must be a UUID of 36 characters, such as 0193…-…-7…-…-…"))
            }

            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            pub const fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadValue;

            fn try_from(value: String) -> Result<Self, BadValue> {
                Self::parse(&value)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

uuid_id!(
    /// UUIDv7, stable across reconnects.
    ConnectionId
);

impl ConnectionId {
    /// The leading bits are `now`, so that ids sort by age.
    pub fn generate(now: Timestamp) -> Self {
        let (seconds, nanos) = now.unix_parts();
        Self(Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos)))
    }
}

uuid_id!(
    /// Names the exact secret that was handed out. It is random, so that a report about a secret that is lost since
    /// the database was restored from a backup matches nothing.
    SecretId
);

impl SecretId {
    pub fn generate() -> Self {
        Self(Uuid::new_v4())
    }
}

uuid_id!(
    /// Names an authorization, from the consent dialog to the callback. It is no secret.
    AuthorizationId
);

impl AuthorizationId {
    pub fn generate() -> Self {
        Self(Uuid::new_v4())
    }
}

uuid_id!(
    /// One run of a vault process, from start to end.
    Incarnation
);

impl Incarnation {
    pub fn generate() -> Self {
        Self(Uuid::new_v4())
    }
}

/// Counts the secrets of a connection, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenVersion(i32);

impl TokenVersion {
    pub const FIRST: Self = Self(1);

    pub fn new(value: i32) -> Result<Self, BadValue> {
        if value >= 1 { Ok(Self(value)) } else { Err(BadValue::new("must be 1 or more")) }
    }

    /// Saturates: nobody reconnects two billion times.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    pub const fn get(self) -> i32 {
        self.0
    }
}

impl fmt::Display for TokenVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspace_ids_keep_their_rule() {
        for good in ["a", "acme-1", "org:42", "A.b_c", &"x".repeat(128)] {
            assert!(WorkspaceId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", " ", "a b", "a/b", "ä", "a\n", &"x".repeat(129)] {
            assert!(WorkspaceId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn connection_ids_sort_by_age() {
        let (older, newer) = (Timestamp::from_unix_seconds(1_000), Timestamp::from_unix_seconds(1_001));
        assert!(ConnectionId::generate(older) < ConnectionId::generate(newer));
    }

    #[test]
    fn one_uuid_has_one_spelling() {
        let id = ConnectionId::generate(Timestamp::from_unix_seconds(1));
        assert_eq!(ConnectionId::parse(&id.to_string()), Ok(id));
        assert!(ConnectionId::parse(&id.as_uuid().simple().to_string()).is_err());
        assert!(ConnectionId::parse(&format!("{{{id}}}")).is_err());
    }
}
