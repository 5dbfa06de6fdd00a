//! What the portal is told, and whether it can work with that.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use token_vault_client::Vault;
use url::{Host, Url};

/// The largest logo. It is sent with every card that a browser has not seen yet.
const LARGEST_LOGO: usize = 256 * 1024;
/// The images that a logo may be. SVG is safe here because scripts in an `<img>` never run, and our policy forbids them
/// when somebody opens the file itself.
const LOGO_TYPES: [&str; 5] = ["image/svg+xml", "image/png", "image/jpeg", "image/webp", "image/gif"];

/// What the portal needs to know.
#[derive(Debug, Clone)]
pub struct PortalConfig {
    /// Where browsers reach the portal: `https://connect.example.com`, without path and query. `http://` only for a
    /// loopback host, since the cookies are secrets.
    pub public_url: String,
    /// The connection to the vault, with a key of role `portal`. Its deadline bounds every call.
    pub vault: Vault,
    /// The certificate of the portal. `None`: plain HTTP, behind a proxy that ends TLS.
    pub tls: Option<TlsFiles>,
    /// Take the client's address from the last entry of `X-Forwarded-For`. Only behind a proxy that writes that entry
    /// itself, because otherwise every client names its own address.
    pub trusted_proxy: bool,
    /// Which pages may show the embeddable card in a frame: origins such as `https://app.example.com`. The cookies of
    /// the portal reach a frame only if both are of one site, such as `app.example.com` and `connect.example.com`.
    pub frame_ancestors: Vec<String>,
    /// The name that the pages show at the top.
    pub name: String,
    /// The logo beside the name.
    pub logo: Option<Logo>,
    /// The colour of the buttons: `#rrggbb`. The text on them becomes black or white, whichever reads better.
    pub accent: Option<String>,
    /// How much the portal takes on.
    pub limits: Limits,
}

impl PortalConfig {
    /// The defaults around what has none.
    pub fn new(public_url: impl Into<String>, vault: Vault) -> Self {
        Self {
            public_url: public_url.into(),
            vault,
            tls: None,
            trusted_proxy: false,
            frame_ancestors: Vec::new(),
            name: "Token Vault".to_owned(),
            logo: None,
            accent: None,
            limits: Limits::default(),
        }
    }

    /// Whether the portal can start with this, apart from the files of TLS. [`serve`](crate::serve) checks it too.
    ///
    /// # Errors
    /// When a field breaks its rule.
    pub fn check(&self) -> Result<(), ConfigError> {
        Site::new(self).map(drop)
    }
}

impl PortalConfig {
    /// Plain HTTP must be said in so many words: by a loopback address on both ends, or by a trusted proxy.
    pub(crate) fn check_encryption(&self, listens: IpAddr) -> Result<(), ConfigError> {
        let plain = self.tls.is_none() && !self.trusted_proxy;
        if plain && (!listens.is_loopback() || !self.public_url.starts_with("http://")) {
            let rule = "must be set, or trusted_proxy where a proxy in front ends TLS: without both, the portal serves only this \
                        machine, at an http:// address of it";
            return Err(wrong("tls", rule));
        }
        Ok(())
    }
}

/// The certificate of the portal, in PEM. The files are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The portal's certificate, then the intermediate certificates.
    pub cert_file: PathBuf,
    /// The private key.
    pub key_file: PathBuf,
    /// How often the files are checked for changes.
    pub reload_interval: Duration,
}

/// An image that the portal serves itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logo {
    /// The image, at most 256 KiB.
    pub bytes: Vec<u8>,
    /// Its type: `image/svg+xml`, `image/png`, `image/jpeg`, `image/webp` or `image/gif`.
    pub content_type: String,
}

/// How much the portal takes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once. Above it, new ones are closed.
    pub max_connections: usize,
    /// Requests a minute from one address, or from one network of IPv6. 0: no bound.
    pub requests_per_minute_and_address: u32,
    /// Callbacks of providers a minute from one address. Each costs a signature check before anything else. 0: no bound.
    pub callbacks_per_minute_and_address: u32,
    /// Calls to the vault a minute for one link. What changes something counts as five. 0: no bound.
    pub calls_per_minute_and_link: u32,
    /// How long a client may take for the handshake of TLS, for the head of a request, or for its body.
    pub read_timeout: Duration,
    /// How long a page may take, with all calls to the vault that it needs.
    pub answer_timeout: Duration,
    /// How long a connection may last.
    pub max_connection_age: Duration,
    /// How long requests in flight may take when the portal stops.
    pub stop_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 1000,
            requests_per_minute_and_address: 120,
            callbacks_per_minute_and_address: 1200,
            calls_per_minute_and_link: 60,
            read_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(75),
            max_connection_age: Duration::from_secs(300),
            stop_grace: Duration::from_secs(20),
        }
    }
}

/// A field of [`PortalConfig`] that breaks its rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {rule}")]
pub struct ConfigError {
    /// The field.
    pub field: &'static str,
    /// The rule, as a sentence that follows the field.
    pub rule: String,
}

fn wrong(field: &'static str, rule: impl Into<String>) -> ConfigError {
    ConfigError { field, rule: rule.into() }
}

/// The portal's own place and looks, checked.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// Scheme, host and port, without a slash at the end.
    pub(crate) origin: String,
    /// Whether browsers reach the portal by HTTPS.
    pub(crate) secure: bool,
    pub(crate) name: String,
    pub(crate) logo: Option<Logo>,
    pub(crate) accent: Option<Accent>,
    /// The value of `frame-ancestors` for the embeddable card.
    pub(crate) frame_ancestors: String,
}

