//! Tokens: what is known about them, and what follows from it at a given time.

mod account;
mod connection;
mod expiry;
mod facts;
#[cfg(test)]
mod fixture;
mod problem;
mod renewal;
mod reports;
mod status;

pub use account::{AdAccount, AdAccountState};
pub use connection::{Connection, DataRefusal, ListOrder, Observations, Schedule, Standing};
pub use expiry::{Expiry, ExpirySource};
pub(super) use expiry::{days_left, in_days};
pub use facts::{Grant, GrantState, GranularScope, Subject, SubjectType, TokenFacts, TokenKind};
pub use problem::{Problem, ProblemReason};
pub use reports::Reports;
pub use status::{Badge, BadgeColor, Renewal, Status};
