//! The sections of the configuration that have rules across keys, or values that are built from several keys.

pub(super) mod audit;
mod certificates;
pub(super) mod master_keys;
pub(super) mod meta;
pub(super) mod oidc;
pub(super) mod portal;
pub(super) mod server;

pub(super) use certificates::read as certificates;
