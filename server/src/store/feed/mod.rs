//! The feed's tables: events, incidents, and subscriptions' positions.

mod events;
mod subscriptions;

pub use events::{AnnouncedEvents, EventDrive, FeedState, Scope};
pub use subscriptions::Bookmark;
