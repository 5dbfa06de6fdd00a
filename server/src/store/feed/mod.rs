//! The feed's tables: events, incidents, and the positions of subscriptions.

mod event_rows;
mod events;
mod incidents;
mod subscriptions;

pub use events::{EventDrive, FeedState};
pub use incidents::Scope;
pub use subscriptions::Bookmark;
