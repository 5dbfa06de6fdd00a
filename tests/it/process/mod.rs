//! The process: how it starts and ends, what its commands print, and how it protects its secrets.

mod command_line;
mod hardening;
mod leaks;
pub(crate) mod lifecycle;
mod mistakes;
mod open_files;
mod probes;
mod screen;
mod stopping;
