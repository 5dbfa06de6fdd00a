//! The source and its documents: who may use whom, and whether what the documents say is true.

mod architecture;
mod documents;
mod security;
mod sizes;
