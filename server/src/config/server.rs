//! Section `server`: where the vault listens, with which certificate, and how much each caller may take.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::reader::Reader;
use super::{DEFAULT_LISTEN, HOUR, MINUTE, Server, duration_between};
use crate::api::{ClientAuth, Limits, TlsFiles};
use crate::vault::WatchLimits;

const DEFAULT_ADMIN_LISTEN: &str = "127.0.0.1:7444";
const SECOND: Duration = Duration::from_secs(1);

/// Reads the section.
pub(super) fn read(reader: &mut Reader) -> Server {
    const LISTEN: &str = "server.listen";
    const ADMIN_LISTEN: &str = "server.admin_listen";
    const PLAINTEXT: &str = "server.allow_plaintext";
    const REMOTE_ADMIN: &str = "server.allow_remote_admin";
    let listen = reader.parsed(LISTEN, DEFAULT_LISTEN, address);
    let admin_listen = reader.parsed(ADMIN_LISTEN, SocketAddr::new([127, 0, 0, 1].into(), 7444), address);
    let (tls, told) = tls(reader);
    let plaintext = reader.flag(PLAINTEXT, false);
    let remote_admin = reader.flag(REMOTE_ADMIN, false);
    if !listen.ip().is_loopback() && !told {
        if plaintext {
            reader.warn(format!("{PLAINTEXT}: keys and tokens cross the network in the clear"));
        } else {
            reader.mistake(
                LISTEN,
                format!(
                    "would send keys and tokens in the clear: set server.tls.cert_file and server.tls.key_file, \
                     or bind loopback (127.0.0.1 or [::1]); where something else encrypts, set {PLAINTEXT} = true"
                ),
            );
        }
    }
    if !admin_listen.ip().is_loopback() && !remote_admin {
        reader.mistake(
            ADMIN_LISTEN,
            format!(
                "would answer everybody who can reach it, without a key: bind loopback, as {DEFAULT_ADMIN_LISTEN}, \
                 or set {REMOTE_ADMIN} = true"
            ),
        );
    }
    Server { listen, admin_listen, tls, limits: limits(reader) }
}

/// Where watches may be counted: see [`limits`].
pub(super) fn watches(reader: &mut Reader) -> WatchLimits {
    let default = WatchLimits::default();
    WatchLimits {
        total: number(reader, "server.limits.max_watches", default.total, (1, 1_000_000)),
        per_principal: number(
            reader,
            "server.limits.per_principal_watches",
            default.per_principal,
            (1, 1_000_000),
        ),
    }
}

/// The files, and whether TLS was asked for at all: half of it is a mistake of its own.
fn tls(reader: &mut Reader) -> (Option<TlsFiles>, bool) {
    const CERT: &str = "server.tls.cert_file";
    const KEY: &str = "server.tls.key_file";
    const CA: &str = "server.tls.client_ca_file";
    const AUTH: &str = "server.tls.client_auth";
    let (cert_file, key_file) = (reader.path(CERT), reader.path(KEY));
    let client_ca_file: Option<PathBuf> = reader.path(CA);
    let client_auth = reader.parsed(AUTH, ClientAuth::None, |text| match text {
        "none" => Ok(ClientAuth::None),
        "optional" => Ok(ClientAuth::Optional),
        "required" => Ok(ClientAuth::Required),
        _ => Err("must be none, optional or required".to_owned()),
    });
    let reload_interval = reader.parsed("server.tls.reload_interval", 5 * SECOND, |text| {
        duration_between(text, Duration::from_millis(100), HOUR, "100ms", "1h")
    });
    let asked = client_auth != ClientAuth::None;
    if asked && client_ca_file.is_none() {
        reader
            .mistake(CA, format!("must name the roots of clients' certificates, since {AUTH} asks for them"));
    }
    if !asked && client_ca_file.is_some() && !reader.is_mistaken(AUTH) {
        reader.mistake(CA, format!("is of no use unless {AUTH} is optional or required"));
    }
    let told = cert_file.is_some() || key_file.is_some();
    let files = match (cert_file, key_file) {
        (Some(cert_file), Some(key_file)) => {
            Some(TlsFiles { cert_file, key_file, client_ca_file, client_auth, reload_interval })
        }
        (Some(_), None) => {
            reader.mistake(KEY, format!("must be set, since {CERT} is"));
            None
        }
        (None, Some(_)) => {
            reader.mistake(CERT, format!("must be set, since {KEY} is"));
            None
        }
        (None, None) => {
            if asked {
                reader.mistake(AUTH, format!("needs TLS: set {CERT} and {KEY}"));
            }
            None
        }
    };
    (files, told)
}