/// A colour, and the colour of the text on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Accent {
    pub(crate) background: String,
    pub(crate) text: &'static str,
}

impl Site {
    pub(crate) fn new(config: &PortalConfig) -> Result<Self, ConfigError> {
        let (origin, secure) = origin(&config.public_url)?;
        let name = config.name.trim();
        if name.is_empty() || name.chars().count() > 80 || name.chars().any(char::is_control) {
            return Err(wrong("name", "must have 1 to 80 characters"));
        }
        if let Some(logo) = &config.logo {
            if !LOGO_TYPES.contains(&logo.content_type.as_str()) {
                return Err(wrong("logo", format!("must be one of {}", LOGO_TYPES.join(", "))));
            }
            if logo.bytes.is_empty() || logo.bytes.len() > LARGEST_LOGO {
                return Err(wrong("logo", "must have 1 byte to 256 KiB"));
            }
        }
        let accent = config.accent.as_deref().map(|text| {
            Accent::new(text).ok_or_else(|| wrong("accent", "must be a colour in the form #rrggbb"))
        });
        Ok(Self {
            origin,
            secure,
            name: name.to_owned(),
            logo: config.logo.clone(),
            accent: accent.transpose()?,
            frame_ancestors: frame_ancestors(&config.frame_ancestors)?,
        })
    }
}

fn origin(text: &str) -> Result<(String, bool), ConfigError> {
    let rule = |rule: &str| wrong("public_url", rule);
    let url = Url::parse(text).map_err(|_| rule("must be a URL in the form https://connect.example.com"))?;
    let secure = match (url.scheme(), url.host()) {
        ("https", Some(_)) => true,
        ("http", Some(host)) if is_loopback(&host) => false,
        _ => return Err(rule("must begin with https://; http:// is only for a loopback host")),
    };
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    if !bare || !url.username().is_empty() || url.password().is_some() {
        return Err(rule("must have no path, query, fragment and user name"));
    }
    Ok((url.origin().ascii_serialization(), secure))
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

/// The value of the directive. Each entry is checked, because a `;` in one would begin another directive.
fn frame_ancestors(entries: &[String]) -> Result<String, ConfigError> {
    let rule = "must hold origins such as https://app.example.com or https://*.example.com";
    for entry in entries {
        let host = entry.strip_prefix("https://").or_else(|| entry.strip_prefix("http://"));
        let host = host.ok_or_else(|| wrong("frame_ancestors", rule))?;
        let host = host.strip_prefix("*.").unwrap_or(host);
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
        if host.is_empty() || !host.chars().all(plain) {
            return Err(wrong("frame_ancestors", rule));
        }
    }
    Ok(if entries.is_empty() { "'none'".to_owned() } else { entries.join(" ") })
}

impl Accent {
    fn new(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6)?;
        let number = u32::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))?;
        let [_, red, green, blue] = number.to_be_bytes();
        // The relative luminance of WCAG 2. At 0.179, black and white text have the same contrast.
        let linear = |channel: u8| {
            let part = f64::from(channel) / 255.0;
            if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
        };
        let luminance = 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
        let text = if luminance > 0.179 { "#000000" } else { "#ffffff" };
        Some(Self { background: format!("#{number:06x}"), text })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use token_vault_client::ApiKey;

    /// Must be called within a runtime, because the client makes a channel.
    pub(crate) fn config(public_url: &str) -> PortalConfig {
        let vault = Vault::builder("http://127.0.0.1:1", ApiKey::new("tva_x")).max_retries(0);
        PortalConfig::new(public_url, vault.connect_lazy().unwrap())
    }

    #[tokio::test]
    async fn plain_http_is_for_loopback_only() {
        for (url, expected) in [
            ("https://connect.example", Some(("https://connect.example", true))),
            ("https://connect.example:8443/", Some(("https://connect.example:8443", true))),
            ("http://127.0.0.1:8080", Some(("http://127.0.0.1:8080", false))),
            ("http://localhost", Some(("http://localhost", false))),
            ("http://[::1]:9", Some(("http://[::1]:9", false))),
            ("http://connect.example", None),
            ("https://connect.example/path", None),
            ("https://connect.example/?a", None),
            ("https://user@connect.example", None),
            ("ftp://connect.example", None),
            ("connect.example", None),
        ] {
            let site = Site::new(&config(url)).ok();
            let found = site.as_ref().map(|site| (site.origin.as_str(), site.secure));
            assert_eq!(found, expected, "{url}");
        }
    }

    #[tokio::test]
    async fn no_entry_can_add_a_directive() {
        for (entry, good) in [
            ("https://app.example.com", true),
            ("https://*.example.com", true),
            ("http://localhost:3000", true),
            ("https://a.example; script-src *", false),
            ("https://a.example b", false),
            ("https://a.example/path", false),
            ("*", false),
            ("https://", false),
        ] {
            let config =
                PortalConfig { frame_ancestors: vec![entry.to_owned()], ..config("https://c.example") };
            assert_eq!(config.check().is_ok(), good, "{entry}");
        }
    }

    #[test]
    fn the_text_on_the_accent_is_readable() {
        let text = |accent| Accent::new(accent).map(|accent| accent.text);
        assert_eq!(text("#FFEE00"), Some("#000000"));
        assert_eq!(text("#0b57d0"), Some("#ffffff"));
        for wrong in ["0b57d0", "#0b57d", "#0b57d0;", "#+b57d0", "red", "#gggggg"] {
            assert_eq!(Accent::new(wrong), None, "{wrong}");
        }
    }
}
