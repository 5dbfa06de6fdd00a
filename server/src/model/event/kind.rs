//! Which kinds of events there are.

/// What happened.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, strum::IntoStaticStr, strum::EnumString,
)]
#[strum(const_into_str, serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum EventKind {
    /// A connection's first token.
    Connected,
    /// A person brought a new token while the old one worked.
    Replaced,
    /// An end came within a threshold.
    Expiring,
    /// The token's time ran out.
    Expired,
    /// The provider refuses the token.
    Invalidated,
    /// A dead connection works again.
    Restored,
    /// The vault renewed the token.
    Rotated,
    /// The vault could not renew it.
    RotationFailed,
    /// Scopes were granted or lost.
    ScopesChanged,
    /// Ad accounts became reachable or unreachable.
    AdAccountsChanged,
    DataAccessExpiring,
    DataAccessExpired,
    /// Calls are held back.
    Throttled,
    /// Due work was not done.
    Overdue,
    /// A caller ended the connection.
    Revoked,
    /// Something is wrong with a provider or our app there.
    ProviderAlarm,
    ProviderRecovered,
    /// An end moved without a new secret.
    DeadlinesChanged,
    /// Written by a newer release: go by usable, severity and remedy.
    Unknown,
}

impl EventKind {
    /// The name in the database, in the API and in logs.
    pub const fn as_str(self) -> &'static str {
        self.into_str()
    }

    pub fn from_name(name: &str) -> Self {
        name.parse().unwrap_or(Self::Unknown)
    }

    /// Whether it means that the token stopped working.
    pub const fn is_death(self) -> bool {
        matches!(self, Self::Expired | Self::Invalidated | Self::Revoked)
    }

    /// Kinds about the same trouble: the first open event among them names the incident.
    pub(super) const fn trouble(self) -> Self {
        match self {
            Self::Expired => Self::Expiring,
            Self::DataAccessExpired => Self::DataAccessExpiring,
            other => other,
        }
    }
}

/// Which end an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::EnumString)]
#[strum(const_into_str, serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum DeadlineKind {
    /// The end of the token.
    Token,
    /// The end of data access, which lapses when the person does not use the app.
    DataAccess,
}

impl DeadlineKind {
    /// The name in the database and in the API.
    pub const fn as_str(self) -> &'static str {
        self.into_str()
    }

    pub fn from_name(name: &str) -> Option<Self> {
        name.parse().ok()
    }
}
