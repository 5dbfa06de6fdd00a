//! A master key in an external key service: the Transit engine of OpenBao or Vault. The key never leaves the service;
//! the vault sends other keys there, over HTTP, to have them wrapped and unwrapped.
//!
//! Each version of the key in the service is a master key of its own here, with the id
//! `transit:<mount>/<key>:v<version>`, so that a rotation in the service works like one of ours.

mod session;
mod wire;

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::RwLock;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use url::Url;
use zeroize::Zeroizing;

use session::Session;
pub use session::TransitLogin;
use wire::{Failed, Reply, Wire, wipe};

use super::{RawKey, WrapError};

/// How often to ask for the versions of the key.
const LOOK: Duration = Duration::from_secs(10);

/// Where the key is, and how the vault logs in there.
#[derive(Debug, Clone)]
pub struct TransitConfig {
    /// `https://host:8200`.
    pub address: Url,
    /// Where the engine is mounted: `transit`.
    pub mount: String,
    pub key: String,
    /// Empty for none.
    pub namespace: String,
    pub login: TransitLogin,
    /// Certificates to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
}

/// Which versions of the key can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Versions {
    oldest: u32,
    latest: u32,
    seen: Instant,
}

/// The key service.
pub struct Transit {
    mount: String,
    key: String,
    session: Session,
    versions: RwLock<Option<Versions>>,
}

#[derive(Deserialize)]
struct KeyFacts {
    latest_version: u32,
    #[serde(default)]
    min_decryption_version: u32,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Encrypted {
    ciphertext: String,
}

#[derive(Deserialize)]
struct Decrypted {
    plaintext: String,
}

impl Transit {
    /// Sets the client up, without asking the service anything yet.
    ///
    /// # Errors
    /// A text for the operator.
    pub fn new(config: TransitConfig) -> Result<Self, String> {
        let TransitConfig { address, mount, key, namespace, login, ca_file } = config;
        let wire = Wire::new(address, namespace, ca_file.as_deref())?;
        Ok(Self { mount, key, session: Session::new(wire, login), versions: RwLock::default() })
    }

    /// Renews the token for the key service if it is time.
    pub(super) async fn keep_alive(&self) {
        self.session.keep_alive().await;
    }

    fn id(&self, version: u32) -> String {
        format!("transit:{}/{}:v{version}", self.mount, self.key)
    }

    /// The version that an id names, if it is one of this key.
    fn version_of(&self, id: &str) -> Option<u32> {
        let rest = id.strip_prefix("transit:")?.strip_prefix(self.mount.as_str())?;
        rest.strip_prefix('/')?.strip_prefix(self.key.as_str())?.strip_prefix(":v")?.parse().ok()
    }

    fn known(&self) -> Option<Versions> {
        *self.versions.read()
    }

    /// The ids of the versions that can still be used, oldest first.
    pub(super) fn ids(&self) -> Vec<String> {
        self.known()
            .map_or_else(Vec::new, |known| (known.oldest..=known.latest).map(|v| self.id(v)).collect())
    }

    /// Whether an id is a usable version of this key.
    pub(super) fn holds(&self, id: &str) -> bool {
        let known = self.known();
        self.version_of(id).is_some_and(|v| known.is_some_and(|k| (k.oldest..=k.latest).contains(&v)))
    }

    /// Asks which versions exist. Without `now`, it does nothing if it asked a moment ago. Returns whether they have
    /// changed.
    ///
    /// # Errors
    /// The service can't be asked.
    pub(super) async fn look(&self, now: bool) -> Result<bool, WrapError> {
        let known = self.known();
        if !now && known.is_some_and(|known| known.seen.elapsed() < LOOK) {
            return Ok(false);
        }
        let path = format!("{}/keys/{}", self.mount, self.key);
        let reply: Reply<KeyFacts> =
            self.session.ask(Method::GET, &path, None).await.map_err(Failed::into_wrap)?;
        let facts = reply.data;
        if !matches!(
            facts.kind.as_str(),
            "aes256-gcm96" | "aes128-gcm96" | "chacha20-poly1305" | "xchacha20-poly1305"
        ) {
            return Err(WrapError::Denied(format!(
                "the key {} is of type {}, which does not authenticate what it encrypts; make one of type aes256-gcm96",
                self.key, facts.kind
            )));
        }
        let found = Versions {
            oldest: facts.min_decryption_version.max(1),
            latest: facts.latest_version,
            seen: Instant::now(),
        };
        *self.versions.write() = Some(found);
        Ok(known.is_none_or(|known| (known.oldest, known.latest) != (found.oldest, found.latest)))
    }

