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

/// One ad account as the provider lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdAccount {
    /// With the prefix of the provider's paths: `act_1020304050`.
    pub id: String,
    pub name: String,
    /// ISO 4217 code.
    pub currency: String,
    /// IANA name.
    pub time_zone: String,
    pub state: AdAccountState,
    /// The provider's own word for the state.
    pub provider_state: String,
    /// Id of the business that owns it; empty on a personal account.
    pub owner_id: String,
    pub owner_name: String,
    /// When this was learned.
    pub checked_at: Timestamp,
}
