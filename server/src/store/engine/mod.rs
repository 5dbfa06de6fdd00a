//! What makes the store fast and coherent: group commit, caches, the feed's live end, and what keeps replicas in step.
//! It uses the tables' folders beside it; none of them uses it.

mod batch;
mod beats;
mod cache;
mod clock_guard;
mod flight;
mod live_feed;
mod patience;
mod room;
mod scrub;
mod unit;
mod wake;
mod writer;

pub use batch::Batch;
pub(in crate::store) use beats::Beats;
pub(in crate::store) use cache::{Coherence, watch_changes};
pub(in crate::store) use clock_guard::ClockGuard;
pub(in crate::store) use flight::Flights;
pub use live_feed::{Feed, Live, Recent};
pub(in crate::store) use room::watch_room;
pub(in crate::store) use scrub::{scrub, scrub_after};
pub use unit::{Abort, Needs, Numbered};
pub(in crate::store) use wake::{check as check_wake, run as run_wake};
pub(in crate::store) use writer::{Aftermath, Writer};
