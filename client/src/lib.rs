//! Client of Token Vault: a token in two lines, errors that say what to do, and a feed of what happens to tokens that
//! reconnects by itself.
//!
//! ```no_run
//! # async fn ingest() -> Result<(), token_vault_client::Error> {
//! use token_vault_client::{ApiKey, Vault};
//!
//! let vault = Vault::connect("http://127.0.0.1:7443", ApiKey::new("tva_…")).await?;
//! let token = vault.fetch_access_token("01890000-0000-7000-8000-000000000001").await?;
//! // Send `token.secret()` to the provider, and with it every part of `token.send_with()`.
//! # Ok(())
//! # }
//! ```
//!
//! Every call has a deadline, carries the key, and is repeated while that can help. That is safe for changes too,
//! because they carry a `request_id`. What remains is an [`Error`] whose [`kind`](Error::kind) says what the caller
//! should do: pause, retry later, or correct its own request.
//!
//! [`Vault::watch`] follows the feed of expiry events: it reconnects and resumes by itself, delivers each event once,
//! and keeps its position in a [`Checkpoint`]. From its items, [`Ingestion`] derives which connections to pause and
//! what to backfill, and [`Alerts`] what is wrong now.
//!
//! ```no_run
//! # async fn follow(vault: token_vault_client::Vault) -> Result<(), token_vault_client::Error> {
//! use futures::StreamExt;
//! use token_vault_client::{FileCheckpoint, Ingestion, Start, WatchOptions};
//!
//! let options = WatchOptions::new().start(Start::Snapshot).checkpoint(FileCheckpoint::new("position"));
//! let mut stream = vault.watch(options);
//! let mut ingestion = Ingestion::new();
//! while let Some(item) = stream.next().await.transpose()? {
//!     for instruction in ingestion.take(&item) {
//!         println!("{instruction:?}");
//!     }
//! }
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod alerting;
mod api_key;
mod builder;
mod checkpoint;
mod error;
mod ingestion;
mod linked;
mod retry;
mod token;
mod vault;
mod watch;

pub use alerting::{Alert, Alerts, Cause, Incident, Scope};
pub use api_key::ApiKey;
pub use builder::Builder;
pub use checkpoint::{Checkpoint, CheckpointError, FileCheckpoint, NoCheckpoint, SubscriptionCheckpoint};
pub use error::{Error, ErrorKind, FieldViolation};
pub use ingestion::{Backfill, Ingestion, Instruction};
pub use linked::LinkedVault;
pub use prost_types::Timestamp;
pub use token::AccessToken;
pub use token_vault_proto::v1;
pub use vault::Vault;
pub use watch::{EventStream, Snapshot, Start, WatchItem, WatchOptions};

/// The program of the guide for Rust, compiled as it is printed.
#[cfg(doctest)]
#[doc = include_str!("../../docs/rust.md")]
struct Guide;

/// The programs of the guide to connecting.
#[cfg(doctest)]
#[doc = include_str!("../../docs/connecting.md")]
struct Connecting;
