//! The process: how it starts and ends, what its commands say, and what it keeps to itself.

mod command_line;
mod hardening;
mod leaks;
mod lifecycle;
mod screen;
