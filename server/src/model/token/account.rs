//! Ad accounts that a token reaches.

use crate::model::Timestamp;

/// What the provider lets an ad account do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
        match self {
            Self::Active => "ACTIVE",
            Self::Limited => "LIMITED",
            Self::Disabled => "DISABLED",
            Self::Closed => "CLOSED",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// The state of that name; one that a newer release wrote is unknown here.
    pub fn from_name(name: &str) -> Self {
        [Self::Active, Self::Limited, Self::Disabled, Self::Closed]
            .into_iter()
            .find(|state| state.as_str() == name)
            .unwrap_or(Self::Unknown)
    }
}

/// One ad account as the provider lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdAccount {
    /// As provider paths want it: `act_1020304050`.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// ISO 4217 code of its currency.
    pub currency: String,
    /// IANA name of its time zone.
    pub time_zone: String,
    /// What it may do.
    pub state: AdAccountState,
    /// The provider's own word for that, raw.
    pub provider_state: String,
    /// Id of the business that owns it; empty on a personal account.
    pub owner_id: String,
    /// Name of that business.
    pub owner_name: String,
    /// When this was learned.
    pub checked_at: Timestamp,
}
