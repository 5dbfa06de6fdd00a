//! The feed of expiry events: its content, its watchers, its order, and what it survives.

mod common;
mod deleted_history;
mod events;
mod history;
mod history_pages;
mod killed_replicas;
mod order;
mod outage;
mod replicas;
mod slow_watcher;
mod watching;
