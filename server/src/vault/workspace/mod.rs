//! Workspaces and their end.

pub(super) mod shred;
