//! How SQL is spoken: one text for two databases, and what can go wrong.

mod db;
mod error;

pub(in crate::store) use db::{Address, Pool, Query};
pub use db::{Backend, Session};
pub use error::StoreError;
