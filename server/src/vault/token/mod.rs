//! The verbs about tokens.

pub(super) mod candidate;
pub(super) mod change;
pub(super) mod custody;
pub(super) mod exchange;
pub(super) mod intake;
pub(super) mod list;
pub(super) mod pages;
pub(super) mod report;
pub(super) mod target;
pub(super) mod validate;
pub(super) mod verdict;
pub(super) mod view;
