//! Section `server`: where the vault listens, with which certificate, and how much callers may take.

use crate::api::{ClientAuth, Limits, TlsFiles};
use crate::config::Server;
use crate::config::defaults::{
    ADMIN_LISTEN, ALLOW_PLAINTEXT, ALLOW_REMOTE_ADMIN, CERT_FILE, CLIENT_AUTH, CLIENT_CA_FILE,
    FAILED_AUTHENTICATIONS_PER_MINUTE, HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, KEEPALIVE_INTERVAL,
    KEEPALIVE_TIMEOUT, KEY_FILE, LISTEN, MAX_CALLS, MAX_CALLS_PER_PRINCIPAL, MAX_CONNECTION_AGE,
    MAX_CONNECTION_AGE_GRACE, MAX_CONNECTIONS, MAX_HEADER_BYTES, MAX_OPEN_STREAMS, MAX_REQUEST_BYTES,
    MAX_STREAMS_PER_CONNECTION, MAX_WATCHES, PER_PRINCIPAL_BURST, PER_PRINCIPAL_RPS, PER_PRINCIPAL_WATCHES,
    RELOAD_INTERVAL,
};
use crate::config::reader::Reader;
use crate::vault::WatchLimits;

pub(in crate::config) fn read(reader: &mut Reader) -> Server {
    let listen = reader.get(&LISTEN);
    let admin_listen = reader.get(&ADMIN_LISTEN);
    let (tls, tls_asked) = tls(reader);
    let plaintext = reader.flag(&ALLOW_PLAINTEXT);
    let remote_admin = reader.flag(&ALLOW_REMOTE_ADMIN);
    if !listen.ip().is_loopback() && !tls_asked {
        if plaintext {
            reader.warn(format!("{}: keys and tokens cross the network in the clear", ALLOW_PLAINTEXT.name));
        } else {
            reader.mistake(
                LISTEN.name,
                format!(
                    "would send keys and tokens in the clear: set {} and {}, or bind loopback (127.0.0.1 or [::1]); \
                     where something else encrypts, set {} = true",
                    CERT_FILE.name, KEY_FILE.name, ALLOW_PLAINTEXT.name
                ),
            );
        }
    }
    if admin_listen == listen && listen.port() != 0 && !reader.is_mistaken(LISTEN.name) {
        reader.mistake(ADMIN_LISTEN.name, format!("must be another address or port than {}", LISTEN.name));
    }
    if !admin_listen.ip().is_loopback() && !remote_admin {
        reader.mistake(
            ADMIN_LISTEN.name,
            format!(
                "would answer everybody who can reach it, without a key: bind loopback (127.0.0.1 or [::1]), \
                 or set {} = true",
                ALLOW_REMOTE_ADMIN.name
            ),
        );
    }
    Server { listen, admin_listen, tls, limits: limits(reader) }
}

pub(in crate::config) fn watches(reader: &mut Reader) -> WatchLimits {
    WatchLimits { total: reader.get(&MAX_WATCHES), per_principal: reader.get(&PER_PRINCIPAL_WATCHES) }
}

/// The TLS files, and whether TLS was configured at all: a TLS section that is only half filled in is a mistake.
fn tls(reader: &mut Reader) -> (Option<TlsFiles>, bool) {
    let (cert_file, key_file) = (reader.find(&CERT_FILE), reader.find(&KEY_FILE));
    let client_ca_file = reader.find(&CLIENT_CA_FILE);
    let client_auth = reader.get(&CLIENT_AUTH);
    let reload_interval = reader.get(&RELOAD_INTERVAL);
    let clients_asked = client_auth != ClientAuth::None;
    if clients_asked && client_ca_file.is_none() {
        reader.mistake(
            CLIENT_CA_FILE.name,
            format!("must name the roots of clients' certificates, since {} asks for them", CLIENT_AUTH.name),
        );
    }
    if !clients_asked && client_ca_file.is_some() && !reader.is_mistaken(CLIENT_AUTH.name) {
        reader.mistake(
            CLIENT_CA_FILE.name,
            format!("is of no use unless {} is optional or required", CLIENT_AUTH.name),
        );
    }
    let tls_asked = cert_file.is_some() || key_file.is_some();
    let files = match (cert_file, key_file) {
        (Some(cert_file), Some(key_file)) => {
            Some(TlsFiles { cert_file, key_file, client_ca_file, client_auth, reload_interval })
        }
        (Some(_), None) => {
            reader.mistake(KEY_FILE.name, format!("must be set, since {} is", CERT_FILE.name));
            None
        }
        (None, Some(_)) => {
            reader.mistake(CERT_FILE.name, format!("must be set, since {} is", KEY_FILE.name));
            None
        }
        (None, None) => {
            if clients_asked {
                let rule = format!("needs TLS: set {} and {}", CERT_FILE.name, KEY_FILE.name);
                reader.mistake(CLIENT_AUTH.name, rule);
            }
            None
        }
    };
    (files, tls_asked)
}

fn limits(reader: &mut Reader) -> Limits {
    Limits {
        max_connections: reader.get(&MAX_CONNECTIONS),
        handshake_timeout: reader.get(&HANDSHAKE_TIMEOUT),
        idle_timeout: reader.get(&IDLE_TIMEOUT),
        max_connection_age: reader.get(&MAX_CONNECTION_AGE),
        max_connection_age_grace: reader.get(&MAX_CONNECTION_AGE_GRACE),
        keepalive_interval: reader.get(&KEEPALIVE_INTERVAL),
        keepalive_timeout: reader.get(&KEEPALIVE_TIMEOUT),
        max_streams_per_connection: reader.get(&MAX_STREAMS_PER_CONNECTION),
        max_open_streams: reader.get(&MAX_OPEN_STREAMS),
        max_header_bytes: reader.get(&MAX_HEADER_BYTES),
        max_request_bytes: reader.get(&MAX_REQUEST_BYTES),
        max_calls: reader.get(&MAX_CALLS),
        max_calls_per_principal: reader.get(&MAX_CALLS_PER_PRINCIPAL),
        per_principal_rps: reader.get(&PER_PRINCIPAL_RPS),
        per_principal_burst: reader.get(&PER_PRINCIPAL_BURST),
        failed_authentications_per_minute: reader.get(&FAILED_AUTHENTICATIONS_PER_MINUTE),
    }
}
