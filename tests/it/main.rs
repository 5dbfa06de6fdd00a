//! The promises of Token Vault, grouped by what they are about. Everything runs against the real binary.

mod access;
mod audit;
mod clock;
mod database;
mod feed;
mod house;
mod keys;
mod process;
mod tokens;
mod transport;
