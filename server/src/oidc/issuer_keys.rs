//! The issuer's public keys: asked for by the clock, and sooner for a key that is not known; kept for a bounded time when
//! the issuer does not answer.

use std::fs;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jsonwebtoken::DecodingKey;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{OidcConfig, Rejected, Signing};

/// How long connecting may take, and one request.
const CONNECT: Duration = Duration::from_secs(2);
const REQUEST: Duration = Duration::from_secs(5);
/// No document that is wanted comes near it.
const LONGEST_ANSWER: usize = 256 * 1024;
/// Most keys that are kept.
const MOST_KEYS: usize = 64;
/// Most keys that are tried on a token that does not say which one signed it.
const MOST_TRIED: usize = 8;
/// Most callers that wait for the issuer at once.
const MOST_WAITING: usize = 16;
/// How soon the issuer is asked again after it did not answer, at most.
const RETRY: Duration = Duration::from_secs(15);

/// One public key.
struct PublicKey {
    id: Option<String>,
    signing: Signing,
    key: DecodingKey,
}

/// What the issuer said, and when.
struct KeySet {
    keys: Vec<PublicKey>,
    at: Instant,
}

/// When the issuer was asked last, whatever it said.
#[derive(Default)]
struct Asked {
    at: Option<Instant>,
    failing: bool,
}

/// The issuer's keys.
pub(super) struct Keys {
    client: Client,
    known: RwLock<Option<Arc<KeySet>>>,
    /// Held while the issuer is asked: others wait for the answer and do not ask too.
    asked: Mutex<Asked>,
    /// Callers that may wait for it. A place among all calls is worth more than the answer of an issuer that hangs.
    waiting: Semaphore,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct Published {
    /// One by one: a key of a kind that is not known harms no other.
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

/// A key that tokens can be signed with; `None` for one of another kind or use.
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
    // A key that is said to be for something else is for nothing here.
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

impl Keys {
    #[expect(
        clippy::disallowed_methods,
        reason = "the issuer has a client of its own, bounded and without redirects too"
    )]
    pub(super) fn new(config: &OidcConfig) -> Result<Self, String> {
        // Without one, the builder would panic.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err("a TLS crypto provider must be installed first".into());
        }
        let mut builder = Client::builder()
            .user_agent(concat!("token-vault/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(CONNECT)
            .timeout(REQUEST);
        if config.issuer.starts_with("http://") {
            builder = builder.no_proxy();
        }
        if let Some(file) = &config.ca_file {
            let pem = fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
            let certificates = Certificate::from_pem_bundle(&pem)
                .map_err(|_| format!("{} holds no PEM certificates", file.display()))?;
            builder = builder.tls_certs_only(certificates);
        }
        let client = builder.build().map_err(|error| format!("the HTTP client can't be set up: {error}"))?;
        Ok(Self {
            client,
            known: RwLock::default(),
            asked: Mutex::default(),
            waiting: Semaphore::new(MOST_WAITING),
        })
    }

    /// Asks by the clock until `stop`.
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

    /// The keys that may have signed a token that names this key, or none.
    ///
    /// # Errors
    /// `Invalid` if the issuer has no such key, `Unavailable` if nobody knows.
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
            // What is not among the keys of an issuer that answers is not the issuer's.
            None if answers && self.fresh(config).is_some() => {
                Err(Rejected::Invalid("the issuer has no such key"))
            }
            None => Err(Rejected::Unavailable),
        }
    }

    /// The last answer, while it is good for.
    fn fresh(&self, config: &OidcConfig) -> Option<Arc<KeySet>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).clone();
        known.filter(|set| set.at.elapsed() < config.stale_for)
    }

    fn find(&self, config: &OidcConfig, id: Option<&str>, signing: Signing) -> Option<Vec<DecodingKey>> {
        let found = self.fresh(config)?.matching(id, signing);
        (!found.is_empty()).then_some(found)
    }

    /// Asks the issuer, unless that was only just done; says whether it answered.
    async fn ask(&self, config: &OidcConfig) -> bool {
        let mut asked = self.asked.lock().await;
        if asked.at.is_some_and(|at| at.elapsed() < config.refresh_at_most_every) {
            return !asked.failing;
        }
        let told = self.fetch(config).await;
        asked.at = Some(Instant::now());
        match told {
            Ok(keys) => {
                if asked.failing {
                    tracing::info!(issuer = config.issuer, "the issuer answers again");
                }
                tracing::debug!(issuer = config.issuer, keys = keys.len(), "the issuer's keys are read");
                asked.failing = false;
                let set = Arc::new(KeySet { keys, at: Instant::now() });
                *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some(set);
            }
            Err(why) => {
                tracing::warn!(
                    issuer = config.issuer,
                    why,
                    "the issuer's keys can't be read; those known are used for auth.oidc.stale_for"
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
                let url = Url::parse(&path).map_err(|_| "the issuer is no URL")?;
                let found: Discovery = self.get(url.clone()).await?;
                if found.issuer != config.issuer {
                    return Err("its discovery document is of another issuer");
                }
                let keys = Url::parse(&found.jwks_uri).map_err(|_| "its jwks_uri is no URL")?;
                // Keys come as safely as the document that names their place.
                if keys.scheme() != "https" && keys.origin() != url.origin() {
                    return Err("its discovery document names keys without TLS elsewhere");
                }
                keys
            }
        };
        let published: Published = self.get(url).await?;
        let keys: Vec<_> = published.keys.into_iter().take(MOST_KEYS).filter_map(public_key).collect();
        if keys.is_empty() {
            // It answered: that is how all of them are withdrawn.
            tracing::warn!(
                issuer = config.issuer,
                "the issuer publishes no key that can be used: none of its tokens is accepted"
            );
        }
        Ok(keys)
    }

    async fn get<T: DeserializeOwned>(&self, url: Url) -> Result<T, &'static str> {
        let mut response = self.client.get(url).send().await.map_err(|error| {
            if error.is_timeout() { "it did not answer in time" } else { "it can't be reached" }
        })?;
        if !response.status().is_success() {
            return Err("it answers with an error");
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| "its answer was cut off")? {
            if body.len() + chunk.len() > LONGEST_ANSWER {
                return Err("its answer is too long");
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|_| "its answer is not understood")
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

/// Every reading of a key set.
#[cfg(fuzzing)]
pub(super) fn fuzz(text: &str) {
    if let Ok(published) = serde_json::from_str::<Published>(text) {
        let _ = published.keys.into_iter().filter_map(public_key).count();
    }
    let _ = serde_json::from_str::<Discovery>(text);
}
