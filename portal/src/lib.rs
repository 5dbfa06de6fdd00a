//! The portal of Token Vault: whoever has a connect link sees in a browser what is connected, and connects or repairs
//! it. It knows nothing but the vault's API, with a key of role `portal`, and keeps nothing that it could lose: what it
//! needs of a visit is in the browser's cookies.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use token_vault_client::{ApiKey, Vault};
//! use token_vault_portal::{PortalConfig, serve};
//! use tokio_util::sync::CancellationToken;
//!
//! let vault = Vault::builder("https://vault.internal:7443", ApiKey::new("tva_…")).connect_lazy()?;
//! let mut config = PortalConfig::new("https://connect.example.com", vault);
//! config.trusted_proxy = true; // it ends TLS, and names each client in X-Forwarded-For
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8443").await?;
//! serve(config, listener, CancellationToken::new()).await?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod config;
mod failure;
mod listener;
mod notice;
mod outcome;
mod page;
mod recent;
mod routes;
mod texts;
mod tls;
mod web;

pub use config::{ConfigError, Limits, Logo, PortalConfig, TlsFiles};
pub use listener::{PortalError, serve};
