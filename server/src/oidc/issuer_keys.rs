//! The issuer's public keys: fetches them at intervals, and sooner when a token names an unknown key, and keeps them
//! for a bounded time while the issuer does not answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jsonwebtoken::DecodingKey;
use parking_lot::RwLock;
use reqwest::Client;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{OidcConfig, Rejected, Signing};
use crate::http_client::{BodyError, ClientConfig, read_body};

const CONNECT: Duration = Duration::from_secs(2);
const REQUEST: Duration = Duration::from_secs(5);
/// The longest reply that is read. The documents that we ask for are much shorter.
const LONGEST_REPLY: usize = 256 * 1024;
/// Most keys that are kept.
const MOST_KEYS: usize = 64;
/// Most keys that are tried on a token that does not name the one that signed it.
const MOST_TRIED: usize = 8;
/// Most callers that wait for the issuer at once.
const MOST_WAITING: usize = 16;
/// Longest pause before the issuer is asked again after it did not answer.
const RETRY: Duration = Duration::from_secs(15);

/// One public key.
struct PublicKey {
    id: Option<String>,
    signing: Signing,
    key: DecodingKey,
}

struct KeySet {
    keys: Vec<PublicKey>,
    fetched_at: Instant,
}

/// When the issuer was last asked, and whether it failed to answer.
#[derive(Default)]
struct Asked {
    at: Option<Instant>,
    failing: bool,
}

pub(super) struct IssuerKeys {
    client: Client,
    known: RwLock<Option<Arc<KeySet>>>,
    /// Held while the issuer is asked: other callers wait for that reply instead of asking too.
    asked: Mutex<Asked>,
    /// Bounds the callers that wait for it, so that an issuer that hangs does not take up all calls.
    waiting: Semaphore,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct Published {
    /// Parsed one by one, so that a key of an unknown kind does not hide the others.
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// A key that can sign tokens; `None` for one of another kind or use.
fn public_key(value: Value) -> Option<PublicKey> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    if jwk.purpose.is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    let (signing, key) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => (Signing::Rs256, DecodingKey::from_rsa_components(&jwk.n?, &jwk.e?).ok()?),
        ("EC", Some("P-256")) => (Signing::Es256, DecodingKey::from_ec_components(&jwk.x?, &jwk.y?).ok()?),
        ("OKP", Some("Ed25519")) => (Signing::EdDsa, DecodingKey::from_ed_components(&jwk.x?).ok()?),
        _ => return None,
    };
    // A key whose `alg` says something else can't be used here.
    match jwk.alg.as_deref().map(Signing::parse) {
        Some(Ok(named)) if named != signing => return None,
        Some(Err(_)) => return None,
        _ => {}
    }
    Some(PublicKey { id: jwk.kid, signing, key })
}

impl KeySet {
    fn matching(&self, id: Option<&str>, signing: Signing) -> Vec<DecodingKey> {
        let fits =
            |key: &&PublicKey| key.signing == signing && id.is_none_or(|id| key.id.as_deref() == Some(id));
        self.keys.iter().filter(fits).take(MOST_TRIED).map(|key| key.key.clone()).collect()
    }
}

impl IssuerKeys {
    pub(super) fn new(config: &OidcConfig) -> Result<Self, String> {
        let client = ClientConfig {
            connect_timeout: CONNECT,
            timeout: REQUEST,
            ca_file: config.ca_file.as_deref(),
            proxy: !config.issuer.starts_with("http://"),
            gzip: false,
        };
        let client = client.build()?;
        Ok(Self {
            client,
            known: RwLock::default(),
            asked: Mutex::default(),
            waiting: Semaphore::new(MOST_WAITING),
        })
    }

