//! The database: what survives a crash, how its tables come about, and what it may be trusted with.

mod away;
mod clean_stop;
mod durability;
mod earlier_version;
mod migrations;
mod stalled;
mod tampering;
