//! The sandbox, driven over real HTTP: one module per area of Meta's behaviour.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests; clippy sees only test functions as tests"
)]

mod business_login;
mod callbacks;
mod client;
mod consent_page;
mod control;
mod dialog;
mod insights;
mod life_cycle;
mod limits;
mod reports;
mod token_core;
mod transport;
