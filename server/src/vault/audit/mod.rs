//! The audit trail: which records are written, and the relay that carries them to the log.

pub(super) mod record;
pub(super) mod relay;
