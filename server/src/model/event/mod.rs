//! Events of the feed: what has happened to a token or a provider, announced once, and what is still open.

mod announce;
mod fact;
mod incident;
mod kind;
mod provider;

pub use announce::{AccountChange, Cause};
pub use fact::{Closed, Detail, Event, EventWord, FeedPosition};
pub use incident::{Announced, Draft, Incident, IncidentKey};
pub use kind::{DeadlineKind, EventKind};
pub use provider::ProviderTrouble;
