//! Connections: their facts, the sealed secrets beside them, and the ad accounts below them.

mod due;
mod list;
mod rows;
mod table;

pub use list::{ListDrive, ListPosition, ListRange, StandingName};
pub(in crate::store) use rows::{expiry_from, expiry_source_name, subject_kind_from};
pub use table::{HeldToken, NewSecret};
