//! A master key that lies in an external key service: the Transit engine of OpenBao or Vault. It never leaves the
//! service; what it wraps is sent there, over HTTP, and comes back.
//!
//! Each version of the key in the service is a master key of its own here, by the id
//! `transit:<mount>/<key>:v<version>`: so a rotation in the service and one of ours are the same thing.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use url::Url;
use zeroize::{Zeroize, Zeroizing};

use super::RawKey;
use super::master::WrapError;
use crate::model::{Secret, exposure_of};

/// How long connecting may take, and one request.
const CONNECT: Duration = Duration::from_secs(2);
const REQUEST: Duration = Duration::from_secs(5);
/// Tries of one request; the service may be electing a leader.
const TRIES: u32 = 2;
const PAUSE: Duration = Duration::from_millis(200);
/// No answer that is wanted comes near it.
const LONGEST_ANSWER: usize = 64 * 1024;
/// Seconds that a token is believed to live at most.
const LONGEST_LEASE: u64 = 365 * 86_400;
/// How often the versions of the key are asked for.
const LOOK: Duration = Duration::from_secs(10);

/// Where the key lies, and who asks.
#[derive(Debug, Clone)]
pub struct TransitConfig {
    /// `https://host:8200`.
    pub address: Url,
    /// Where the engine is mounted: `transit`.
    pub mount: String,
    /// The key's name.
    pub key: String,
    /// Namespace; empty for none.
    pub namespace: String,
    /// How the vault says who it is.
    pub login: TransitLogin,
    /// Certificates to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
}

/// How the vault says who it is to the key service.
#[derive(Debug, Clone)]
pub enum TransitLogin {
    /// A token in a file, which an agent may write anew at any time.
    TokenFile(PathBuf),
    /// AppRole: a role's id, and the file with its secret.
    AppRole {
        /// The role's id.
        role_id: String,
        /// File with the secret.
        secret_id_file: PathBuf,
    },
}

/// The token in use.
struct Session {
    token: Secret,
    /// When it is to be renewed; `None`: it does not end, or can't be.
    renew_at: Option<Instant>,
}

/// Which versions of the key there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Versions {
    oldest: u32,
    latest: u32,
    seen: Instant,
}

/// The key service.
pub struct Transit {
    config: TransitConfig,
    client: Client,
    session: Mutex<Option<Session>>,
    versions: RwLock<Option<Versions>>,
}

#[derive(Deserialize)]
struct Login {
    auth: LoginAuth,
}

#[derive(Deserialize)]
struct LoginAuth {
    client_token: String,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Deserialize)]
