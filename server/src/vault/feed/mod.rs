//! Following the events of the feed.

pub(super) mod permits;
pub(super) mod watch;
