//! The base of every behaviour test: the real `token-vault` binary in its own process, its own database, and its own
//! Graph API sandbox.
//!
//! Start reading at [`World`]. A scenario is written once, with [`on_both_databases!`], and runs as `sqlite::name` and
//! `postgres::name`. Dropping a `World` fails the test if a process does not end cleanly, or if its logs contain a
//! secret.

pub mod browser;
mod caller;
pub mod certificates;
pub mod fleet;
pub mod http2;
mod hunt;
pub mod issuer;
mod machine;
mod wait;
mod world;

pub use caller::denial::Denial;
pub use caller::feed::Feed;
pub use caller::pace::Pace;
pub use caller::steady::Steady;
pub use caller::{Caller, days, request_id, seconds, secret_part};
pub use hunt::{Finding, Hunter, files_below};
pub use machine::binary::{target_dir, token_vault};
pub use machine::disk::SmallDisk;
pub use machine::postgres::{Cluster, Frozen, shared_cluster};
pub use machine::process::{Ended, Launch, Process};
pub use machine::tools;
pub use wait::{eventually, eventually_async};
pub use world::database::{Backend, Contents, Database};
pub use world::{ACME, Builder, SCOPES, World, master_key_line};

/// The short names that tests use.
pub mod prelude {
    pub use crate::{ACME, Backend, Caller, Denial, Feed, SCOPES, World, on_both_databases};
    pub use token_vault_proto::v1 as pb;
    pub use token_vault_proto::v1::ErrorReason as Reason;
    pub use token_vault_proto::v1::api_key::Role;
    pub use token_vault_proto::v1::expiry_event::Kind;
    pub use token_vault_sandbox::{Endpoint, Fault, FaultKind, Sandbox};
    pub use tonic::Code;
}

/// Runs each scenario on SQLite and on PostgreSQL, each in its own world. If a scenario needs a special start, it
/// begins with it: `with |builder| builder.moving_time();`.
#[macro_export]
macro_rules! on_both_databases {
    (with $how:expr; $($(#[$meta:meta])* async fn $name:ident($world:ident: World) $body:block)*) => {
        mod scenarios {
            use super::*;
            pub(super) async fn start(backend: Backend) -> World {
                let how: fn($crate::Builder) -> $crate::Builder = $how;
                how(World::builder(backend)).start().await
            }
            $($(#[$meta])* pub(super) async fn $name($world: World) $body)*
        }
        mod sqlite {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                scenarios::$name(scenarios::start(Backend::Sqlite).await).await;
            })*
        }
        mod postgres {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                scenarios::$name(scenarios::start(Backend::Postgres).await).await;
            })*
        }
    };
    ($($scenarios:tt)*) => {
        $crate::on_both_databases! { with |builder| builder; $($scenarios)* }
    };
}
