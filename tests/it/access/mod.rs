//! Who may call what, how a caller proves who it is, and how much it may take.

mod api_keys;
mod callers;
mod elsewhere;
mod hung_up;
mod in_flight;
mod limits;
mod matrix;
mod oidc;
pub(crate) mod rpcs;
