//! Token Vault's server. Two ways in (`api` by gRPC, `jobs` by time), one core (`vault`),
//! five ways out (`store`, `provider`, `crypto`, `oidc`, `audit`), one vocabulary (`model`).
//!
//! Dependencies point downwards only: `serve` → {`api`, `jobs`} → `vault` → {`store`, `provider`, `oidc`, `audit` → `crypto`}
//! → `model`. A test (`tests/it/house/architecture`) checks it. Start reading at [`model`], then `vault`.

pub mod api;
pub mod audit;
pub mod cli;
pub mod config;
pub mod crypto;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod jobs;
pub mod model;
pub mod oidc;
pub mod provider;
pub mod serve;
pub mod store;
pub mod telemetry;
pub mod vault;
