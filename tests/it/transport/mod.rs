//! The network: TLS, connections, and what arrives over them.

pub(crate) mod abuse;
pub(crate) mod certificates;
mod reflection;
mod tls;
