//! What makes a repeated request, or two concurrent ones, do their work once.

pub(super) mod claims;
pub(super) mod idempotency;
