//! SQL basics: one text for two databases, transactions, migrations, and errors.

mod address;
mod circuit;
mod db;
mod disk;
mod error;
mod opening;
mod schema;
mod tx;

pub(in crate::store) use address::Address;
pub(in crate::store) use circuit::Circuit;
pub use db::{Backend, Session};
pub(in crate::store) use db::{Driver, Pool, Query};
pub use disk::full_disk;
pub(in crate::store) use disk::has_room;
pub use error::StoreError;
pub(in crate::store) use opening::{check_settings, migrate, reach};
pub use opening::{migrate_only, open_for_reading};
pub(in crate::store) use schema::check_schema;
pub use tx::Tx;
pub(in crate::store) use tx::{Audited, Change, Pending};
