//! The network: TLS, connections, and what arrives over them.

pub(crate) mod abuse;
mod client_certificates;
mod connections;
mod reflection;
mod sizes;
mod tls;
