//! The feed of events: watching it, paging through the events that are kept, and storing callers' positions in it.

pub(super) mod filter;
pub(super) mod history;
pub(super) mod permission;
pub(super) mod subscriptions;
pub(super) mod watch;
