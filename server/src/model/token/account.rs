//! Ad accounts that a token reaches.

use crate::model::Timestamp;

/// What the provider lets an ad account do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString)]
#[strum(const_into_str, serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum AdAccountState {
    /// In order.
    Active,
    /// Runs with restrictions (unsettled, in review, grace period).
    Limited,
    /// Stopped by the provider.
    Disabled,
    /// Closed, or being closed.
    Closed,
    /// A state that this version does not know.
    Unknown,
}

impl AdAccountState {
    /// The name in the database.
    pub const fn as_str(self) -> &'static str {
        self.into_str()
    }

    pub fn from_name(name: &str) -> Self {
        name.parse().unwrap_or(Self::Unknown)
    }
}

/// One ad account as the provider lists it. `None`: the provider told nothing, so what is known stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdAccount {
    /// With the prefix of the provider's paths: `act_1020304050`.
    pub id: String,
    pub name: Option<String>,
    /// ISO 4217 code.
    pub currency: Option<String>,
    /// IANA name.
    pub time_zone: Option<String>,
    /// What `provider_state` means; `Unknown` without one.
    pub state: AdAccountState,
    /// The provider's own word for the state.
    pub provider_state: Option<String>,
    /// The business that owns it.
    pub owner: Option<AdAccountOwner>,
    /// When this was learned.
    pub checked_at: Timestamp,
}

/// A business that owns an ad account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdAccountOwner {
    pub id: String,
    pub name: Option<String>,
}
