//! Audit records on their way to the log: the outbox that holds them, and how far each log has come.

mod chains;
mod outbox;

pub use chains::ChainState;
pub(in crate::store) use outbox::Outbox;
pub use outbox::Outgoing;
