//! What makes a repeated request, or two concurrent ones, do their work once.
//!
//! [`idempotency`] does it for a request with a `request_id`, [`claims`] for the exchange of a token. Both work the same
//! way: a row in the database says which process does the work, and `state::in_flight` says which tasks of this process
//! do it. [`together`] does it for equal requests of several callers of one process. A process can take over the row of a process that has ended, and a row of its own that none of
//! its tasks works on.

pub(super) mod claims;
pub(super) mod idempotency;
pub(super) mod together;
