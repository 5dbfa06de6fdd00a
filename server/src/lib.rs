//! Token Vault's server. Two ways in (`api` by gRPC, `jobs` by time), one core (`vault`),
//! five ways out (`store`, `provider`, `crypto`, `oidc`, `audit`), one vocabulary (`model`).
//!
//! Dependencies point downwards only: `serve` → {`api`, `jobs`} → `vault` → {`store`, `provider`, `oidc`, `audit` →
//! `crypto`} → `model`. A test (`tests/it/house/architecture`) checks it. Start reading at [`model`], then `vault`.

#![expect(
    unreachable_pub,
    reason = "inside the private modules, `pub` means: for the other modules of this crate"
)]

pub(crate) mod api;
pub mod audit;
mod backoff;
pub mod cli;
pub(crate) mod config;
pub mod crypto;
#[cfg(fuzzing)]
pub mod fuzzing;
mod http_client;
pub(crate) mod jobs;
pub mod model;
pub(crate) mod oidc;
pub mod provider;
pub(crate) mod serve;
pub(crate) mod store;
pub(crate) mod telemetry;
pub mod vault;
