//! A sandbox of Meta's Graph API: a real HTTP server with tokens that live and die, the consent
//! dialog, ad accounts, insights, rate limits and scriptable faults.
//!
//! It shares no code with the vault, so that both cannot make the same mistake, and it checks what it receives
//! (secrets, proofs, redirect URIs, scopes) as Meta does. Tests start it in their own process:
//!
//! ```no_run
//! # async fn demo() -> anyhow::Result<()> {
//! use token_vault_sandbox::{Endpoint, Fault, FaultKind, Sandbox, SandboxConfig};
//!
//! let sandbox = Sandbox::start(SandboxConfig::default()).await?;
//! let ana = sandbox.user("ana").grants(["ads_read", "ads_management"]).with_ad_accounts(3);
//! let token = ana.short_lived_token();
//! sandbox.fault(Fault::on(Endpoint::Insights).times(1).token(&token).with(FaultKind::error(500, 2)));
//! ana.changes_password();
//! # Ok(()) }
//! ```
//!
//! People and other processes run the program of the same name and control it over `/_sandbox`.
//! Start reading at `routes`, which has a file for each area of the Graph API. `state` holds all data.

mod auth;
mod clock;
mod config;
mod dialog;
mod faults;
mod people;
mod random;
mod routes;
mod sandbox;
mod state;
mod tokens;
mod usage;
mod user;
mod wire;

pub use clock::Clock;
pub use config::{
    AccessTier, App, AppBlock, DEFAULT_APP_ID, DEFAULT_APP_SECRET, Delivery, ExchangeMood, OwnerFields,
    SandboxConfig, Switches,
};
pub use dialog::{Decision, LoginConfig, LoginToken, Pick};
pub use faults::{Fault, FaultKind, OnlyToken};
pub use people::{AdAccountSpec, BusinessSpec, PermissionStatus};
pub use sandbox::Sandbox;
pub use tokens::{LONG_LIFE, SHORT_LIFE, TokenKind, TokenOrder};
pub use usage::UsageScope;
pub use user::{SystemUser, User};
pub use wire::callbacks::{
    Answer, Callback, CallbackKind, Delivered, Sign, appsecret_proof, appsecret_proof_at, hub_signature,
    permissions_webhook, sign_payload, signed_request,
};
pub use wire::error::{GraphError, UserText, session_message};
pub use wire::request::{Endpoint, RecordedRequest};
