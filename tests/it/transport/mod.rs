//! The network: TLS, connections, and what arrives over them.

mod abuse;
mod reflection;
mod tls;
