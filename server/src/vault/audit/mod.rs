//! What is written to the audit log, and when.

pub(super) mod auditing;
