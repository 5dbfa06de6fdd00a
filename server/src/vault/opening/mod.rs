//! The start of a process, the very first start, and commands on a vault that is not running.

pub(super) mod audit_log;
pub(super) mod config;
pub(super) mod first_start;
pub(super) mod master_keys;
pub(super) mod recover;
pub(super) mod start;
pub(super) mod waiting;
