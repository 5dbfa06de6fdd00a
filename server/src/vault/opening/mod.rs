//! The start of a process, and what is done to a vault that does not run.

pub(super) mod config;
pub(super) mod recover;
pub(super) mod start;
