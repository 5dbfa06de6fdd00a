//! Tokens: what is known about them, and what follows from it at a given time.

mod account;
mod connection;
mod data_word;
mod expiry;
mod facts;
#[cfg(test)]
pub(crate) mod fixture;
mod health;
mod listing;
mod problem;
mod renewal;
mod reports;
mod status;
mod validation;

pub use account::{AdAccount, AdAccountOwner, AdAccountState};
pub use connection::{Connection, DataRefusal, ListOrder, Observations, RenewalFailure, Schedule, Standing};
pub use data_word::DataWord;
pub(super) use expiry::days_left;
pub use expiry::{Expiry, ExpirySource};
pub use facts::{
    Grant, GrantState, GranularScope, Subject, SubjectType, TokenFacts, TokenKind, ToldFacts, ToldScopes,
    why_withheld,
};
pub use health::{Badge, BadgeColor, Health, Renewal};
pub use listing::{AdAccountList, Listing, Unread, UnreadPart};
pub use problem::{Harm, Problem, ProblemReason, Standpoint};
pub use reports::Reports;
pub use status::Status;
pub use validation::VALIDATED_EVERY;
