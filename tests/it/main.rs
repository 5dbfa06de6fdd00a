//! The promises of Token Vault, grouped by subject. Everything runs against the real binary.

mod access;
mod audit;
mod authorization;
mod clock;
mod database;
mod feed;
mod house;
pub(crate) mod keys;
mod portal;
mod process;
mod provider;
mod tokens;
mod transport;
