//! Connections: their facts, the sealed secrets beside them, and the ad accounts below them.

mod ad_accounts;
mod due;
mod exchanged;
mod list;
mod reports;
mod rows;
mod secrets;
mod shared;
mod table;

pub use ad_accounts::KnownAdAccount;
pub use due::DueValidation;
pub use exchanged::ExchangedToken;
pub use list::{ListDrive, ListPosition, ListRange, StandingName};
pub(in crate::store) use rows::{expiry_from, expiry_source_name};
pub use secrets::{HeldToken, NewSecret, PendingSecret};
