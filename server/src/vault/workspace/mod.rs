//! Workspaces: listing them, and destroying one for good.

pub(super) mod list;
pub(super) mod shred;
