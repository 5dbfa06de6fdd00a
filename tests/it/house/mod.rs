//! The source and its documents: which modules may use which, and whether the documents are true.

mod architecture;
mod documents;
mod enums;
mod security;
mod sizes;
