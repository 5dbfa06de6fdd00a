//! Where to reach the vault that a configuration describes, for commands that call it.
//!
//! Reads the few keys that say so, and checks only those: a caller need not be able to read the vault's secrets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::defaults::{ADMIN_LISTEN, CERT_FILE, CERTIFICATES, DATA_DIR, KEY_FILE, LISTEN, OIDC_ROLES};
use super::reader::Reader;
use super::{Config, ConfigError, Flags, environment, environment_names, with_flags};
use crate::model::Role;

/// What a caller on the vault's own machine needs to know.
#[derive(Debug)]
pub struct Reach {
    /// The folder of the bootstrap key.
    pub data_dir: PathBuf,
    /// Where gRPC listens, as configured: the port may be 0.
    pub listen: SocketAddr,
    /// Where the probes listen, as configured: the port may be 0.
    pub admin_listen: SocketAddr,
    /// Whether `server.tls` is configured, even if only in part.
    pub tls: bool,
    /// The file with the vault's certificate and its chain.
    pub certificate_file: Option<PathBuf>,
    /// Whether a certificate or an issuer's token can make its caller an administrator, so that API keys are not the
    /// only way in.
    pub admins_without_keys: bool,
}

impl Reach {
    /// The URL of gRPC on this machine. `None`: the system picks a port at each start, so the port is not known here.
    pub fn url(&self) -> Option<String> {
        let scheme = if self.tls { "https" } else { "http" };
        Some(format!("{scheme}://{}", here(self.listen)?))
    }

    /// The address of the probes on this machine. `None`: the system picks a port.
    pub fn probes(&self) -> Option<SocketAddr> {
        here(self.admin_listen)
    }
}

/// How a listener is reached on its own machine. `None`: its port is not known.
fn here(listener: SocketAddr) -> Option<SocketAddr> {
    // What listens everywhere is reached by loopback.
    let host = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    (listener.port() != 0).then(|| SocketAddr::new(host, listener.port()))
}

impl Config {
    /// Reads where the vault is, from the same sources as [`Config::load`].
    pub fn reach(flags: Flags) -> Result<Reach, ConfigError> {
        let (figment, _) = Self::file_and_environment(&flags)?;
        let mut reader = Reader::new(with_flags(figment, flags))?;
        environment::check(&mut reader, environment_names());
        let data_dir = reader.get(&DATA_DIR);
        let (listen, admin_listen) = (reader.get(&LISTEN), reader.get(&ADMIN_LISTEN));
        let certificate_file = reader.find(&CERT_FILE);
        let tls = certificate_file.is_some() || reader.find(&KEY_FILE).is_some();
        let mut tables = reader.tables(&CERTIFICATES);
        tables.extend(reader.tables(&OIDC_ROLES));
        let admins_without_keys = tables
            .into_iter()
            .any(|mut table| table.parsed("role", Role::parse).is_ok_and(|role| role == Role::Admin));
        reader.finish_what_was_read()?;
        Ok(Reach { data_dir, listen, admin_listen, tls, certificate_file, admins_without_keys })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(text: &str) -> Result<Reach, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("vault.toml");
        std::fs::write(&file, text).unwrap();
        Config::reach(Flags { file: Some(file), ..Flags::default() })
    }

    #[test]
    fn the_endpoint_follows_from_the_configuration() {
        let cases = [
            ("", Some("http://127.0.0.1:7443")),
            ("server.listen = '127.0.0.2:9000'", Some("http://127.0.0.2:9000")),
            ("server.listen = '0.0.0.0:9000'\nserver.tls.cert_file = 'c'", Some("https://127.0.0.1:9000")),
            ("server.listen = '[::]:9000'\nserver.tls.key_file = 'k'", Some("https://[::1]:9000")),
            ("server.listen = '127.0.0.1:0'", None),
        ];
        for (text, url) in cases {
            assert_eq!(reach(text).unwrap().url().as_deref(), url, "{text}");
        }
    }

    #[test]
    fn the_probes_are_asked_by_loopback_where_they_listen_everywhere() {
        let cases = [
            ("", Some("127.0.0.1:7444")),
            ("server.admin_listen = '0.0.0.0:9001'", Some("127.0.0.1:9001")),
            ("server.admin_listen = '[::]:9001'", Some("[::1]:9001")),
            ("server.admin_listen = '192.0.2.1:9001'", Some("192.0.2.1:9001")),
            ("server.admin_listen = '127.0.0.1:0'", None),
        ];
        for (text, probes) in cases {
            let found = reach(text).unwrap().probes().map(|address| address.to_string());
            assert_eq!(found.as_deref(), probes, "{text}");
        }
    }

    #[test]
    fn only_what_a_caller_needs_is_checked() {
        let unreadable = "[providers.meta]\napp_id = '1'\napp_secret_files = ['/nowhere/app.secret']\n";
        assert!(reach(unreadable).is_ok(), "a caller need not be able to read the vault's secrets");
        assert!(reach("server.listen = 'everywhere'").unwrap_err().to_string().contains("server.listen"));
    }

    #[test]
    fn administrators_by_certificate_or_token_are_seen() {
        let certificate = |role: &str| {
            format!(
                "auth.certificates = [{{ san = 'a.example', principal = 'a', role = '{role}', workspaces = 'all' }}]"
            )
        };
        assert!(reach(&certificate("admin")).unwrap().admins_without_keys);
        assert!(!reach(&certificate("viewer")).unwrap().admins_without_keys);
        assert!(reach("auth.oidc.roles = [{ value = 'ops', role = 'admin' }]").unwrap().admins_without_keys);
    }
}
