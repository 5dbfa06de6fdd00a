//! Jobs: work that starts on a schedule or after a change. `start` finds the runs that are due and executes them, `run`
//! is the row of a run, and `admin` answers callers' requests about jobs. `timetable` names every job.

pub(super) mod admin;
pub(super) mod deadlines;
pub(super) mod erasure;
pub(super) mod housekeeping;
pub(super) mod policy;
pub(super) mod providers;
pub(super) mod reencrypt;
pub(super) mod renewal;
pub(super) mod rewrap;
pub(super) mod rotate_key;
pub(super) mod run;
pub(super) mod start;
pub(super) mod sweep;
