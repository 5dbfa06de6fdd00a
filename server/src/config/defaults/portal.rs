//! The portal, where people connect accounts. The vault reads the first two keys, the command `portal` all of them.

use std::net::SocketAddr;

use super::server::ADDRESS;
use super::{FILE, TEXT};
use crate::config::declare::{setting, settings};
use crate::config::values::{Checked, FilePath, List, SecureUrl, Switch};

settings! {
    /// The portal: a process of its own (`token-vault portal`), in which a person with a connect link connects an account.
    /// It needs no key of the vault's but an API key of role portal.
    ["portal"] {
        /// The portal's address for browsers. Connect links begin with it, and `<url>/callbacks/meta` must be among the
        /// redirect URIs of the app at Meta. The vault needs it to make links. Meta's callbacks have the addresses
        /// `<url>/callbacks/meta/deauthorize`, `…/data-deletion` and `…/webhook`.
        PORTAL_URL: SecureUrl = setting("portal.url", PORTAL).unset("no connect links", "\"https://connect.acme.example\"");
        /// Where the portal may send browsers after an account was connected: scheme, host, port and path have to be the
        /// same, and any query may follow.
        RETURN_URLS: List<SecureUrl> = setting("portal.return_urls", List { each: RETURN, plural: "URLs", most: None })
            .unset("nowhere", "[\"https://app.acme.example/settings\"]");
        /// Where the portal listens.
        PORTAL_LISTEN: Checked<SocketAddr> = setting("portal.listen", ADDRESS).default("127.0.0.1:7480");
        /// The vault, as the portal reaches it.
        PORTAL_VAULT_URL: SecureUrl = setting("portal.vault_url", VAULT).default("http://127.0.0.1:7443");
        /// PEM file with the certificates to trust instead of the system's, for the connection to the vault.
        PORTAL_VAULT_CA_FILE: FilePath = setting("portal.vault_ca_file", FILE).unset("the system's", "\"vault-ca.crt\"");
        /// The portal's API key, of role portal.
        PORTAL_API_KEY_FILE: FilePath = setting("portal.api_key_file", FILE).unset("the portal does not start", "\"portal.apikey\"");
        /// PEM file with the portal's certificate chain.
        PORTAL_CERT_FILE: FilePath = setting("portal.cert_file", FILE).unset("no TLS", "\"portal.crt\"");
        /// PEM file with the private key of that certificate.
        PORTAL_KEY_FILE: FilePath = setting("portal.key_file", FILE).unset("no TLS", "\"portal.key\"");
        /// A proxy in front encrypts: the portal may then listen without TLS off loopback, and takes a person's address from
        /// the last entry of `X-Forwarded-For`, which the proxy must set.
        PORTAL_BEHIND_PROXY: Switch = setting("portal.behind_proxy", Switch).default("false");
        /// Which sites may show the card in a frame, as origins.
        PORTAL_FRAME_ANCESTORS: List<SecureUrl> = setting("portal.frame_ancestors", List { each: RETURN, plural: "URLs of origins", most: None })
            .unset("none", "[\"https://app.acme.example\"]");
        /// The name that people know.
        PORTAL_NAME: Checked<String> = setting("portal.name", TEXT).default("Token Vault");
        /// A logo: a PNG, SVG, JPEG or WebP file of at most 256 KiB.
        PORTAL_LOGO_FILE: FilePath = setting("portal.logo_file", FILE).unset("none", "\"logo.svg\"");
        /// The colour of buttons and links.
        PORTAL_COLOR: Checked<String> = setting("portal.color", Checked {
            allowed: "a colour of the form #rrggbb",
            such_as: "#1a56db",
            parse: color,
        }).default("#1a56db");
    }
}

const PORTAL: SecureUrl = SecureUrl { query: false, example: "https://connect.acme.example" };
const RETURN: SecureUrl = SecureUrl { query: false, example: "https://app.acme.example" };
const VAULT: SecureUrl = SecureUrl { query: false, example: "https://vault.acme.internal:7443" };

fn color(text: &str) -> Option<String> {
    let digits = text.strip_prefix('#')?;
    let good = digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    good.then(|| text.to_owned())
}
