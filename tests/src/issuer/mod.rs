//! An OpenID Connect issuer over real HTTP. It signs with real keys, and forges tokens on request.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    RsaPublicKeyComponents,
};
use ring::{hmac, rand};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A key made for these tests by `openssl genpkey -algorithm RSA`, because ring can't make RSA keys.
const RSA_TEST_KEY: &str = include_str!("rsa_test_key.b64");

pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

pub struct Signer {
    pub kid: String,
    pair: Pair,
}

impl Signer {
    pub fn rsa(kid: &str) -> Self {
        let text: String = RSA_TEST_KEY.split_whitespace().collect();
        let pair = RsaKeyPair::from_pkcs8(&STANDARD.decode(text).expect("base64")).expect("an RSA key");
        Self { kid: kid.into(), pair: Pair::Rsa(Box::new(pair)) }
    }

    pub fn ec(kid: &str) -> Self {
        let (kind, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let document = EcdsaKeyPair::generate_pkcs8(kind, &random).expect("a key is made");
        let pair = EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random).expect("it is read");
        Self { kid: kid.into(), pair: Pair::Ec(pair) }
    }

    pub fn ed(kid: &str) -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key is made");
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("it is read");
        Self { kid: kid.into(), pair: Pair::Ed(pair) }
    }

    pub fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::Ec(_) => "ES256",
            Pair::Ed(_) => "EdDSA",
        }
    }

    /// The public key in the published form.
    pub fn jwk(&self) -> Value {
        let mut jwk = match &self.pair {
            Pair::Rsa(pair) => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({"kty": "RSA", "n": b64(public.n), "e": b64(public.e)})
            }
            Pair::Ec(pair) => {
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "x": b64(&point[1..33]), "y": b64(&point[33..65])})
            }
            Pair::Ed(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key())}),
        };
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("sig");
        jwk["alg"] = json!(self.algorithm());
        jwk
    }

    /// The public key as bytes, for an attack that uses it as a shared secret.
    pub fn public_bytes(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ec(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ed(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = rand::SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).expect("it signs");
                signature
            }
            Pair::Ec(pair) => pair.sign(&random, message).expect("it signs").as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// Signs a token with these claims.
    pub fn token(&self, claims: &Value) -> String {
        self.token_as(&json!({"alg": self.algorithm(), "typ": "JWT", "kid": self.kid}), claims)
    }

    /// Signs a token with another header.
    pub fn token_as(&self, header: &Value, claims: &Value) -> String {
        let message = unsigned(header, claims);
        let signature = self.sign(message.as_bytes());
        format!("{message}.{}", b64(signature))
    }
}

/// A header and claims without a signature.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", b64(header.to_string()), b64(claims.to_string()))
}

/// Signs a token with a shared secret.
pub fn hs256(secret: &[u8], kid: &str, claims: &Value) -> String {
    let message = unsigned(&json!({"alg": "HS256", "kid": kid}), claims);
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    format!("{message}.{}", b64(hmac::sign(&key, message.as_bytes())))
}

#[derive(Default)]
struct Published {
    issuer: String,
    keys: Vec<Value>,
    away: bool,
    floods: bool,
    hangs: bool,
    asked: usize,
}

pub struct Issuer {
    address: SocketAddr,
    published: Arc<Mutex<Published>>,
    task: JoinHandle<()>,
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Shared = State<Arc<Mutex<Published>>>;

async fn discovery(State(published): Shared) -> Json<Value> {
    let issuer = published.lock().expect("no test panics here").issuer.clone();
    Json(json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")}))
}

async fn keys(State(published): Shared) -> Response {
    let hangs = published.lock().expect("no test panics here").hangs;
    if hangs {
        std::future::pending::<()>().await;
    }
    let mut published = published.lock().expect("no test panics here");
    published.asked += 1;
    if published.floods {
        return vec![b' '; 1 << 20].into_response();
    }
    if published.away {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    // Keys of unknown kinds are published beside the good ones.
    let mut all =
        vec![json!({"kty": "EC", "crv": "P-521", "kid": "p521"}), json!({"kty": "new", "kid": "new"})];
    all.extend(published.keys.clone());
    Json(json!({ "keys": all })).into_response()
}

impl Issuer {
    pub async fn start(keys: &[&Signer]) -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"), keys).await
    }

    pub async fn start_at(address: SocketAddr, keys: &[&Signer]) -> Self {
        let listener = TcpListener::bind(address).await.expect("the address is free");
        let address = listener.local_addr().expect("it has one");
        let published = Published {
            issuer: format!("http://{address}"),
            keys: keys.iter().map(|key| key.jwk()).collect(),
            ..Published::default()
        };
        let published = Arc::new(Mutex::new(published));
        let app = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(self::keys))
            .with_state(Arc::clone(&published));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.expect("it serves") });
        Self { address, published, task }
    }

    fn published(&self) -> MutexGuard<'_, Published> {
        self.published.lock().expect("no test panics here")
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many times its keys were requested so far.
    pub fn asked(&self) -> usize {
        self.published().asked
    }

    pub fn publish(&self, keys: &[&Signer]) {
        self.published().keys = keys.iter().map(|key| key.jwk()).collect();
    }

    /// Answers requests for its keys with an endless response from now on.
    pub fn floods(&self) {
        self.published().floods = true;
    }

    /// Leaves requests for its keys unanswered from now on.
    pub fn hangs(&self) {
        self.published().hangs = true;
    }

    /// Names another issuer in its metadata from now on.
    pub fn poses_as(&self, issuer: &str) {
        self.published().issuer = issuer.to_owned();
    }

    pub fn is_away(&self, away: bool) {
        self.published().away = away;
    }
}
