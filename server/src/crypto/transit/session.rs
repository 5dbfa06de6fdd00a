//! The vault's token for the key service: logging in, keeping the token alive, and asking with it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backon::{ConstantBuilder, Retryable};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::wire::{Failed, Reply, Wire, wipe};
use crate::model::{Secret, read_secret_file, shown_path};

/// Pause before the second and last try of a request: the service may be electing a leader.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest token lifetime that the vault relies on, in seconds.
const LONGEST_LEASE: u64 = 365 * 86_400;

/// How the vault logs in to the key service.
#[derive(Debug, Clone)]
pub enum TransitLogin {
    /// A token in a file, which an agent may rewrite at any time.
    TokenFile(PathBuf),
    AppRole {
        role_id: String,
        /// The file with the role's secret.
        secret_id_file: PathBuf,
    },
}

/// The token in use.
struct Held {
    token: Secret,
    /// When it has to be renewed; `None` if it does not end, or can't be renewed.
    renew_at: Option<Instant>,
}

#[derive(Deserialize)]
struct Login {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    client_token: String,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
}

#[derive(Deserialize)]
struct SelfToken {
    #[serde(default)]
    ttl: u64,
    #[serde(default)]
    renewable: bool,
}

pub(super) struct Session {
    wire: Wire,
    login: TransitLogin,
    held: Mutex<Option<Held>>,
}

impl Session {
    pub(super) fn new(wire: Wire, login: TransitLogin) -> Self {
        Self { wire, login, held: Mutex::default() }
    }

    /// Renews the token if it is time. Never fails: if need be, the next request logs in again.
    pub(super) async fn keep_alive(&self) {
        let mut slot = self.held.lock().await;
        let Some(held) = slot.as_mut() else { return };
        if held.renew_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        let body = json!({});
        let renewed =
            self.wire.send(Method::POST, "auth/token/renew-self", Some(&body), Some(&held.token)).await;
        match renewed {
            Ok(reply) => match serde_json::from_slice::<Login>(&reply) {
                Ok(login) => held.renew_at = renewal(login.auth.lease_duration, login.auth.renewable),
                Err(_) => held.renew_at = None,
            },
            Err(Failed::Unavailable(detail)) => {
                tracing::warn!(detail, "the token for the key service was not renewed; it is tried again");
                held.renew_at = Some(Instant::now() + PAUSE * 10);
            }
            Err(Failed::Token(detail) | Failed::Request(detail)) => {
                tracing::warn!(
                    detail,
                    "the token for the key service can't be renewed; the vault logs in again"
                );
                *slot = None;
            }
        }
    }

    /// Sends a request with our token, and logs in first if necessary. Retries once: with a fresh token if the service
    /// did not accept ours, or if the service is unavailable. A failed login is final.
    pub(super) async fn ask<T: for<'d> Deserialize<'d>>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, Failed> {
        let not_accepted = AtomicBool::new(false);
        let attempt = || async {
            if not_accepted.swap(false, Ordering::Relaxed) {
                *self.held.lock().await = None;
            }
            match self.token().await {
                Ok(token) => self.wire.send(method.clone(), path, body, Some(&token)).await.map(Ok),
                Err(failed) => Ok(Err(failed)),
            }
        };
        let reply = attempt
            .retry(ConstantBuilder::default().with_delay(PAUSE).with_max_times(1))
            .when(|failed| {
                not_accepted.store(matches!(failed, Failed::Token(_)), Ordering::Relaxed);
                !matches!(failed, Failed::Request(_))
            })
            .adjust(|failed, pause| match failed {
                Failed::Token(_) => pause.map(|_| Duration::ZERO),
                _ => pause,
            })
            .await??;
        serde_json::from_slice(&reply)
            .map_err(|_| Failed::Unavailable("the key service's answer is not understood".into()))
    }

    async fn token(&self) -> Result<Secret, Failed> {
        let mut slot = self.held.lock().await;
        if let Some(held) = &*slot {
            return Ok(Secret::new(held.token.expose().to_owned()));
        }
        let fresh = self.log_in().await?;
        let token = Secret::new(fresh.token.expose().to_owned());
        *slot = Some(fresh);
        Ok(token)
    }

    async fn log_in(&self) -> Result<Held, Failed> {
        let read = |file: &PathBuf| match read_secret_file(file) {
            Ok(text) => Ok(Secret::new(text.expose().trim().to_owned())),
            Err(error) => Err(Failed::Unavailable(format!("cannot read {}: {error}", shown_path(file)))),
        };
        let not_understood =
            |_| Failed::Unavailable("the key service's answer to a login is not understood".into());
        match &self.login {
            TransitLogin::TokenFile(file) => {
                let token = read(file)?;
                let reply = self.wire.send(Method::GET, "auth/token/lookup-self", None, Some(&token)).await?;
                let about: Reply<SelfToken> = serde_json::from_slice(&reply).map_err(not_understood)?;
                Ok(Held { token, renew_at: renewal(about.data.ttl, about.data.renewable) })
            }
            TransitLogin::AppRole { role_id, secret_id_file } => {
                let secret = read(secret_id_file)?;
                let mut body = json!({ "role_id": role_id, "secret_id": secret.expose() });
                let reply = self.wire.send(Method::POST, "auth/approle/login", Some(&body), None).await;
                wipe(&mut body);
                let reply = reply.map_err(|failed| match failed {
                    Failed::Request(detail) => Failed::Token(detail),
                    other => other,
                })?;
                let login: Login = serde_json::from_slice(&reply).map_err(not_understood)?;
                let renew_at = renewal(login.auth.lease_duration, login.auth.renewable);
                Ok(Held { token: Secret::new(login.auth.client_token), renew_at })
            }
        }
    }
}

/// A token is renewed after two thirds of its life.
fn renewal(seconds: u64, renewable: bool) -> Option<Instant> {
    // The service may name any number, and adding a huge one to the time would overflow.
    let life = Duration::from_secs(seconds.min(LONGEST_LEASE));
    (renewable && seconds > 0).then(|| Instant::now() + life * 2 / 3)
}
