//! What makes a repeated request, or two concurrent ones, do their work once.
//!
//! [`idempotency`] does it for a request with a `request_id`, [`claims`] for the exchange of a connection's token. Both
//! work the same way: a row in the database says which process works on the thing, and `state::in_flight` says which tasks of
//! this process do. A row of a process that has ended, or of ours without a task, is free to be taken over.

pub(super) mod claims;
pub(super) mod idempotency;
