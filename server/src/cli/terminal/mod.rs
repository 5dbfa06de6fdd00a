//! What commands show in a terminal.

pub(super) mod paint;
pub(super) mod table;
