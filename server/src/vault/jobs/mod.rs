//! Work that the vault does by the clock: a file per job, and the schedule.

pub(super) mod deadlines;
pub(super) mod policy;
pub(super) mod renewal;
pub(super) mod schedule;
pub(super) mod sweep;