struct SelfToken {
    #[serde(default)]
    ttl: u64,
    #[serde(default)]
    renewable: bool,
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

/// Why the service did not do it.
enum Refused {
    /// It can't be asked, or does not let us: in words, without a secret.
    Away(String),
    /// The token is not accepted.
    Token(String),
    /// It was asked for something that it does not do.
    Bad(String),
}

impl Transit {
    /// Sets the client up; asks nothing yet.
    ///
    /// # Errors
    /// In words for the operator.
    #[expect(
        clippy::disallowed_methods,
        reason = "the key service has a client of its own, bounded and without redirects too"
    )]
    pub fn new(config: TransitConfig) -> Result<Self, String> {
        // Without one, the builder would panic.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err("a TLS crypto provider must be installed first".into());
        }
        let mut builder = Client::builder()
            .user_agent(concat!("token-vault/", env!("CARGO_PKG_VERSION")))
            // A redirect would carry the token elsewhere.
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(CONNECT)
            .timeout(REQUEST)
            .no_proxy();
        if let Some(file) = &config.ca_file {
            let pem = fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
            let certificates = Certificate::from_pem_bundle(&pem)
                .map_err(|_| format!("{} holds no PEM certificates", file.display()))?;
            builder = builder.tls_certs_only(certificates);
        }
        let client = builder.build().map_err(|error| format!("the HTTP client can't be set up: {error}"))?;
        Ok(Self { config, client, session: Mutex::default(), versions: RwLock::default() })
    }

    fn id(&self, version: u32) -> String {
        format!("transit:{}/{}:v{version}", self.config.mount, self.config.key)
    }

    /// The version that an id names, if it is one of this key.
    fn version_of(&self, id: &str) -> Option<u32> {
        let rest = id.strip_prefix("transit:")?.strip_prefix(self.config.mount.as_str())?;
        rest.strip_prefix('/')?.strip_prefix(self.config.key.as_str())?.strip_prefix(":v")?.parse().ok()
    }

    fn known(&self) -> Option<Versions> {
        *self.versions.read().unwrap_or_else(PoisonError::into_inner)
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

    /// Asks which versions there are, if that was some time ago; `true` if there are others now.
    ///
    /// # Errors
    /// The service can't be asked.
    pub(super) async fn look(&self, now: bool) -> Result<bool, WrapError> {
        let known = self.known();
        if !now && known.is_some_and(|known| known.seen.elapsed() < LOOK) {
            return Ok(false);
        }
        let path = format!("{}/keys/{}", self.config.mount, self.config.key);
        let answer: Answer<KeyFacts> =
            self.ask(Method::GET, &path, None).await.map_err(Refused::into_wrap)?;
        let facts = answer.data;
        if !matches!(
            facts.kind.as_str(),
            "aes256-gcm96" | "aes128-gcm96" | "chacha20-poly1305" | "xchacha20-poly1305"
        ) {
            return Err(WrapError::Unavailable(format!(
                "the key {} is of type {}, which does not authenticate what it encrypts; make one of type aes256-gcm96",
                self.config.key, facts.kind
            )));
        }
        let found = Versions {
            oldest: facts.min_decryption_version.max(1),
            latest: facts.latest_version,
            seen: Instant::now(),
        };
        *self.versions.write().unwrap_or_else(PoisonError::into_inner) = Some(found);
        Ok(known.is_none_or(|known| (known.oldest, known.latest) != (found.oldest, found.latest)))
    }

    /// Renews the token if it is time. Never fails loudly: the next request logs in anew if it has to.
    pub(super) async fn keep_alive(&self) {
        let mut session = self.session.lock().await;
        let Some(held) = session.as_mut() else { return };
        if held.renew_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        match self.send(Method::POST, "auth/token/renew-self", Some(&json!({})), Some(&held.token)).await {
            Ok(answer) => match serde_json::from_slice::<Login>(&answer) {
                Ok(login) => held.renew_at = renewal(login.auth.lease_duration, login.auth.renewable),
                Err(_) => held.renew_at = None,
            },
            Err(Refused::Away(detail)) => {
                tracing::warn!(detail, "the token for the key service was not renewed; it is tried again");
                held.renew_at = Some(Instant::now() + PAUSE * 10);
            }
            Err(Refused::Token(detail) | Refused::Bad(detail)) => {
                tracing::warn!(
                    detail,
                    "the token for the key service can't be renewed; the vault logs in anew"
                );
                *session = None;
            }
        }
    }

    /// Wraps a key under a version of the service's key.
    pub(super) async fn wrap(&self, id: &str, binding: &[u8], key: &RawKey) -> Result<Vec<u8>, WrapError> {
        let plain = Zeroizing::new(STANDARD.encode(key.as_bytes()));
        self.encrypt(id, binding, &plain).await
    }

    /// The same for any bytes, already in base64.
    pub(super) async fn encrypt(&self, id: &str, binding: &[u8], plain: &str) -> Result<Vec<u8>, WrapError> {
        let version = self.version_of(id).ok_or_else(|| WrapError::NotHeld(id.to_owned()))?;
        let path = format!("{}/encrypt/{}", self.config.mount, self.config.key);
        let mut body = json!({
            "plaintext": plain,
            "associated_data": STANDARD.encode(binding),
            "key_version": version,
        });
        let answer: Result<Answer<Encrypted>, _> = self.ask(Method::POST, &path, Some(&body)).await;
        wipe(&mut body);
        let ciphertext = answer.map_err(Refused::into_wrap)?.data.ciphertext;
        // The service says which version it took: another one would be told as a key that it is not.
        if ciphertext.strip_prefix("vault:v").and_then(|rest| rest.split(':').next())
            != Some(&version.to_string())
        {
            return Err(WrapError::Unavailable(
                "the key service took another version than it was asked for".into(),
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

    /// The bytes that [`encrypt`](Self::encrypt) was given.
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
        let path = format!("{}/decrypt/{}", self.config.mount, self.config.key);
        let body = json!({ "ciphertext": ciphertext, "associated_data": STANDARD.encode(binding) });
        let answer: Answer<Decrypted> = match self.ask(Method::POST, &path, Some(&body)).await {
            Ok(answer) => answer,
            // Too old a version is refused in the same way as a forged text; only its words differ.
            Err(Refused::Bad(detail)) if !detail.contains("too old") => {
                tracing::debug!(detail, "the key service does not open a wrapped key");
                return Err(WrapError::Corrupt);
            }
            Err(refused) => return Err(refused.into_wrap()),
        };
        let plain = Zeroizing::new(answer.data.plaintext);
        STANDARD.decode(plain.as_bytes()).map(Zeroizing::new).map_err(|_| WrapError::Corrupt)
    }

    /// Asks as whoever we are there, logging in if need be; once more where that may help.
    async fn ask<T: for<'d> Deserialize<'d>>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, Refused> {
        let mut tries = 0;
        loop {
            tries += 1;
            let token = self.token().await?;
            match self.send(method.clone(), path, body, Some(&token)).await {
                Ok(mut answer) => {
                    let read = serde_json::from_slice(&answer);
                    answer.zeroize();
                    return read
                        .map_err(|_| Refused::Away("the key service's answer is not understood".into()));
                }
                Err(Refused::Token(_)) if tries < TRIES => *self.session.lock().await = None,
                Err(Refused::Away(_)) if tries < TRIES => tokio::time::sleep(PAUSE).await,
                Err(refused) => return Err(refused),
            }
        }
    }

    async fn token(&self) -> Result<Secret, Refused> {
        let mut session = self.session.lock().await;
        if let Some(held) = &*session {
            return Ok(Secret::new(held.token.expose().to_owned()));
        }
        let fresh = self.log_in().await?;
        let token = Secret::new(fresh.token.expose().to_owned());
        *session = Some(fresh);
        Ok(token)
    }

    async fn log_in(&self) -> Result<Session, Refused> {
        let read = |file: &PathBuf| match fs::read_to_string(file) {
            Ok(text) => {
                if let Some(warning) = exposure_of(file) {
                    tracing::warn!("{warning}");
                }
                Ok(Secret::new(Zeroizing::new(text).trim().to_owned()))
            }
            Err(error) => Err(Refused::Away(format!("cannot read {}: {error}", file.display()))),
        };
        let understood = |_| Refused::Away("the key service's answer to a login is not understood".into());
        match &self.config.login {
            TransitLogin::TokenFile(file) => {
                let token = read(file)?;
                let answer = self.send(Method::GET, "auth/token/lookup-self", None, Some(&token)).await?;
                let about: Answer<SelfToken> = serde_json::from_slice(&answer).map_err(understood)?;
                Ok(Session { token, renew_at: renewal(about.data.ttl, about.data.renewable) })
            }
            TransitLogin::AppRole { role_id, secret_id_file } => {
                let secret = read(secret_id_file)?;
                let mut body = json!({ "role_id": role_id, "secret_id": secret.expose() });
                let answer = self.send(Method::POST, "auth/approle/login", Some(&body), None).await;
                wipe(&mut body);
                // What is wrong with a login is not cured by another one.
                let answer = answer.map_err(|refused| match refused {
                    Refused::Bad(detail) => Refused::Token(detail),
                    other => other,
                })?;
                let login: Login = serde_json::from_slice(&answer).map_err(understood)?;
                let renew_at = renewal(login.auth.lease_duration, login.auth.renewable);
                Ok(Session { token: Secret::new(login.auth.client_token), renew_at })
            }
        }
    }

    /// One request. Errors hold the service's words about itself, never what was sent.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        token: Option<&Secret>,
    ) -> Result<Vec<u8>, Refused> {
        let away = |what: &str| Refused::Away(what.to_owned());
        let mut url = self.config.address.clone();
        url.set_path(&format!("{}/v1/{path}", self.config.address.path().trim_end_matches('/')));
        let mut request = self.client.request(method, url).header("X-Vault-Request", "true");
        if !self.config.namespace.is_empty() {
            request = request.header("X-Vault-Namespace", &self.config.namespace);
        }
        if let Some(token) = token {
            let mut value = reqwest::header::HeaderValue::from_str(token.expose())
                .map_err(|_| Refused::Token("the token holds characters that no token has".into()))?;
            value.set_sensitive(true);
            request = request.header("X-Vault-Token", value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut response = request.send().await.map_err(|error| {
            away(if error.is_timeout() {
                "the key service did not answer in time"
            } else {
                "the key service can't be reached"
            })
        })?;
        let status = response.status();
        let mut answer = Vec::new();
        while let Some(chunk) =
            response.chunk().await.map_err(|_| away("the key service's answer was cut off"))?
        {
            if answer.len() + chunk.len() > LONGEST_ANSWER {
                return Err(away("the key service's answer is too long"));
            }
            answer.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return Ok(answer);
        }
        let told = format!("the key service answers {}: {}", status.as_u16(), words(&answer));
        Err(match status {
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Refused::Token(told),
            StatusCode::BAD_REQUEST => Refused::Bad(told),
            _ => Refused::Away(told),
        })
    }
}

impl Refused {
    fn into_wrap(self) -> WrapError {
        match self {
            Self::Away(detail) | Self::Token(detail) | Self::Bad(detail) => WrapError::Unavailable(detail),
        }
    }
}

/// A token is renewed when two thirds of its life are left behind.
fn renewal(seconds: u64, renewable: bool) -> Option<Instant> {
    // However long the service says: sums of times have an end.
    let life = Duration::from_secs(seconds.min(LONGEST_LEASE));
    (renewable && seconds > 0).then(|| Instant::now() + life * 2 / 3)
}

/// What the service says is wrong.
fn words(answer: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<String>,
    }
    let told =
        serde_json::from_slice::<Errors>(answer).map(|told| told.errors.join("; ")).unwrap_or_default();
    let printable = told.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(300).collect()
}

/// Wipes the texts of a body.
fn wipe(body: &mut Value) {
    match body {
        Value::String(text) => text.zeroize(),
        Value::Object(fields) => fields.values_mut().for_each(wipe),
        _ => {}
    }
}

impl fmt::Debug for Transit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transit({}/{})", self.config.mount, self.config.key)
    }
}
