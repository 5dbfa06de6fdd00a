//! The feed of events: watching it, paging through what is kept, and the positions that callers keep in it.

pub(super) mod filter;
pub(super) mod history;
pub(super) mod permission;
pub(super) mod subscriptions;
pub(super) mod watch;
