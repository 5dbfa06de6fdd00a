//! Section `portal`: what the vault needs to make connect links, and what the portal needs to serve them.

use std::net::SocketAddr;
use std::path::PathBuf;

use url::Url;

use crate::config::defaults::{
    PORTAL_API_KEY_FILE, PORTAL_BEHIND_PROXY, PORTAL_CERT_FILE, PORTAL_COLOR, PORTAL_FRAME_ANCESTORS,
    PORTAL_KEY_FILE, PORTAL_LISTEN, PORTAL_LOGO_FILE, PORTAL_NAME, PORTAL_URL, PORTAL_VAULT_CA_FILE,
    PORTAL_VAULT_URL, RETURN_URLS,
};
use crate::config::reader::Reader;
use crate::model::Secret;
use crate::vault::LinkConfig;

/// Section `portal`.
#[derive(Debug)]
pub struct Portal {
    /// What the vault needs of it.
    pub links: LinkConfig,
    pub listen: SocketAddr,
    pub vault_url: Url,
    pub vault_ca_file: Option<PathBuf>,
    api_key_file: Option<PathBuf>,
    /// The files of certificate and key; `None`: without TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    pub behind_proxy: bool,
    /// Origins.
    pub frame_ancestors: Vec<String>,
    pub name: String,
    pub logo_file: Option<PathBuf>,
    pub color: String,
}

pub(in crate::config) fn read(reader: &mut Reader) -> Portal {
    let portal = reader.find(&PORTAL_URL);
    if portal.as_ref().is_some_and(|url: &Url| url.path() != "/") {
        reader.mistake(PORTAL_URL.name, "must have no path: the portal needs a host of its own");
    }
    let tls = match (reader.find(&PORTAL_CERT_FILE), reader.find(&PORTAL_KEY_FILE)) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(_), None) => {
            reader.mistake(PORTAL_KEY_FILE.name, format!("must be set, since {} is", PORTAL_CERT_FILE.name));
            None
        }
        (None, Some(_)) => {
            reader.mistake(PORTAL_CERT_FILE.name, format!("must be set, since {} is", PORTAL_KEY_FILE.name));
            None
        }
    };
    let listen = reader.get(&PORTAL_LISTEN);
    let behind_proxy = reader.flag(&PORTAL_BEHIND_PROXY);
    if tls.is_none() && !behind_proxy && !listen.ip().is_loopback() {
        reader.mistake(
            PORTAL_LISTEN.name,
            format!(
                "would send links and tokens in the clear: set {} and {}, or bind loopback (127.0.0.1 or [::1]); \
                 where a proxy in front encrypts, set {} = true",
                PORTAL_CERT_FILE.name, PORTAL_KEY_FILE.name, PORTAL_BEHIND_PROXY.name
            ),
        );
    }
    let is_https = portal.as_ref().is_some_and(|url| url.scheme() == "https");
    if is_https && tls.is_none() && !behind_proxy && reader.is_set(PORTAL_LISTEN.name) {
        reader.mistake(
            PORTAL_LISTEN.name,
            format!(
                "serves no TLS, although {} begins with https://: set {} and {}, or {} = true for the proxy that does",
                PORTAL_URL.name, PORTAL_CERT_FILE.name, PORTAL_KEY_FILE.name, PORTAL_BEHIND_PROXY.name
            ),
        );
    }
    let frame_ancestors = reader.list(&PORTAL_FRAME_ANCESTORS);
    Portal {
        links: LinkConfig { portal, return_urls: reader.list(&RETURN_URLS) },
        listen,
        vault_url: reader.get(&PORTAL_VAULT_URL),
        vault_ca_file: reader.find(&PORTAL_VAULT_CA_FILE),
        api_key_file: reader.find(&PORTAL_API_KEY_FILE),
        tls,
        behind_proxy,
        frame_ancestors: frame_ancestors.iter().map(|url| url.origin().ascii_serialization()).collect(),
        name: reader.get(&PORTAL_NAME),
        logo_file: reader.find(&PORTAL_LOGO_FILE),
        color: reader.get(&PORTAL_COLOR),
    }
}

/// Reads what the vault can do without and the portal can't: its API key. Checks the rest for a portal on its own.
pub(in crate::config) fn key_of(reader: &mut Reader, portal: &Portal) -> Option<Secret> {
    if portal.links.portal.is_none() && !reader.is_mistaken(PORTAL_URL.name) {
        reader.mistake(PORTAL_URL.name, "must be set: the address at which browsers reach the portal");
    }
    if let Some((_, key_file)) = &portal.tls {
        reader.is_private(PORTAL_KEY_FILE.name, key_file);
    }
    if portal.behind_proxy {
        reader.warn(format!(
            "{}: only the proxy may reach {}, because addresses are taken from what it says",
            PORTAL_BEHIND_PROXY.name, PORTAL_LISTEN.name
        ));
    }
    let name = PORTAL_API_KEY_FILE.name;
    match &portal.api_key_file {
        Some(file) => reader.secret(name, None, file),
        None if reader.is_mistaken(name) => None,
        None => {
            reader.mistake(name, "must name the file with an API key of role portal");
            None
        }
    }
}