    /// Wraps a key under a version of the service's key.
    pub(super) async fn wrap(&self, id: &str, binding: &[u8], key: &RawKey) -> Result<Vec<u8>, WrapError> {
        let plain = Zeroizing::new(STANDARD.encode(key.as_bytes()));
        self.encrypt(id, binding, &plain).await
    }

    /// [`wrap`](Self::wrap) for any bytes, already in base64.
    pub(super) async fn encrypt(&self, id: &str, binding: &[u8], plain: &str) -> Result<Vec<u8>, WrapError> {
        let version = self.version_of(id).ok_or_else(|| WrapError::NotHeld(id.to_owned()))?;
        let path = format!("{}/encrypt/{}", self.mount, self.key);
        let mut body = json!({
            "plaintext": plain,
            "associated_data": STANDARD.encode(binding),
            "key_version": version,
        });
        let reply: Result<Reply<Encrypted>, _> = self.session.ask(Method::POST, &path, Some(&body)).await;
        wipe(&mut body);
        let ciphertext = reply.map_err(Failed::into_wrap)?.data.ciphertext;
        // The service names the version that it used. If that is another one, the wrapped key would be stored under the
        // wrong id.
        if ciphertext.strip_prefix("vault:v").and_then(|rest| rest.split(':').next())
            != Some(&version.to_string())
        {
            return Err(WrapError::Unavailable(
                "the key service used another version of the key than it was asked to".into(),
            ));
        }
        Ok(ciphertext.into_bytes())
    }

    /// Inverse of [`wrap`](Self::wrap).
    pub(super) async fn unwrap(&self, id: &str, binding: &[u8], wrapped: &[u8]) -> Result<RawKey, WrapError> {
        let plain = self.decrypt(id, binding, wrapped).await?;
        let bytes: [u8; 32] = plain.as_slice().try_into().map_err(|_| WrapError::Corrupt)?;
        Ok(RawKey::from_bytes(bytes))
    }

    /// Inverse of [`encrypt`](Self::encrypt).
    pub(super) async fn decrypt(
        &self,
        id: &str,
        binding: &[u8],
        wrapped: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, WrapError> {
        let version = self.version_of(id).ok_or_else(|| WrapError::NotHeld(id.to_owned()))?;
        let ciphertext = std::str::from_utf8(wrapped).map_err(|_| WrapError::Corrupt)?;
        if !ciphertext.starts_with(&format!("vault:v{version}:")) {
            return Err(WrapError::Corrupt);
        }
        let path = format!("{}/decrypt/{}", self.mount, self.key);
        let body = json!({ "ciphertext": ciphertext, "associated_data": STANDARD.encode(binding) });
        let reply: Reply<Decrypted> = match self.session.ask(Method::POST, &path, Some(&body)).await {
            Ok(reply) => reply,
            // A version that is too old is refused in the same way as a forged ciphertext; only the text differs.
            Err(Failed::Request(detail)) if !detail.contains("too old") => {
                tracing::debug!(detail, "the key service does not open a wrapped key");
                return Err(WrapError::Corrupt);
            }
            Err(failed) => return Err(failed.into_wrap()),
        };
        let plain = Zeroizing::new(reply.data.plaintext);
        STANDARD.decode(plain.as_bytes()).map(Zeroizing::new).map_err(|_| WrapError::Corrupt)
    }
}

impl fmt::Debug for Transit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transit({}/{})", self.mount, self.key)
    }
}
