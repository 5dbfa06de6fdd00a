//! The promises of Token Vault, one module each. Everything runs against the real binary.

mod architecture;
mod bad_input;
mod callers;
mod clockwork;
mod durability;
mod endings;
mod feed;
mod history;
mod idempotency;
mod keys;
mod leaks;
mod listing;
mod make_before_break;
mod migrations;
mod pages;
mod process;
mod provider_errors;
mod provider_trouble;
mod reflection;
mod rotation;
mod time;
mod tokens;
