//! The programs of this machine that tests start: processes, disks, tools.

pub(crate) mod binary;
pub(crate) mod disk;
pub(crate) mod postgres;
pub(crate) mod process;
pub mod tools;
