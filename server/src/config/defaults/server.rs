//! What the process and its listeners do by default: addresses, TLS, and the limits of calls and connections.

use std::net::SocketAddr;

use super::FILE;
use crate::api::ClientAuth;
use crate::config::declare::{setting, settings};
use crate::config::values::{Checked, Choice, FilePath, Length, Number, Switch};

/// Where gRPC listens unless another address is configured.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7443";

settings! {
    [""] {
        /// The folder for the database, the key file, the bootstrap key and the audit log, unless other keys name
        /// other places.
        DATA_DIR: FilePath = setting("data_dir", FilePath("the path of a folder")).default("./data").flag("--data-dir");
    }

    ["server"] {
        /// Where gRPC listens. An address that other machines can reach needs TLS. Port 0 takes a free port.
        LISTEN: Checked<SocketAddr> = setting("server.listen", ADDRESS).default(DEFAULT_LISTEN).flag("--listen");
        /// Where the HTTP probes `/livez` and `/readyz` listen. They disclose nothing secret.
        ADMIN_LISTEN: Checked<SocketAddr> = setting("server.admin_listen", ADDRESS).default("127.0.0.1:7444");
        /// Serve other machines without TLS, because something else encrypts the connection.
        ALLOW_PLAINTEXT: Switch = setting("server.allow_plaintext", Switch).default("false");
        /// Serve the HTTP probes to other machines; they need no key.
        ALLOW_REMOTE_ADMIN: Switch = setting("server.allow_remote_admin", Switch).default("false");
    }

    /// The vault reads these files again every few seconds and on SIGHUP; renewing a certificate needs no restart.
    ["server.tls"] {
        /// PEM file with the vault's certificate, then those between it and the root.
        CERT_FILE: FilePath = setting("server.tls.cert_file", FILE).unset("no TLS", "\"vault.crt\"");
        /// PEM file with the certificate's key; other users must not be able to read it.
        KEY_FILE: FilePath = setting("server.tls.key_file", FILE).unset("no TLS", "\"vault.key\"");
        /// Whether clients are asked for a certificate.
        CLIENT_AUTH: Choice<ClientAuth> = setting("server.tls.client_auth", CLIENT_AUTHS).default("none");
        /// PEM file with the roots of clients' certificates; needed when clients are asked for one.
        CLIENT_CA_FILE: FilePath = setting("server.tls.client_ca_file", FILE).unset("none", "\"ca.crt\"");
        /// How often the vault looks whether the files have changed.
        RELOAD_INTERVAL: Length = setting("server.tls.reload_interval", Length("100ms", "1h")).default("5s");
    }

    /// How much callers may take. A call past a limit is answered `RESOURCE_EXHAUSTED` with the reason
    /// `RATE_LIMITED`, the name of the limit and a `RetryInfo`, while other callers are served.
    ["server.limits"] {
        /// Calls per second of one principal, with all its keys and certificates; 0 means no limit.
        PER_PRINCIPAL_RPS: Number<u32> = setting("server.limits.per_principal_rps", Number(0, 1_000_000)).default("5000");
        /// Calls that a principal may make at once after a pause.
        PER_PRINCIPAL_BURST: Number<u32> = setting("server.limits.per_principal_burst", Number(1, 1_000_000)).default("10000");
        /// Watches of one principal.
        PER_PRINCIPAL_WATCHES: Number<usize> = setting("server.limits.per_principal_watches", Number(1, 1_000_000)).default("10000");
        /// Watches of all principals together.
        MAX_WATCHES: Number<usize> = setting("server.limits.max_watches", Number(1, 1_000_000)).default("20000");
        /// Failed authentications per minute from one address; 0 means no limit.
        FAILED_AUTHENTICATIONS_PER_MINUTE: Number<u32> = setting("server.limits.failed_authentications_per_minute", Number(0, 1_000_000)).default("120");
        /// Calls in flight over all connections; a sixteenth of them is reserved for admins.
        MAX_CALLS: Number<usize> = setting("server.limits.max_calls", Number(1, 100_000)).default("1024");
        /// Calls in flight of one principal, with all its keys and certificates.
        MAX_CALLS_PER_PRINCIPAL: Number<usize> = setting("server.limits.max_calls_per_principal", Number(1, 100_000)).default("256");
        /// Bytes of one request message.
        MAX_REQUEST_BYTES: Number<usize> = setting("server.limits.max_request_bytes", Number(65_536, 67_108_864)).default("4194304");
        /// Bytes of the headers of one request.
        MAX_HEADER_BYTES: Number<u32> = setting("server.limits.max_header_bytes", Number(4_096, 1_048_576)).default("16384");
        /// Connections at once. When they are all taken, the one that has been idle longest is closed. The vault
        /// needs this many open files and 256 more: it raises the soft limit of the system to the hard one, serves fewer
        /// connections and warns where that is too low, and refuses to start below 320 open files.
        MAX_CONNECTIONS: Number<usize> = setting("server.limits.max_connections", Number(1, 1_000_000)).default("16384");
        /// Calls in flight on one connection, watches included.
        MAX_STREAMS_PER_CONNECTION: Number<u32> = setting("server.limits.max_streams_per_connection", Number(1, 100_000)).default("1024");
        /// Streams of the health and reflection services, which need no key.
        MAX_OPEN_STREAMS: Number<usize> = setting("server.limits.max_open_streams", Number(1, 100_000)).default("256");
        /// Time for the TLS handshake, and the same again for the first bytes of HTTP/2.
        HANDSHAKE_TIMEOUT: Length = setting("server.limits.handshake_timeout", QUICK).default("10s");
        /// A connection without calls is closed after this time.
        IDLE_TIMEOUT: Length = setting("server.limits.idle_timeout", SLOW).default("15m");
        /// How often the vault pings a silent connection.
        KEEPALIVE_INTERVAL: Length = setting("server.limits.keepalive_interval", QUICK).default("30s");
        /// How long the client may take to answer a ping.
        KEEPALIVE_TIMEOUT: Length = setting("server.limits.keepalive_timeout", QUICK).default("10s");
        /// A connection is closed at this age, give or take a tenth; watches end with `UNAVAILABLE` and resume.
        MAX_CONNECTION_AGE: Length = setting("server.limits.max_connection_age", SLOW).default("1h");
        /// How long calls in flight may then take to end.
        MAX_CONNECTION_AGE_GRACE: Length = setting("server.limits.max_connection_age_grace", QUICK).default("5m");
    }
}

const QUICK: Length = Length("100ms", "10m");

const SLOW: Length = Length("1s", "7d");

const CLIENT_AUTHS: Choice<ClientAuth> = Choice(&[
    ("none", ClientAuth::None),
    ("optional", ClientAuth::Optional),
    ("required", ClientAuth::Required),
]);

pub(super) const ADDRESS: Checked<SocketAddr> = Checked {
    allowed: "an IP address and a port",
    such_as: "127.0.0.1:7443",
    parse: |text| text.parse().ok(),
};