    /// Fetches the keys at intervals, until stopped.
    pub(super) async fn follow(&self, config: &OidcConfig, stop: CancellationToken) {
        loop {
            let answers = self.ask(config).await;
            let pause = if answers { config.refresh } else { config.refresh.min(RETRY) };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// The keys that may have signed a token that names this key id, or no key id.
    ///
    /// # Errors
    /// `Invalid` if the issuer has no such key, `Unavailable` if that is not known.
    pub(super) async fn candidates(
        &self,
        config: &OidcConfig,
        id: Option<&str>,
        signing: Signing,
    ) -> Result<Vec<DecodingKey>, Rejected> {
        if let Some(found) = self.find(config, id, signing) {
            return Ok(found);
        }
        let answers = match self.waiting.try_acquire() {
            Ok(_turn) => self.ask(config).await,
            Err(_) => return Err(Rejected::Unavailable),
        };
        match self.find(config, id, signing) {
            Some(found) => Ok(found),
            // The issuer answers, and the key is not among its keys.
            None if answers && self.fresh(config).is_some() => {
                Err(Rejected::Invalid("the issuer has no such key"))
            }
            None => Err(Rejected::Unavailable),
        }
    }

    /// The last fetched keys, while they may be used.
    fn fresh(&self, config: &OidcConfig) -> Option<Arc<KeySet>> {
        let known = self.known.read().clone();
        known.filter(|set| set.fetched_at.elapsed() < config.stale_for)
    }

    fn find(&self, config: &OidcConfig, id: Option<&str>, signing: Signing) -> Option<Vec<DecodingKey>> {
        let found = self.fresh(config)?.matching(id, signing);
        (!found.is_empty()).then_some(found)
    }

    /// Asks the issuer, unless it was asked a moment ago; returns whether it answered.
    async fn ask(&self, config: &OidcConfig) -> bool {
        let mut asked = self.asked.lock().await;
        if asked.at.is_some_and(|at| at.elapsed() < config.refresh_at_most_every) {
            return !asked.failing;
        }
        let fetched = self.fetch(config).await;
        asked.at = Some(Instant::now());
        match fetched {
            Ok(keys) => {
                if asked.failing {
                    tracing::info!(issuer = config.issuer, "the issuer answers again");
                }
                tracing::debug!(issuer = config.issuer, keys = keys.len(), "read the issuer's keys");
                asked.failing = false;
                let set = Arc::new(KeySet { keys, fetched_at: Instant::now() });
                *self.known.write() = Some(set);
            }
            Err(why) => {
                tracing::warn!(
                    issuer = config.issuer,
                    why,
                    "the issuer's keys can't be read; the last ones are used for as long as auth.oidc.stale_for"
                );
                asked.failing = true;
            }
        }
        !asked.failing
    }

    async fn fetch(&self, config: &OidcConfig) -> Result<Vec<PublicKey>, &'static str> {
        let url = match &config.jwks_uri {
            Some(url) => url.clone(),
            None => {
                let path =
                    format!("{}/.well-known/openid-configuration", config.issuer.trim_end_matches('/'));
                let url = Url::parse(&path).map_err(|_| "the issuer is not a URL")?;
                let found: Discovery = self.get(url.clone()).await?;
                if found.issuer != config.issuer {
                    return Err("its discovery document names another issuer");
                }
                let keys = Url::parse(&found.jwks_uri).map_err(|_| "its jwks_uri is not a URL")?;
                // The keys must come over as safe a connection as the document that names their address.
                if keys.scheme() != "https" && keys.origin() != url.origin() {
                    return Err("its discovery document names keys at another address without TLS");
                }
                keys
            }
        };
        let published: Published = self.get(url).await?;
        let keys: Vec<_> = published.keys.into_iter().take(MOST_KEYS).filter_map(public_key).collect();
        if keys.is_empty() {
            // The issuer answered, with no usable key: this is how it withdraws all its keys.
            tracing::warn!(
                issuer = config.issuer,
                "the issuer publishes no usable key: none of its tokens is accepted"
            );
        }
        Ok(keys)
    }

    async fn get<T: DeserializeOwned>(&self, url: Url) -> Result<T, &'static str> {
        let response = self.client.get(url).send().await.map_err(|error| {
            if error.is_timeout() { "it did not answer in time" } else { "it can't be reached" }
        })?;
        if !response.status().is_success() {
            return Err("it answers with an error");
        }
        let body = read_body(response, LONGEST_REPLY).await.map_err(|error| match error {
            BodyError::TooLong => "its answer is too long",
            BodyError::Broken(_) => "its answer was cut off",
        })?;
        serde_json::from_slice(&body).map_err(|_| "its answer can't be parsed")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_keys_that_can_sign_a_token_are_taken() {
        let rsa = json!({"kty": "RSA", "kid": "a", "n": "AQAB", "e": "AQAB", "use": "sig", "alg": "RS256"});
        let taken = public_key(rsa.clone()).unwrap();
        assert_eq!((taken.id.as_deref(), taken.signing), (Some("a"), Signing::Rs256));
        assert!(public_key(json!({"kty": "OKP", "crv": "Ed25519", "x": "AQAB"})).is_some());
        let mut others = vec![
            json!({"kty": "oct", "k": "AQAB"}),
            json!({"kty": "EC", "crv": "P-521", "x": "AQAB", "y": "AQAB"}),
            json!({"kty": "EC", "crv": "P-256", "x": "AQAB"}),
            json!({"kty": "RSA", "n": "not base64!", "e": "AQAB"}),
            json!("no key at all"),
        ];
        for (field, value) in [("use", "enc"), ("alg", "HS256"), ("alg", "RS512"), ("alg", "ES256")] {
            let mut wrong = rsa.clone();
            wrong[field] = json!(value);
            others.push(wrong);
        }
        for other in others {
            assert!(public_key(other.clone()).is_none(), "{other}");
        }
    }
}

/// Parses a key set and a discovery document.
#[cfg(fuzzing)]
pub(super) fn fuzz(text: &str) {
    if let Ok(published) = serde_json::from_str::<Published>(text) {
        let _ = published.keys.into_iter().filter_map(public_key).count();
    }
    let _ = serde_json::from_str::<Discovery>(text);
}