fn limits(reader: &mut Reader) -> Limits {
    let default = Limits::default();
    let mut time = |key: &str, default, (least, most), (low, high)| {
        let key = format!("server.limits.{key}");
        reader.parsed(&key, default, |text| duration_between(text, least, most, low, high))
    };
    let quick = ((Duration::from_millis(100), 10 * MINUTE), ("100ms", "10m"));
    let slow = ((SECOND, 7 * 24 * HOUR), ("1s", "7d"));
    let handshake_timeout = time("handshake_timeout", default.handshake_timeout, quick.0, quick.1);
    let keepalive_interval = time("keepalive_interval", default.keepalive_interval, quick.0, quick.1);
    let keepalive_timeout = time("keepalive_timeout", default.keepalive_timeout, quick.0, quick.1);
    let idle_timeout = time("idle_timeout", default.idle_timeout, slow.0, slow.1);
    let max_connection_age = time("max_connection_age", default.max_connection_age, slow.0, slow.1);
    let max_connection_age_grace =
        time("max_connection_age_grace", default.max_connection_age_grace, quick.0, quick.1);
    let mut number =
        |key: &str, default, bounds| number(reader, &format!("server.limits.{key}"), default, bounds);
    Limits {
        handshake_timeout,
        keepalive_interval,
        keepalive_timeout,
        idle_timeout,
        max_connection_age,
        max_connection_age_grace,
        max_connections: number("max_connections", default.max_connections, (1, 1_000_000)),
        max_open_streams: number("max_open_streams", default.max_open_streams, (1, 100_000)),
        max_calls: number("max_calls", default.max_calls, (1, 100_000)),
        max_calls_per_principal: number(
            "max_calls_per_principal",
            default.max_calls_per_principal,
            (1, 100_000),
        ),
        max_request_bytes: number("max_request_bytes", default.max_request_bytes, (65_536, 64 << 20)),
        max_streams_per_connection: small(
            reader,
            "max_streams_per_connection",
            default.max_streams_per_connection,
            (1, 100_000),
        ),
        max_header_bytes: small(reader, "max_header_bytes", default.max_header_bytes, (4_096, 1 << 20)),
        per_principal_rps: small(reader, "per_principal_rps", default.per_principal_rps, (0, 1_000_000)),
        per_principal_burst: small(
            reader,
            "per_principal_burst",
            default.per_principal_burst,
            (1, 1_000_000),
        ),
        failed_authentications_per_minute: small(
            reader,
            "failed_authentications_per_minute",
            default.failed_authentications_per_minute,
            (0, 1_000_000),
        ),
    }
}

fn small(reader: &mut Reader, key: &str, default: u32, bounds: (usize, usize)) -> u32 {
    let default = usize::try_from(default).unwrap_or(usize::MAX);
    u32::try_from(number(reader, &format!("server.limits.{key}"), default, bounds)).unwrap_or(u32::MAX)
}

fn number(reader: &mut Reader, key: &str, default: usize, (least, most): (usize, usize)) -> usize {
    reader.parsed(key, default, |text| {
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| format!("must be a number from {least} to {most}"))
    })
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "must be an IP address and a port, such as 127.0.0.1:7443".to_owned())
}
