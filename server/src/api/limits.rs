//! The limits on connections, calls and streams. Each is a configuration key of `server.limits`; their defaults stand
//! in `config/defaults/`.

use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Open connections. One more evicts the connection that has been idle longest; if all have calls, it is closed.
    pub max_connections: usize,
    /// Time for the TLS handshake, and as much again for the HTTP/2 preface.
    pub handshake_timeout: Duration,
    /// A connection without a call for this long is closed.
    pub idle_timeout: Duration,
    /// A connection is closed at about this age (a tenth more or less). Its watches end, and clients resume them over a
    /// new connection.
    pub max_connection_age: Duration,
    /// How long its calls in flight may then take to end.
    pub max_connection_age_grace: Duration,
    /// How often a silent connection is pinged.
    pub keepalive_interval: Duration,
    /// How long it may take to answer a ping.
    pub keepalive_timeout: Duration,
    /// Concurrent calls on one connection, watches included; further calls wait in the client.
    pub max_streams_per_connection: u32,
    /// Concurrent streams of health and reflection, which need no key.
    pub max_open_streams: usize,
    /// Bytes of a request's headers.
    pub max_header_bytes: u32,
    /// Bytes of a request's message.
    pub max_request_bytes: usize,
    /// Calls in flight over all connections; a sixteenth of them is reserved for admins. A call is in flight until its
    /// response is read, a watch until its headers are sent.
    pub max_calls: usize,
    /// How many of them may belong to one principal.
    pub max_calls_per_principal: usize,
    /// Calls per second of one principal, over all its keys and certificates; 0 is no limit.
    pub per_principal_rps: u32,
    /// Calls that it may make at once after a pause.
    pub per_principal_burst: u32,
    /// Failed authentications per minute from one address; 0 is no limit.
    pub failed_authentications_per_minute: u32,
}
