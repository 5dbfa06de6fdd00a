//! The keys that encrypt what the vault holds: where they come from, how they change, and how they end.

mod break_glass;
pub(crate) mod erasure;
mod key_service;
mod master_key;
mod rotation;
mod rotation_under_load;
mod shredding;
