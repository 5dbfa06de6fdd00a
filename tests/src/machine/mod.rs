//! The programs of this machine that tests start, and what those need: processes, disks, tools.

pub(crate) mod binary;
pub(crate) mod disk;
pub(crate) mod postgres;
pub(crate) mod process;
pub mod tools;
