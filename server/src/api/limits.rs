//! What callers may take of the vault. Every bound is a key below `server.limits`.

use std::time::Duration;

/// The bounds. `Default` is what holds when nothing is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once. One more closes the one that has been idle longest; where all have calls, it is refused.
    pub max_connections: usize,
    /// Time for the TLS handshake, and as much again for the first words of HTTP/2.
    pub handshake_timeout: Duration,
    /// A connection without a call for so long is closed.
    pub idle_timeout: Duration,
    /// A connection is closed after about so long (a tenth more or less); its watches end and resume elsewhere.
    pub max_connection_age: Duration,
    /// How long calls in flight may then take to end.
    pub max_connection_age_grace: Duration,
    /// How often a silent connection is asked whether it lives.
    pub keepalive_interval: Duration,
    /// How long it may take to say so.
    pub keepalive_timeout: Duration,
    /// Calls at once on one connection, watches included; more wait in the client.
    pub max_streams_per_connection: u32,
    /// Streams of health and reflection at once, which need no key.
    pub max_open_streams: usize,
    /// Bytes of headers per request.
    pub max_header_bytes: u32,
    /// Bytes of a request's message.
    pub max_request_bytes: usize,
    /// Calls in flight at once, over all connections; a sixteenth of them is for admins alone. A call is in flight
    /// until its answer is read, a watch until its headers are sent.
    pub max_calls: usize,
    /// How many of them may be of one principal.
    pub max_calls_per_principal: usize,
    /// Calls per second of one principal, with all its keys and certificates; 0 is no bound.
    pub per_principal_rps: u32,
    /// Calls that it may make at once, after a pause.
    pub per_principal_burst: u32,
    /// Failed authentications a minute from one address; 0 is no bound.
    pub failed_authentications_per_minute: u32,
}

impl Default for Limits {
    fn default() -> Self {
        const MINUTE: Duration = Duration::from_secs(60);
        Self {
            max_connections: 16_384,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: 15 * MINUTE,
            max_connection_age: 60 * MINUTE,
            max_connection_age_grace: 5 * MINUTE,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            max_streams_per_connection: 1024,
            max_open_streams: 256,
            max_header_bytes: 16 * 1024,
            max_request_bytes: 4 * 1024 * 1024,
            max_calls: 1024,
            max_calls_per_principal: 256,
            per_principal_rps: 5_000,
            per_principal_burst: 10_000,
            failed_authentications_per_minute: 120,
        }
    }
}
