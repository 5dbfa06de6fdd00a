//! The feed of expiry events: what it says, to whom, in which order, and what it survives.

pub(crate) mod fleet;
mod history;
mod killed_replicas;
mod order;
mod outage;
mod replicas;
mod slow_watcher;
mod watching;
